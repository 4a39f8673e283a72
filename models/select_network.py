"""From the `netG` section to a network: the only place where an option becomes a network's argument.

A new network is one file with a class registered in `NETWORKS`, imported here. A new fusion of frames and spikes is one
file with a class registered in `FUSIONS`, imported here (docs/architecture.md): its keyword parameters become options
with `fuse_` before them.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

import models.losses  # noqa: F401  registers the losses, whose option keys the option loader needs
from models.layers.ops.linear import zero_start
from models.layers.spike.spike_encoder3d import SCALES, SpikeEncoder3D
from models.layers.spike.temporal_attention import SpikeTemporalSA
from models.network_guided import Guided  # noqa: F401  registers by being imported
from models.network_nafnet import NAFNet  # noqa: F401  registers by being imported
from models.network_spike_refine import SpikeRefine  # noqa: F401  registers by being imported
from models.network_spikling import SemiUNet  # noqa: F401  registers by being imported
from models.network_vrt import VRT
from models.network_vrt_spike import VRTWithSpike
from utils.utils_option import NetworkOptions
from utils.utils_registry import (
    FUSIONS,
    NETWORKS,
    Faults,
    keyword_parameters,
    options_of,
    raise_faults,
    takes_options_of,
)
from utils.utils_weights import load_network_weights, load_strict

logger = logging.getLogger(__name__)

# (prefix of the options, class) of every registered fusion.
FUSION_PARTS = [("fuse_", FUSIONS.get(name)) for name in FUSIONS.names()]


def vrt_with_spike_faults(arguments: Mapping[str, Any]) -> Faults:
    """Faults of the arguments of `vrt_with_spike`; those of its parts have their prefixes."""
    yield from VRT.faults(options_of("", VRT, arguments))
    channels = {"channels": arguments["embed_dims"][:SCALES]} if "embed_dims" in arguments else {}
    yield from prefixed("spike_", SpikeEncoder3D, arguments, channels)
    yield from prefixed("spike_attn_", SpikeTemporalSA, arguments, channels)
    fuse_type = arguments.get("fuse_type")
    if fuse_type is None:
        return
    unknown = FUSIONS.name_fault(fuse_type)
    if unknown is not None:
        yield "fuse_type", unknown
        return
    own = {"fuse_" + key: value for key, value in options_of("fuse_", FUSIONS.get(fuse_type), arguments).items()}
    known = ", ".join(["fuse_type", *own])
    for key, parameter in keyword_parameters(vrt_with_spike).items():
        foreign = key.startswith("fuse_") and key != "fuse_type" and key not in own
        if foreign and arguments.get(key, parameter.default) != parameter.default:
            yield key, f"not an option of the fusion {fuse_type!r}. Choices: {known}"
    for argument, fault in FUSIONS.faults(fuse_type, options_of("fuse_", FUSIONS.get(fuse_type), arguments) | channels):
        yield f"fuse_{argument}", fault


def prefixed(prefix: str, part: Any, arguments: Mapping[str, Any], shared: Mapping[str, Any]) -> Faults:
    """Faults of a part whose options have a prefix; `shared` are arguments without it."""
    for argument, fault in part.faults({**options_of(prefix, part, arguments), **shared}):
        yield prefix + argument, fault


@NETWORKS.register("vrt_spike", faults=vrt_with_spike_faults)
@takes_options_of(("", VRT), ("spike_", SpikeEncoder3D), ("spike_attn_", SpikeTemporalSA), *FUSION_PARTS)
def vrt_with_spike(*, fuse_type: str = "temporal_cross_attention", **options: Any) -> VRTWithSpike:
    """VRT with a spike branch.

    Args:
        fuse_type: name of the fusion in `FUSIONS`.
        options: those of `VRT`; with a prefix those of `SpikeEncoder3D` (spike_), `SpikeTemporalSA` (spike_attn_) and
            the fusion (fuse_). The channels of the spike branch are `embed_dims[:4]`.

    Raises:
        UserError: options that do not fit together, or an option of another fusion than `fuse_type`.
    """
    raise_faults("netG.", vrt_with_spike_faults({"fuse_type": fuse_type, **options}))
    fusion_class = FUSIONS.get(fuse_type)
    channels, reach = options["embed_dims"][:SCALES], max(1, options["img_size"][0] - 1)
    vrt = VRT(**options_of("", VRT, options))
    encoder = SpikeEncoder3D(channels, **options_of("spike_", SpikeEncoder3D, options))
    scales = (channels, reach, encoder.time_steps)
    attention = SpikeTemporalSA(*scales, **options_of("spike_attn_", SpikeTemporalSA, options))
    fusion = fusion_class(*scales, **options_of("fuse_", fusion_class, options))
    return VRTWithSpike(vrt, encoder, attention, nn.Linear(channels[0], channels[0]), fusion)


def define_G(netG: NetworkOptions) -> nn.Module:
    """Builds the network that `netG.net_type` names, with freshly initialised weights.

    Raises:
        UserError: unknown `net_type`, or arguments that do not fit together.
    """
    network = NETWORKS.get(netG.net_type)(**netG.arguments())
    if netG.init_type == "identity":
        # The network starts as the identity, so that short runs spend no steps on unlearning random output.
        zero_start(network.conv_last)
    logger.info("%s: %s parameters", netG.net_type, f"{sum(p.numel() for p in network.parameters()):,}")
    return network


def load_weights(
    network: nn.Module, path: str | Path, strict: bool = True, prefer_ema: bool = False, only: bool = False
) -> None:
    """Loads a checkpoint, in KAIR's layouts or ours, into a network.

    If the network has a method `widen`, a checkpoint with fewer input channels is widened: present channels keep their
    weights and new ones start at zero, so that the first output is the same.

    Raises:
        UserError: the file is missing or damaged, or (with `strict`) of another architecture; the message lists the
            keys.
    """
    weights = load_network_weights(path, prefer_ema=prefer_ema, only=only)
    widen = getattr(network, "widen", None)
    if widen is not None:
        weights, widened = widen(weights)
        for key in widened:
            logger.info("%s: %s widened for the spike channels, which start at zero", path, key)
    load_strict(network, weights, path, strict=strict)
