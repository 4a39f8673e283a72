"""data/spike/frame_sums.py: integer sums against their definition."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.spike.frame_sums import EXACT_FLOAT32, equal_bin_sums, integer_weights, weighted_sums


def spikes_of(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, (length, 3, 4), np.uint8)


@settings(max_examples=60, deadline=None)
@given(length=st.integers(1, 300), bins=st.integers(1, 40))
def test_bins_are_overlaps(length: int, bins: int) -> None:
    """Each sum equals the overlap integral of the definition, in exact fractions."""
    spikes = spikes_of(length)
    sums, frame_units, bin_units = equal_bin_sums(spikes, bins)
    assert Fraction(bin_units, frame_units) == Fraction(length, bins)
    for index in {0, bins // 2, bins - 1}:
        begin, end = Fraction(index * length, bins), Fraction((index + 1) * length, bins)
        expected = sum(
            max(Fraction(0), min(end, Fraction(t + 1)) - max(begin, Fraction(t))) * spikes[t].astype(object)
            for t in range(length)
        )
        assert (sums[index].astype(object) == expected * frame_units).all()
    np.testing.assert_array_equal(sums.sum(axis=0, dtype=np.int64), frame_units * spikes.sum(axis=0, dtype=np.int64))
    np.testing.assert_array_equal(equal_bin_sums(spikes[::-1], bins).sums, sums[::-1])


@pytest.mark.parametrize(("length", "bins"), [(255, 1), (256, 1), (65536, 1), (65535, 2), (257, 256)])
def test_sums_do_not_overflow(length: int, bins: int) -> None:
    sums, _, bin_units = equal_bin_sums(np.ones((length, 1, 1), np.uint8), bins)
    assert (sums == bin_units).all()


@settings(max_examples=40, deadline=None)
@given(weights=st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=70))
def test_integer_weights(weights: list[float]) -> None:
    rounded = integer_weights(weights)
    assert rounded.dtype == np.float32 and (rounded == np.floor(rounded)).all()
    assert rounded.sum(dtype=np.float64) <= EXACT_FLOAT32
    share = rounded / rounded.sum(dtype=np.float64)
    np.testing.assert_allclose(share, np.array(weights) / sum(weights), atol=len(weights) * 2.0**-23)
    np.testing.assert_array_equal(integer_weights(weights[::-1]), rounded[::-1])


@pytest.mark.parametrize("weights", [[0.1, 0.4, 0.9], [0.1, 0.8, 0.5, 0.4], [0.8, 0.1, 0.8, 0.1]])
def test_integer_weights_of_sums_that_round(weights: list[float]) -> None:
    """Their plain sum differs from the reversed weights' sum in the last bit, which would show in the integers."""
    assert sum(weights) != sum(weights[::-1])
    np.testing.assert_array_equal(integer_weights(weights[::-1]), integer_weights(weights)[::-1])


def test_weighted_sums_are_exact() -> None:
    weights = np.stack(
        [integer_weights([1 / (3 + t) for t in range(50)]), integer_weights([t + 0.1 for t in range(50)])]
    )
    spikes = spikes_of(50)
    expected = np.einsum("st,thw->shw", weights.astype(np.int64), spikes.astype(np.int64))
    np.testing.assert_array_equal(weighted_sums(spikes, weights), expected)
