"""From options to a model in training: network, pretrained weights, wrapper."""

import logging

from models import model_vrt  # noqa: F401  (registers by being imported)
from models.model_base import ModelBase
from models.select_network import define_G, load_weights
from utils.utils_dist import Dist
from utils.utils_option import Options
from utils.utils_registry import MODELS

logger = logging.getLogger(__name__)


def define_Model(opt: Options, dist: Dist, pretrained: bool = True) -> ModelBase:
    """Builds the model that `opt.model` names on this rank's device.

    Args:
        pretrained: start from `path.pretrained_netG`, `path.pretrained_netE` and `netG.spynet_path`; a resumed run has
            all weights in its checkpoint.
    """
    netG = opt.netG
    if not pretrained and hasattr(netG, "spynet_path"):
        netG = netG.model_copy(update={"spynet_path": None})
    network = define_G(netG)
    if pretrained and opt.path.pretrained_netG is not None:
        load_weights(network, opt.path.pretrained_netG, strict=opt.train.G_param_strict)
    elif pretrained and getattr(netG, "pa_frames", False) and "spynet_path" not in netG.model_fields_set:
        logger.warning(
            "netG.spynet_path is not set: optical flow starts untrained, at zero. For the published start set it to "
            "spynet_sintel_final-3d2a1287.pth of the VRT release; for an untrained start without this warning, to null."
        )
    model: ModelBase = MODELS.get(opt.model)(network, opt.train, dist, opt.find_unused_parameters)
    if pretrained and opt.path.pretrained_netE is not None and model.netE is not None:
        load_weights(model.netE, opt.path.pretrained_netE, strict=opt.train.E_param_strict, prefer_ema=True)
    return model
