"""Draws line charts: as pictures for `scripts/inspect_run.py`, and as SVG for the report page.

picture = chart("loss", {"G_loss": (steps, losses)}, logarithmic=True)      # uint8 (H,W,3) RGB, by OpenCV alone
svg = line_chart({"network": psnr}, labels)          # no script, no font, coloured by the page's style sheet
"""

import html
import math
from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np

SIZE = (320, 960)  # height and width of a picture, in pixels
MARGIN = (28, 16, 34, 92)  # of the axes: top, right, bottom, left; with room for title, legend and labels
COLOURS = ((31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189))  # RGB, matplotlib's cycle
INK, GRID = (60, 60, 60), (225, 225, 225)  # RGB of text and of grid lines
FONT, FONT_SIZE = cv2.FONT_HERSHEY_SIMPLEX, 0.42
SVG_WIDTH, SVG_HEIGHT = 520, 190  # in SVG's units; the page scales it
LEFT, RIGHT, TOP, BOTTOM = 34, 6, 8, 20  # margins of the SVG's axes, with room for labels at the left and bottom
LETTER = 7  # width of a letter at the page's 11 pixels, with a share of the gap between labels
HOVER_LIMIT = 400  # points up to which each has a tooltip: more would be narrower than a pixel and enlarge the page
MARKER_LIMIT = 40  # points up to which each has a marker: more would overlap

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
        logarithmic: use a logarithmic y axis. dots: mark the points, for short series.
        x_range: range of the x axis; None: that of the points.

    Returns:
        uint8 (320,960,3) RGB; without points, with the text "no data".
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

    _draw_grid(picture, x_range, y_range, place, logarithmic)
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


def _draw_grid(
    picture: np.ndarray,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    place: Callable[[np.ndarray], np.ndarray],
    logarithmic: bool,
) -> None:
    """Draws the lines of both axes' ticks and their numbers; `place` maps points (N, 2) to pixels."""
    top, right, bottom, left = MARGIN
    for value in _ticks(*x_range, integers=True):
        column = round(place(np.array([[value, y_range[0]]]))[0, 0])
        cv2.line(picture, (column, top), (column, SIZE[0] - bottom), GRID, 1)
        _write(picture, f"{value:,.0f}", (column, SIZE[0] - bottom + 16), centred=True)
    for value in _logarithmic_ticks(*y_range) if logarithmic else _ticks(*y_range):
        row = round(place(np.array([[x_range[0], value]]))[0, 1])
        cv2.line(picture, (left, row), (SIZE[1] - right, row), GRID, 1)
        _write(picture, f"{10**value if logarithmic else value:.4g}", (6, row + 4))


def _usable(points: Series, logarithmic: bool) -> np.ndarray:
    """(N, 2) points that can be drawn; y is its logarithm if `logarithmic`."""
    x, y = (np.asarray(values, np.float64) for values in points)
    with np.errstate(divide="ignore", invalid="ignore"):
        y = np.log10(y) if logarithmic else y
    usable = np.isfinite(x) & np.isfinite(y)
    return np.stack([x[usable], y[usable]], axis=1)


def _widened(low: float, high: float, share: float) -> tuple[float, float]:
    """A range extended by `share` on both sides, and never empty."""
    space = (high - low) * share or (0.0 if high > low else abs(high) * 0.1 or 1.0)
    return low - space, high + space


def _ticks(low: float, high: float, integers: bool = False) -> list[float]:
    """Four to ten round numbers within a range."""
    step = _round_step(high - low, 8)
    step = max(1.0, round(step)) if integers else step
    first = math.ceil(low / step)
    return [k * step for k in range(first, math.floor(high / step) + 1)]


def _logarithmic_ticks(low: float, high: float) -> list[float]:
    """Logarithms of round numbers: powers of ten if the range has more than two, else finer ones."""
    powers = [float(k) for k in range(math.ceil(low), math.floor(high) + 1)]
    return powers if len(powers) > 2 else [math.log10(value) for value in _ticks(10**low, 10**high) if value > 0]


