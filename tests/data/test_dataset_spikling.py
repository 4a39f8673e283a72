"""Windows of spikes with their sharp pictures: every source, crops, seeds, and what can't be used."""

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from data.dataset_spikling import SpiklingDataset, SpiklingTestDataset
from data.sampler import SampleIndex
from data.spike.simulation.simulate import integrate_and_fire
from data.spike.spikling_npz import dump_spike_numpy
from data.spike_pairs import Sensor
from utils.spike_loader import write_spikes

SIZE = (40, 48)


def scene(frames: int, seed: int = 0) -> np.ndarray:
    """A smooth gray picture that moves, (frames, *SIZE) uint8."""
    coarse = np.random.default_rng(seed).integers(40, 250, (12, 14), np.uint8)
    wide = cv2.resize(coarse, (SIZE[1] + 2 * frames, SIZE[0]), interpolation=cv2.INTER_CUBIC)
    return np.stack([wide[:, t : t + SIZE[1]] for t in range(frames)])


@pytest.fixture
def npz_root(tmp_path: Path) -> Path:
    """Two of spikling's pairs, 32 frames each, of still scenes."""
    for index in range(2):
        tag = scene(1, index)[0]
        light = np.repeat(tag[None] / 255, 32, axis=0)
        dump_spike_numpy(tmp_path / f"pair{index}.npz", integrate_and_fire(light, 1.0, np.random.default_rng(0)), tag)
    return tmp_path


@pytest.fixture
def base_root(tmp_path: Path) -> Path:
    """Spike-Zoo's layout with one stream of 51 frames, threshold 2, whose picture is at frame 25."""
    light = scene(51)
    write_spikes(tmp_path / "spike" / "clip.dat", integrate_and_fire(light / 255, 2.0, np.random.default_rng(0)))
    (tmp_path / "gt").mkdir()
    cv2.imwrite(str(tmp_path / "gt" / "clip.png"), light[25])
    return tmp_path


@pytest.fixture
def video_root(tmp_path: Path) -> Path:
    """A folder of frames: five colour pictures, twice the size."""
    (tmp_path / "walk").mkdir()
    for index, frame in enumerate(scene(13)[::3]):
        large = cv2.resize(frame, SIZE[::-1], fx=0, fy=0)
        cv2.imwrite(str(tmp_path / "walk" / f"{index:03d}.png"), cv2.resize(large, (2 * SIZE[1], 2 * SIZE[0])))
    return tmp_path


def make(root: Path, **options: Any) -> SpiklingDataset:
    return SpiklingDataset(dataroot=str(root), **options)


def test_npz_pairs_are_spiklings_bit_for_bit(npz_root: Path):
    dataset = make(npz_root, use_hflip=False, use_rot=False, spike_threshold=1.5)
    assert len(dataset) == 2
    sample = dataset[1]
    tag = scene(1, 1)[0]
    np.testing.assert_array_equal(sample["H"][0, 0].numpy() * 255, tag)
    assert sample["L"].shape == (1, 32, *SIZE) and sample["key"] == "pair1"
    assert set(sample["L"].unique().tolist()) == {0.0, 1.5}
    # 32 frames of a still scene at rate = intensity, off by less than one spike.
    assert ((sample["L"][0] / 1.5).sum(0) - 32 * sample["H"][0, 0]).abs().max() < 1


def test_augmentation_moves_spikes_and_picture_alike(npz_root: Path):
    dataset, plain = make(npz_root, gt_size=16), make(npz_root, use_hflip=False, use_rot=False)
    whole = plain[0]
    pictures, places = set(), set()
    for epoch in range(12):
        sample = dataset[SampleIndex(epoch, 0)]
        assert ((sample["L"][0]).sum(0) - 32 * sample["H"][0, 0]).abs().max() < 1
        pictures.add(sample["H"].numpy().tobytes())
        places.add(float(sample["H"].mean()))
        again = dataset[SampleIndex(epoch, 0)]
        assert torch.equal(sample["L"], again["L"]) and torch.equal(sample["H"], again["H"])
    assert len(pictures) > 8 and len(places) > 4
    assert min(places) >= float(whole["H"].min())


