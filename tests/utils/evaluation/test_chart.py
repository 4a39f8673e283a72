"""Charts: points land where their values say, what can't be drawn is left out."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.evaluation.chart import (
    BOTTOM,
    COLOURS,
    LEFT,
    MARGIN,
    RIGHT,
    SIZE,
    SVG_HEIGHT,
    SVG_WIDTH,
    TOP,
    _logarithmic_ticks,
    _ticks,
    axis,
    chart,
    label_places,
    line_chart,
)


def coloured(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Rows and columns of the pixels of a colour inside the axes."""
    top, right, bottom, left = MARGIN
    inside = picture[top : SIZE[0] - bottom + 1, left : SIZE[1] - right + 1]
    return np.argwhere((inside == colour).all(axis=2))


def test_a_line_rises_from_corner_to_corner() -> None:
    picture = chart("a", {"rising": ([0, 10], [0, 1])}, dots=True)
    assert picture.shape == (*SIZE, 3) and picture.dtype == np.uint8
    places = coloured(picture, COLOURS[0])
    first, last = places[places[:, 1].argmin()], places[places[:, 1].argmax()]
    assert first[0] > 200 and last[0] < 40 and first[1] < 5 and last[1] > 840


def test_series_have_their_colours_and_logarithms_are_straight() -> None:
    steps = list(range(5))
    picture = chart(
        "a", {"one": (steps, [10.0**k for k in steps]), "two": (steps, [1.0] * 5)}, logarithmic=True, dots=True
    )
    one, two = (coloured(picture, colour) for colour in COLOURS[:2])
    line = np.polyfit(one[:, 1], one[:, 0], 1)
    assert np.abs(np.polyval(line, one[:, 1]) - one[:, 0]).max() < 6  # dots are 3 pixels wide to each side
    assert len(two) and np.ptp(two[:, 0]) <= 6


def test_points_that_are_no_numbers_are_left_out() -> None:
    clean = chart("a", {"y": ([0, 1, 3], [1, 2, 4])})
    broken = chart("a", {"y": ([0, 1, 2, 3], [1, 2, float("nan"), 4])})
    assert np.array_equal(clean, broken)
    nothing = chart("a", {"y": ([0], [0])}, logarithmic=True)
    assert not len(coloured(nothing, COLOURS[0])) and np.array_equal(nothing, chart("a", {}))


def test_a_single_point_and_a_given_range() -> None:
    picture = chart("a", {"y": ([5], [3])}, x_range=(0, 10))
    places = coloured(picture, COLOURS[0])
    width = SIZE[1] - MARGIN[1] - MARGIN[3]
    assert places[:, 1].mean() == pytest.approx(width / 2, abs=1)


def test_ticks_are_round_and_within() -> None:
    assert _ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert _ticks(3, 36, integers=True) == [5, 10, 15, 20, 25, 30, 35]
    assert _ticks(0, 2, integers=True) == [0, 1, 2]
    assert _logarithmic_ticks(-3.5, 1.2) == [-3, -2, -1, 0, 1]
    assert [round(10**tick, 6) for tick in _logarithmic_ticks(np.log10(0.05), np.log10(0.15))] == [
        0.06,
        0.08,
        0.1,
        0.12,
        0.14,
    ]


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
    assert label_places(3, 4) == [0, 1, 2]
    assert label_places(1111, 4) == [0, 278, 555, 832, 1110]
    assert label_places(8, 8) == [0, 2, 5, 7]  # 84 of 480 units each: more than one of seven steps
    assert label_places(8, 40) == [0, 7] and label_places(1, 8) == [0] and label_places(0, 0) == []
    svg = line_chart({"network": [30.0 + k % 7 for k in range(1111)]}, [str(k) for k in range(1111)])
    assert len(points(svg, "network")[0]) == 1111 and "<rect" not in svg and "<circle" not in svg
