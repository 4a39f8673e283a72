"""Still pictures for generated scenes, all of them free: dead leaves, textures, glyphs, and scikit-image's photographs.

    canvas = Canvases(side=256, photographs=0.6).draw(rng)          # (256,256,3) uint8 RGB

Dead leaves (Lee, Mumford and Huang, 2001): shapes of random colour that cover one another, their radii by a power law,
so that edges occur at all scales as in photographs. Their colours come from a photograph or at random; each has its
own amount of a texture (pink noise or stripes). The photographs are in the public domain or CC0, by their
documentation in `skimage.data`, and come with its package: nothing is downloaded.
"""

import math
import string
from collections.abc import Sequence
from functools import cached_property

import cv2
import numpy as np

from data.spike.simulation.motion import load_photograph

FREE_PHOTOGRAPHS = (
    "astronaut.png",  # NASA, public domain
    "brick.png",  # CC0Textures, CC0
    "camera.png",  # Lav Varshney, CC0
    "cell.png",  # CC0
    "clock_motion.png",  # Stefan van der Walt, public domain
    "grass.png",  # CC0Textures, CC0
    "gravel.png",  # CC0Textures, CC0
    "hubble_deep_field.jpg",  # NASA, public domain
    "retina.jpg",  # Häggström, CC0
    "rocket.jpg",  # SpaceX, CC0
    "text.png",  # public domain
)
"""None of them is among the demo's TEST_PHOTOGRAPHS or the benchmark's, which stay unseen."""
HELD_OUT_PHOTOGRAPHS = ("chelsea.png", "coffee.png", "coins.png", "ihc.png", "moon.png", "page.png")
"""Those of the benchmark's scenes: no training shows them."""
COLOURFUL = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "retina.jpg",
    "rocket.jpg",
)

NOISE_SIDE = 512  # pixels of a noise tile; larger than a canvas, which takes a random part of it
LEAST_RADIUS, GREATEST_RADIUS = 2.0, 90.0  # of leaves, in canvas pixels


class Canvases:
    """Draws canvases; the photographs are read when the first one is needed.

    Args:
        side: of the canvases in pixels.
        photographs: share of the canvases that show a photograph; the others show dead leaves.
        names: of the photographs, in scikit-image's package; at least one of `COLOURFUL`.
    """

    def __init__(self, side: int, photographs: float, names: Sequence[str] = FREE_PHOTOGRAPHS) -> None:
        self.side, self.share, self.names = side, photographs, names
        self.colourful = [index for index, name in enumerate(names) if name in COLOURFUL]

    @cached_property
    def pictures(self) -> list[np.ndarray]:
        """The photographs, (H,W,3) uint8 RGB."""
        return [load_photograph(name) for name in self.names]

    @cached_property
    def noise(self) -> list[np.ndarray]:
        """Tiles of pink noise by the exponent of their spectrum, (NOISE_SIDE, NOISE_SIDE) float32, deviation 1."""
        rng = np.random.default_rng(0)
        return [_pink_noise(NOISE_SIDE, exponent, rng) for exponent in (0.5, 1.0, 1.5)]

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """(side,side,3) uint8 RGB."""
        canvas = self._photograph(rng) if rng.random() < self.share else self._leaves(rng)
        if rng.random() < 0.25:
            _write_glyphs(canvas, rng)
        return _changed_light(canvas, rng)

    def _photograph(self, rng: np.random.Generator) -> np.ndarray:
        """A piece of a photograph at a random scale, its channels in random order and mixed."""
        index = int(rng.integers(len(self.pictures)))
        picture = self.pictures[index]
        # Below 1 the piece is shrunk, which makes it sharper and busier; above, it is enlarged.
        scale = math.exp(rng.uniform(math.log(0.4), math.log(1.6)))
        rows, columns = (min(round(self.side / scale), length) for length in picture.shape[:2])
        top, left = (int(rng.integers(room + 1)) for room in (picture.shape[0] - rows, picture.shape[1] - columns))
        piece = picture[top : top + rows, left : left + columns]
        shrinks = min(rows, columns) > self.side
        canvas = cv2.resize(piece, (self.side, self.side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
        if index not in self.colourful:
            return _tinted(canvas, rng)
        return np.ascontiguousarray(canvas[..., rng.permutation(3)] if rng.random() < 0.3 else canvas)

    def _leaves(self, rng: np.random.Generator) -> np.ndarray:
        """Dead leaves."""
        side = self.side
        number = int(rng.integers(40, 260))
        palette = self._palette(rng, number)
        canvas = np.empty((side, side, 3), np.uint8)
        canvas[:] = palette[0]
        texture = np.full((side, side), int(rng.integers(40)), np.uint8)
        # Radii with density r^-3 between the two limits, by inversion; the largest first would hide nothing.
        low, high = LEAST_RADIUS**-2, GREATEST_RADIUS**-2
        radii = (low + rng.random(number) * (high - low)) ** -0.5
        radii[: number // 6] *= rng.uniform(2, 5)  # the first ones are mostly covered
        centers = rng.uniform(0, side, (number, 2))
        kinds = rng.random(number)
        angles, shares = rng.uniform(0, 360, number), rng.uniform(0.3, 1.0, number)
        amounts = rng.integers(0, 60, number) * (rng.random(number) < 0.6)
        for radius, center, kind, angle, share, colour, amount in zip(
            radii, centers, kinds, angles, shares, palette.tolist(), amounts.tolist(), strict=True
        ):
            outline = _outline(radius, center, kind, angle, share, rng)
            cv2.fillPoly(canvas, [outline], colour, cv2.LINE_AA, SHIFT)
            cv2.fillPoly(texture, [outline], amount, cv2.LINE_8, SHIFT)
        return self._textured(canvas, texture, rng)

    def _palette(self, rng: np.random.Generator, number: int) -> np.ndarray:
        """(number,3) uint8 colours of a photograph, or at random."""
        if rng.random() < 0.7:
            picture = self.pictures[self.colourful[int(rng.integers(len(self.colourful)))]]
            rows, columns = (rng.integers(length, size=number) for length in picture.shape[:2])
            return picture[rows, columns]
        return rng.integers(0, 256, (number, 3)).astype(np.uint8)

    def _textured(self, canvas: np.ndarray, amounts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The canvas with a texture added by amounts (side,side) uint8, in gray values per deviation."""
        if rng.random() < 0.75:
            tile = self.noise[int(rng.integers(len(self.noise)))]
            top, left = rng.integers(NOISE_SIDE - self.side + 1, size=2)
            pattern = tile[top : top + self.side, left : left + self.side]
        else:
            pattern = _stripes(self.side, rng)
        added = canvas + (amounts * pattern)[..., None]
        result: np.ndarray = np.clip(added, 0, 255).astype(np.uint8)
        return result


SHIFT = 3  # fractional bits of cv2's coordinates
CORNERS = np.linspace(0, 2 * np.pi, 24, endpoint=False)  # angles; with 24 corners an ellipse looks round


def _outline(
    radius: float, center: np.ndarray, kind: float, angle: float, share: float, rng: np.random.Generator
) -> np.ndarray:
    """A leaf's corners for cv2, (n,1,2) int32 with SHIFT fractional bits: ellipse, polygon, bar or blob."""
    if kind < 0.4:
        x, y = np.cos(CORNERS), share * np.sin(CORNERS)
    elif kind < 0.7:
        corners = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 7))))
        x, y = np.cos(corners), share * np.sin(corners)
    elif kind < 0.85:
        x, y = np.array([-2.0, 2, 2, -2]), 0.3 * share * np.array([-1.0, -1, 1, 1])
    else:
        wave = 1 + 0.25 * np.sin(3 * CORNERS + 6.3 * share) + 0.15 * np.sin(5 * CORNERS)
        x, y = wave * np.cos(CORNERS), share * wave * np.sin(CORNERS)
    cos, sin = radius * math.cos(math.radians(angle)), radius * math.sin(math.radians(angle))
    points = np.stack([center[0] + cos * x - sin * y, center[1] + sin * x + cos * y], 1)
    result: np.ndarray = np.rint(points * 2**SHIFT).astype(np.int32)[:, None]
    return result


