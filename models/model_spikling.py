"""Networks from spikes to pictures in training, with spikling's losses: its pictures lie in [-1, 1].

    "G_lossfn_type": "l2", "G_lossfn_weight": 100, "G_perceptual_weight": 1, "vgg_type": "vgg19", "vgg_distance": "l2"

is spikling's 100 * MSE + MSE of VGG19 features (github.com/lshpku/spikling, `train.py`), up to its missing ImageNet
normalisation of what VGG sees.
"""

from torch import Tensor, nn

from models.model_vrt import ModelVRT
from utils.utils_dist import Dist
from utils.utils_option import TrainOptions
from utils.utils_registry import MODELS


@MODELS.register("spikling")
class ModelSpikling(ModelVRT):
    """Trains a network from `L` (B,T,W,H,W'), windows of spikes, to `H` (B,T,1,H,W') in [0,1]."""

    def __init__(self, netG: nn.Module, train: TrainOptions, dist: Dist, find_unused_parameters: bool = False) -> None:
        super().__init__(netG, train, dist, find_unused_parameters)
        loss = self.pixel_loss

        def signed_loss(restored: Tensor, sharp: Tensor) -> Tensor:
            return loss(2 * restored - 1, 2 * sharp - 1)

        self.pixel_loss = signed_loss
