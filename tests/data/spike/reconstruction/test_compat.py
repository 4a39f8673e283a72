"""data/spike/reconstruction/compat.py: spikling's and SpikeCV's results, by loops over their definitions."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.spike.reconstruction.compat import TFI, TFP, TFSTP, interval_method, load_spike_raw, window_method
from utils.spike_loader import write_spikes


def random_spikes(seed: int, length: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rates = rng.choice([0, 0.001, 0.01, 0.1, 0.3, 0.9, 1], (3, 4))
    return (rng.random((length, 3, 4)) < rates).astype(np.uint8)


def spikling_interval(seq: np.ndarray, mid: int) -> np.ndarray:
    """One pixel after another; a side without spikes ends at the stream's first or last frame."""
    picture = np.zeros(seq.shape[1:])
    for place in np.ndindex(*picture.shape):
        times = np.flatnonzero(seq[(slice(None), *place)])
        after, before = times[times >= mid], times[times < mid]
        up = after[0] if len(after) else len(seq) - 1
        down = before[-1] if len(before) else min(mid - 1, 0)
        picture[place] = 255 / (up - down)
    return picture.astype(np.uint8)


@given(seed=st.integers(0, 2**32 - 1), length=st.integers(1, 700), share=st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_interval_is_spiklings(seed: int, length: int, share: float) -> None:
    seq = random_spikes(seed, length)
    mid = min(int(share * length), length - 1)
    picture = interval_method(seq, mid)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, spikling_interval(seq, mid))
    np.testing.assert_array_equal(interval_method(seq.astype(float), mid), picture)


@given(seed=st.integers(0, 2**32 - 1), start=st.integers(0, 60), length=st.integers(1, 200))
@settings(max_examples=40, deadline=None)
def test_window_is_spiklings(seed: int, start: int, length: int) -> None:
    seq = random_spikes(seed, start + length + 3)
    expected = (seq[start : start + length].mean(axis=0) * 255).astype(np.uint8)
    np.testing.assert_array_equal(window_method(seq, start, length), expected)
    np.testing.assert_array_equal(window_method(seq.astype(bool), start, length), expected)


def test_reader_is_spiklings(tmp_path: Path) -> None:
    spikes = np.random.default_rng(0).integers(0, 2, (3, 250, 400), np.uint8)
    write_spikes(tmp_path / "a.dat", spikes)
    np.testing.assert_array_equal(load_spike_raw(tmp_path / "a.dat"), spikes)
    with pytest.raises(ValueError, match="not a whole number"):
        load_spike_raw(tmp_path / "a.dat", width=480, height=640)


@given(seed=st.integers(0, 2**32 - 1), length=st.integers(1, 60), half=st.integers(0, 29))
@settings(max_examples=30, deadline=None)
def test_tfp_is_spikecvs(seed: int, length: int, half: int) -> None:
    spikes, tfp = random_spikes(seed, length), TFP(3, 4, "cpu")
    if length < 2 * half:
        with pytest.raises(ValueError, match=f"{length} frames"):
            tfp.spikes2images(spikes, half)
        return
    images = tfp.spikes2images(spikes, half)
    assert images.shape == (length - 2 * half, 3, 4)
    for index, image in enumerate(images):
        mean = torch.from_numpy(spikes).float()[index : index + 2 * half + 1].mean(dim=0) * 255
        np.testing.assert_array_equal(image, mean.numpy().astype(np.uint8))
        np.testing.assert_array_equal(tfp.spikes2frame(spikes, index + half, half), image)


@given(seed=st.integers(0, 2**32 - 1), length=st.integers(1, 400), half=st.integers(0, 20))
@settings(max_examples=40, deadline=None)
def test_tfi_images_are_spikecvs(seed: int, length: int, half: int) -> None:
    spikes = random_spikes(seed, max(length, 2 * half))
    images = TFI(3, 4).spikes2images(spikes, half)
    assert images.shape == (len(spikes) - 2 * half, 3, 4)
    for place in np.ndindex(3, 4):
        times = np.flatnonzero(spikes[(slice(None), *place)])
        for index in range(len(images)):
            after, before = times[times >= index + half], times[times < index + half]
            interval = after[0] - before[-1] if len(after) and len(before) else 257
            assert images[(index, *place)] == int(255 / interval)


