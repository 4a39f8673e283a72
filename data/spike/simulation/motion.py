"""Moving scenes made of photographs: a camera that pans and shakes, and an object that moves by itself.

The background photograph is transformed by a similarity that changes smoothly with time (shift, turn, zoom). A piece of
a second photograph is drawn over it and moves on a path of its own, so that motion differs within the picture and the
object occludes the background. Paths are sums of sinusoids: slow, wide ones for panning and fast, small ones for the
shaking hand. The generator passed in draws all random choices.

The photographs are those in scikit-image's package, so none is downloaded.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

from data.spike.sync import GOPRO_SPIKES_PER_FRAME
from utils.user_error import UserError
from utils.utils_image import imread_rgb

# Various scenes; a clip shows one as background and the next as object.
TRAIN_PHOTOGRAPHS = (
    "astronaut.png",
    "motorcycle_left.png",
    "rocket.jpg",
    "camera.png",
    "hubble_deep_field.jpg",
    "gravel.png",
)
TEST_PHOTOGRAPHS = ("chelsea.png", "coffee.png", "ihc.png")
"""Only for test clips, as background and as object."""

SUPERSAMPLING = 2
"""Factor by which the scene is rendered larger and then averaged: enough to avoid blur and aliasing of rotations."""


def load_photograph(name: str) -> np.ndarray:
    """A photograph of scikit-image's package as (H,W,3) uint8 RGB.

    Raises:
        UserError: scikit-image is not installed, or its package has no such photograph.
    """
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise UserError("the demo scenes are made of scikit-image's photographs: pip install scikit-image>=0.22")
    path = Path(spec.origin).parent / "data" / name
    if not path.is_file():
        raise UserError(f"{path}: no such photograph in this scikit-image: pip install --upgrade scikit-image")
    return imread_rgb(path)


@dataclass(frozen=True)
class SmoothPath:
    """A smooth function of time, sum of amplitude * sin(2 pi t / period + phase), t in sharp frames."""

    amplitude: np.ndarray
    period: np.ndarray
    phase: np.ndarray

    def __call__(self, time: float) -> float:
        return float(np.sum(self.amplitude * np.sin(2 * np.pi * time / self.period + self.phase)))

    @property
    def reach(self) -> float:
        """Upper bound of the path's distance from 0."""
        return float(np.sum(np.abs(self.amplitude)))

    @classmethod
    def random(cls, rng: np.random.Generator, speed: float, shake: float) -> "SmoothPath":
        """A pan of top speed `speed` and a shake of top speed `shake`, in units per sharp frame."""
        period = np.array([rng.uniform(30, 60), rng.uniform(16, 26), rng.uniform(6, 12)])
        top_speed = np.array([speed, 0.5 * speed, shake])
        return cls(top_speed * period / (2 * np.pi), period, rng.uniform(0, 2 * np.pi, 3))


@dataclass(frozen=True)
class Pose:
    """Position, angle and logarithm of the zoom over time."""

    x: SmoothPath
    y: SmoothPath
    angle: SmoothPath
    log_zoom: SmoothPath

    @classmethod
    def random(cls, rng: np.random.Generator, speed: float, diagonal: float) -> "Pose":
        """`speed` in pixels per sharp frame; turning and zooming move the corners of a picture with this diagonal
        at up to about half of `speed`."""
        direction = rng.uniform(0, 2 * np.pi)
        turn = 0.5 * speed / (diagonal / 2)
        return cls(
            SmoothPath.random(rng, speed * (0.35 + 0.65 * abs(np.cos(direction))), 0.3 * speed),
            SmoothPath.random(rng, speed * (0.35 + 0.65 * abs(np.sin(direction))), 0.3 * speed),
            SmoothPath.random(rng, turn, 0.3 * turn),
            SmoothPath.random(rng, 0.6 * turn, 0.0),
        )

    def placement(self, time: float, scale: float) -> np.ndarray:
        """(2,3) matrix from picture positions to source positions, both relative to their centres."""
        size = scale * np.exp(self.log_zoom(time))
        cos, sin = size * np.cos(self.angle(time)), size * np.sin(self.angle(time))
        return np.array([[cos, -sin, scale * self.x(time)], [sin, cos, scale * self.y(time)]])


