"""From options to a model in training: network, pretrained weights, wrapper."""

from models import model_spikling, model_vrt  # noqa: F401  (these register by being imported)
from models.model_base import ModelBase
from models.select_network import define_G, load_weights
from utils.utils_dist import Dist
from utils.utils_option import Options
from utils.utils_registry import MODELS


def define_Model(opt: Options, dist: Dist, pretrained: bool = True) -> ModelBase:
    """Builds the model that `opt.model` names on this rank's device.

    Args:
        pretrained: load `path.pretrained_netG` and `path.pretrained_netE`; not wanted when a run is resumed.
    """
    network = define_G(opt.netG)
    if pretrained and opt.path.pretrained_netG:
        load_weights(network, opt.path.pretrained_netG, strict=opt.train.G_param_strict)
    model: ModelBase = MODELS.get(opt.model)(network, opt.train, dist, opt.find_unused_parameters)
    if pretrained and opt.path.pretrained_netE and model.netE is not None:
        load_weights(model.netE, opt.path.pretrained_netE, strict=opt.train.E_param_strict, prefer_ema=True)
    return model
