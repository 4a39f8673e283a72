"""VGG loss: distance between features of the restored and the sharp frames (Johnson et al., 2016).

    loss = VGGLoss(vgg_path="model_zoo/vgg16-397923af.pth")
    loss(restored, sharp)          # both (B,T,3,H,W) in [0,1]

Layers are called as in the VGG paper: `relu3_3` is the ReLU after the third convolution of the third block.

Legend: B batch, T frames, N = B*T, H height, W width, C channels of a layer, s its scale.
"""

import logging
from pathlib import Path
from typing import Literal
from urllib.error import URLError

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from utils.user_error import UserError
from utils.utils_weights import load_network_weights, load_strict

logger = logging.getLogger(__name__)

CONVOLUTIONS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}  # per block, from the VGG paper's table 1
CONFIGURATIONS = {"vgg16": "D", "vgg19": "E"}  # names of the columns of that table, and in torchvision
WEIGHTS = {"vgg16": "vgg16-397923af.pth", "vgg19": "vgg19-dcbb9e9d.pth"}  # torchvision's file names
MODEL_ZOO = Path("model_zoo")  # below the working directory, like the recipes' weights
FEATURES = "features."  # torchvision's prefix of the convolutions' weights
# Of RGB in [0,1]: torchvision's VGG was trained on pictures normalised by these.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VGGLoss(nn.Module):
    """Weighted sum over layers of the mean difference of features, absolute or squared; computed in float32.

    Args:
        vgg_type: "vgg16" or "vgg19".
        vgg_layers: layers compared. vgg_layer_weights: one per layer; None: 1 each.
        vgg_distance: "l1", the mean of |d|, or "l2", of d^2.
        vgg_path: file of torchvision's weights; None: the one in model_zoo, else torchvision's cache or download.
        vgg_weights: "imagenet", or "random" for tests.
        vgg_max_frames: frames compared at a time; their features are recomputed in the backward pass, so that memory
            does not grow with the clip. None: all frames at once, without recomputation.

    Raises:
        UserError: unknown layer, or no weights; the message says where to put the file.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        vgg_type: Literal["vgg16", "vgg19"] = "vgg16",
        vgg_layers: list[str] | tuple[str, ...] = ("relu3_3",),
        vgg_layer_weights: list[float] | None = None,
        vgg_distance: Literal["l1", "l2"] = "l1",
        vgg_path: str | Path | None = None,
        vgg_weights: Literal["imagenet", "random"] = "imagenet",
        vgg_max_frames: int | None = None,
    ) -> None:
        from torchvision.models import vgg  # here only: torchvision is slow to import

        super().__init__()
        names = layer_names(vgg_type)
        unknown = [layer for layer in vgg_layers if layer not in names]
        if unknown:
            raise UserError(f"train.vgg_layers: {vgg_type} has no {', '.join(unknown)}; it has {', '.join(names)}")
        weights = vgg_layer_weights or [1.0] * len(vgg_layers)
        self.layer_weights = dict(zip(map(names.index, vgg_layers), weights, strict=True))
        self.distance = {"l1": F.l1_loss, "l2": F.mse_loss}[vgg_distance]
        self.max_frames = vgg_max_frames
        # Without the classifier, which holds nine tenths of the weights and is not used by the loss.
        features = vgg.make_layers(vgg.cfgs[CONFIGURATIONS[vgg_type]], batch_norm=False)
        if vgg_weights == "imagenet":
            published = _imagenet_weights(vgg_type, vgg_path)
            convolutions = {n.removeprefix(FEATURES): w for n, w in published.items() if n.startswith(FEATURES)}
            load_strict(features, convolutions, vgg_path or WEIGHTS[vgg_type])
        self.features = features[: max(self.layer_weights) + 1]
        for layer in self.features:
            if isinstance(layer, nn.ReLU):
                layer.inplace = False  # else it would overwrite the convolution's output, which may be compared
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, restored: Tensor, sharp: Tensor) -> Tensor:
        """The loss of clips (B,T,3,H,W) in [0,1], a scalar."""
        with torch.autocast(restored.device.type, enabled=False):
            frames, targets = restored.float().flatten(0, 1), sharp.float().flatten(0, 1)  # (B*T,3,H,W) each
            if self.max_frames is None or len(frames) <= self.max_frames:
                return self._distance(frames, targets)
            parts = zip(frames.split(self.max_frames), targets.split(self.max_frames), strict=True)
            # Each chunk's mean is weighted by its number of frames, as the last chunk may have fewer.
            losses = [len(f) * checkpoint(self._distance, f, t, use_reentrant=False) for f, t in parts]
            return torch.stack(losses).sum() / len(frames)

    def _distance(self, frames: Tensor, targets: Tensor) -> Tensor:
        """The loss of frames (N,3,H,W)."""
        features = (frames - self.mean) / self.std  # (N,3,H,W)
        sharp_features = (targets - self.mean) / self.std  # (N,3,H,W)
        loss = frames.new_zeros(())
        for index, layer in enumerate(self.features):
            features = layer(features)  # (N,C,H/s,W/s), s = 1 to 32
            with torch.no_grad():
                sharp_features = layer(sharp_features)
            if index in self.layer_weights:
                loss = loss + self.layer_weights[index] * self.distance(features, sharp_features)
        return loss


def layer_names(vgg_type: str) -> list[str]:
    """Names of torchvision's `features` of a VGG, in order: conv1_1, relu1_1, ..., pool1, conv2_1, ..."""
    names = []
    for block, convolutions in enumerate(CONVOLUTIONS[vgg_type], 1):
        for index in range(1, convolutions + 1):
            names += [f"conv{block}_{index}", f"relu{block}_{index}"]
        names.append(f"pool{block}")
    return names


def at_hand(vgg_type: str, path: str | Path | None) -> bool:
    """Whether the weights are found without a download; if not, logs a warning with the places searched."""
    places = [MODEL_ZOO / WEIGHTS[vgg_type], Path(torch.hub.get_dir(), "checkpoints", WEIGHTS[vgg_type])]
    if path is not None or any(place.is_file() for place in places):
        return True
    logger.warning(
        "The VGG loss (train.G_perceptual_weight) is left out: its weights were not found. Put them at %s, set "
        "train.vgg_path to their file, or download them by train.vgg_weights=imagenet.",
        " or ".join(map(str, places)),
    )
    return False


def _imagenet_weights(vgg_type: str, path: str | Path | None) -> dict[str, Tensor]:
    """torchvision's ImageNet weights, from a file, its cache, or its download.

    Raises:
        UserError: neither file nor cache exists, and the download failed.
    """
    from torchvision import models

    in_zoo = MODEL_ZOO / WEIGHTS[vgg_type]
    if path is not None or in_zoo.is_file():
        return load_network_weights(path or in_zoo)
    try:
        return dict(models.get_weight(f"{vgg_type.upper()}_Weights.IMAGENET1K_V1").get_state_dict())
    except (URLError, OSError) as error:
        raise UserError(
            f"train.G_perceptual_weight: the VGG loss needs torchvision's {WEIGHTS[vgg_type]}, and "
            f"downloading it failed ({error}). Copy it to model_zoo/{WEIGHTS[vgg_type]}, or set train.vgg_path or "
            f"train.G_perceptual_weight=0."
        ) from error
