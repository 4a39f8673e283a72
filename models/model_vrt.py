"""VRT in training: Charbonnier loss on clips, tiled testing, panels for TensorBoard."""

from typing import Any

import torch
from torch import Tensor, nn
from utils.utils_dist import Dist

from models.losses import define_loss
from models.model_base import Batch, ModelBase
from utils.utils_option import TrainOptions
from utils.utils_registry import MODELS


@MODELS.register("vrt")
class ModelVRT(ModelBase):
    """Trains a network from `L` (B,T,C,H,W), and `L_spike` (B,T,K,h,w) where there is one, to `H` (B,T,3,H,W)."""

    def __init__(self, netG: nn.Module, train: TrainOptions, dist: Dist, find_unused_parameters: bool = False) -> None:
        super().__init__(netG, train, dist, find_unused_parameters)
        self.pixel_loss = define_loss(train.G_lossfn_type, train)

    def compute_losses(self, batch: Batch) -> dict[str, Tensor]:
        """The pixel loss of a micro-batch, in float32."""
        with torch.autocast(self.dist.device.type, self.amp_dtype, enabled=self.amp_dtype is not None):
            restored = self.network(*inputs(batch))
        return {"G_pixel": self.train_options.G_lossfn_weight * self.pixel_loss(restored.float(), batch["H"])}


def inputs(batch: Batch) -> tuple[Any, ...]:
    """What the network takes from a batch: the frames, and the spikes of the voxel branch where there are any."""
    return (batch["L"], batch["L_spike"]) if "L_spike" in batch else (batch["L"],)
