"""data/spike/simulation/simulate.py: the sensor's equation, light, and what an exposure holds."""

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.spike.simulation.simulate import (
    Exposure,
    IntegrateAndFire,
    expose,
    integrate_and_fire,
    linear_to_srgb,
    sensor_light,
    srgb_to_linear,
)
from data.spike.sync import default_window


def random_light(seed: int, frames: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).random((frames, 3, 5))


@given(seed=st.integers(0, 2**32 - 1), threshold=st.floats(1.0, 5.0), frames=st.integers(1, 200))
@settings(max_examples=40, deadline=None)
def test_spikes_and_charge_conserve_the_light(seed: int, threshold: float, frames: int) -> None:
    light = random_light(seed, frames)
    start = np.random.default_rng(seed + 1).random((3, 5)) * threshold
    sensor = IntegrateAndFire((3, 5), threshold, start)
    spikes = sensor.step(light)
    left = start + light.sum(axis=0) - threshold * spikes.sum(axis=0, dtype=np.int64)
    np.testing.assert_allclose(left, sensor.charge, atol=1e-9)
    assert (left >= -1e-9).all() and (left < threshold + 1e-9).all()
    assert np.abs(threshold * spikes.sum(axis=0, dtype=np.int64) - light.sum(axis=0)).max() <= threshold + 1e-9


@given(level=st.integers(0, 256), start=st.integers(0, 511), frames=st.integers(1, 100))
@settings(deadline=None)
def test_constant_light_fires_at_light_over_threshold(level: int, start: int, frames: int) -> None:
    light = np.full((frames, 1, 1), level / 256)  # whole multiples of 1/256, so that the sums are exact
    spikes = integrate_and_fire(light, 2.0, np.full((1, 1), start / 256))
    assert spikes.sum() == (start + frames * level) // 512


def test_a_pixel_fires_in_the_frame_in_which_it_reaches_the_threshold() -> None:
    spikes = integrate_and_fire(np.full((9, 1, 1), 0.5), 2.0)
    np.testing.assert_array_equal(spikes[:, 0, 0], [0, 0, 0, 1, 0, 0, 0, 1, 0])


