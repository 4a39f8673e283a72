"""Line charts: round axes that hold the values, and every point where its value belongs."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.evaluation.chart import BOTTOM, LEFT, RIGHT, SVG_HEIGHT, SVG_WIDTH, TOP, axis, label_places, line_chart


@given(st.floats(-50, 100), st.floats(0, 60))
def test_an_axis_holds_its_values_in_few_round_steps(low: float, span: float) -> None:
    begin, end, step = axis(low, low + span)
    assert begin <= low + 1e-9 and end >= low + span - 1e-9
    assert 1 <= round((end - begin) / step) <= 7
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(mantissa - round_one) for round_one in (1, 2, 5)) < 1e-6


def points(svg: str, name: str) -> list[list[tuple[float, float]]]:
    lines = re.findall(rf'<polyline class="s-{name}" points="([^"]*)"', svg)
    return [[tuple(map(float, point.split(","))) for point in line.split()] for line in lines]  # type: ignore[misc]


def test_points_lie_at_their_values() -> None:
    svg = line_chart({"network": [30.0, 35.0, 32.0], "input": [20.0, 20.0, 20.0]}, ["a", "b", "c"])
    inner = SVG_HEIGHT - TOP - BOTTOM
    assert axis(20, 35) == (20, 35, 5)
    middle = (LEFT + SVG_WIDTH - RIGHT) / 2
    assert points(svg, "network") == [
        [
            (LEFT, pytest.approx(TOP + inner / 3, abs=0.06)),
            (middle, TOP),
            (SVG_WIDTH - RIGHT, pytest.approx(TOP + inner / 5, abs=0.06)),
        ]
    ]
    assert {y for _, y in points(svg, "input")[0]} == {SVG_HEIGHT - BOTTOM}
    assert re.findall(r"<title>([^<]*)</title>", svg)[1] == "b: network 35.00 dB, input 20.00 dB"


def test_gaps_and_equal_pictures() -> None:
    """No value: the line is broken; infinite PSNR: the upper edge."""
    svg = line_chart({"network": [30.0, None, 31.0, math.inf, 32.0]}, list("abcde"))
    (line,) = points(svg, "network")
    assert len(line) == 3 and line[1][1] == TOP and min(y for _, y in line) == TOP
    assert svg.count("<circle") == 4
    assert "nan" not in svg and 'y="inf' not in svg


@pytest.mark.parametrize("values", [[], [33.0], [math.inf], [None]])
def test_charts_of_hardly_anything(values: list[float | None]) -> None:
    svg = line_chart({"network": values}, [f"<{k}>" for k in range(len(values))])
    assert "nan" not in svg and "<0>" not in svg and "<polyline" not in svg


def test_long_clips_have_few_labels() -> None:
    assert label_places(3) == [0, 1, 2]
    assert label_places(1111) == [0, 278, 555, 832, 1110]
    svg = line_chart({"network": [30.0 + k % 7 for k in range(1111)]}, [str(k) for k in range(1111)])
    assert len(points(svg, "network")[0]) == 1111 and "<rect" not in svg and "<circle" not in svg
