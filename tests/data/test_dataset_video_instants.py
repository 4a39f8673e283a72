"""Instants of every exposure: frames, spikes and sharp pictures of each, on a simulated set that kept some."""

from pathlib import Path

import numpy as np
import pytest
import torch

from data.dataset_video_instants import VideoInstantsTestDataset
from data.spike.encoding import build_encoding
from data.spike.sync import ExposureWindow
from scripts.data_preparation.simulate_dataset import main as simulate
from utils.spike_loader import SpikeStream
from utils.user_error import UserError
from utils.utils_image import imread_rgb

SPIKE = {"representation": "guided", "bins": 3}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One test clip of two frames of 32x48 with five sharp instants each, at spike frames 0, 4, 8, 12 and 16."""
    folder = tmp_path_factory.mktemp("simulated") / "set"
    flags = "--n 3 --size 32 48 --train_clips 0 --test_clips 1 --test_frames 2 --instants 5"
    assert simulate(["--root", str(folder), *flags.split()]) == 0
    assert simulate(["--root", str(folder), *flags.split()]) == 0  # it is complete, and kept
    return folder


def instants(root: Path, times: list[float], **options: object) -> VideoInstantsTestDataset:
    pictures = root / "GOPRO_Large"
    given = {
        "dataroot_lq": str(pictures / "test_GT_blurred"),
        "dataroot_gt": str(pictures / "test_GT"),
        "dataroot_instants": str(pictures / "test_GT_instants"),
        "dataroot_spike": str(root / "GOPRO_Large_spike_seq" / "test"),
        "spike": SPIKE,
        "input_pack_mode": "dual",
        "times": times,
    }
    return VideoInstantsTestDataset(**{**given, **options})


def test_every_instant_is_a_frame(root: Path) -> None:
    data = instants(root, [0, 0.25, 0.3, 1])
    clip = data.clips[0]
    assert clip.frames == tuple(f"{frame:06d}_{number}" for frame in range(2) for number in range(4))
    spikes = SpikeStream(root / "GOPRO_Large_spike_seq/test" / clip.name / "spike/000001.dat", 16, 24)
    encoding = build_encoding(SPIKE, 2.0)
    for number, center in enumerate((0, 4, 5, 16)):
        sample = data.load(0, 4 + number, 5 + number)
        blurred = imread_rgb(root / "GOPRO_Large/test_GT_blurred" / clip.name / "000001.png")
        assert np.array_equal(sample["L"][0].permute(1, 2, 0).numpy() * 255, blurred)
        expected = encoding(spikes.get_spike_matrix(), ExposureWindow(0, 17, center))
        assert torch.equal(sample["L_spike"][0], torch.from_numpy(expected))
        path = root / "GOPRO_Large/test_GT_instants" / clip.name / f"000001_{center:04d}.png"
        assert ("H" in sample) == path.is_file() == (center != 5)
        if "H" in sample:
            assert np.array_equal((sample["H"][0].permute(1, 2, 0).numpy() * 255).round(), imread_rgb(path))
    assert "H" not in data.load(0, 4, 8) and data.load(0, 4, 6)["H"].shape == (2, 3, 32, 48)


def test_the_training_free_ratio_follows_the_instant(root: Path) -> None:
    data = instants(root, [0, 1])
    clip = data.clips[0]
    blurred = imread_rgb(root / "GOPRO_Large/test_GT_blurred" / clip.name / "000000.png")
    errors = np.zeros((2, 2))
    for number, name in enumerate(clip.frames[:2]):
        restored = data.training_free(clip.name, name, blurred)["sdm"].astype(float)
        for other, center in enumerate((0, 16)):
            sharp = imread_rgb(root / "GOPRO_Large/test_GT_instants" / clip.name / f"000000_{center:04d}.png")
            errors[number, other] = np.abs(restored - sharp).mean()
    assert errors[0, 0] < errors[0, 1] and errors[1, 1] < errors[1, 0]


def test_the_centre_has_the_sharp_frame_itself(root: Path) -> None:
    data = instants(root, [0.25, 0.5], dataroot_instants=None)
    assert "H" not in data.load(0, 0, 1) and "H" in data.load(0, 1, 2)
    assert list(data.content(0)) != list(instants(root, [0.5]).content(0))


def test_mistakes(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="times: "):
        instants(root, [0.5, 0.25])
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="dataroot_instants"):
        instants(root, [0.5], dataroot_instants=str(tmp_path))