class CameraScene:
    """A background photograph, an object before it, and a camera; rendered at any time.

    Args:
        background, foreground: (H,W,3) uint8 RGB photographs.
        size: (h, w) of the pictures.
        speed: typical top speed of the camera, in pixels per sharp frame.
        rng: draws view, paths and the object's shape.
    """

    def __init__(
        self,
        background: np.ndarray,
        foreground: np.ndarray,
        size: tuple[int, int],
        speed: float,
        rng: np.random.Generator,
    ) -> None:
        self.height, self.width = size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING
        speed *= SUPERSAMPLING
        diagonal = float(np.hypot(self.height, self.width))
        self.background = background
        # One photograph pixel per rendered pixel, or fewer if the path would leave the photograph otherwise.
        self.scale = min(1.0, 0.75 * background.shape[0] / self.height, 0.75 * background.shape[1] / self.width)
        self.camera = Pose.random(rng, speed, diagonal)
        self.center = self._draw_center(rng)
        self.object = _cut_out(foreground, int(rng.uniform(0.4, 0.6) * self.height), rng)
        self.object_pose = Pose.random(rng, rng.uniform(0.8, 1.3) * speed, diagonal)
        self.object_center = rng.uniform(0.3, 0.7, 2) * (self.width, self.height)

    def _draw_center(self, rng: np.random.Generator) -> np.ndarray:
        """A centre of the view for which the whole path stays in the photograph; its middle if the path is too long."""
        extent = np.array([self.background.shape[1], self.background.shape[0]], dtype=np.float64)
        reach = np.array([self.camera.x.reach + self.width / 2, self.camera.y.reach + self.height / 2])
        room = np.maximum(extent / 2 - 1.1 * self.scale * reach, 0)
        result: np.ndarray = (extent - 1) / 2 + rng.uniform(-1, 1, 2) * room
        return result

    def render(self, time: float) -> np.ndarray:
        """The picture at `time` (in sharp frames): (h, w, 3) uint8 RGB."""
        matrix = self.camera.placement(time, self.scale)
        middle = np.array([(self.width - 1) / 2, (self.height - 1) / 2])
        matrix[:, 2] += self.center - matrix[:, :2] @ middle
        view = cv2.warpAffine(
            self.background,
            matrix,
            (self.width, self.height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        self._lay_object(view, time)
        size = (self.width // SUPERSAMPLING, self.height // SUPERSAMPLING)
        return cv2.resize(view, size, interpolation=cv2.INTER_AREA)

    def _lay_object(self, view: np.ndarray, time: float) -> None:
        """Composites the object over its part of `view`, in place."""
        side = self.object.shape[0]
        pose = self.object_pose
        position = self.object_center + np.array([pose.x(time), pose.y(time)])
        radius = side * np.exp(-pose.log_zoom(time)) / np.sqrt(2) + 2
        left, top = np.maximum(np.floor(position - radius), 0).astype(int)
        right, bottom = np.minimum(np.ceil(position + radius) + 1, (self.width, self.height)).astype(int)
        if right <= left or bottom <= top:
            return
        matrix = pose.placement(time, 1.0)
        matrix[:, 2] = (side - 1) / 2 - matrix[:, :2] @ (position - (left, top))
        layer = cv2.warpAffine(
            self.object,
            matrix,
            (int(right - left), int(bottom - top)),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
        )
        behind = view[top:bottom, left:right]
        transparency = cv2.merge([255 - layer[..., 3]] * 3)
        behind[...] = cv2.add(cv2.multiply(behind, transparency, scale=1 / 255), layer[..., :3])

    def frames(self, count: int) -> Iterator[np.ndarray]:
        """`count` pictures, one per spike frame."""
        for tick in range(count):
            yield self.render(tick / GOPRO_SPIKES_PER_FRAME)


def _cut_out(photograph: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """A piece of a photograph with a random smooth outline: (side, side, 4) uint8, colour times alpha and alpha."""
    side = max(8, min(side, *photograph.shape[:2]))
    top = int(rng.integers(photograph.shape[0] - side + 1))
    left = int(rng.integers(photograph.shape[1] - side + 1))
    piece = photograph[top : top + side, left : left + side]
    y, x = (np.mgrid[:side, :side] - (side - 1) / 2) / (side / 2)
    angle = np.arctan2(y, x)
    outline = np.full_like(angle, 0.75)
    for harmonic in (2, 3, 5):
        outline += 0.2 / harmonic * np.sin(harmonic * angle + rng.uniform(0, 2 * np.pi))
    alpha = np.clip((np.minimum(outline, 0.97) - np.hypot(x, y)) * side / 2 + 0.5, 0, 1)
    return np.dstack([np.rint(piece * alpha[..., None]), np.rint(255 * alpha)]).astype(np.uint8)
