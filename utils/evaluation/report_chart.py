"""Line charts as SVG for the report page: no script, no font, coloured by the page's style sheet."""

import html
import math
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT = 520, 190
LEFT, RIGHT, TOP, BOTTOM = 34, 6, 8, 20
HOVER_LIMIT = 400  # points that have a text when pointed at
MARKER_LIMIT = 40  # points that are marked


def line_chart(series: Mapping[str, Sequence[float | None]], labels: Sequence[str], unit: str = "dB") -> str:
    """Lines over equidistant labels, an SVG element.

    Args:
        series: by the CSS name of its colour, a value per label; None leaves a gap, infinity lies on the upper edge.
        labels: of the places; the first, the last and some between are written.
        unit: of the values, for the texts shown when pointed at.
    """
    known = [value for values in series.values() for value in values if value is not None and math.isfinite(value)]
    low, high, step = axis(min(known, default=0.0), max(known, default=1.0))
    parts = []
    for index in range(round((high - low) / step) + 1):
        value = low + index * step
        y = _y(value, low, high)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for index in label_places(len(labels)):
        anchor = "start" if index == 0 and len(labels) > 1 else "end" if index == len(labels) - 1 > 0 else "middle"
        x = _x(index, len(labels))
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 4}" text-anchor="{anchor}">{html.escape(labels[index])}</text>')
    for name, values in series.items():
        parts += _line(name, values, low, high)
    parts += _hover(series, labels, unit) if len(labels) <= HOVER_LIMIT else []
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'


def axis(low: float, high: float) -> tuple[float, float, float]:
    """Ends and step of an axis that holds [low, high] between round numbers, in 2 to 6 steps."""
    span = max(high - low, 0.1)
    magnitude = 10 ** math.floor(math.log10(span))
    step = next(factor * magnitude for factor in (0.2, 0.5, 1, 2, 5) if span / (factor * magnitude) <= 5)
    begin, end = math.floor(low / step) * step, math.ceil(high / step) * step
    return begin, end if end > begin else begin + step, step


def label_places(count: int) -> list[int]:
    """Which of `count` labels are written: all of up to 8, else five evenly apart."""
    return list(range(count)) if count <= 8 else sorted({round(part * (count - 1) / 4) for part in range(5)})


def _x(index: int, count: int) -> float:
    inner = WIDTH - LEFT - RIGHT
    return LEFT + inner / 2 if count == 1 else LEFT + inner * index / (count - 1)


def _y(value: float, low: float, high: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (high - min(value, high)) / (high - low)


def _line(name: str, values: Sequence[float | None], low: float, high: float) -> list[str]:
    """The pieces of a line between gaps, and its points where they are few."""
    pieces: list[list[str]] = [[]]
    for index, value in enumerate(values):
        if value is None:
            pieces.append([])
        else:
            pieces[-1].append(f"{_x(index, len(values)):.1f},{_y(value, low, high):.1f}")
    parts = [f'<polyline class="s-{name}" points="{" ".join(piece)}"/>' for piece in pieces if len(piece) > 1]
    few = len(values) <= MARKER_LIMIT
    marked = [point.split(",") for piece in pieces if few or len(piece) == 1 for point in piece]
    return parts + [f'<circle class="s-{name}" cx="{x}" cy="{y}" r="2.5"/>' for x, y in marked]


def _hover(series: Mapping[str, Sequence[float | None]], labels: Sequence[str], unit: str) -> list[str]:
    """A strip per place that shows the numbers when pointed at."""
    width = (WIDTH - LEFT - RIGHT) / max(1, len(labels) - 1)
    strips = []
    for index, label in enumerate(labels):
        values = [(name, of_name[index]) for name, of_name in series.items()]
        text = ", ".join(f"{name} {value:.2f} {unit}" for name, value in values if value is not None)
        begin = max(LEFT, _x(index, len(labels)) - width / 2)
        end = min(WIDTH - RIGHT, _x(index, len(labels)) + width / 2)
        strips.append(
            f'<rect x="{begin:.1f}" y="{TOP}" width="{end - begin:.1f}" height="{HEIGHT - TOP - BOTTOM}">'
            f"<title>{html.escape(f'{label}: {text}')}</title></rect>"
        )
    return strips
