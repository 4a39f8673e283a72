"""align.json: how a clip's spike pictures lie on its frames, and how the two cameras' brightness goes together.

    alignment = Alignment.load("align.json")
    warp = alignment.warp(ratio=2)                        # a grid of one sample per 2x2 frame pixels
    box = warp.source(Box(0, 0, 48, 64))                  # spike pixels that a part of it depends on
    warp.sample(channels_of_box, box, Box(0, 0, 48, 64))  # (C,48,64): warped, by one bilinear interpolation

Data sets read it where it lies beside the spikes (`data/spike_io.py`); `python -m scripts.align` writes it.
Test: `python -m pytest tests/data/spike/alignment`.
"""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data.picture_crop import Box
from data.spike.encoding import threshold_faults
from utils.user_error import UserError
from utils.utils_file import atomic_write, read_json

FILE_NAME = "align.json"


@dataclass(frozen=True)
class Alignment:
    """What data sets need, and the measurements that people read.

    Attributes:
        frame_size, spike_size: height and width of the pictures that belong together.
        homography: nine numbers, row by row, from frame pixels (x, y, 1) to spike pixels, centres at whole numbers.
        threshold: intensity = firing rate x threshold; None: not told, the data set's option holds.
        measured: everything that was measured, with its uncertainty; for people.
    """

    frame_size: tuple[int, int]
    spike_size: tuple[int, int]
    homography: tuple[float, ...]
    threshold: float | None = None
    measured: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path | str) -> "Alignment":
        """
        Raises:
            UserError: no such file, or not in the format.
        """
        content = read_json(path)
        remedy = "write it again with python -m scripts.align"
        if not isinstance(content, dict):
            raise UserError(f"{path}: no alignment; {remedy}")
        for key, count in (("frame_size", 2), ("spike_size", 2), ("homography", 9)):
            values = content.get(key)
            entries = values if isinstance(values, list) else []
            numbers = len(entries) == count and all(_is_number(value) for value in entries)
            if not numbers or (count == 2 and any(type(value) is not int or value < 1 for value in entries)):
                raise UserError(f"{path}: {key} is {values!r}; {count} numbers are needed: {remedy}")
        threshold = content.get("threshold")
        if threshold is not None and (
            not _is_number(threshold) or any(True for _ in threshold_faults(threshold) or ())
        ):
            raise UserError(f"{path}: threshold is {threshold!r}; a number above 0 is needed, or null: {remedy}")
        if abs(np.linalg.det(np.reshape(content["homography"], (3, 3)))) < 1e-12:
            raise UserError(f"{path}: homography cannot be inverted; {remedy}")
        (height, width), (spike_h, spike_w) = content["frame_size"], content["spike_size"]
        homography = tuple(map(float, content["homography"]))
        return cls((height, width), (spike_h, spike_w), homography, threshold, content.get("measured") or {})

    def save(self, path: Path | str) -> None:
        """Writes the file, whole or not at all."""
        with atomic_write(path) as file:
            file.write(json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    @property
    def matrix(self) -> np.ndarray:
        """The homography, (3,3) float64."""
        return np.reshape(np.array(self.homography, np.float64), (3, 3))

    @property
    def ratio(self) -> int:
        """Frame pixels per sample and axis of the grid on which spikes are read: about as fine as the sensor's pixels,
        and the frame holds a whole number of samples."""
        a, b, c, d = self.matrix[:2, :2].ravel()
        per_spike_pixel = 1 / math.sqrt(abs(a * d - b * c))
        common = math.gcd(*self.frame_size)
        return max(factor for factor in range(1, max(1, round(per_spike_pixel)) + 1) if common % factor == 0)

    def warp(self, ratio: int) -> "Warp":
        """The warp onto a grid of one sample per `ratio` x `ratio` frame pixels."""
        return Warp(self, ratio)

    def as_seen(self, picture: np.ndarray) -> np.ndarray:
        """A frame (H,W) or (H,W,3) as the spike camera's pixels show it, (h,w) or (h,w,3): the inverse of the warp."""
        size = self.spike_size[::-1]
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        # Averaged first, so that frames finer than the sensor do not alias.
        small = cv2.resize(picture, None, fx=1 / self.ratio, fy=1 / self.ratio, interpolation=cv2.INTER_AREA)
        matrix = np.linalg.inv(self.matrix @ _to_frame(self.ratio))
        return cv2.warpPerspective(small, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)


@dataclass(frozen=True)
class Warp:
    """Bilinear interpolation of spike channels at the places that a grid on the frame asks for.

    Written as sums and products of arrays, one element at a time, so that a box of the result and the result of a box
    are equal bit for bit. Places that the spike camera does not see take its nearest pixel.
    """

    alignment: Alignment
    ratio: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the grid."""
        height, width = self.alignment.frame_size
        return height // self.ratio, width // self.ratio

    def places(self, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """Columns and rows (box.height, box.width) float64 in spike pixels, before they are limited to the picture."""
        x = np.arange(box.left, box.left + box.width)[None] * self.ratio + (self.ratio - 1) / 2
        y = np.arange(box.top, box.top + box.height)[:, None] * self.ratio + (self.ratio - 1) / 2
        (a, b, c), (d, e, f), (g, h, i) = self.alignment.matrix
        weight = g * x + h * y + i
        return (a * x + b * y + c) / weight, (d * x + e * y + f) / weight

    def source(self, box: Box) -> Box:
        """The spike pixels that a box of the grid depends on."""
        (left, right), (top, bottom) = (
            (int(first.min()), int((first + 1).max())) for first, _ in self._neighbours(box)
        )
        return Box(top, left, bottom - top + 1, right - left + 1)

    def sample(self, channels: np.ndarray, source: Box, box: Box) -> np.ndarray:
        """
        Args:
            channels: (C,h,w) float32 of the box `source` of the spike picture.
            box: of the grid.

        Returns:
            (C, box.height, box.width) float32.
        """
        (left, right_share), (top, bottom_share) = self._neighbours(box)
        left, top = left - source.left, top - source.top
        upper = channels[:, top, left] * (1 - right_share) + channels[:, top, left + 1] * right_share
        lower = channels[:, top + 1, left] * (1 - right_share) + channels[:, top + 1, left + 1] * right_share
        result: np.ndarray = upper * (1 - bottom_share) + lower * bottom_share
        return result

    def nearest(self, spikes: np.ndarray) -> np.ndarray:
        """Spikes (L,h,w) uint8 on the whole grid, (L,H,W): each sample has the bits of its nearest spike pixel."""
        columns, rows = (
            np.clip(np.rint(place), 0, length - 1).astype(np.intp)
            for place, length in zip(self.places(Box(0, 0, *self.size)), self.alignment.spike_size[::-1], strict=True)
        )
        result: np.ndarray = spikes[:, rows, columns]
        return result

    def _neighbours(self, box: Box) -> list[tuple[np.ndarray, np.ndarray]]:
        """For columns and rows: the first of two neighbouring spike pixels, and the second one's share (float32)."""
        result = []
        for place, length in zip(self.places(box), self.alignment.spike_size[::-1], strict=True):
            place = np.clip(place, 0, length - 1)
            first = np.minimum(place.astype(np.intp), max(length - 2, 0))
            result.append((first, (place - first).astype(np.float32)))
        return result

    def covered(self) -> float:
        """Share of the frame that the spike camera sees."""
        columns, rows = self.places(Box(0, 0, *self.size))
        height, width = self.alignment.spike_size
        return float(((columns >= -0.5) & (columns <= width - 0.5) & (rows >= -0.5) & (rows <= height - 0.5)).mean())


def _to_frame(ratio: int) -> np.ndarray:
    """(3,3) from samples of a grid to frame pixels."""
    half = (ratio - 1) / 2
    return np.array([[ratio, 0, half], [0, ratio, half], [0, 0, 1.0]])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
