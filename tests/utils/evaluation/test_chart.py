"""Charts: points land where their values say, what can't be drawn is left out."""

import numpy as np
import pytest

from utils.evaluation.chart import COLOURS, MARGIN, SIZE, _logarithmic_ticks, _ticks, chart


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
    assert _ticks(3, 36, whole=True) == [5, 10, 15, 20, 25, 30, 35]
    assert _ticks(0, 2, whole=True) == [0, 1, 2]
    assert _logarithmic_ticks(-3.5, 1.2) == [-3, -2, -1, 0, 1]
    assert [round(10**tick, 6) for tick in _logarithmic_ticks(np.log10(0.05), np.log10(0.15))] == [
        0.06,
        0.08,
        0.1,
        0.12,
        0.14,
    ]
