"""docs/spikes_networks.md: its commands and its Python run with small data."""

import re
import shlex
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torchvision

import main_train_vrt
from data.spike.simulation.simulate import integrate_and_fire
from data.spike.spikling_npz import dump_spike_numpy
from models.network_spike_refine import SpikeRefine
from models.network_spikling import SemiUNet
from scripts import evaluate_reconstruction
from scripts.spikes import __main__ as spikes
from tests.docs.test_readme import ROOT, commands
from tests.tiny import alone
from utils.spike_loader import write_spikes
from utils.utils_image import imwrite_rgb

PAGE = "docs/spikes_networks.md"
COMMANDS = commands(PAGE)
SHRINK = [
    "train.total_iter=2",
    "datasets.train.dataloader_batch_size=2",
    "datasets.train.dataloader_num_workers=0",
    "logger.tensorboard=false",
]
SIZE = (250, 400)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the option files, and small data where the page expects it."""
    root = tmp_path_factory.mktemp("networks")
    (root / "options").symlink_to(ROOT / "options")
    rng = np.random.default_rng(0)
    (root / "trainsets/videos").mkdir(parents=True)
    video = cv2.VideoWriter(str(root / "trainsets/videos/clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 20, (208, 200))
    for frame in rng.integers(0, 255, (9, 200, 208, 3), np.uint8):
        video.write(cv2.GaussianBlur(frame, (9, 9), 3))
    video.release()
    tag = rng.integers(0, 256, (16, 16), np.uint8)
    seq = integrate_and_fire(np.repeat(tag[None] / 255, 32, axis=0), 1.0, rng)
    dump_spike_numpy(root / "trainsets/spikling/pair.npz", seq, tag)
    (root / "model_zoo").mkdir()
    convolutions = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["E"])
    weights = {f"features.{name}": value for name, value in convolutions.state_dict().items()}
    torch.save(weights, root / "model_zoo/vgg19-dcbb9e9d.pth")
    streams = {"REDS_BASE/test/spike/200_part1.dat": (61, *SIZE), "gopro_spike_sample/000226.dat": (88, 360, 640)}
    for name, shape in streams.items():
        write_spikes(root / "testsets" / name, rng.integers(0, 2, shape, np.uint8))
    imwrite_rgb(root / "testsets/REDS_BASE/test/gt/200_part1.png", np.full(SIZE, 90, np.uint8))
    imwrite_rgb(root / "testsets/gopro_spike_sample/000226.png", np.full((720, 1280, 3), 90, np.uint8))
    (root / "000226.dat").symlink_to(root / "testsets/gopro_spike_sample/000226.dat")
    return root


@pytest.mark.slow
def test_commands_and_python_run(clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """In the page's order: what is trained is then used and scored."""
    monkeypatch.chdir(clone)
    assert len(COMMANDS) == 9
    for command in COMMANDS:
        words = shlex.split(command)
        assert words[0] == "python"
        with alone():
            if words[1] == "main_train_vrt.py":
                shrink = SHRINK if "--set" in words else ["--set", *SHRINK]
                assert main_train_vrt.main([*words[2:], *shrink]) == 0
            elif words[2] == "scripts.spikes":
                assert spikes.main(words[3:]) == 0
            elif words[2] != "scripts.benchmark.threshold_table":  # tests/scripts/test_threshold_table.py runs that
                assert words[1:3] == ["-m", "scripts.evaluate_reconstruction"]
                assert evaluate_reconstruction.main(words[3:]) == 0
                assert capsys.readouterr().out.splitlines()[-1].startswith("| refine |")
    (source,) = re.findall(r"```python\n(.*?)```", (ROOT / PAGE).read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(source, PAGE, "exec"), names)
    assert names["picture"].shape == (360, 640) and names["picture"].dtype == np.uint8
    for name in ("reconstruction/200_part1.png", "spikes/000040.png", "spikes/000226.mp4"):
        assert (clone / "results" / name).is_file()


def test_parameters_of_the_page():
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    for name, network in (("semi_unet", SemiUNet()), ("spike_refine", SpikeRefine())):
        (line,) = [line for line in page.splitlines() if line.startswith(f"| `{name}`")]
        parameters, window = line.split("|")[2:4]
        assert int(parameters.replace(",", "")) == sum(p.numel() for p in network.parameters())
        assert int(window) == network.in_chans