def test_pictures_that_are_not_square_are_flipped_but_not_turned(npz_root: Path):
    assert {make(npz_root)[SampleIndex(epoch, 0)]["H"].shape for epoch in range(8)} == {(1, 1, *SIZE)}


def test_longer_pairs_give_their_middle(npz_root: Path):
    whole, part = (
        make(npz_root, use_hflip=False, use_rot=False),
        make(npz_root, window=9, use_hflip=False, use_rot=False),
    )
    assert torch.equal(part[0]["L"], whole[0]["L"][:, 12:21])  # frame 9 // 2 of it is frame 16


def test_base_layout(base_root: Path):
    dataset = SpiklingTestDataset(
        dataroot=str(base_root), layout="base", window=31, spike_threshold=2.0, spike_h=SIZE[0], spike_w=SIZE[1]
    )
    sample = dataset[0]
    light = scene(51)
    expected = integrate_and_fire(light / 255, 2.0, np.random.default_rng(0))[10:41]
    np.testing.assert_array_equal(sample["L"][0].numpy(), 2.0 * expected)
    np.testing.assert_array_equal(sample["H"][0, 0].numpy() * 255, light[25])
    assert sample["folder"] == dataset.clips[0].name == "clip" and sample["lq_path"] == ["clip"]
    early = make(
        base_root, layout="base", window=11, spike_center=5, spike_h=40, spike_w=48, use_hflip=False, use_rot=False
    )
    assert early[0]["L"].shape == (1, 11, *SIZE)


def test_base_layout_takes_the_set_itself_and_knows_its_threshold(
    base_root: Path, tmp_path_factory: pytest.TempPathFactory
):
    parent = tmp_path_factory.mktemp("set")
    for split in ("train", "test"):
        shutil.copytree(base_root, parent / split)
    size = {"spike_h": SIZE[0], "spike_w": SIZE[1]}
    for kind in (SpiklingDataset, SpiklingTestDataset):
        dataset = kind(dataroot=str(parent), layout="base", window=31, **size)
        assert dataset.source.streams[0].filepath.parts[-3] == kind.split
        assert dataset.source.threshold == pytest.approx(1 / 0.6)
    (parent / "test" / "spike" / "config.yaml").write_text("spike_h: 40\nspike_w: 48\nspike_threshold: 2\n")
    assert SpiklingTestDataset(dataroot=str(parent), layout="base", window=31, **size).source.threshold == 2