@given(seed=st.integers(0, 2**32 - 1), key=st.integers(0, 79), half=st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_tfi_frame_is_spikecvs(seed: int, key: int, half: int) -> None:
    spikes = random_spikes(seed, 80)
    if key < half // 2 or key + half // 2 > 80:
        with pytest.raises(ValueError, match="leaves the stream"):
            TFI(3, 4).spikes2frame(spikes, key, half)
        return
    frame = TFI(3, 4).spikes2frame(spikes, key, half)
    for place in np.ndindex(3, 4):
        times = np.flatnonzero(spikes[(slice(None), *place)])
        after = times[(times > key) & (times <= key + half)]
        before = times[(times <= key) & (times > key - half) & (times > 0)]
        interval = after[0] - before[-1] if len(after) and len(before) else 2 * half
        assert frame[place] == int(255 / interval)


def test_spikecvs_two_intervals_differ_by_a_frame() -> None:
    spikes = (np.random.default_rng(0).random((100, 3, 4)) < 0.5).astype(np.uint8)
    tfi = TFI(3, 4)
    images = tfi.spikes2images(spikes, 20)
    for t in range(20, 79):
        np.testing.assert_array_equal(tfi.spikes2frame(spikes, t, 20), images[t + 1 - 20])
        np.testing.assert_array_equal(interval_method(spikes, t), images[t - 20])


def spikecv_synapse(intervals: list[float]) -> float:
    """SpikeCV's r_u + r_R after spikes at these intervals, from its formulas with its constants."""
    R, u = torch.tensor(1.0), torch.tensor(0.15)
    for interval in intervals:
        R, u = (
            1 - (1 - R * (1 - u)) * torch.exp(torch.tensor(-interval) / 1.0),
            0.15 + (u + 0.15 * (1 - u) - 0.15) * torch.exp(torch.tensor(-interval) / 10.0),
        )
    by_release = -1 / (10.0 * torch.log((u - 0.15) / (10.0 - 0.15 + u * (1 - 0.15))))
    return float(by_release - 1 / (1.0 * torch.log((1 - R) / (1 - R * (1 - u)))))


def equalized(rates: np.ndarray) -> np.ndarray:
    rates = rates.astype(np.float32)
    shades = (rates - rates.min()) / (rates.max() - rates.min() or 1) * 255
    return cv2.equalizeHist(shades.astype(np.uint8))


@pytest.mark.parametrize("when", ["online", "offline"])
def test_tfstp_is_spikecvs(when: str) -> None:
    spikes, tfstp = random_spikes(5, 40), TFSTP(3, 4, "cpu")
    images = getattr(tfstp, f"spikes2images_{when}")(spikes.astype(bool))
    assert images.shape == spikes.shape and images.dtype == np.uint8
    assert when == "online" or not images[0].any()
    intervals = TFSTP.spike2interval(spikes)
    for time in (1, 7, 39):
        rates = np.zeros((3, 4))
        for place in np.ndindex(3, 4):
            fired = np.flatnonzero(spikes[(slice(time + 1), *place)])
            known = [
                intervals[(t, *place)]
                for t in range(1, time + 1)
                if np.isfinite(intervals[(t, *place)]) and (not spikes[(t, *place)] or intervals[(t, *place)] == 1)
            ]
            rates[place] = spikecv_synapse([*map(float, np.diff([-1, *fired]))] if when == "online" else known)
        np.testing.assert_array_equal(images[time], equalized(rates))


def test_intervals_between_spikes() -> None:
    spikes = np.array([0, 1, 0, 0, 1, 1, 0])[:, None, None]
    inf = np.inf
    np.testing.assert_array_equal(TFSTP.spike2interval(spikes)[:, 0, 0], [inf, inf, 3, 3, 3, 1, inf])


def test_bad_input_is_refused() -> None:
    spikes = np.zeros((50, 3, 4), np.uint8)
    for call in (
        lambda: interval_method(spikes, 50),
        lambda: interval_method(spikes, -1),
        lambda: interval_method(spikes[0], 0),
        lambda: interval_method(spikes[:0], 0),
        lambda: window_method(spikes, 0, 0),
        lambda: window_method(spikes, 20, 31),
        lambda: TFP(3, 4).spikes2frame(spikes, 5, 6),
        lambda: TFP(3, 4).spikes2frame(spikes, 45, 5),
        lambda: TFP(4, 3).spikes2images(spikes, 5),
        lambda: TFI(3, 4).spikes2images(spikes, 26),
        lambda: TFI(3, 4).spikes2frame(spikes, 50, 1),
    ):
        with pytest.raises(ValueError, match=r"frame|shape"):
            call()


def test_dark_pixels_are_what_is_documented() -> None:
    spikes = np.zeros((50, 3, 4), np.uint8)
    assert (interval_method(spikes, 25) == 255 // 49).all()
    assert (TFI(3, 4).spikes2images(spikes, 20) == 0).all()
    assert (TFI(3, 4).spikes2frame(spikes, 25, 20) == 255 // 40).all()
    assert (interval_method(np.ones_like(spikes), 25) == 255).all()
