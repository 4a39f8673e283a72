"""Training at instants: frames, spikes and target of a sample belong to the same one; and `guided` trains from disk."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import main_train_vrt
from data.dataset_video_rgbspike import VideoRecurrentTrainDatasetRGBSpike
from data.sampler import SampleIndex
from data.spike.encoding import build_encoding
from data.spike.sync import ExposureWindow
from scripts.data_preparation.simulate_dataset import main as simulate
from tests.tiny import alone
from utils.spike_loader import SpikeStream
from utils.user_error import UserError
from utils.utils_image import imread_rgb

SPIKE = {"representation": "guided", "bins": 3}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One training clip of two frames of 32x48, with sharp pictures at spike frames 0, 8 (the centre) and 16."""
    folder = tmp_path_factory.mktemp("simulated") / "set"
    flags = "--n 3 --size 32 48 --train_clips 1 --train_frames 2 --test_clips 0 --instants 3"
    assert simulate(["--root", str(folder), *flags.split()]) == 0
    return folder


def section(root: Path) -> dict[str, object]:
    pictures = root / "GOPRO_Large"
    return {
        "dataroot_lq": str(pictures / "train_GT_blurred"),
        "dataroot_gt": str(pictures / "train_GT"),
        "dataroot_spike": str(root / "GOPRO_Large_spike_seq" / "train"),
        "dataroot_instants": str(pictures / "train_GT_instants"),
        "spike": SPIKE,
        "input_pack_mode": "dual",
        "num_frame": 2,
        "gt_size": 32,
    }


@pytest.mark.parametrize("reverse", [False, True])
def test_target_and_spikes_are_of_one_instant(root: Path, reverse: bool) -> None:
    still = {"use_hflip": False, "use_rot": False, "random_reverse": reverse}
    data = VideoRecurrentTrainDatasetRGBSpike(**section(root), **still)
    clip, encoding, drawn, turned = data.clips[0].name, build_encoding(SPIKE, 2.0), set(), set()
    for epoch in range(12):
        sample = data.draw(SampleIndex(epoch, 0))
        item, box = data.read(sample), sample.box
        turned.add(sample.augmentation.reverse)
        for number, frame in enumerate(sample.frames):
            matches = []
            for center in (0, 8, 16):
                path = root / "GOPRO_Large/train_GT_instants" / clip / f"{frame}_{center:04d}.png"
                if np.array_equal((item["H"][number].permute(1, 2, 0).numpy() * 255).round(), box.of(imread_rgb(path))):
                    matches.append(center)
            (center,) = matches
            drawn.add(center)
            spikes = SpikeStream(root / "GOPRO_Large_spike_seq/train" / clip / "spike" / f"{frame}.dat", 16, 24)
            block, window = spikes.get_spike_matrix(), ExposureWindow(0, 17, center)
            if sample.augmentation.reverse:
                block, window = block[::-1], window.reversed(len(block))
            expected = box.scaled(1, 2).of(encoding(block, window).transpose(1, 2, 0)).transpose(2, 0, 1)
            assert torch.equal(item["L_spike"][number], torch.from_numpy(np.ascontiguousarray(expected)))
    assert drawn == {0, 8, 16} and turned == {False, reverse}


def test_without_instants_it_is_the_centre(root: Path) -> None:
    options = {**section(root), "dataroot_instants": None}
    item = VideoRecurrentTrainDatasetRGBSpike(**options)[0]
    assert len({float(plane.mean()) for plane in item["L_spike"][:, -2]}) == 1


def test_guided_trains_from_disk(root: Path, tmp_path: Path) -> None:
    tree = {
        "task": "two_steps",
        "path": {"root": str(tmp_path)},
        "datasets": {
            "train": {
                "dataset_type": "VideoRecurrentTrainDatasetRGBSpike",
                **section(root),
                "dataloader_num_workers": 0,
                "dataloader_batch_size": 1,
            },
            "test": None,
        },
        "netG": {"net_type": "guided", "channels": 8, "blocks": [1, 1, 1]},
        "train": {"G_lossfn_type": "guided", "G_optimizer_lr": 1e-3, "total_iter": 2, "checkpoint_print": 1},
        "logger": {"tensorboard": False},
    }
    (tmp_path / "two_steps.json").write_text(json.dumps(tree))
    with alone():
        assert main_train_vrt.main(["--opt", str(tmp_path / "two_steps.json")]) == 0
    losses = re.findall(r"G_loss: (\S+)", (tmp_path / "two_steps" / "train.log").read_text())
    assert len(losses) == 2 and all(0 < float(loss) < 1 for loss in losses)


def test_mistakes(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dataroot_instants"):
        VideoRecurrentTrainDatasetRGBSpike(**{**section(root), "dataroot_instants": str(tmp_path / "none")})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "000000_0000.png").write_bytes(next((root / "GOPRO_Large").rglob("*.png")).read_bytes())
    with pytest.raises(UserError, match="not in dataroot_instants"):
        VideoRecurrentTrainDatasetRGBSpike(**{**section(root), "dataroot_instants": str(tmp_path)})
