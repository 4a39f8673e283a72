"""Threshold and gains of two aligned cameras: the slope of the frames' brightness over the firing rate.

The rate is regressed on the frame, not the other way round: the frame's noise is small, and noise in what a line is
regressed on would make its slope too flat. An offset takes up dark current. Light that fits better linear than stored
(sRGB) tells what the frames' camera wrote.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from data.spike.alignment.geometry import project
from data.spike.alignment.refine import BORDER, Model, Refinement
from data.spike.simulation.simulate import LINEAR_OF_BYTE

SIGMA = 1.5  # pixels; edges that are not quite aligned count less
SAFETY, LEAST_ERROR = 3.0, 0.08  # times the standard error; share of the threshold that places off by a pixel cost
LEAST_PIXELS = 50
TRIM = 0.05  # share of the largest residuals that a second fit leaves out: hot pixels, occlusions


@dataclass(frozen=True)
class Brightness:
    """How bright things are in both cameras.

    Attributes:
        threshold: intensity = firing rate x threshold, in the frames' gray.
        threshold_error: its uncertainty.
        gains: of red, green, blue over the gray.
        linear: the threshold is that of linear light; else of stored values.
        dark: firing rate where the frames are black.
    """

    threshold: float
    threshold_error: float
    gains: tuple[float, float, float]
    linear: bool
    dark: float


def measure_brightness(
    read_frame: Callable[[int], np.ndarray], refinement: Refinement, model: Model, linear: bool
) -> Brightness | None:
    """Compares all pixels that both cameras see; None where they are too few or all alike."""
    view, charges = refinement.view, refinement.charges
    x, y, weight = project(model.homography, refinement.u, refinement.v)
    height, width = refinement.size
    column = (x * refinement.half + refinement.offset[0]).astype(np.float32)
    row = (y * refinement.half + refinement.offset[1]).astype(np.float32)
    inside = (column > BORDER) & (column < width - 1 - BORDER) & (row > BORDER) & (row < height - 1 - BORDER)
    inside &= weight > 0
    colours, rates = [], []
    for number, frame in enumerate(view.indices):
        begin = model.begin(float(frame))
        charge = next((part for part in charges if part.begin <= begin and begin + model.exposure <= part.end), None)
        chosen = inside & (cv2.erode(view.valid[number].astype(np.uint8), np.ones((3, 3))) > 0)
        if charge is None or chosen.sum() < LEAST_PIXELS:
            continue
        stored = read_frame(int(frame))
        light = LINEAR_OF_BYTE[stored] if linear else stored.astype(np.float32) / 255
        light = light[: round(view.covered[0]), : round(view.covered[1])]
        small = cv2.GaussianBlur(cv2.resize(light, view.size[::-1], interpolation=cv2.INTER_AREA), (0, 0), SIGMA)
        rate = cv2.remap(charge.mean(begin, begin + model.exposure), column, row, cv2.INTER_LINEAR)
        colours.append(small[chosen])
        rates.append(cv2.GaussianBlur(rate, (0, 0), SIGMA)[chosen])
    if not colours:
        return None
    luma = np.array([0.2126, 0.7152, 0.0722] if linear else [0.299, 0.587, 0.114])
    gray, rate = np.concatenate(colours).astype(np.float64) @ luma, np.concatenate(rates).astype(np.float64)
    if gray.std() < 0.01 or rate.std() == 0:
        return None
    slope, dark = _line(gray, rate)
    if slope <= 0:
        return None
    each = [_line(part.astype(np.float64) @ luma, of_frame.astype(np.float64))[0]
            for part, of_frame in zip(colours, rates, strict=True) if part.std() > 0.01]  # fmt: skip
    spread = float(np.std(each) / max(1, len(each)) ** 0.5) if len(each) > 1 else slope * 0.05
    intensity = np.concatenate(rates).astype(np.float64) - dark
    joined = np.concatenate(colours).astype(np.float64)
    mean = intensity / slope
    red, green, blue = (float(gain) for gain in joined.T @ mean / (mean**2).sum())
    error = SAFETY * spread / slope**2 + LEAST_ERROR / slope
    return Brightness(1 / slope, error, (red, green, blue), linear, dark)


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and offset of y over x, a second time without the largest residuals."""
    slope, offset = np.polyfit(x, y, 1)
    residual = np.abs(y - slope * x - offset)
    kept = residual <= np.quantile(residual, 1 - TRIM)
    slope, offset = np.polyfit(x[kept], y[kept], 1)
    return float(slope), float(offset)