def test_videos_are_simulated_from_the_seed_alone(video_root: Path, tmp_path_factory: pytest.TempPathFactory):
    cache = tmp_path_factory.mktemp("cache")
    options: dict[str, Any] = {"layout": "videos", "window": 17, "gt_size": 24, "sim_ticks": 8, "sim_strides": [1]}
    first = make(video_root, sim_cache=str(cache), **options)
    (kept,) = cache.iterdir()
    again, in_memory = make(video_root, sim_cache=str(cache), **options), make(video_root, **options)
    assert list(cache.iterdir()) == [kept] and len(first) == 3  # of five frames those with one on either side
    for epoch in range(3):
        samples = [dataset[SampleIndex(epoch, 1)] for dataset in (first, again, in_memory)]
        assert all(torch.equal(samples[0][key], other[key]) for other in samples[1:] for key in ("L", "H"))
    assert len({first[SampleIndex(epoch, 1)]["L"].max().item() for epoch in range(3)}) == 3, "thresholds vary"
    # The sharp picture is the video's own frame at the sensor's size.
    whole = make(video_root, **{**options, "gt_size": 0}, use_hflip=False, use_rot=False)
    frame = cv2.imread(str(video_root / "walk" / "002.png"), cv2.IMREAD_GRAYSCALE)
    seen = cv2.resize(frame, SIZE[::-1], interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(whole[1]["H"][0, 0].numpy() * 255, seen, atol=1)
    assert whole[1]["key"] == "walk/000002"


def test_pictures_move_under_a_camera(video_root: Path):
    options: dict[str, Any] = {"layout": "pictures", "window": 21, "gt_size": 24, "sim_threshold": [1.0, 1.0]}
    moving, still = make(video_root, **options), make(video_root, **options, sim_speed=[0.0, 0.0])
    assert len(moving) == 5 and moving.source.size(0) == SIZE

    def change(dataset: SpiklingDataset) -> float:
        light = dataset[SampleIndex(3, 2)]["L"][0]
        return float((light[:10].mean(0) - light[11:].mean(0)).abs().mean())

    assert torch.equal(moving[SampleIndex(3, 2)]["L"], moving[SampleIndex(3, 2)]["L"])
    assert 1.5 * change(still) < change(moving)
    sample = still[0]
    assert (sample["L"][0].mean(0) - sample["H"][0, 0]).abs().max() < 1 / 21 + 0.01


def test_sensor_draws_what_it_is_told():
    light = np.full((60, 8, 8), 128, np.uint8)
    pair = Sensor((2.0, 2.0), (0.5, 0.5)).fire(light, np.random.default_rng(0))
    assert pair.threshold == 2.0 and (pair.sharp == 64).all()
    assert abs(pair.spikes.mean() * 2 - 64 / 255) < 0.02
    uneven = Sensor((1.0, 1.0), gain_spread=0.5).fire(light, np.random.default_rng(1)).spikes.mean(0)
    even = Sensor((1.0, 1.0)).fire(light, np.random.default_rng(0)).spikes.mean(0)
    assert uneven.std() > 3 * even.std()
    dark = Sensor(spurious=0.5).fire(np.zeros_like(light), np.random.default_rng(1))
    assert 0.1 < dark.spikes.mean() < 0.5
    assert not Sensor().fire(np.zeros_like(light), np.random.default_rng(0)).spikes.any()
    for wrong in ({"threshold": (0.0, 1.0)}, {"gain": (0.5, 1.5)}, {"gain_spread": -1.0}, {"spurious": 1.1}):
        with pytest.raises(ValueError, match=r"sim_|noise: "):
            Sensor(**wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 33}, "32 spike frames, but window is 33"),
        ({"gt_size": 41}, "smaller than the crop of 41: 2 of 2, first pair0"),
        ({"window": 0}, "window: 1 or more; got 0"),
        ({"sim_ratio": 0}, "sim_ratio: 1 or more; got 0"),
        ({"layout": "pictures"}, "no frame that can be decoded|cannot be decoded"),
        ({"layout": "base"}, "contains no spike streams|should contain spike streams"),
        ({"layout": "videos", "sim_strides": []}, "sim_strides"),
        ({"layout": "pictures", "sim_gain": [1.0]}, r"a range is \[least, greatest\]"),
    ],
)
def test_what_cannot_be_used_is_told(npz_root: Path, options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        make(npz_root, **options)


def test_missing_pairs_and_pictures_are_told(base_root: Path):
    with pytest.raises(ValueError, match=r"no such folder; it should contain spikling's \.npz pairs"):
        make(base_root / "nowhere")
    with pytest.raises(ValueError, match=r"frames \[-5, 56\) exceed its 51"):
        make(base_root, layout="base", window=61, spike_h=40, spike_w=48)
    with pytest.raises(ValueError, match="give both or neither"):
        make(base_root, layout="base", spike_h=40)
    (base_root / "gt" / "clip.png").unlink()
    with pytest.raises(ValueError, match=r"clip\.png: cannot be read"):
        make(base_root, layout="base", spike_h=40, spike_w=48)


def test_short_videos_are_told(video_root: Path):
    with pytest.raises(ValueError, match="need 9 video frames"):
        make(video_root, layout="videos", window=61, sim_ticks=8, sim_strides=[1])