def _write(
    picture: np.ndarray, text: str, place: tuple[int, int], colour: tuple[int, int, int] = INK, centred: bool = False
) -> None:
    if centred:
        (width, _), _ = cv2.getTextSize(text, FONT, FONT_SIZE, 1)
        place = (place[0] - width // 2, place[1])
    cv2.putText(picture, text, place, FONT, FONT_SIZE, colour, 1, cv2.LINE_AA)


def line_chart(series: Mapping[str, Sequence[float | None]], labels: Sequence[str], unit: str = "dB") -> str:
    """An SVG element with lines over equidistant labels.

    Args:
        series: CSS name of the colour -> a value per label; None leaves a gap, infinity is drawn at the upper edge.
        labels: labels of the x axis; the first, the last and some in between are written.
        unit: unit of the values, for tooltips.
    """
    known = [value for values in series.values() for value in values if value is not None and math.isfinite(value)]
    low, high, step = axis(min(known, default=0.0), max(known, default=1.0))
    parts = []
    for index in range(round((high - low) / step) + 1):
        value = low + index * step
        y = _y(value, low, high)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{SVG_WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for index in label_places(len(labels), max(map(len, labels), default=0)):
        anchor = "start" if index == 0 and len(labels) > 1 else "end" if index == len(labels) - 1 > 0 else "middle"
        x = _x(index, len(labels))
        parts.append(
            f'<text x="{x:.1f}" y="{SVG_HEIGHT - 4}" text-anchor="{anchor}">{html.escape(labels[index])}</text>'
        )
    for name, values in series.items():
        parts += _line(name, values, low, high)
    parts += _hover(series, labels, unit) if len(labels) <= HOVER_LIMIT else []
    return f'<svg viewBox="0 0 {SVG_WIDTH} {SVG_HEIGHT}" role="img">{"".join(parts)}</svg>'


def axis(low: float, high: float) -> tuple[float, float, float]:
    """Ends and step of an axis from one round number to another that includes [low, high], in 2 to 6 steps."""
    span = max(high - low, 0.1)
    step = _round_step(span, 5)
    begin, end = math.floor(low / step) * step, math.ceil(high / step) * step
    return begin, end if end > begin else begin + step, step


def _round_step(span: float, most: int) -> float:
    """The smallest step, 1, 2 or 5 times a power of ten, that divides a span into at most `most` parts."""
    power = math.floor(math.log10(span / most))
    for exponent in (power, power + 1):
        for factor in (1, 2, 5):
            # Divide by 10**n instead of multiplying by 10**-n, so that steps are the floats nearest to 0.2, 0.5, ...
            step = float(factor * 10**exponent) if exponent >= 0 else factor / 10**-exponent
            if span <= most * step * (1 + 1e-9):  # tolerates the span's rounding
                return step
    raise AssertionError((span, most))


def label_places(count: int, letters: int) -> list[int]:
    """Indices of the labels to write, at equal distances: all of up to 8, else five, and fewer of long labels.

    Args:
        letters: length of the longest label.
    """
    # The labels at the ends stand inside the axis, so the first two need one and a half widths between their places.
    needed = 1.5 * LETTER * letters * (count - 1) / (SVG_WIDTH - LEFT - RIGHT)
    for parts in range(count - 1 if count <= 8 else 4, 0, -1):
        places = [round(part * (count - 1) / parts) for part in range(parts + 1)]
        if min(np.diff(places)) >= needed:
            return places
    return [0, count - 1] if count > 1 else list(range(count))


def _x(index: int, count: int) -> float:
    inner = SVG_WIDTH - LEFT - RIGHT
    return LEFT + inner / 2 if count == 1 else LEFT + inner * index / (count - 1)


def _y(value: float, low: float, high: float) -> float:
    return TOP + (SVG_HEIGHT - TOP - BOTTOM) * (high - min(value, high)) / (high - low)


def _line(name: str, values: Sequence[float | None], low: float, high: float) -> list[str]:
    """The pieces of a line between gaps, and markers of up to `MARKER_LIMIT` points."""
    pieces: list[list[str]] = [[]]
    for index, value in enumerate(values):
        if value is None:
            pieces.append([])
        else:
            pieces[-1].append(f"{_x(index, len(values)):.1f},{_y(value, low, high):.1f}")
    parts = [f'<polyline class="s-{name}" points="{" ".join(piece)}"/>' for piece in pieces if len(piece) > 1]
    with_markers = len(values) <= MARKER_LIMIT
    marked = [point.split(",") for piece in pieces if with_markers or len(piece) == 1 for point in piece]
    return parts + [f'<circle class="s-{name}" cx="{x}" cy="{y}" r="2.5"/>' for x, y in marked]


def _hover(series: Mapping[str, Sequence[float | None]], labels: Sequence[str], unit: str) -> list[str]:
    """A strip per label with the values as tooltip."""
    width = (SVG_WIDTH - LEFT - RIGHT) / max(1, len(labels) - 1)
    strips = []
    for index, label in enumerate(labels):
        values = [(name, of_name[index]) for name, of_name in series.items()]
        text = ", ".join(f"{name} {value:.2f} {unit}" for name, value in values if value is not None)
        begin = max(LEFT, _x(index, len(labels)) - width / 2)
        end = min(SVG_WIDTH - RIGHT, _x(index, len(labels)) + width / 2)
        strips.append(
            f'<rect x="{begin:.1f}" y="{TOP}" width="{end - begin:.1f}" height="{SVG_HEIGHT - TOP - BOTTOM}">'
            f"<title>{html.escape(f'{label}: {text}')}</title></rect>"
        )
    return strips
