"""data/dataset_guided_synthetic.py and data/spike/simulation/: seeded samples, closed-form exposures, moving layers."""

import numpy as np
import pytest
import torch

from data.dataset_guided_synthetic import GuidedSyntheticDataset
from data.sampler import SampleIndex
from data.spike.simulation.canvas import FREE_PHOTOGRAPHS, Canvases
from data.spike.simulation.exposures import Camera, fire, interpolation, shoot
from data.spike.simulation.layered_scene import LayeredScene
from data.spike.simulation.motion import TEST_PHOTOGRAPHS
from data.spike.simulation.noise import SensorNoise
from data.spike.simulation.simulate import IntegrateAndFire

CLEAN = Camera(frames=24, begin=4, end=20, ratio=2, threshold=2.0, linear=False, noise=SensorNoise(), frame_noise=0.0)


def small(**options: object) -> GuidedSyntheticDataset:
    return GuidedSyntheticDataset(
        **{
            "spike": {"representation": "guided"},
            "gt_size": 16,
            "length": 64,
            "sim_exposure": [8, 24],
            "sim_run": 4,
            **options,
        }
    )


def ramp(times: np.ndarray) -> np.ndarray:
    """A picture that brightens by 8 gray values per spike frame."""
    return np.stack([np.full((4, 6, 3), 40 + 8 * time, np.uint8) for time in times])


def test_a_sample_depends_on_seed_epoch_and_index_alone() -> None:
    first, again = small()[SampleIndex(1, 5)], small()[SampleIndex(1, 5)]
    assert all(torch.equal(first[key], again[key]) for key in ("L", "H", "L_spike"))
    for other in (small()[SampleIndex(2, 5)], small()[SampleIndex(1, 6)], small(seed=1)[SampleIndex(1, 5)]):
        assert not torch.equal(first["H"], other["H"])


def test_shapes_and_ranges() -> None:
    dataset = small(num_frame=3)
    for index in range(0, 16, 4):
        sample = dataset[index]
        side = sample["L_spike"].shape[-1]
        assert sample["L"].shape == sample["H"].shape == (3, 3, 16, 16) and 16 // side in (1, 2, 4)
        assert sample["L_spike"].shape == (3, 23, side, side) and torch.isfinite(sample["L_spike"]).all()
        assert 0 <= sample["H"].min() and sample["H"].max() <= 1
        assert torch.equal(sample["L"][0], sample["L"][2])


def test_samples_of_a_run_have_one_ratio_and_all_ratios_occur() -> None:
    dataset = small()
    sides = [dataset[index]["L_spike"].shape[-1] for index in range(48)]
    assert all(len(set(sides[begin : begin + 4])) == 1 for begin in range(0, 48, 4))
    assert set(sides) == {4, 8, 16}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gt_size": 18}, "gt_size"),
        ({"sim_speed": [2.0, 1.0]}, "sim_speed"),
        ({"sim_run": 3}, "sim_run"),
        ({"spike": {"representation": "guided", "bins": 4}}, "odd"),
    ],
)
def test_options_out_of_range(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)


def test_frames_are_the_mean_of_the_exposure_and_the_instants() -> None:
    instants = np.array([4, 19, 11])
    blurred, sharp, _ = shoot(ramp, 1.0, instants, CLEAN, np.random.default_rng(0))
    assert np.array_equal(sharp, ramp(instants))
    # Pictures of whole gray values between rendered ones are linear: the mean of 72 .. 192 is 132.
    assert abs(blurred.astype(float) - 132).max() <= 1


def test_linear_light_is_averaged_as_light() -> None:
    def blink(times: np.ndarray) -> np.ndarray:
        return np.stack([np.full((2, 2, 3), 255 * (time >= 12), np.uint8) for time in times])

    camera = Camera(24, 0, 24, 1, 2.0, True, SensorNoise(), 0.0)
    blurred = shoot(blink, 100.0, np.array([0]), camera, np.random.default_rng(0)).blurred
    assert (blurred == 188).all()  # sRGB of half the light; stored values would give 128


def test_spikes_are_those_of_the_stepped_sensor() -> None:
    rng = np.random.default_rng(3)
    light = rng.random((50, 6, 7)).astype(np.float32)
    spikes = fire(light, 2.0, SensorNoise(), np.random.default_rng(5))
    start = 2.0 * np.random.default_rng(5).random((6, 7), np.float32)
    stepped = IntegrateAndFire((6, 7), 2.0, start.astype(np.float64)).step(light)
    # Single sums in float32 may round to the other side of a whole number, a frame early or late.
    assert np.abs(spikes.cumsum(0) - stepped.cumsum(0, dtype=int)).max() <= 1
    assert (spikes != stepped).mean() < 1e-3


def test_light_above_the_threshold_fires_in_every_frame_and_is_not_stored() -> None:
    light = np.concatenate([np.ones((10, 1, 1)), np.zeros((10, 1, 1))]).astype(np.float32)
    spikes = fire(light, 0.7, SensorNoise(), np.random.default_rng(0))[:, 0, 0]
    assert spikes[1:10].all() and not spikes[11:].any()


@pytest.mark.parametrize(
    "noise",
    [
        SensorNoise(photons=50),
        SensorNoise(dark_current=0.1),
        SensorNoise(gain_spread=0.1),
        SensorNoise(threshold_spread=0.1),
        SensorNoise(hot_pixels=0.1),
        SensorNoise(dead_pixels=0.1),
        SensorNoise(spurious=0.05),
    ],
    ids=str,
)
def test_each_kind_of_noise_changes_spikes_and_keeps_them_binary(noise: SensorNoise) -> None:
    light = np.full((40, 16, 16), 0.4, np.float32)
    clean, noisy = (fire(light, 2.0, model, np.random.default_rng(0)) for model in (SensorNoise(), noise))
    assert noisy.dtype == np.uint8 and set(np.unique(noisy)) == {0, 1} and not np.array_equal(clean, noisy)


def test_interpolation_is_exact_on_lines() -> None:
    times = np.array([0.0, 2.5, 4.0, 9.0])
    weights = interpolation(times, 10)
    assert np.allclose(weights @ (3 * times + 1), 3 * np.arange(10) + 1, atol=1e-5)


def test_layers_move_and_stay_within_their_travel() -> None:
    rng = np.random.default_rng(1)
    scene = LayeredScene(Canvases(64, 0.0), 24, 64, 0.5, rng)
    still = LayeredScene(Canvases(64, 0.0), 24, 64, 0.0, np.random.default_rng(1))
    moving, resting = scene.render(np.array([0.0, 60.0])), still.render(np.array([0.0, 60.0]))
    assert not np.array_equal(moving[0], moving[1]) and np.array_equal(resting[0], resting[1])
    assert scene.travel > 1 and still.travel == 0


def test_no_photograph_of_the_demos_test_clips_is_used() -> None:
    assert not set(FREE_PHOTOGRAPHS) & set(TEST_PHOTOGRAPHS)
