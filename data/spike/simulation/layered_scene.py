"""Generated scenes: layers that move on paths of their own before a moving camera, rendered at any time.

    scene = LayeredScene(canvases, side=96, duration=120, speed=0.4, rng=rng)
    pictures = scene.render(times)                                   # (N,96,96,3) uint8 RGB

The camera's velocity changes from sharp frame to sharp frame, as that of a hand: in real videos, by optical flow, the
change from one frame to the next is as large as the velocity itself. A layer's velocity is added to the camera's.
"""

import math

import cv2
import numpy as np

from data.spike.simulation.canvas import Canvases
from data.spike.sync import GOPRO_SPIKES_PER_FRAME

KNOT = GOPRO_SPIKES_PER_FRAME  # spike frames between changes of velocity: a sharp frame, as measured on videos
SHIFT = 3  # fractional bits of cv2's coordinates: outlines are drawn to an eighth of a pixel
MOST_LAYERS = 4  # moving layers before the background, at most; LayeredScene has the probability of each number


class Path:
    """Position (x, y), angle and log-zoom over time: piecewise linear between knots, or smoothed.

    Args:
        duration: in spike frames.
        speed: root mean square of the velocity, in pixels per spike frame.
        radius: pixels from the centre to a corner; turning and zooming move the corners at about half of `speed`.
        rng: draws the path.
        knot: spike frames between changes of velocity.
    """

    def __init__(self, duration: int, speed: float, radius: float, rng: np.random.Generator, knot: int = KNOT) -> None:
        self.knot = knot
        knots = duration // knot + 3
        steadiness, memory = rng.random(), rng.uniform(0.2, 0.95)
        noise = rng.standard_normal((knots, 4))
        for index in range(1, knots):
            noise[index] = memory * noise[index - 1] + math.sqrt(1 - memory**2) * noise[index]
        angle = rng.uniform(0, 2 * math.pi)
        mean = np.array([math.cos(angle), math.sin(angle), *rng.normal(0, 0.7, 2)])
        turn = rng.uniform(0, 0.5) / radius
        scale = speed * knot * np.array([1.0, 1.0, turn, 0.7 * turn])
        velocity = scale * (steadiness * mean + math.sqrt(1 - steadiness**2) * noise)
        if rng.random() < 0.5:
            velocity[1:-1] = (velocity[:-2] + 2 * velocity[1:-1] + velocity[2:]) / 4
        self.positions = np.cumsum(velocity, axis=0)  # (knots,4)
        self.positions -= self.positions[knots // 2]
        self.phase = rng.uniform(0, knot)

    def __call__(self, times: np.ndarray) -> np.ndarray:
        """(N,4) x, y, angle, log-zoom at times (N,) from 0 to `duration`."""
        knots = (times + self.phase) / self.knot
        grid = np.arange(len(self.positions))
        return np.stack([np.interp(knots, grid, column) for column in self.positions.T], 1)

    def length(self, radius: float) -> float:
        """Upper bound of the distance in pixels travelled by a corner."""
        steps = np.abs(np.diff(self.positions, axis=0))
        return float(np.hypot(steps[:, 0], steps[:, 1]).sum() + radius * steps[:, 2:].sum())


class LayeredScene:
    """A background and up to four layers before it.

    Args:
        canvases: draws the layers' textures.
        side: the pictures' height and width.
        duration: in spike frames.
        speed: the camera's, in pixels per spike frame.
        rng: draws all random choices.
        knot: spike frames between changes of velocity.
        scales: range of the canvas pixels per picture pixel: above 1, details of the canvas are finer than the
            picture's pixels.
        blurs: range of the optics' blur, sigma of a Gaussian in picture pixels.

    Attributes:
        travel: upper bound of the motion during `duration`, in pixels.
    """

    def __init__(
        self,
        canvases: Canvases,
        side: int,
        duration: int,
        speed: float,
        rng: np.random.Generator,
        knot: int = KNOT,
        scales: tuple[float, float] = (1.0, 1.8),
        blurs: tuple[float, float] = (0.3, 0.6),
    ) -> None:
        self.side, radius = side, side / math.sqrt(2)
        camera = Path(duration, speed, radius, rng, knot)
        self.scale = rng.uniform(*scales)
        blur = self.scale * rng.uniform(*blurs)
        self.textures = [cv2.GaussianBlur(canvases.draw(rng), (0, 0), blur)]
        self.paths = [[camera]]
        self.offsets = [rng.uniform(-0.15, 0.15, 2) * canvases.side]
        self.turns = [rng.uniform(0, 2 * math.pi) * (rng.random() < 0.5)]
        number = int(rng.choice(MOST_LAYERS + 1, p=[0.2, 0.3, 0.25, 0.15, 0.1]))
        for _ in range(number):
            # Most objects move about as fast as the camera; a fifth of them far faster or hardly at all.
            own = speed * math.exp(rng.normal(0, 0.6 if rng.random() < 0.8 else 1.5))
            self.textures.append(_cut_out(canvases.draw(rng), blur, side * self.scale, rng))
            self.paths.append([camera, Path(duration, min(own, 1.5), radius, rng, knot)])
            self.offsets.append(rng.uniform(-0.45, 0.45, 2) * side * self.scale)
            self.turns.append(rng.uniform(0, 2 * math.pi))
        self.travel = max(sum(path.length(radius) for path in paths) for paths in self.paths)

    def render(self, times: np.ndarray) -> np.ndarray:
        """Pictures at times (N,) in spike frames, (N,side,side,3) uint8 RGB."""
        pictures = np.empty((len(times), self.side, self.side, 3), np.uint8)
        poses = {id(path): path(times) for paths in self.paths for path in paths}
        placements = [np.sum([poses[id(path)] for path in paths], axis=0) for paths in self.paths]
        for number, picture in enumerate(pictures):
            for layer, placement in enumerate(placements):
                seen = self._seen(layer, placement[number])
                if layer == 0:
                    picture[:] = seen
                    continue
                # Colours are premultiplied with alpha: picture * (1 - alpha) + colours.
                clear = cv2.merge([255 - seen[..., 3]] * 3)
                cv2.multiply(picture, clear, dst=picture, scale=1 / 255)
                cv2.add(picture, cv2.cvtColor(seen, cv2.COLOR_RGBA2RGB), dst=picture)
        return pictures

    def _seen(self, layer: int, pose: np.ndarray) -> np.ndarray:
        """A layer's texture as the camera sees it."""
        x, y, angle, zoom = pose
        size = self.scale * math.exp(-zoom)
        cos, sin = size * math.cos(angle + self.turns[layer]), size * math.sin(angle + self.turns[layer])
        texture, middle = self.textures[layer], (self.side - 1) / 2
        matrix = np.array([[cos, -sin, 0.0], [sin, cos, 0.0]])
        center = np.array(texture.shape[1::-1]) / 2 - 0.5 + self.offsets[layer] * (layer == 0)
        shift = np.array([middle + x, middle + y]) + self.offsets[layer] / self.scale * (layer > 0)
        matrix[:, 2] = center - matrix[:, :2] @ shift
        border = cv2.BORDER_REFLECT_101 if layer == 0 else cv2.BORDER_CONSTANT
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(texture, matrix, (self.side, self.side), flags=flags, borderMode=border)


def _cut_out(canvas: np.ndarray, blur: float, side: float, rng: np.random.Generator) -> np.ndarray:
    """A piece of a canvas with a random outline, (n,n,4) uint8: colour times alpha, and alpha."""
    size = max(6, min(canvas.shape[0], round(side * math.exp(rng.uniform(math.log(0.08), math.log(0.9))))))
    alpha = np.zeros((size, size), np.uint8)
    kind = rng.random()
    if kind < 0.2:  # bars: a fence, spokes, wires
        width, gap = max(1, size // int(rng.integers(8, 30))), int(rng.integers(2, 7))
        alpha[:, :: width * gap] = 255
        for step in range(1, width):
            alpha[:, step :: width * gap] = 255
    else:
        angles = np.linspace(0, 2 * math.pi, 40, endpoint=False)
        radius = 0.38 + sum(rng.uniform(0, 0.2) / k * np.sin(k * angles + rng.uniform(0, 6.3)) for k in (2, 3, 5, 9))
        if kind < 0.4:
            angles, radius = angles[:: int(rng.integers(6, 14))], np.full(1, 0.45)
        stretch = rng.uniform(0.2, 1.0)
        points = size * (0.5 + np.stack([radius * np.cos(angles), stretch * radius * np.sin(angles)], 1))
        cv2.fillPoly(alpha, [np.rint(points * 2**SHIFT).astype(np.int32)[:, None]], 255, cv2.LINE_AA, SHIFT)
    alpha[[0, -1]] = 0
    alpha[:, [0, -1]] = 0
    top, left = rng.integers(canvas.shape[0] - size + 1, size=2)
    piece = canvas[top : top + size, left : left + size]
    layer = np.dstack([cv2.multiply(piece, cv2.merge([alpha] * 3), scale=1 / 255), alpha])
    # Out-of-focus objects have soft outlines.
    soft = blur * (rng.uniform(1, 4) if rng.random() < 0.2 else 1.0)
    return cv2.GaussianBlur(layer, (0, 0), soft)
