"""scripts/benchmark/bench_spikes.py on a small stream: both decoders agree, every job has a row."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scripts.benchmark.bench_spikes import measure, plain_voxels
from utils.spike_loader import SpikeStream, write_spikes


def small_stream(path: Path, height: int = 98, width: int = 104) -> Path:
    write_spikes(path, np.random.default_rng(0).integers(0, 2, (44, height, width), np.uint8))
    return path


def test_rows(tmp_path: Path) -> None:
    rows = measure(small_stream(tmp_path / "a.dat"), 98, 104, repeats=2)
    assert [row["job"] for row in rows] == ["whole file", "block", "crop"]
    for row in rows:
        assert row["ours_ms"] > 0 and row["ratio"] == row["plain_ms"] / row["ours_ms"]


def test_decoders_that_disagree_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SpikeStream, "get_spike_matrix", lambda self: self.get_block_spikes(0, len(self), flipud=False))
    with pytest.raises(AssertionError, match="disagree on: whole file"):
        measure(small_stream(tmp_path / "a.dat"), 98, 104, repeats=1)


def test_stream_too_small(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.dat: 41 frames of 96x96"):
        measure(small_stream(tmp_path / "a.dat", 90), 90, 104, repeats=1)


def test_plain_voxels() -> None:
    np.testing.assert_allclose(plain_voxels(np.ones((3, 1, 1)), 2)[:, 0, 0], np.log1p([1.5, 1.5]), rtol=1e-6)


@pytest.mark.slow
def test_command(tmp_path: Path, repository: Path) -> None:
    command = [sys.executable, "scripts/benchmark/bench_spikes.py", "--dat", str(small_stream(tmp_path / "a.dat"))]
    size = ["--spike_h", "98", "--spike_w", "104", "--repeats", "1"]
    done = subprocess.run([*command, *size, "--json"], cwd=repository, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["shape"] == [44, 98, 104]
    done = subprocess.run([*command, *size], cwd=repository, capture_output=True, text=True, check=True)
    assert "whole file" in done.stdout and "a.dat: 44 frames of 98x104" in done.stdout
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Give spike_h and spike_w" in done.stderr
