"""Training of VRT: a pixel loss on clips (Charbonnier by default), plus a VGG loss if the options set its weight."""

from typing import Any

import torch
from torch import Tensor, nn

from models.losses import define_loss
from models.model_base import Batch, ModelBase
from models.training.perceptual import VGGLoss, at_hand
from utils.utils_dist import Dist
from utils.utils_option import TrainOptions
from utils.utils_registry import MODELS


@MODELS.register("vrt")
class ModelVRT(ModelBase):
    """Trains a network that maps `L` (B,T,C,H,W), and `L_spike` (B,T,K,h,w) if present, to `H` (B,T,3,H,W)."""

    def __init__(self, netG: nn.Module, train: TrainOptions, dist: Dist, find_unused_parameters: bool = False) -> None:
        super().__init__(netG, train, dist, find_unused_parameters)
        self.pixel_loss = define_loss(train.G_lossfn_type, train)
        self.perceptual_loss: VGGLoss | None = None
        if train.G_perceptual_weight > 0 and (
            train.vgg_weights != "at_hand" or at_hand(train.vgg_type, train.vgg_path)
        ):
            self.perceptual_loss = VGGLoss(
                vgg_type=train.vgg_type,
                vgg_layers=train.vgg_layers,
                vgg_layer_weights=train.vgg_layer_weights,
                vgg_distance=train.vgg_distance,
                vgg_path=train.vgg_path,
                vgg_weights="random" if train.vgg_weights == "random" else "imagenet",
                vgg_max_frames=train.vgg_max_frames,
            ).to(dist.device)

    def compute_losses(self, batch: Batch) -> dict[str, Tensor]:
        """The weighted losses of a micro-batch, in float32."""
        with torch.autocast(self.dist.device.type, self.amp_dtype, enabled=self.amp_dtype is not None):
            restored = self.network(*inputs(batch))
        restored = restored.float()
        losses = {"G_pixel": self.train_options.G_lossfn_weight * self.pixel_loss(restored, batch["H"])}
        if self.perceptual_loss is not None:
            weight = self.train_options.G_perceptual_weight
            losses["G_perceptual"] = weight * self.perceptual_loss(restored, batch["H"])
        return losses


@MODELS.register("spikling")
class ModelSpikling(ModelVRT):
    """Trains a network that maps `L` (B,T,S,H,W), S spike frames each, to `H` (B,T,1,H,W) in [0,1].

    The losses compare pictures in [-1, 1], as spikling's do:

        "G_lossfn_type": "l2", "G_lossfn_weight": 100,
        "G_perceptual_weight": 1, "vgg_type": "vgg19", "vgg_distance": "l2"

    is spikling's 100 * MSE + MSE of VGG19 features (github.com/lshpku/spikling, `train.py`), except that spikling does
    not normalise VGG's input by ImageNet's mean and deviation.
    """

    def __init__(self, netG: nn.Module, train: TrainOptions, dist: Dist, find_unused_parameters: bool = False) -> None:
        super().__init__(netG, train, dist, find_unused_parameters)
        loss = self.pixel_loss

        def signed_loss(restored: Tensor, sharp: Tensor) -> Tensor:
            return loss(2 * restored - 1, 2 * sharp - 1)

        self.pixel_loss = signed_loss


def inputs(batch: Batch) -> tuple[Any, ...]:
    """The network's arguments from a batch: frames (B,T,C,H,W), and voxels (B,T,K,h,w) if the batch has them."""
    return (batch["L"], batch["L_spike"]) if "L_spike" in batch else (batch["L"],)
