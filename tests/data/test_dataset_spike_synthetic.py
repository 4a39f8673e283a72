"""data/dataset_spike_synthetic.py: seeded samples, shapes, light, and streams that are shorter than the window."""

from typing import Any

import numpy as np
import pytest
import torch

from data.dataset_spike_synthetic import SpikeSyntheticDataset
from data.sampler import SampleIndex
from utils.spike_windows import MISSING, light_window


def small(**options: Any) -> SpikeSyntheticDataset:
    return SpikeSyntheticDataset(**{"gt_size": 16, "window": 61, "length": 64, **options})


def test_a_sample_depends_on_seed_epoch_and_index_alone() -> None:
    first, again = small()[SampleIndex(1, 5)], small()[SampleIndex(1, 5)]
    assert torch.equal(first["L"], again["L"]) and torch.equal(first["H"], again["H"])
    for other in (small()[SampleIndex(2, 5)], small()[SampleIndex(1, 6)], small(seed=1)[SampleIndex(1, 5)]):
        assert not torch.equal(first["H"], other["H"])


def test_shapes_and_values() -> None:
    dataset = small(num_frame=3)
    for index in range(6):
        sample = dataset[index]
        assert sample["L"].shape == (3, 61, 16, 16) and sample["H"].shape == (3, 1, 16, 16)
        assert 0 <= sample["H"].min() and sample["H"].max() <= 1.001
        for window in sample["L"]:
            present = window.amin((1, 2)) >= 0
            assert present[30] and (window[~present] == MISSING).all()
            assert len(window[present].unique()) <= 2


def test_rates_are_the_pictures_over_the_threshold() -> None:
    """Without noise and motion, spikes worth their threshold have the picture's mean, to within a spike per pixel."""
    options = {"sim_noise": 0.0, "sim_speed": [1e-3, 1e-3], "sim_reset": 0.0, "sim_threshold": [1.0, 1.0]}
    for low_light in (0.0, 1.0):
        dataset = small(window=201, num_frame=1, sim_low_light=low_light, **options)
        for index in range(4):
            sample = dataset[index]
            window = sample["L"][0]
            present = window[:, 0, 0] >= 0
            assert abs(float(window[present].mean() - sample["H"].mean())) < 0.02


def test_low_light_has_few_spikes() -> None:
    rates = [float((small(sim_low_light=1.0, sim_threshold=[16.0, 16.0])[i]["L"] > 0).float().mean()) for i in range(8)]
    assert 0 < sorted(rates)[4] < 0.02


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sim_speed": [2.0, 1.0]}, "sim_speed"),
        ({"sim_threshold": [0.0, 1.0]}, "sim_threshold"),
        ({"window": 0}, "win"),
    ],
)
def test_options_out_of_range(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)


def test_a_window_of_a_stream_is_light_and_missing_frames() -> None:
    seq = np.ones((4, 2, 3), np.uint8)
    window = light_window(seq, -1, 7, 2.5)
    assert window.dtype == np.float32 and window[:, 0, 0].tolist() == [-1, 2.5, 2.5, 2.5, 2.5, -1, -1]


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (0, [-1, -1, -1, 1, 1, 1, 1]),  # middle 3: frames 2 to 4 are its, and before frame 2 no three are left
        (10, [1, 1, 1, 1, 1, 1, 1]),
        (22, [1, 1, 1, 1, 1, -1, -1]),  # middle 25: frames 27 to 29 are the last three of 30
    ],
)
def test_pooled_frames_are_around_the_same_middle(start: int, expected: list[float]) -> None:
    seq = np.zeros((30, 1, 1), np.uint8)
    seq[::3] = 1  # one spike in any three frames
    assert light_window(seq, start, 7, 3.0, pooled=3)[:, 0, 0].tolist() == expected
