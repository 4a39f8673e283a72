"""spike_statistics.py: exact mean and deviation, quantiles, and a block that normalises."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from data.dataset_video_rgbspike import VideoRecurrentTrainDatasetRGBSpike
from scripts.data_preparation.spike_statistics import main, statistics
from tests.tiny import TinyRun


def test_numbers() -> None:
    frames = np.random.default_rng(0).normal([[[2.0]], [[-1.0]]], [[[0.5]], [[3.0]]], (6, 2, 40, 30)).astype(np.float32)
    mean, std, quantiles = statistics(iter(frames))
    assert np.allclose(mean, frames.mean((0, 2, 3)), atol=1e-6) and np.allclose(std, frames.std((0, 2, 3)), atol=1e-6)
    expected = np.quantile(frames.transpose(1, 0, 2, 3).reshape(2, -1), (0.01, 0.05, 0.5, 0.95, 0.99), axis=1)
    assert (np.abs(quantiles - expected) / std).max() < 0.25


def test_the_block_normalises_the_training_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = TinyRun.make(tmp_path)
    bins = ["datasets.train.spike.bins=3", "datasets.test.spike.bins=3"]
    flags = ["--opt", str(run.options), "--frames", "0", "--set", *bins]
    assert main([*flags, 'datasets.train.spike_normalize={"mean": 9, "std": 9}']) == 0
    out = capsys.readouterr().out
    assert "8 of 8 frames" in out and len(re.findall(r"(?m)^ +\d  ", out)) == 3
    block = json.loads("{" + out.splitlines()[-1] + "}")
    options = {"spike": {"representation": "tfp", "bins": 3}, "num_frame": 1, "gt_size": 24, "input_pack_mode": "dual"}
    data = VideoRecurrentTrainDatasetRGBSpike(**run.train_data.roots, **options, **block)
    values = torch.stack([torch.from_numpy(data.spikes.read(clip.name, list(clip.frames))) for clip in data.clips])
    assert values.mean((0, 1, 3, 4)).abs().max() < 1e-3 and (values.std((0, 1, 3, 4)) - 1).abs().max() < 1e-2


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = TinyRun.make(tmp_path)
    for path in run.train_data.spike.rglob("*.dat"):
        path.write_bytes(bytes(path.stat().st_size))
    assert main(["--opt", str(run.options)]) == 2
    assert "channels 0 have the same value everywhere" in capsys.readouterr().err
