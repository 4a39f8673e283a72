"""From the `netG` section to a network: the only place where an option becomes a network's argument.

A new network is one file with a class registered in `NETWORKS`, imported here.
"""

import logging
from pathlib import Path

from torch import nn

from models import network_vrt  # noqa: F401  (registers "vrt")
from utils.utils_option import NetworkOptions
from utils.utils_registry import NETWORKS
from utils.utils_weights import load_network_weights, load_strict

logger = logging.getLogger(__name__)


def define_G(netG: NetworkOptions) -> nn.Module:
    """Builds the network that `netG.net_type` names, with freshly initialised weights.

    Raises:
        ValueError: unknown `net_type`, or arguments that do not fit together.
    """
    network = NETWORKS.get(netG.net_type)(**netG.arguments())
    if netG.init_type == "identity":
        # The output is the input until training moves it: short runs need not first unlearn noise.
        nn.init.zeros_(network.conv_last.weight)
        nn.init.zeros_(network.conv_last.bias)
    logger.info("%s: %s parameters", netG.net_type, f"{sum(p.numel() for p in network.parameters()):,}")
    return network


def load_weights(network: nn.Module, path: str | Path, strict: bool = True, prefer_ema: bool = False) -> None:
    """Loads a checkpoint into a network: KAIR's layouts or ours.

    A checkpoint of a network with fewer input channels is widened where the network knows how (`widen`): the channels
    it knew keep their weights, new ones start at zero, so that the first output is the same.

    Raises:
        ValueError: no such file, a damaged one, or (with `strict`) one of another architecture, listing the keys.
    """
    weights = load_network_weights(path, prefer_ema=prefer_ema)
    widen = getattr(network, "widen", None)
    if widen is not None:
        weights, widened = widen(weights)
        for key in widened:
            logger.info("%s: %s widened for the spike channels, which start at zero", path, key)
    load_strict(network, weights, path, strict=strict)
