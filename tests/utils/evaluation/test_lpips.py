"""LPIPS by its definition, with weights that the test writes; the published package where it is there."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor
from torch.nn import functional

from utils.evaluation.lpips import BACKBONES, LPIPS, missing_files

CHANNELS = {"alex": [64, 192, 384, 256, 256], "vgg": [64, 128, 256, 512, 512]}
NETS = list(BACKBONES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of both networks, as torchvision and the package name and shape them."""
    path = tmp_path_factory.mktemp("lpips")
    generator = torch.Generator().manual_seed(0)
    for net, backbone in BACKBONES.items():
        with torch.device("meta"):
            shapes = torchvision.models.get_model(backbone.architecture, weights=None).features.state_dict()
        weights = {
            f"features.{name}": torch.randn(value.shape, generator=generator) * (2 / value[0].numel()) ** 0.5
            for name, value in shapes.items()
        }
        torch.save(weights, path / backbone.file)
        linear = {
            f"lin{index}.model.1.weight": torch.rand(1, count, 1, 1, generator=generator)
            for index, count in enumerate(CHANNELS[net])
        }
        torch.save(linear, path / backbone.linear_file)
    return path


def pictures() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (64, 72, 3), np.uint8), rng.integers(0, 256, (64, 72, 3), np.uint8)


def by_definition(a: np.ndarray, b: np.ndarray, folder: Path, net: str) -> float:
    """LPIPS written out for one pair: layers by their functions, channels one after the other."""
    weights = torch.load(folder / BACKBONES[net].file)
    linear = torch.load(folder / BACKBONES[net].linear_file)
    layers = {
        "alex": "c0s4p2 r m32 c3s1p2 r m32 c6s1p1 r c8s1p1 r c10s1p1 r",
        "vgg": "c0s1p1 - c2s1p1 r m22 c5s1p1 - c7s1p1 r m22 c10s1p1 - c12s1p1 - c14s1p1 r m22 "
        "c17s1p1 - c19s1p1 - c21s1p1 r m22 c24s1p1 - c26s1p1 - c28s1p1 r",
    }[net].split()

    def features(picture: np.ndarray) -> list[Tensor]:
        mean, deviation = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        x = ((torch.from_numpy(picture) / 127.5 - 1 - mean) / deviation).permute(2, 0, 1)[None]
        found = []
        for layer in layers:
            if layer[0] == "c":
                index, rest = layer[1:].split("s")
                stride, padding = map(int, rest.split("p"))
                name = f"features.{index}"
                x = functional.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], stride, padding)
            elif layer[0] == "m":
                x = functional.max_pool2d(x, int(layer[1]), int(layer[2]))
            else:
                x = x.clamp(min=0)
                if layer == "r":
                    found.append(x[0])
        return found

    total = 0.0
    for index, (x, y) in enumerate(zip(features(a), features(b), strict=True)):
        difference = (x / x.norm(dim=0) - y / y.norm(dim=0)) ** 2
        weight = linear[f"lin{index}.model.1.weight"].flatten()
        total += sum(float(weight[channel] * difference[channel].mean()) for channel in range(len(weight)))
    return total


@pytest.mark.parametrize("net", NETS)
def test_lpips_is_its_definition(folder: Path, net: str) -> None:
    a, b = pictures()
    lpips = LPIPS(folder, net)
    assert lpips.of_pictures(a, b) == pytest.approx(by_definition(a, b, folder, net), rel=1e-4)
    assert lpips.of_pictures(a, b) == pytest.approx(lpips.of_pictures(b, a), rel=1e-6)
    assert lpips.of_pictures(a, a) == 0


def test_a_batch_is_its_pictures(folder: Path) -> None:
    a, b = (torch.rand(3, 3, 64, 64) for _ in range(2))
    lpips = LPIPS(folder)
    assert lpips(a, b) == pytest.approx([float(lpips(a[i : i + 1], b[i : i + 1])) for i in range(3)], rel=1e-5)


@pytest.mark.skipif(importlib.util.find_spec("lpips") is None, reason="the package lpips is not installed")
def test_the_published_package_measures_the_same(folder: Path) -> None:
    import lpips as published

    reference = published.LPIPS(pretrained=False, pnet_rand=True, verbose=False)
    weights = torch.load(folder / BACKBONES["alex"].file)
    own = {name: weights[f"features.{name.split('.', 1)[1]}"] for name in reference.net.state_dict()}
    reference.net.load_state_dict(own)
    reference.load_state_dict(torch.load(folder / "alex.pth"), strict=False)
    a, b = (torch.rand(2, 3, 64, 80) for _ in range(2))
    expected = reference(a, b, normalize=True).flatten().detach()
    torch.testing.assert_close(LPIPS(folder)(a, b), expected, rtol=1e-4, atol=1e-6)


def test_files_that_are_not_there_or_not_theirs(folder: Path, tmp_path: Path) -> None:
    names = ["alexnet-owt-7be5be79.pth", "alex.pth"]
    assert missing_files(tmp_path) == [tmp_path / name for name in names]
    assert missing_files(folder) == missing_files(folder, "vgg") == []
    with pytest.raises(ValueError, match=r"alexnet-owt-7be5be79\.pth and .*alex\.pth; docs/evaluation\.md"):
        LPIPS(tmp_path)
    for name in names:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "alex.pth").write_bytes((folder / "vgg.pth").read_bytes())
    with pytest.raises(ValueError, match=r"alex\.pth: no LPIPS 0\.1 weights: lin1"):
        LPIPS(tmp_path)
    (tmp_path / names[0]).write_bytes((folder / BACKBONES["vgg"].file).read_bytes())
    with pytest.raises(ValueError, match="not torchvision's alexnet"):
        LPIPS(tmp_path)
    with pytest.raises(ValueError, match="alex or vgg, not 'squeeze'"):
        LPIPS(folder, "squeeze")  # type: ignore[arg-type]


def test_pictures_that_are_too_small(folder: Path) -> None:
    a, b = pictures()
    with pytest.raises(ValueError, match="at least 64 x 64 pixels, not 63 x 72"):
        LPIPS(folder).of_pictures(a[:63], b[:63])
