"""LPIPS 0.1: distance of pictures by a network's features, weighted to match human judgements; lower is better.

    LPIPS(a, b) = sum over layers l of  mean over pixels of  w_l . (f_l(a) / |f_l(a)| - f_l(b) / |f_l(b)|)^2

f_l are the ReLU outputs of an ImageNet network's five blocks, w_l the published linear weights, |.| the length over
channels. Zhang, Isola, Efros, Shechtman and Wang, "The unreasonable effectiveness of deep features as a perceptual
metric", 2018; tables without a network's name use AlexNet. Two files in one folder are needed:

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
    """A network whose features LPIPS compares.

    Attributes:
        architecture: torchvision's name.
        file: file of its weights. linear_file: file of the linear weights.
        taps: index in `features` -> channels, of the layers whose outputs are compared.
    """

    architecture: str
    file: str
    linear_file: str
    taps: dict[int, int]


# The ReLUs after the last convolution of each block, as in the published code.
BACKBONES = {
    "alex": _Backbone("alexnet", "alexnet-owt-7be5be79.pth", "alex.pth", {1: 64, 4: 192, 7: 384, 9: 256, 11: 256}),
    "vgg": _Backbone("vgg16", "vgg16-397923af.pth", "vgg.pth", {3: 64, 8: 128, 15: 256, 22: 512, 29: 512}),
}
# ImageNet's mean and deviation of pictures in [-1, 1], rounded as in the training of the published weights.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
MINIMUM = 64  # pixels of a side, so that AlexNet's last features still have several pixels


def missing_files(folder: Path, net: str = "alex") -> list[Path]:
    """The files of LPIPS that are missing in `folder`."""
    backbone = BACKBONES[net]
    return [path for path in (folder / backbone.file, folder / backbone.linear_file) if not path.is_file()]


class LPIPS(nn.Module):
    """The distance, with weights from files.

    Args:
        folder: folder of both files.
        net: "alex" or "vgg".

    Raises:
        UserError: a file is missing, or holds something else.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, folder: Path | str, net: Literal["alex", "vgg"] = "alex") -> None:
        from torchvision import models  # imported on demand, as it is slow

        super().__init__()
        if net not in BACKBONES:
            raise UserError(f"LPIPS uses {' or '.join(BACKBONES)}, not {net!r}")
        backbone, folder = BACKBONES[net], Path(folder)
        missing = missing_files(folder, net)
        if missing:
            raise UserError(f"LPIPS needs {' and '.join(map(str, missing))}; docs/evaluation.md says where from")
        self.taps = backbone.taps
        with torch.device("meta"):  # without values: initialising weights that are replaced takes a second
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
        features = (torch.cat([a, b]) * 2 - 1 - self.shift) / self.scale  # (2N,3,H,W)
        distance = features.new_zeros(len(a))  # (N,)
        tap = 0
        for index, layer in enumerate(self.features):
            features = layer(features)  # (2N,C,H/s,W/s), s the layer's stride
            if index in self.taps:
                # As in the published code, add 1e-10 to the length, not to its square.
                unit = features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)  # (2N,C,H/s,W/s)
                difference = (unit[: len(a)] - unit[len(a) :]).square()  # (N,C,H/s,W/s)
                weight: Tensor = self.get_buffer(f"linear{tap}")  # (1,C,1,1)
                distance = distance + (difference * weight).sum(1).mean((1, 2))  # (N,)
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
    """Weights of the five linear layers, (1,C,1,1) each, from the published file."""
    weights = load_network_weights(path)
    layers = []
    for index, count in enumerate(channels):
        name = f"lin{index}.model.1.weight"
        if name not in weights or weights[name].shape != (1, count, 1, 1):
            raise UserError(f"{path}: no LPIPS 0.1 weights: {name} of (1, {count}, 1, 1) is not in it")
        layers.append(weights[name])
    return layers
