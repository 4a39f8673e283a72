"""The simulator's presets, resets, noise and back ends; the sensor's equation itself is in test_simulate.py."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.spike.simulation.noise import PixelNoise, SensorNoise
from data.spike.simulation.presets import PRESETS, SensorModel
from data.spike.simulation.simulate import (
    ExposedFrame,
    IntegrateAndFire,
    Shutter,
    expose,
    integrate_and_fire,
    sensor_light,
)

SHAPE = (3, 5)


def gray_frames(seed: int, frames: int = 60) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, *SHAPE), np.uint8)


def light_for(model: SensorModel, gray: np.ndarray) -> np.ndarray:
    return gray if model.full_scale == 255 else gray / 255


@pytest.mark.parametrize("name", PRESETS)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_torch_gives_numpys_bits(name: str, seed: int) -> None:
    model = PRESETS[name]
    light = light_for(model, gray_frames(seed, 20))
    by_numpy = model.sensor(SHAPE, np.random.default_rng(seed))
    by_torch = model.sensor(SHAPE, np.random.default_rng(seed))
    expected = by_numpy.step(light)
    spikes = by_torch.step(torch.from_numpy(light))
    assert spikes.dtype == torch.uint8
    np.testing.assert_array_equal(spikes.numpy(), expected)
    np.testing.assert_array_equal(by_torch.charge.numpy(), by_numpy.charge)
    # And a sensor may go on with the other kind.
    np.testing.assert_array_equal(by_torch.step(light), by_numpy.step(light))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", PRESETS)
def test_gpu_gives_the_cpus_bits(name: str) -> None:
    model, gray = PRESETS[name], gray_frames(0)
    expected = model.sensor(SHAPE, np.random.default_rng(1)).step(light_for(model, gray))
    light = torch.from_numpy(light_for(model, gray)).cuda()
    spikes = model.sensor(SHAPE, np.random.default_rng(1)).step(light)
    np.testing.assert_array_equal(spikes.cpu().numpy(), expected)


@pytest.mark.parametrize(("name", "threshold"), [("v2s", 2.0), ("v2s5", 5.0)])
def test_v2s_by_its_definition(name: str, threshold: float) -> None:
    light = gray_frames(0) / 255
    integral = np.random.default_rng(1).random(SHAPE) * threshold
    expected = np.zeros(light.shape, np.uint8)
    for t, frame in enumerate(light):
        integral += frame
        fire = integral - np.float32(threshold) >= 0
        integral[fire] -= threshold
        expected[t][fire] = 1
    np.testing.assert_array_equal(PRESETS[name].sensor(SHAPE, np.random.default_rng(1)).step(light), expected)


def test_spikling_by_its_definition() -> None:
    gray = gray_frames(0)
    adder = np.random.default_rng(1).random(SHAPE) * 255
    expected = []
    for frame in gray:
        adder += frame
        saturated = adder >= 255
        expected.append(saturated)
        adder -= saturated * 255
    np.testing.assert_array_equal(PRESETS["spikling"].sensor(SHAPE, np.random.default_rng(1)).step(gray), expected)


@pytest.mark.parametrize(("name", "threshold"), [("spcs", 256), ("spcs400", 400)])
def test_spcs_by_its_definition(name: str, threshold: int) -> None:
    gray = gray_frames(0, 200)
    spikes = PRESETS[name].sensor(SHAPE, np.random.default_rng(1)).step(gray)
    for place in np.ndindex(*SHAPE):
        accumulator = 0
        for t, value in enumerate(gray[(slice(None), *place)]):
            accumulator += int(value)
            assert spikes[(t, *place)] == (accumulator >= threshold)
            accumulator -= threshold * (accumulator >= threshold)


def test_spikecvs_image_simulator_by_its_definition() -> None:
    light = gray_frames(0) / 255
    spikes = PRESETS["spikecv_image"].sensor(SHAPE, np.random.default_rng(1)).step(light)
    membrane = np.zeros(SHAPE)
    for t, frame in enumerate(light):
        membrane += 0.5 * frame
        np.testing.assert_array_equal(spikes[t], membrane >= 1)
        membrane[membrane >= 1] = 0


def test_spikingsim_by_its_definition() -> None:
    picture = gray_frames(0, 1)[0] / 255
    spikes = PRESETS["spikingsim"].sensor(SHAPE, np.random.default_rng(1)).step(np.broadcast_to(picture, (30, *SHAPE)))
    first = np.random.default_rng(1).random((1, *SHAPE))[0]
    per_tick = (2 / (10.0**6 * 10)) * (10**-13 * 1.09) / ((10**-4 * 1.83) * (10.0**-15 * 15))
    for place in np.ndindex(*SHAPE):
        voltage, fired = 0.0, []
        for t in range(31):
            light, spike = (first if t == 0 else picture)[place], 0
            for _ in range(250):
                voltage += light * per_tick
                if voltage >= 2.0:
                    spike, voltage = 1, 0
            fired.append(spike)
        np.testing.assert_array_equal(spikes[(slice(None), *place)], fired[1:])


def test_spike_threshold_of_a_preset_gives_brightness() -> None:
    for name, model in PRESETS.items():
        light = np.full((400, 1, 1), 0.6 * model.full_scale)
        rate = model.sensor((1, 1), np.random.default_rng(0)).step(light).mean()
        loses_charge = 0.12 if name == "spikecv_image" else 0.02  # reset to zero, in whole frames
        assert rate * model.spike_threshold == pytest.approx(0.6, abs=loses_charge), name


def test_reset_to_zero_forgets_the_rest() -> None:
    sensor = IntegrateAndFire((1, 1), 1.0, reset="zero")
    assert sensor.step(np.full((6, 1, 1), 0.7))[:, 0, 0].tolist() == [0, 1, 0, 1, 0, 1]
    assert sensor.charge[0, 0] == 0


def test_gain_scales_the_rate() -> None:
    light = np.full((8, 1, 1), 0.5)
    assert IntegrateAndFire((1, 1), 2.0, gain=2.0).step(light).sum() == 4
    assert IntegrateAndFire((1, 1), 2.0).step(light).sum() == 2


@pytest.mark.parametrize("keywords", [{"gain": 0.0}, {"ticks": 0}, {"full_scale": -1.0}, {"reset": "half"}])
def test_a_sensor_that_cannot_be_is_refused(keywords: dict) -> None:
    with pytest.raises(ValueError, match=r"must be positive|'subtract' or 'zero'"):
        IntegrateAndFire(SHAPE, **keywords)


def test_light_of_whole_gray_values() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    np.testing.assert_array_equal(sensor_light(frame, 1, "srgb", 255.0), gray)
    np.testing.assert_array_equal(sensor_light(frame, 1), gray / 255)
    linear = sensor_light(frame, 1, "linear", 255.0)
    np.testing.assert_allclose(linear, 255 * sensor_light(frame, 1, "linear"))


def noisy(model: SensorNoise, light: np.ndarray, seed: int = 0, threshold: float = 2.0) -> np.ndarray:
    noise = PixelNoise(model, light.shape[1:], np.random.default_rng(seed))
    return IntegrateAndFire(light.shape[1:], threshold, noise=noise).step(light)


def test_no_noise_changes_nothing() -> None:
    light = gray_frames(0) / 255
    np.testing.assert_array_equal(noisy(SensorNoise(), light), integrate_and_fire(light))


def test_noise_does_not_depend_on_the_pieces_or_the_back_end() -> None:
    model = SensorNoise(50, 0.02, 0.1, 0.1, 0.1, 0.1, 0.05)
    light = gray_frames(0) / 255
    entire = noisy(model, light)
    pieces = IntegrateAndFire(SHAPE, noise=PixelNoise(model, SHAPE, np.random.default_rng(0)))
    np.testing.assert_array_equal(np.concatenate([pieces.step(light[:7]), pieces.step(light[7:])]), entire)
    by_torch = IntegrateAndFire(SHAPE, noise=PixelNoise(model, SHAPE, np.random.default_rng(0)))
    np.testing.assert_array_equal(by_torch.step(torch.from_numpy(light)).numpy(), entire)
    assert (noisy(model, light, seed=1) != entire).any()


def test_shot_noise_has_the_variance_of_photons() -> None:
    noise = PixelNoise(SensorNoise(photons=20), (400, 400), np.random.default_rng(0))
    seen = noise.light(np.full((400, 400), 0.5))
    assert seen.mean() == pytest.approx(0.5, abs=0.002)
    assert seen.var() == pytest.approx(0.5 / 20, rel=0.03)


def test_dark_current_fires_in_the_dark() -> None:
    spikes = noisy(SensorNoise(dark_current=0.1), np.zeros((400, 2, 2)))
    np.testing.assert_allclose(spikes.mean(axis=0), 0.1 / 2, atol=1 / 400)


def test_spreads_are_fixed_per_pixel() -> None:
    light = np.full((2000, 20, 20), 0.5)
    for model in (SensorNoise(gain_spread=0.1), SensorNoise(threshold_spread=0.1)):
        rates = noisy(model, light).mean(axis=0)
        assert rates.mean() == pytest.approx(0.25, rel=0.03)
        assert rates.std() / rates.mean() == pytest.approx(0.1, rel=0.2)


def test_hot_dead_and_spurious_pixels() -> None:
    shape = (100, 100)
    noise = PixelNoise(SensorNoise(hot_pixels=0.05, dead_pixels=0.02), shape, np.random.default_rng(0))
    spikes = IntegrateAndFire(shape, 2.0, noise=noise).step(np.full((100, *shape), 0.2))
    rates = spikes.mean(axis=0)
    assert noise.hot.mean() == pytest.approx(0.05, abs=0.01) and noise.dead.mean() == pytest.approx(0.02, abs=0.005)
    assert not rates[noise.dead].any()
    assert rates[noise.hot].min() > 0.3 and rates[~noise.hot].max() <= 0.11
    spurious = noisy(SensorNoise(spurious=0.03), np.zeros((50, *shape)))
    assert spurious.mean() == pytest.approx(0.03, rel=0.05)


@pytest.mark.parametrize(
    "keywords", [{"photons": 0.0}, {"photons": float("inf")}, {"dark_current": -0.1}, {"spurious": 1.5}]
)
def test_noise_out_of_range_is_refused(keywords: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(keywords))):
        SensorNoise(**keywords)


@pytest.mark.parametrize(("exposure", "gap"), [(1, 0), (5, 0), (6, 3), (40, 1)])
def test_any_exposure_and_gap_lie_on_the_clock_of_the_spikes(exposure: int, gap: int) -> None:
    frames = [np.full((2, 4, 3), tick, np.uint8) for tick in range(100)]
    shutter = Shutter(exposure, gap)
    created: list[ExposedFrame] = list(expose(frames, shutter))
    assert len(created) == 100 // (exposure + gap)
    spikes = integrate_and_fire(np.stack([sensor_light(frame) for frame in frames]))
    for index, frame in enumerate(created):
        begin = index * (exposure + gap)
        assert (frame.sharp == begin + exposure // 2).all()
        assert (frame.blurred == np.rint(begin + (exposure - 1) / 2)).all()
        np.testing.assert_array_equal(frame.spikes, spikes[begin : begin + exposure + gap])


def test_a_shutter_that_cannot_be_is_refused() -> None:
    for exposure, gap in ((0, 1), (1, -1)):
        with pytest.raises(ValueError, match="at least 1 and 0"):
            Shutter(exposure, gap)


def test_expose_takes_another_sensor() -> None:
    frames = [np.full((2, 4, 3), 200, np.uint8)] * 10
    (created,) = expose(
        frames, Shutter(10), make_sensor=lambda size: PRESETS["spcs"].sensor(size, np.random.default_rng())
    )
    gray = np.full((10, 1, 2), 200, np.uint8)
    np.testing.assert_array_equal(created.spikes, PRESETS["spcs"].sensor((1, 2), np.random.default_rng()).step(gray))
