"""Line charts as pictures, with nothing but OpenCV: what `scripts/inspect_run.py` draws.

picture = chart("loss", {"G_loss": (steps, losses)}, logarithmic=True)      # uint8 (H,W,3) RGB
"""

import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

SIZE = (320, 960)
MARGIN = (28, 16, 34, 92)  # of the axes: top, right, bottom, left
COLOURS = ((31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189))
INK, GRID = (60, 60, 60), (225, 225, 225)
FONT, FONT_SIZE = cv2.FONT_HERSHEY_SIMPLEX, 0.42

Series = tuple[Sequence[float], Sequence[float]]


def chart(
    title: str,
    series: Mapping[str, Series],
    *,
    logarithmic: bool = False,
    dots: bool = False,
    x_range: tuple[float, float] | None = None,
) -> np.ndarray:
    """One chart with a line per series, axes and a legend.

    Args:
        series: name -> (x, y), of equal length; points that are not finite, or not positive on a logarithmic axis, are
            left out.
        logarithmic: the y axis. dots: mark the points, for series of few.
        x_range: of the x axis; None: as the points need it.

    Returns:
        uint8 (320,960,3) RGB; without any points it says so.
    """
    picture = np.full((*SIZE, 3), 255, np.uint8)
    top, right, bottom, left = MARGIN
    _write(picture, title, (left, top - 10))
    kept = {name: _usable(points, logarithmic) for name, points in series.items()}
    kept = {name: points for name, points in kept.items() if len(points)}
    if not kept:
        _write(picture, "no data", (SIZE[1] // 2 - 30, SIZE[0] // 2))
        return picture
    every = np.concatenate(list(kept.values()))
    (x_low, y_low), (x_high, y_high) = every.min(0), every.max(0)
    x_low, x_high = x_range or (x_low, x_high)
    x_range, y_range = _widened(x_low, x_high, 0.0), _widened(y_low, y_high, 0.05)

    def place(points: np.ndarray) -> np.ndarray:
        x = left + (points[:, 0] - x_range[0]) / (x_range[1] - x_range[0]) * (SIZE[1] - left - right)
        y = SIZE[0] - bottom - (points[:, 1] - y_range[0]) / (y_range[1] - y_range[0]) * (SIZE[0] - top - bottom)
        return np.stack([x, y], axis=1)

    for value in _ticks(*x_range, whole=True):
        column = round(place(np.array([[value, y_range[0]]]))[0, 0])
        cv2.line(picture, (column, top), (column, SIZE[0] - bottom), GRID, 1)
        _write(picture, f"{value:,.0f}", (column, SIZE[0] - bottom + 16), centred=True)
    for value in _logarithmic_ticks(*y_range) if logarithmic else _ticks(*y_range):
        row = round(place(np.array([[x_range[0], value]]))[0, 1])
        cv2.line(picture, (left, row), (SIZE[1] - right, row), GRID, 1)
        _write(picture, f"{10**value if logarithmic else value:.4g}", (6, row + 4))
    legend = SIZE[1] - right
    for index, (name, points) in enumerate(kept.items()):
        colour = COLOURS[index % len(COLOURS)]
        placed = np.round(place(points)).astype(np.int32)
        cv2.polylines(picture, [placed.reshape(-1, 1, 2)], False, colour, 1, cv2.LINE_AA)
        for x, y in placed if dots or len(placed) == 1 else ():
            cv2.circle(picture, (int(x), int(y)), 3, colour, -1, cv2.LINE_AA)
        (width, _), _ = cv2.getTextSize(name, FONT, FONT_SIZE, 1)
        legend -= width + 16
        _write(picture, name, (legend, top - 10), colour)
    return picture


def _usable(points: Series, logarithmic: bool) -> np.ndarray:
    """(N, 2) points that can be drawn, y as its logarithm where asked for."""
    x, y = (np.asarray(values, np.float64) for values in points)
    with np.errstate(divide="ignore", invalid="ignore"):
        y = np.log10(y) if logarithmic else y
    usable = np.isfinite(x) & np.isfinite(y)
    return np.stack([x[usable], y[usable]], axis=1)


def _widened(low: float, high: float, share: float) -> tuple[float, float]:
    """A range that is not empty, with some space on both sides."""
    space = (high - low) * share or (0.0 if high > low else abs(high) * 0.1 or 1.0)
    return low - space, high + space


def _ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Four to ten round numbers within a range."""
    step = 10.0 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 8)
    step = max(1.0, round(step)) if whole else step
    first = math.ceil(low / step)
    return [k * step for k in range(first, math.floor(high / step) + 1)]


def _logarithmic_ticks(low: float, high: float) -> list[float]:
    """Logarithms of round numbers: powers of ten, or finer where the range has few of them."""
    powers = [float(k) for k in range(math.ceil(low), math.floor(high) + 1)]
    return powers if len(powers) > 2 else [math.log10(value) for value in _ticks(10**low, 10**high) if value > 0]


def _write(
    picture: np.ndarray, text: str, place: tuple[int, int], colour: tuple[int, int, int] = INK, centred: bool = False
) -> None:
    if centred:
        (width, _), _ = cv2.getTextSize(text, FONT, FONT_SIZE, 1)
        place = (place[0] - width // 2, place[1])
    cv2.putText(picture, text, place, FONT, FONT_SIZE, colour, 1, cv2.LINE_AA)
