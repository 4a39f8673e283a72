"""reconstruct.py: each method by its definition, whatever is asked for together, on any kind of stream."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.spike.encoding import build_encoding
from data.spike.frame_sums import interval_rate
from data.spike.reconstruction.methods import (
    BLOCK,
    ChargeRate,
    GaussianRate,
    IntervalRate,
    KIntervalRate,
    PlasticityRate,
    RateMethod,
    WindowRate,
)
from data.spike.reconstruction.reconstruct import (
    charge,
    gaussian,
    interval,
    k_interval,
    reconstruct,
    reconstruct_frames,
    short_term_plasticity,
    window,
)
from data.spike.simulation.simulate import integrate_and_fire
from data.spike.sync import ExposureWindow
from utils.charge import interpolated_rates
from utils.spike_loader import SpikeStream, write_spikes

ALL = [
    WindowRate(7),
    IntervalRate(),
    KIntervalRate(2, 9),
    KIntervalRate(3),
    GaussianRate(2.0),
    ChargeRate(2.0),
    ChargeRate(1.0, 9),
    PlasticityRate(),
]


def random_spikes(seed: int, length: int = 40, size: tuple[int, int] = (3, 8)) -> np.ndarray:
    """Pixels from never to always firing."""
    rng = np.random.default_rng(seed)
    rates = rng.choice([0, 0.02, 0.1, 0.3, 0.5, 0.9, 1], size)
    return (rng.random((length, *size)) < rates).astype(np.uint8)


def tfi(spikes: np.ndarray, t: int) -> np.ndarray:
    """1 / (first spike at or after t - last spike before t), NaN where either is missing; pixel by pixel."""
    picture = np.full(spikes.shape[1:], np.nan)
    for place in np.ndindex(*picture.shape):
        times = np.flatnonzero(spikes[(slice(None), *place)])
        before, after = times[times < t], times[times >= t]
        if len(before) and len(after):
            picture[place] = 1 / (after[0] - before[-1])
    return picture


@given(seed=st.integers(0, 2**32 - 1), length=st.integers(1, 60), data=st.data())
@settings(max_examples=40, deadline=None)
def test_interval_of_order_one_is_tfi(seed: int, length: int, data: st.DataObject) -> None:
    spikes = random_spikes(seed, length)
    t = data.draw(st.integers(0, length - 1))
    expected = tfi(spikes, t)
    found = ~np.isnan(expected)
    for picture in (k_interval(spikes, t, order=1, reach=100), interval(spikes, t)):
        np.testing.assert_array_equal(picture[found], expected[found].astype(np.float32))


@given(seed=st.integers(0, 2**32 - 1), order=st.integers(1, 4), reach=st.integers(1, 30), length=st.integers(1, 80))
@settings(max_examples=40, deadline=None)
def test_k_interval_is_that_of_the_representation(seed: int, order: int, reach: int, length: int) -> None:
    spikes = random_spikes(seed, length)
    video = k_interval(spikes, order=order, reach=reach)
    for t in range(length):
        np.testing.assert_array_equal(video[t], interval_rate(spikes, t, order, reach))


@pytest.mark.parametrize("t", [0, 5, 39])
def test_gaussian_and_charge_are_those_of_the_representations(t: int) -> None:
    spikes = random_spikes(1)
    for method, name in ((gaussian, "gaussian"), (charge, "charge")):
        encoding = build_encoding({"representation": name, "sigma": 3.0}, 2.0)
        expected = encoding(spikes, ExposureWindow(0, 40, t))[0]
        np.testing.assert_array_equal(method(spikes, t, 2.0, sigma=3.0), np.clip(expected, 0, 1))


def test_charge_is_the_gaussian_mean_of_the_rates_between_spikes() -> None:
    spikes = random_spikes(4, 60)
    weights = np.stack([np.exp(-((np.arange(60) - t) ** 2) / 18.0) for t in range(60)])
    weights[abs(np.arange(60) - np.arange(60)[:, None]) > 12] = 0
    rates = interpolated_rates(torch.from_numpy(spikes)).numpy() * spikes.any(0)
    expected = np.einsum("st,thw->shw", weights / weights.sum(1, keepdims=True), rates)
    np.testing.assert_allclose(charge(spikes, sigma=3.0), expected, atol=1e-6)


@given(seed=st.integers(0, 2**32 - 1), length=st.integers(1, 200), reach=st.integers(1, 30), data=st.data())
@settings(max_examples=20, deadline=None)
def test_charge_depends_on_its_support_only(seed: int, length: int, reach: int, data: st.DataObject) -> None:
    spikes, method = random_spikes(seed, length), ChargeRate(data.draw(st.sampled_from([0.5, 1.5, 4.0])), reach)
    video = reconstruct(spikes, method)
    t = data.draw(st.integers(0, length - 1))
    begin, end = method.support(t, length)
    assert begin <= t < end and (begin, end) <= method.support(min(t + 1, length - 1), length)
    changed = spikes.copy()
    changed[:begin] ^= 1
    changed[end:] ^= 1
    np.testing.assert_array_equal(reconstruct(changed, method, t), video[t])
    np.testing.assert_array_equal(reconstruct(spikes[::-1], method, length - 1 - t), video[t])


def test_intervals_longer_than_the_reach_are_dark() -> None:
    spikes = np.zeros((200, 1, 2), np.uint8)
    spikes[::10, 0, 0] = 1
    spikes[::11, 0, 1] = 1
    assert charge(spikes, 100, sigma=2.0, reach=10)[0].tolist() == pytest.approx([0.1, 0.0], rel=1e-5)


@pytest.mark.parametrize("length", [1, 4, 7, 100])
def test_window_is_the_mean_of_the_frames_that_exist(length: int) -> None:
    spikes = random_spikes(2)
    for t, picture in enumerate(window(spikes, length=length)):
        begin = t - length // 2
        expected = spikes[max(begin, 0) : begin + length].mean(axis=0)
        np.testing.assert_allclose(picture, expected, atol=1e-7)


@pytest.mark.parametrize("method", ALL, ids=str)
@given(seed=st.integers(0, 2**32 - 1), data=st.data())
@settings(max_examples=15, deadline=None)
def test_crops_and_flips_commute(method: RateMethod, seed: int, data: st.DataObject) -> None:
    spikes = random_spikes(seed, data.draw(st.integers(1, 30)))
    whole = reconstruct(spikes, method)
    top, left = data.draw(st.integers(0, 2)), data.draw(st.integers(0, 7))
    np.testing.assert_array_equal(reconstruct(spikes[:, top:, left:], method), whole[:, top:, left:])
    np.testing.assert_array_equal(reconstruct(spikes[:, ::-1], method), whole[:, ::-1])
    np.testing.assert_array_equal(reconstruct(spikes.transpose(0, 2, 1), method), whole.transpose(0, 2, 1))


@pytest.mark.parametrize("method", ALL, ids=str)
def test_result_does_not_depend_on_how_it_is_asked_for(method: RateMethod, tmp_path: Path) -> None:
    spikes = random_spikes(3, length=2 * BLOCK + 20)
    whole = reconstruct(spikes, method, None, 2.0)
    assert whole.dtype == np.float32 and whole.min() >= 0 and whole.max() <= 1
    write_spikes(tmp_path / "a.dat", spikes)
    stream = SpikeStream(tmp_path / "a.dat", *spikes.shape[1:])
    for t in (0, 1, BLOCK, len(spikes) - 1):
        np.testing.assert_array_equal(reconstruct(stream, method, t, 2.0), whole[t])
    for times in (range(0, len(spikes), 7), [100, 3, 3, 90, 0, 30, 28, 147, 147]):
        np.testing.assert_array_equal(reconstruct(stream, method, times, 2.0), whole[list(times)])
    for kind in (spikes.astype(bool), np.ascontiguousarray(spikes)[::1]):
        np.testing.assert_array_equal(reconstruct(kind, method, 10, 2.0), whole[10])
    tensor = torch.from_numpy(spikes)
    for moment in (10, [10, 11], None):
        picture = reconstruct(tensor, method, moment, 2.0)
        assert isinstance(picture, torch.Tensor)
        np.testing.assert_array_equal(picture.numpy(), reconstruct(spikes, method, moment, 2.0))


NARROW = [WindowRate(7), IntervalRate(9), KIntervalRate(2, 9), GaussianRate(2.0), ChargeRate(0.5, 7)]


@pytest.mark.parametrize("method", NARROW, ids=str)
def test_only_the_frames_around_a_moment_are_read(
    method: RateMethod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_spikes(tmp_path / "a.dat", random_spikes(0, 500))
    stream, read = SpikeStream(tmp_path / "a.dat", 3, 8), []
    get_block = stream.get_block_spikes
    monkeypatch.setattr(
        stream, "get_block_spikes", lambda begin, length: read.append(length) or get_block(begin, length)
    )
    reconstruct(stream, method, 250)
    assert sum(read) <= 20
    read.clear()
    for _ in zip(range(3), reconstruct_frames(stream, method), strict=False):
        pass
    assert sum(read) <= BLOCK + 20


@given(light=st.floats(0.1, 1.0), threshold=st.floats(1.0, 4.0), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_rate_of_a_constant_scene(light: float, threshold: float, seed: int) -> None:
    frames = np.full((300, 2, 3), light)
    spikes = integrate_and_fire(frames, threshold, np.random.default_rng(seed))
    t, interval_length = 150, threshold / light
    # Spikes come at whole frames, so that k intervals are off by less than one frame.
    for order in (1, 2, 3):
        intervals = 2 * order - 1
        seen = intervals / k_interval(spikes, t, order=order, reach=200)
        assert np.abs(seen - intervals * interval_length).max() < 1 + 1e-3
    assert np.abs(window(spikes, t, length=101) * 101 - 101 / interval_length).max() < 1 + 1e-3
    # Whole periods around the middle weigh the same to within the steepest slope of the Gaussian.
    assert np.abs(gaussian(spikes, t, threshold, sigma=20.0) - light).max() < threshold * 0.02
    assert np.abs(short_term_plasticity(spikes, t, F=40.0, D=40.0) * interval_length - 1).max() < 0.5


@pytest.mark.parametrize("period", [1, 2, 5, 20, 60])
def test_plasticity_at_rest_gives_the_rate(period: int) -> None:
    spikes = np.zeros((40 * period, 1, 1), np.uint8)
    spikes[period - 1 :: period] = 1
    assert short_term_plasticity(spikes, 40 * period - 1)[0, 0] == pytest.approx(1 / period, rel=1e-4)


def test_plasticity_forgets_where_reading_began() -> None:
    spikes = random_spikes(5, 900, (6, 8))
    method = PlasticityRate(memory=50)
    assert method.settling == 500
    whole = reconstruct(spikes, method)
    for t in (499, 700, 899):
        np.testing.assert_allclose(reconstruct(spikes, method, t), whole[t], rtol=1e-6)
    np.testing.assert_array_equal(reconstruct(spikes, method, [3, 880]), whole[[3, 880]])
    lonely = np.zeros((200, 1, 1), np.uint8)
    lonely[[20, 30, 100]] = 1  # an interval of 10, then one longer than the memory
    rates = reconstruct(lonely, method)[:, 0, 0]
    assert not rates[:30].any() and (rates[30:80] == rates[30]).all() and 0.05 < rates[30] < 0.15
    assert not rates[81:].any()


@pytest.mark.parametrize("method", ALL, ids=str)
def test_dark_and_bright_pixels(method: RateMethod) -> None:
    for length in (1, 2, 50):
        assert not reconstruct(np.zeros((length, 2, 2), np.uint8), method).any()
        bright = reconstruct(np.ones((length, 2, 2), np.uint8), method, None, 0.5)
        if not isinstance(method, PlasticityRate):  # which needs some spikes to settle
            np.testing.assert_array_equal(bright, np.full((length, 2, 2), 0.5, np.float32))
        assert np.isfinite(bright).all() and bright.max() <= 0.5


@pytest.mark.parametrize(
    ("spikes", "t", "threshold", "said"),
    [
        (np.zeros((0, 2, 2), np.uint8), None, 1.0, "empty"),
        (np.zeros((2, 2), np.uint8), 0, 1.0, r"\(T, h, w\)"),
        (np.zeros((2, 2, 2), np.float32), 0, 1.0, "float32"),
        (np.full((2, 2, 2), 255, np.uint8), 0, 1.0, "0 or 1, found 255"),
        (np.zeros((2, 2, 2), np.uint8), 2, 1.0, "there is no spike frame 2; the stream has frames 0 to 1"),
        (np.zeros((2, 2, 2), np.uint8), -1, 1.0, "frame -1"),
        (np.zeros((2, 2, 2), np.uint8), [], 1.0, "no spike frame is given"),
        (np.zeros((2, 2, 2), np.uint8), 0, 0.0, "threshold"),
        (np.zeros((2, 2, 2), np.uint8), 0, float("nan"), "threshold"),
    ],
)
def test_bad_input_is_refused(spikes: np.ndarray, t: object, threshold: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        window(spikes, t, threshold)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [
        lambda: WindowRate(0),
        lambda: KIntervalRate(0),
        lambda: KIntervalRate(1, 0),
        lambda: IntervalRate(10**6),
        lambda: GaussianRate(0.0),
        lambda: GaussianRate(float("inf")),
        lambda: ChargeRate(0.0),
        lambda: ChargeRate(1.0, 0),
        lambda: ChargeRate(2000.0),
        lambda: PlasticityRate(u0=1.0),
        lambda: PlasticityRate(D=0.0),
    ],
)
def test_parameters_out_of_range_are_refused(make: object) -> None:
    with pytest.raises(ValueError, match=r"needed|at most"):
        make()  # type: ignore[operator]
