"""Training sets of generated scenes: the layout for training data sets, and other photographs than the benchmark's."""

from pathlib import Path

import numpy as np
import pytest

from data.dataset_video_rgbspike import VideoRecurrentTrainDatasetRGBSpike
from data.spike.simulation.benchmark_set import GeneratedScenes
from data.spike.simulation.canvas import HELD_OUT_PHOTOGRAPHS
from scripts.benchmark.benchmark_clips import read_list
from scripts.data_preparation.generate_scenes import main
from scripts.flags import BENCHMARK_LIST

SMALL = ["--clips", "2", "--frames", "3", "--size", "32", "--n", "3"]


def test_a_training_set_is_made_of_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "scenes"
    assert main(["--root", str(root), *SMALL]) == 0
    train = VideoRecurrentTrainDatasetRGBSpike(
        dataroot_gt=str(root / "GOPRO_Large" / "train_GT"),
        dataroot_lq=str(root / "GOPRO_Large" / "train_GT_blurred"),
        dataroot_spike=str(root / "GOPRO_Large_spike_seq" / "train"),
        spike={"representation": "count"},
        input_pack_mode="dual",
        num_frame=3,
        gt_size=32,
    )
    sample = train[0]
    assert sample["L"].shape == (3, 3, 32, 32) and sample["L_spike"].shape == (3, 1, 16, 16)
    # Rate x threshold over the exposure is the blurred frame's brightness.
    assert float(sample["L_spike"].mean()) == pytest.approx(float(sample["L"].mean()), abs=0.05)
    assert not np.allclose(sample["L"], sample["H"])
    before = (root / "simulation.json").stat().st_mtime_ns
    assert main(["--root", str(root), *SMALL]) == 0 and (root / "simulation.json").stat().st_mtime_ns == before
    assert main(["--root", str(root), *SMALL, "--seed", "1"]) == 2
    assert main(["--root", str(tmp_path / "large"), *SMALL, "--size", "256"]) == 2
    assert "from 8 to 192" in capsys.readouterr().err


def test_photographs_of_trainings_and_of_the_benchmark_are_apart() -> None:
    protocol = read_list(BENCHMARK_LIST)[0]
    train, test = (GeneratedScenes(protocol, split).canvases.names for split in ("train", "test"))
    assert test == HELD_OUT_PHOTOGRAPHS and not set(train) & set(test)
