"""LPIPS 0.1: distance of pictures as a network trained on people's judgements sees it; lower is better.

    LPIPS(a, b) = sum over layers l of  mean over pixels of  w_l . (f_l(a) / |f_l(a)| - f_l(b) / |f_l(b)|)^2

f_l are the ReLU outputs of an ImageNet network's five blocks, w_l the published linear weights, |.| the length over
channels. Zhang, Isola, Efros, Shechtman and Wang, "The unreasonable effectiveness of deep features as a perceptual
metric", 2018; tables that name no network mean AlexNet. Two files are needed, both loaded from one folder:

    alexnet-owt-7be5be79.pth   torchvision's weights (VGG: vgg16-397923af.pth)
    alex.pth                   `lpips/weights/v0.1/alex.pth` of the package `lpips` (VGG: vgg.pth)
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from utils.user_error import UserError
from utils.utils_weights import load_network_weights


@dataclass(frozen=True)
class _Backbone:
    """A network LPIPS looks through.

    Attributes:
        architecture: torchvision's name.
        file: of its weights. linear_file: of the linear weights.
        taps: places in `features` after which its output counts, and the channels there.
    """

    architecture: str
    file: str
    linear_file: str
    taps: dict[int, int]


BACKBONES = {
    "alex": _Backbone("alexnet", "alexnet-owt-7be5be79.pth", "alex.pth", {1: 64, 4: 192, 7: 384, 9: 256, 11: 256}),
    "vgg": _Backbone("vgg16", "vgg16-397923af.pth", "vgg.pth", {3: 64, 8: 128, 15: 256, 22: 512, 29: 512}),
}
# Of the pictures in [-1, 1]: ImageNet's mean and deviation, rounded, as the published weights were trained with.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
MINIMUM = 64  # pixels; below, AlexNet's last layers have nothing left to look at


def missing_files(folder: Path, net: str = "alex") -> list[Path]:
    """The files that LPIPS would need in `folder` and that are not there."""
    backbone = BACKBONES[net]
    return [path for path in (folder / backbone.file, folder / backbone.linear_file) if not path.is_file()]


class LPIPS(nn.Module):
    """The distance, with weights from files.

    Args:
        folder: where both files are.
        net: "alex" or "vgg".

    Raises:
        UserError: a file is missing, or holds something else.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, folder: Path | str, net: Literal["alex", "vgg"] = "alex") -> None:
        from torchvision import models  # here only: torchvision is slow to import

        super().__init__()
        if net not in BACKBONES:
            raise UserError(f"LPIPS looks through {' or '.join(BACKBONES)}, not {net!r}")
        backbone, folder = BACKBONES[net], Path(folder)
        missing = missing_files(folder, net)
        if missing:
            raise UserError(f"LPIPS needs {' and '.join(map(str, missing))}; docs/evaluation.md says where from")
        self.taps = backbone.taps
        with torch.device("meta"):  # the layers alone: drawing weights that are replaced costs a second
            network = models.get_model(backbone.architecture, weights=None)
        self.features = network.features[: max(self.taps) + 1]
        weights = load_network_weights(folder / backbone.file)
        own = {
            name: weights[f"features.{name}"] for name in self.features.state_dict() if f"features.{name}" in weights
        }
        try:
            self.features.load_state_dict(own, assign=True)
        except RuntimeError as error:
            raise UserError(f"{folder / backbone.file}: not torchvision's {backbone.architecture} ({error})") from error
        for index, weight in enumerate(_linear_weights(folder / backbone.linear_file, self.taps.values())):
            self.register_buffer(f"linear{index}", weight)
        self.register_buffer("shift", torch.tensor(SHIFT).view(3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(3, 1, 1))
        for layer in self.features:
            if isinstance(layer, nn.ReLU):
                layer.inplace = False
        self.requires_grad_(False).eval()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances (N,) of pictures (N,3,H,W) in [0,1], RGB, each side at least 64 pixels."""
        features = (torch.cat([a, b]) * 2 - 1 - self.shift) / self.scale
        distance = features.new_zeros(len(a))
        tap = 0
        for index, layer in enumerate(self.features):
            features = layer(features)
            if index in self.taps:
                # The published code adds to the length, not to its square.
                unit = features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)
                difference = (unit[: len(a)] - unit[len(a) :]).square()
                weight: Tensor = self.get_buffer(f"linear{tap}")
                distance = distance + (difference * weight).sum(1).mean((1, 2))
                tap += 1
        return distance

    @torch.inference_mode()
    def of_pictures(self, a: np.ndarray, b: np.ndarray) -> float:
        """The distance of two uint8 pictures (H,W,3) RGB.

        Raises:
            UserError: a side has less than 64 pixels.
        """
        if min(a.shape[:2]) < MINIMUM:
            raise UserError(
                f"LPIPS needs pictures of at least {MINIMUM} x {MINIMUM} pixels, not {a.shape[0]} x {a.shape[1]}"
            )
        pictures = [torch.from_numpy(np.ascontiguousarray(p)).to(self.shift.device) for p in (a, b)]
        tensors = [picture.permute(2, 0, 1)[None].float() / 255 for picture in pictures]
        return float(self(*tensors))


def _linear_weights(path: Path, channels: Iterable[int]) -> list[Tensor]:
    """The five linear layers, (1,C,1,1) each, of the published file."""
    weights = load_network_weights(path)
    layers = []
    for index, count in enumerate(channels):
        name = f"lin{index}.model.1.weight"
        if name not in weights or weights[name].shape != (1, count, 1, 1):
            raise UserError(f"{path}: no LPIPS 0.1 weights: {name} of (1, {count}, 1, 1) is not in it")
        layers.append(weights[name])
    return layers
