"""Augmentation of light and spikes: what it does, that it is off by default, seeded, and exact under geometry."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from data.augment import Augmentation
from data.dataset_video_rgbspike import VideoRecurrentTrainDatasetRGBSpike
from data.sampler import GlobalBatchSampler, SampleIndex, init_worker
from data.spike.encoding import build_encoding
from data.spike.sync import ExposureWindow
from data.spike_augment import ChangedStream, SpikeChange, add_photon_noise, thin
from tests.data.trees import GoproTree
from utils.spike_loader import SpikeStream

ALL: dict[str, Any] = {
    "spike_gain_jitter": 0.2,
    "spike_threshold_jitter": 0.5,
    "spike_photon_noise": 0.2,
    "spike_hot_pixels": 0.1,
    "spike_time_jitter": 4,
    "brightness_jitter": 0.1,
    "contrast_jitter": 0.1,
}
COUNT = {"representation": "tfp", "bins": 4}


def train(tree: GoproTree, **options: Any) -> VideoRecurrentTrainDatasetRGBSpike:
    defaults: dict[str, Any] = {"spike": COUNT, "num_frame": 3, "gt_size": 16, "seed": 5, "input_pack_mode": "dual"}
    return VideoRecurrentTrainDatasetRGBSpike(**{**tree.roots, **defaults, **options})


@pytest.fixture
def narrow(tree: GoproTree) -> GoproTree:
    """Exposures [6, 18) in files of 24 spike frames."""
    for clip in tree.clips:
        path = tree.spike / clip / "sync.json"
        path.write_text(
            path.read_text().replace('"spike_begin": 0, "spike_end": 24', '"spike_begin": 6, "spike_end": 18')
        )
    return tree


def test_thinning_is_a_higher_threshold() -> None:
    spikes = (np.random.default_rng(0).random((300, 8, 8)) < 0.3).astype(np.uint8)
    before, counts = spikes.copy(), spikes.sum(0).astype(int)
    thin(spikes, 0.6, np.random.default_rng(1))
    assert (np.abs(spikes.sum(0) - 0.6 * counts) <= 1).all() and (spikes <= before).all()
    numbers = [np.flatnonzero(spikes[:, y, x][before[:, y, x] == 1]) for y in range(8) for x in range(8)]
    assert all(set(np.diff(kept)) <= {1, 2} for kept in numbers)  # evenly: the gaps of 1 / 0.6


def test_photon_noise_keeps_the_mean_and_has_the_lights_variance() -> None:
    rates, share = np.array([0.1, 0.2]), 0.1
    changes: list[np.ndarray] = []
    for seed in range(20):
        spikes = np.zeros((100, 40, 2), np.uint8)
        for column, rate in enumerate(rates):
            spikes[:: round(1 / rate), :, column] = 1
        before = spikes.sum(0).astype(int)
        add_photon_noise(spikes, share, np.random.default_rng(seed))
        assert spikes.max() == 1
        changes.append(spikes.sum(0).astype(int) - before)
    change = np.concatenate(changes)
    assert (np.abs(change.mean(0)) < 0.15 * 100 * rates * share + 0.1).all()
    ratio = change.var(0) / (2 * share * (1 - share / 2) * 100 * rates)
    assert (ratio > 0.75).all() and (ratio < 1.25).all()


def test_hot_pixels_are_those_of_the_sample(tree: GoproTree) -> None:
    data = train(tree, spike_hot_pixels=1.0, spike={"representation": "count"})
    sample, plain = data[3]["L_spike"], train(tree, spike={"representation": "count"})[3]["L_spike"]
    hot = sample != plain
    assert torch.equal(hot[0], hot[1]) and torch.equal(hot[0], hot[2]) and 0 < hot.float().mean() < 1
    assert (sample[hot] == 2.0).all()  # every frame, times the threshold


def test_gain_scales_and_light_changes_frames_alone(tree: GoproTree) -> None:
    plain, gained = train(tree)[2], train(tree, spike_gain_jitter=0.3)[2]
    ratio = gained["L_spike"] / plain["L_spike"].clamp_min(1e-9)
    factor = ratio[plain["L_spike"] > 0]
    assert torch.allclose(factor, factor[0].expand_as(factor)) and 0.7 < float(factor[0]) < 1.3 and factor[0] != 1
    lit = train(tree, brightness_jitter=0.3)[2]
    assert torch.equal(lit["L_spike"], plain["L_spike"])
    shift = lit["L"] - plain["L"]
    inside = (lit["L"] > 0) & (lit["L"] < 1)
    assert float(shift[inside].std()) < 1e-6 and float(shift[inside].abs().mean()) > 0.001
    both = (lit["H"] - plain["H"])[(lit["H"] > 0) & (lit["H"] < 1)]
    assert abs(float(both.mean() - shift[inside].mean())) < 1e-6


def test_time_jitter_stays_inside_the_stream(narrow: GoproTree) -> None:
    """Exposures of 12 spike frames in 24: shifts up to 6 either way fit, larger ones are cut."""
    data = train(narrow, spike_time_jitter=9)
    shifts = set()
    for index in range(14):
        for epoch in range(4):
            change = data._change(data.draw(SampleIndex(epoch, index)))
            assert change is not None
            window = change.window(ExposureWindow(6, 18, 12), data.encoding, 24)
            assert window == ExposureWindow(6, 18, 12).shifted(min(max(change.time_shift, -6), 6))
            shifts.add(change.time_shift)
    assert min(shifts) < -6 and max(shifts) > 6
    raw = build_encoding({"representation": "raw", "length": 21}, 2.0)  # reads [2, 23), so only -2 to 1 fit
    assert SpikeChange(time_shift=6).window(ExposureWindow(6, 18, 12), raw, 24).center == 13
    assert SpikeChange(time_shift=-6).window(ExposureWindow(6, 18, 12), raw, 24).center == 10


def test_shifted_exposures_are_what_is_encoded(narrow: GoproTree) -> None:
    data = train(narrow, spike_time_jitter=3)
    window = next(w for i in range(14) if (w := data.draw(SampleIndex(0, i))) and data._change(w).time_shift == 2)
    sample, box = data.read(window)["L_spike"], window.box.scaled(1, 2)
    for k, frame in enumerate(window.frames):
        stream = SpikeStream(narrow.spike / window.clip.name / f"spike/{frame}.dat", 24, 32)
        moved = ExposureWindow(8, 20, 14)
        expected = data.encoding.encode_crop(stream, moved, box.top, box.left, 8, 8)
        assert np.array_equal(sample[k].numpy(), window.augmentation.space(expected))


def test_off_by_default_and_switches_are_independent(tree: GoproTree) -> None:
    plain = train(tree)
    for key, value in ALL.items():
        changed = train(tree, **{key: value})
        for index in (0, 9):
            first, second = plain.draw(SampleIndex(1, index)), changed.draw(SampleIndex(1, index))
            assert first == second
            differs = any(not torch.equal(plain[index][name], changed[index][name]) for name in ("L", "H", "L_spike"))
            assert differs or key in ("spike_time_jitter", "spike_photon_noise"), key
    assert plain._change(plain.draw(SampleIndex(0, 0))) is None


@pytest.mark.parametrize("mode", ["concat", "dual"])
def test_exact_under_flips_transposition_and_reversed_time(narrow: GoproTree, mode: str) -> None:
    """The changed sample, flipped and reversed, is the flipped and reversed changed sample, bit for bit."""
    data = train(narrow, **ALL, input_pack_mode=mode)
    window = data.draw(SampleIndex(2, 4))
    window = replace(window, frames=sorted(window.frames), augmentation=Augmentation())
    still = data.read(window)
    for augmentation in (
        Augmentation(hflip=True),
        Augmentation(vflip=True, transpose=True),
        Augmentation(reverse=True),
    ):
        order = window.frames[::-1] if augmentation.reverse else window.frames
        moved = data.read(replace(window, frames=order, augmentation=augmentation))
        for key in ("L", "H", "L_spike"):
            if key not in still:
                continue
            expected = augmentation.space(still[key].numpy())
            expected = augmentation.time(expected)
            if augmentation.reverse and key == "L_spike":
                expected = expected[:, ::-1]  # the bins run backwards too
            if augmentation.reverse and key == "L" and mode == "concat":
                expected = np.concatenate([expected[:, :3], expected[:, :2:-1]], axis=1)
            assert np.array_equal(moved[key].numpy(), expected), (augmentation, key)


def test_workers_do_not_change_samples(tree: GoproTree) -> None:
    def batches(workers: int) -> list[dict[str, Any]]:
        data = train(tree, **ALL, random_reverse=True)
        sampler = GlobalBatchSampler(len(data), 2, seed=5)
        loader = iter(DataLoader(data, batch_sampler=sampler, num_workers=workers, worker_init_fn=init_worker))
        return [next(loader) for _ in range(3)]

    for first, second in zip(batches(0), batches(2), strict=True):
        assert all(torch.equal(first[key], second[key]) for key in ("L", "H", "L_spike"))


def test_streams_without_change_are_as_they_were(tmp_path: Path, tree: GoproTree) -> None:
    path = tree.spike / tree.clips[0] / "spike/000000.dat"
    plain = SpikeStream(path, 24, 32)
    assert np.array_equal(
        ChangedStream(SpikeChange(), "name", path, 24, 32).get_spike_matrix(), plain.get_spike_matrix()
    )
    assert not SpikeChange(gain=1.1, time_shift=3).changes_spikes and SpikeChange(kept=0.9).changes_spikes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spike_photon_noise": 1.5}, "spike_photon_noise: 0 .off. or more, up to 1; got 1.5"),
        ({"spike_time_jitter": -1}, "spike_time_jitter: 0 .off. or more; got -1"),
        ({"brightness_jitter": 1.0}, "brightness_jitter: from 0 .off. to below 1"),
        ({"spike_gain_jitter": 0.1, "spike": {"representation": "voxel"}}, "spike_threshold_jitter changes the spikes"),
    ],
)
def test_mistakes(tree: GoproTree, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(tree, **options)


def test_gains_lie_on_both_sides_of_one() -> None:
    others = dict.fromkeys(("spike_threshold_jitter", "spike_photon_noise", "spike_hot_pixels"), 0.0)
    gains = [
        SpikeChange.draw((0, 0, index), spike_gain_jitter=0.2, spike_time_jitter=0, **others).gain
        for index in range(99)
    ]
    assert 0.8 <= min(gains) < 0.82 and 1.18 < max(gains) <= 1.2 and abs(np.mean(gains) - 1) < 0.03