def _pink_noise(side: int, exponent: float, rng: np.random.Generator) -> np.ndarray:
    """Noise whose amplitude falls with frequency ** exponent, (side,side) float32 of mean 0 and deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((side, side))) / frequency**exponent
    field = np.fft.irfft2(spectrum, (side, side))
    result: np.ndarray = (field / field.std()).astype(np.float32)
    return result


def _stripes(side: int, rng: np.random.Generator) -> np.ndarray:
    """A grating of random direction and period, smooth or hard, (side,side) float32 in [-1,1]."""
    period, angle = math.exp(rng.uniform(math.log(3), math.log(30))), rng.uniform(0, math.pi)
    axis = np.arange(side, dtype=np.float32) * np.float32(2 * math.pi / period)
    wave = np.sin(axis[:, None] * np.float32(math.cos(angle)) + axis * np.float32(math.sin(angle)))
    return np.clip(wave * np.float32(rng.choice([1.0, 6.0])), -1, 1)


def _write_glyphs(canvas: np.ndarray, rng: np.random.Generator) -> None:
    """Lines of random letters and digits, in place."""
    characters = np.array(list(string.ascii_letters + string.digits + ".,:-+/()"))
    for _ in range(int(rng.integers(1, 7))):
        text = "".join(rng.choice(characters, int(rng.integers(3, 12))))
        size, thick = rng.uniform(0.3, 2.0), int(rng.integers(1, 4))
        place = int(rng.integers(-20, canvas.shape[1])), int(rng.integers(canvas.shape[0]))
        colour = rng.integers(0, 256, 3).tolist() if rng.random() < 0.5 else [int(rng.choice([0, 255]))] * 3
        cv2.putText(canvas, text, place, int(rng.integers(8)), size, colour, thick, cv2.LINE_AA)


def _tinted(canvas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A gray picture between two colours: a dark one for black, a bright one for white."""
    dark, bright = rng.uniform(0, 0.25, 3), rng.uniform(0.6, 1.0, 3)
    if rng.random() < 0.3:
        dark[:], bright[:] = 0, 1
    levels = np.arange(256)[:, None] / 255
    table = np.rint(255 * (dark + levels * (bright - dark))).astype(np.uint8)
    return cv2.LUT(canvas, table[:, None])


def _changed_light(canvas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another exposure, contrast, white balance and, at times, a soft shadow; bright parts may saturate."""
    gain = math.exp(rng.normal(0, 0.3)) * (rng.uniform(0.1, 0.5) if rng.random() < 0.12 else 1.0)
    gamma, balance = math.exp(rng.normal(0, 0.25)), np.exp(rng.normal(0, 0.08, 3))
    levels = (np.arange(256) / 255)[:, None] ** gamma * gain * balance
    table = np.rint(255 * np.clip(levels, 0, 1)).astype(np.uint8)
    canvas = cv2.LUT(canvas, table[:, None])
    if rng.random() < 0.3:
        corners = rng.uniform(0.3, 1.3, (3, 3)).astype(np.float32)
        shade = cv2.resize(corners, canvas.shape[1::-1], interpolation=cv2.INTER_CUBIC)
        canvas = np.clip(canvas * shade[..., None], 0, 255).astype(np.uint8)
    return canvas
