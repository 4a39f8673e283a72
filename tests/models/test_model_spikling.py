"""Spikling's losses, and a whole run of its entry script on pairs that the test makes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import main_train_vrt
from data.spike.simulation.simulate import integrate_and_fire
from data.spike.spikling_npz import dump_spike_numpy
from models.model_spikling import ModelSpikling
from models.network_spikling import generate
from models.select_network import define_G, load_weights
from models.training.perceptual import VGGLoss
from tests.tiny import alone
from utils.spike_loader import write_spikes
from utils.utils_dist import Dist
from utils.utils_image import imwrite_rgb
from utils.utils_option import load_options

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "options" / "spikling" / "train_spikling.json"


class First(nn.Module):
    """Shows the first channel, times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, L: torch.Tensor) -> torch.Tensor:
        return self.weight * L[:, :, :1]


def test_losses_are_spiklings():
    options = load_options(RECIPE, ["train.vgg_weights=random"]).train
    torch.manual_seed(0)
    model = ModelSpikling(First(), options, Dist(0, 1, 0, torch.device("cpu")))
    L, H = torch.rand(2, 1, 32, 16, 16), torch.rand(2, 1, 1, 16, 16)
    losses = model.compute_losses({"L": L, "H": H})
    signed = (2 * L[:, :, :1] - 1) - (2 * H - 1)
    torch.testing.assert_close(losses["G_pixel"], 100 * signed.square().mean())
    assert model.perceptual_loss is not None
    colour = [picture.expand(-1, -1, 3, -1, -1) for picture in (L[:, :, :1], H)]
    torch.testing.assert_close(losses["G_perceptual"], model.perceptual_loss(*colour))
    assert losses["G_perceptual"].item() > 0
    adam = model.optimizer.param_groups[0]
    assert (adam["lr"], adam["betas"]) == (2e-4, (0.5, 0.999))


def test_squared_distance_of_features():
    torch.manual_seed(0)
    absolute = VGGLoss(vgg_weights="random", vgg_layers=["conv1_1"])
    squared = VGGLoss(vgg_weights="random", vgg_layers=["conv1_1"], vgg_distance="l2")
    squared.load_state_dict(absolute.state_dict())
    frames, targets = torch.rand(1, 1, 3, 8, 8), torch.rand(1, 1, 3, 8, 8)
    features = [squared.features[0]((clip[0] - squared.mean) / squared.std) for clip in (frames, targets)]
    torch.testing.assert_close(squared(frames, targets), (features[0] - features[1]).square().mean())
    torch.testing.assert_close(absolute(frames, targets), (features[0] - features[1]).abs().mean())


def test_vgg_weights_may_be_the_convolutions_alone(tmp_path: Path):
    """As spikling's vgg19-conv.pth: names features.N, no classifier."""
    torch.manual_seed(0)
    loss = VGGLoss(vgg_type="vgg19", vgg_weights="random", vgg_layers=["pool5"])
    weights = {f"features.{name}": value for name, value in loss.features.state_dict().items()}
    torch.save(weights, tmp_path / "vgg19-conv.pth")
    loaded = VGGLoss(vgg_type="vgg19", vgg_path=tmp_path / "vgg19-conv.pth", vgg_layers=["relu1_1"])
    torch.testing.assert_close(loaded.features[0].weight, loss.features[0].weight)
    torch.save({name: weights[name] for name in list(weights)[:4]}, tmp_path / "vgg19-conv.pth")
    with pytest.raises(ValueError, match="missing in the checkpoint"):
        VGGLoss(vgg_type="vgg19", vgg_path=tmp_path / "vgg19-conv.pth")


def train(root: Path, *overrides: str, recipe: Path = RECIPE) -> int:
    """A recipe, made small, in this process."""
    small = [
        "datasets.train.dataloader_batch_size=2",
        "datasets.train.dataloader_num_workers=0",
        f"path.root={root / 'experiments'}",
        "logger.tensorboard=false",
        "train.vgg_weights=random",
        'train.vgg_layers=["relu1_1"]',
        "train.checkpoint_print=1",
    ]
    with alone():
        return main_train_vrt.main(["--opt", str(recipe), "--set", *small, *overrides])


@pytest.mark.slow
def test_trains_from_npz_pairs_and_generates(tmp_path: Path):
    rng = np.random.default_rng(0)
    for index in range(2):
        tag = rng.integers(0, 256, (16, 20), np.uint8)
        seq = integrate_and_fire(np.repeat(tag[None] / 255, 32, axis=0), 1.0, rng)
        dump_spike_numpy(tmp_path / "pairs" / f"{index}.npz", seq, tag)
    test_set: dict[str, Any] = {"dataset_type": "SpiklingTestDataset", "dataroot": str(tmp_path / "pairs")}
    data = [f"datasets.train.dataroot={tmp_path / 'pairs'}", f"datasets.test={json.dumps(test_set)}"]
    assert train(tmp_path, *data, "train.total_iter=12") == 0
    folder = tmp_path / "experiments" / "train_spikling"
    log = (folder / "train.log").read_text()
    losses = [float(line.split("G_loss: ")[1].split()[0]) for line in log.splitlines() if "G_loss: " in line]
    assert len(losses) == 12 and losses[-1] < 0.6 * losses[0]
    assert "semi_unet: 2,895,904 parameters" in log and "Average PSNR" in log

    opt = load_options(folder / "options" / "resolved.json")
    assert opt.netG.in_chans == 32
    network = define_G(opt.netG)
    load_weights(network, folder)
    picture = generate(network.eval(), seq, 0)
    # Twelve steps are enough to be nearer to the scene than a gray picture.
    assert picture.shape == tag.shape and np.abs(picture - tag.astype(float)).mean() < 0.8 * np.abs(tag - 127.5).mean()


@pytest.mark.slow
def test_spike_zoos_layout_trains_and_is_tested(tmp_path: Path):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        light = np.repeat(rng.integers(0, 256, (1, 16, 20), np.uint8), 61, axis=0)
        write_spikes(tmp_path / split / "spike" / "clip.dat", integrate_and_fire(light / 255, 1 / 0.6, rng))
        imwrite_rgb(tmp_path / split / "gt" / "clip.png", light[30])
    (tmp_path / "config.yaml").write_text("spike_h: 16\nspike_w: 20\n")
    kind = {"layout": "base", "window": 61, "spike_threshold": 1 / 0.6}
    test_set = {"dataset_type": "SpiklingTestDataset", "dataroot": str(tmp_path / "test"), **kind}
    train_set = {"dataset_type": "SpiklingDataset", "dataroot": str(tmp_path / "train"), "gt_size": 16, **kind}
    options = {
        "base": str(RECIPE.with_name("train_spike_refine.json")),
        "datasets": {"train": train_set, "test": test_set},
    }
    (tmp_path / "base.json").write_text(json.dumps(options))
    assert train(tmp_path, "train.total_iter=2", recipe=tmp_path / "base.json") == 0
    log = (tmp_path / "experiments" / "train_spike_refine" / "train.log").read_text()
    score = float(log.split("Average PSNR: ")[1].split()[0])
    assert score > 22, "a network that starts from firing rates is near a still scene"


def test_the_network_has_the_window_of_the_data():
    with pytest.raises(ValueError, match=r"netG\.in_chans.*is 16, but datasets\.train delivers 32"):
        load_options(RECIPE, ["netG.in_chans=16"])
    assert load_options(RECIPE, ["datasets.train.window=24"]).netG.in_chans == 24