@given(cuts=st.lists(st.integers(0, 40), max_size=4), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_pieces_give_the_bits_of_the_whole(cuts: list[int], seed: int) -> None:
    light = random_light(seed)
    sensor = IntegrateAndFire((3, 5), 2.0, np.random.default_rng(7))
    pieces = [sensor.step(piece) for piece in np.split(light, sorted(cuts))]
    whole = integrate_and_fire(light, 2.0, np.random.default_rng(7))
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    assert whole.dtype == np.uint8 and set(np.unique(whole)) == {0, 1}


def test_crops_and_flips_commute_with_the_sensor() -> None:
    light, start = random_light(0), np.random.default_rng(1).random((3, 5)) * 2
    whole = integrate_and_fire(light, 2.0, start)
    np.testing.assert_array_equal(integrate_and_fire(light[:, 1:, 2:4], 2.0, start[1:, 2:4]), whole[:, 1:, 2:4])
    np.testing.assert_array_equal(integrate_and_fire(light[:, ::-1], 2.0, start[::-1]), whole[:, ::-1])
    np.testing.assert_array_equal(integrate_and_fire(light.transpose(0, 2, 1), 2.0, start.T), whole.transpose(0, 2, 1))


def test_dark_never_fires_and_too_low_a_threshold_saturates() -> None:
    assert not integrate_and_fire(np.zeros((50, 2, 2)), 2.0, np.random.default_rng(0)).any()
    sensor = IntegrateAndFire((2, 2), 0.5)
    assert sensor.step(np.ones((10, 2, 2))).all()
    np.testing.assert_array_equal(sensor.charge, np.full((2, 2), 5.0))


def test_a_random_start_is_uniform_below_the_threshold() -> None:
    charge = IntegrateAndFire((100, 100), 3.0, np.random.default_rng(0)).charge
    assert 0 <= charge.min() and charge.max() < 3.0
    assert abs(charge.mean() - 1.5) < 0.03
    np.testing.assert_array_equal(charge, IntegrateAndFire((100, 100), 3.0, np.random.default_rng(0)).charge)


@pytest.mark.parametrize(
    ("light", "said"),
    [
        (np.full((1, 3, 5), 1.01), "light must lie in"),
        (np.full((1, 3, 5), -0.01), "light must lie in"),
        (np.full((1, 3, 5), np.nan), "light must lie in"),
        (np.zeros((1, 5, 3)), r"must be \(T, 3, 5\)"),
        (np.zeros((3, 5)), r"must be \(T, 3, 5\)"),
    ],
)
def test_light_that_is_no_light_is_refused(light: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        IntegrateAndFire((3, 5)).step(light)


@pytest.mark.parametrize(
    ("threshold", "start", "said"),
    [
        (0.0, "zero", "must be positive"),
        (float("nan"), "zero", "must be positive"),
        (2.0, "one", "or 'zero'"),
        (2.0, np.full((3, 5), 2.0), "charge at the start"),
        (2.0, np.zeros((5, 3)), "charge at the start"),
    ],
)
def test_a_sensor_that_cannot_be_is_refused(threshold: float, start: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        IntegrateAndFire((3, 5), threshold, start)  # type: ignore[arg-type]


def test_srgb_curve_has_the_standards_values_and_inverts() -> None:
    assert srgb_to_linear(np.array(0.5)) == pytest.approx(0.21404114, abs=1e-8)
    assert srgb_to_linear(np.array(0.04)) == pytest.approx(0.04 / 12.92)
    values = np.arange(256) / 255
    np.testing.assert_allclose(linear_to_srgb(srgb_to_linear(values)), values, atol=1e-12)


def test_srgb_light_is_the_half_size_gray_of_the_gopro_set() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    expected = cv2.resize(gray, (3, 4), interpolation=cv2.INTER_AREA) / 255
    np.testing.assert_array_equal(sensor_light(frame), expected)
    by_hand = gray.reshape(4, 2, 3, 2).mean(axis=(1, 3)) / 255
    assert np.abs(expected - by_hand).max() <= 0.51 / 255
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 255
    assert sensor_light(red)[0, 0] == pytest.approx(0.299, abs=1 / 255)


def test_linear_light_averages_energy() -> None:
    frame = np.zeros((2, 2, 3), np.uint8)
    frame[0] = 255
    assert sensor_light(frame, 2, "linear")[0, 0] == pytest.approx(0.5, abs=1e-6)
    assert sensor_light(np.full((2, 2, 3), 255, np.uint8), 2, "linear")[0, 0] == pytest.approx(1.0, abs=1e-6)
    assert sensor_light(np.full((2, 2, 3), 128, np.uint8), 2, "linear")[0, 0] == pytest.approx(0.2158605, abs=1e-6)


def test_odd_frames_are_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"7x6 .* multiples of --spike_ratio 2: crop it"):
        sensor_light(np.zeros((7, 6, 3), np.uint8))


def numbered(count: int) -> list[np.ndarray]:
    """Frames whose value is their number on the spike clock."""
    return [np.full((2, 4, 3), tick, np.uint8) for tick in range(count)]


@pytest.mark.parametrize(("sharp_frames", "stride"), [(7, 7), (3, 5), (4, 2), (2, 1)])
def test_each_block_holds_its_own_time(sharp_frames: int, stride: int) -> None:
    exposure = Exposure(sharp_frames, stride)
    frames = numbered(exposure.ticks(3))
    made = list(expose(frames, exposure))
    assert len(made) == 3
    spikes = integrate_and_fire(np.stack([sensor_light(frame) for frame in frames]))
    for index, frame in enumerate(made):
        begin = 8 * stride * index
        assert (frame.sharp == begin + 8 * (sharp_frames // 2)).all()
        assert (frame.blurred == begin + 4 * (sharp_frames - 1)).all()  # the mean of begin ... begin + 8 (n - 1)
        np.testing.assert_array_equal(frame.spikes, spikes[begin : begin + 8 * sharp_frames])


def test_a_source_may_use_one_buffer_for_all_frames() -> None:
    exposure, buffer = Exposure(3, 3), np.zeros((2, 4, 3), np.uint8)

    def frames() -> Iterator[np.ndarray]:
        for frame in numbered(24):
            buffer[...] = frame
            yield buffer

    (made,) = expose(frames(), exposure)
    assert (made.sharp == exposure.center).all()


def test_a_block_cut_off_by_the_end_is_left_out() -> None:
    exposure = Exposure(3, 3)
    assert len(list(expose(numbered(exposure.ticks(2) - 1), exposure))) == 1


def test_a_still_scene_is_not_blurred() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    for light in ("srgb", "linear"):
        (made,) = expose([frame] * 24, Exposure(3, 3), light=light)  # type: ignore[arg-type]
        np.testing.assert_array_equal(made.blurred, frame)
        np.testing.assert_array_equal(made.sharp, frame)


def test_linear_blur_is_the_mean_of_light() -> None:
    frames = [np.full((2, 2, 3), 255 if tick % 2 == 0 else 0, np.uint8) for tick in range(16)]
    (linear,) = expose(frames, Exposure(2, 2), light="linear")
    (stored,) = expose(frames, Exposure(2, 2), light="srgb")
    assert (linear.blurred == round(255 * float(linear_to_srgb(np.array(5 / 9))))).all()
    assert (stored.blurred == round(255 * 5 / 9)).all()


def test_timing_is_that_of_the_gopro_set() -> None:
    for n in (7, 9, 11, 13):
        exposure = Exposure(n, n)
        window = default_window(f"GOPR0884_{n:02d}_00", exposure.spike_frames)
        assert (window.begin, window.end, window.center) == (0, exposure.end, exposure.center)


@given(n=st.integers(2, 20), stride=st.integers(1, 30), blocks=st.integers(1, 20))
def test_frames_needed_inverts_blocks_that_fit(n: int, stride: int, blocks: int) -> None:
    exposure = Exposure(n, stride)
    assert exposure.blocks(exposure.sharp_needed(blocks)) == blocks
    assert exposure.blocks(exposure.sharp_needed(blocks) - 1) == blocks - 1
    assert 8 * (exposure.sharp_needed(blocks) - 1) >= exposure.ticks(blocks)


def test_an_exposure_of_one_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        Exposure(1, 1)
    with pytest.raises(ValueError, match="at least 1"):
        Exposure(3, 0)
