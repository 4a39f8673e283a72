"""The cache of encoded spikes: the same numbers, and never stale ones."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import data.spike_cache
from data.dataset_video_rgbspike import VideoRecurrentTestDatasetRGBSpike, VideoRecurrentTrainDatasetRGBSpike
from data.sampler import SampleIndex
from data.spike_io import SpikeFrames
from tests.data.trees import GoproTree, write_dat

VOXEL = {"representation": "voxel", "bins": 6}


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the frames that are decoded from now on."""
    frames: list[str] = []
    decode = SpikeFrames._decode

    def count(self: SpikeFrames, clip: str, file: Any, *rest: Any) -> np.ndarray:
        frames.append(f"{clip}/{file.path.stem}")
        return decode(self, clip, file, *rest)

    monkeypatch.setattr(SpikeFrames, "_decode", count)
    return frames


def whole(tree: GoproTree, cache: Path | None, **options: Any) -> torch.Tensor:
    """The spikes of the first clip."""
    defaults = {"spike": VOXEL, "input_pack_mode": "dual", "spike_cache": None if cache is None else str(cache)}
    return VideoRecurrentTestDatasetRGBSpike(**{**tree.roots, **defaults, **options})[0]["L_spike"]


@pytest.mark.parametrize("mode", ["concat", "dual"])
def test_samples_are_equal_and_decoded_once(tree: GoproTree, tmp_path: Path, decoded: list[str], mode: str) -> None:
    options: dict[str, Any] = {"spike": VOXEL, "num_frame": 3, "gt_size": 16, "input_pack_mode": mode}
    plain = VideoRecurrentTrainDatasetRGBSpike(**tree.roots, **options, random_reverse=True)
    cached = VideoRecurrentTrainDatasetRGBSpike(
        **tree.roots, **options, random_reverse=True, spike_cache=str(tmp_path / "cache")
    )
    for _ in range(2):
        del decoded[:]
        for epoch in range(3):
            for index in (0, 4, 9):
                first, second = plain[SampleIndex(epoch, index)], cached[SampleIndex(epoch, index)]
                assert all(torch.equal(first[key], second[key]) for key in first if key != "key")
    assert len(decoded) == 27  # by the plain one alone


def change_content(tree: GoproTree) -> dict[str, Any]:
    """Other spikes of the same size, and the times set back: only the inode's own time tells."""
    path = tree.spike / tree.clips[0] / "spike/000000.dat"
    times = path.stat()
    write_dat(path, np.zeros((24, 24, 32), np.uint8))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    return {}


def change_exposure(tree: GoproTree) -> dict[str, Any]:
    path = tree.spike / tree.clips[0] / "sync.json"
    path.write_text(path.read_text().replace('"spike_end": 24', '"spike_end": 20'))
    return {}


@pytest.mark.parametrize(
    "change",
    [
        change_content,
        change_exposure,
        lambda _: {"spike": {"representation": "voxel", "bins": 6, "log1p": False}},
        lambda _: {"spike": {"representation": "tfp", "bins": 6}},
        lambda _: {"spike_normalize": {"mean": 0.1, "std": 0.5}},
        lambda _: {"hot_pixel_filter": 0.2},
        lambda _: {"spike_flipud": False},
        lambda _: {"spike_perturb": {"kind": "shift", "amount": 3}},
        lambda _: {"spike_perturb": {"kind": "shift", "amount": 4}},
        lambda _: {"spike": {"representation": "tfp", "bins": 6}, "spike_threshold": 1.0},
    ],
)
def test_nothing_stale_is_read(tree: GoproTree, tmp_path: Path, change: Any) -> None:
    before = whole(tree, tmp_path / "cache")
    options = change(tree)
    after = whole(tree, tmp_path / "cache", **options)
    assert torch.equal(after, whole(tree, None, **options)) and not torch.equal(after, before)


def test_other_code_is_another_key(tree: GoproTree, tmp_path: Path, decoded: list[str], monkeypatch: Any) -> None:
    whole(tree, tmp_path / "cache")
    whole(tree, tmp_path / "cache")
    assert len(decoded) == 7
    monkeypatch.setattr(data.spike_cache, "code_version", lambda: "another")
    whole(tree, tmp_path / "cache")
    assert len(decoded) == 14


def test_changed_samples_are_not_cached(tree: GoproTree, tmp_path: Path) -> None:
    options: dict[str, Any] = {"spike": VOXEL, "num_frame": 3, "gt_size": 16, "spike_photon_noise": 0.5}
    cached = VideoRecurrentTrainDatasetRGBSpike(**tree.roots, **options, spike_cache=str(tmp_path / "cache"))
    plain = VideoRecurrentTrainDatasetRGBSpike(**tree.roots, **options)
    assert torch.equal(cached[2]["L"], plain[2]["L"]) and not (tmp_path / "cache").exists()
