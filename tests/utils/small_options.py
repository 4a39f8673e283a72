"""Small registered parts and an option file without faults, for the tests of the options."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from utils.user_error import UserError
from utils.utils_option import OptionError, Options, Registries, load_options
from utils.utils_registry import Faults, Registry, check_rules, takes_options_of

Tree = dict[str, Any]

NETWORKS = Registry("network", "netG.net_type")
DATASETS = Registry("dataset", "datasets.*.dataset_type")
REPRESENTATIONS = Registry("spike representation", "datasets.*.spike.representation")
MODELS = Registry("model", "model")
LOSSES = Registry("loss", "train.G_lossfn_type")
REGISTRIES = Registries(NETWORKS, MODELS, LOSSES, DATASETS, REPRESENTATIONS)


@NETWORKS.register("tiny")
class Tiny:
    def __init__(
        self,
        *,
        upscale: int = 1,
        in_chans: int = 3,
        img_size: tuple[int, ...] = (6, 64, 64),
        window_size: Sequence[int] = (6, 8, 8),
        depths: list[int] = [2, 2],  # noqa: B006
        embed_dims: Sequence[int] = (12, 12),
        num_heads: Sequence[int] = (6, 6),
        indep_reconsts: Sequence[int] = (),
        rate: float = 0.1,
        spynet_path: str | None = None,
    ) -> None: ...

    @staticmethod
    def faults(arguments: Mapping[str, Any]) -> Faults:
        return check_rules((lengths, rate_in_range), arguments)


def lengths(depths: Sequence[int], embed_dims: Sequence[int]) -> Faults:
    if len(depths) != len(embed_dims):
        yield "depths", f"has {len(depths)} values, embed_dims {len(embed_dims)}"


def rate_in_range(rate: float) -> Faults:
    if not 0 <= rate <= 1:
        yield "rate", f"from 0 to 1; got {rate}"


@NETWORKS.register("tiny_spike")
@takes_options_of(("", Tiny))
def tiny_with_spikes(*, spike_bins: int = 32, **options: Any) -> None: ...


@NETWORKS.register("other")
class Other:
    def __init__(self, *, width: int = 1) -> None: ...


@DATASETS.register("Frames")
class Frames:
    def __init__(
        self,
        *,
        dataroot_gt: str,
        dataroot_lq: str,
        num_frame: int = 6,
        gt_size: int = 64,
        use_hflip: bool = True,
        val_partition: str | list[str] | None = None,
        io_backend: dict[str, str] | None = None,
        seed: int = 0,
        scale: int = 1,
        n_channels: int = 3,
    ) -> None: ...


@DATASETS.register("Spikes", "SpikesToo")
class Spikes:
    packs_spikes = "concat"

    def __init__(
        self, *, dataroot: str, spike: dict[str, Any], input_pack_mode: Literal["concat", "dual"] = "concat"
    ) -> None: ...


@REPRESENTATIONS.register("tfp")
class Tfp:
    def __init__(self, *, bins: int = 4) -> None:
        if bins < 1:
            raise UserError(f"tfp: bins is {bins}")
        self.channels = bins


@REPRESENTATIONS.register("voxel")
class Voxel:
    def __init__(self, *, bins: int = 32, log1p: bool = True) -> None:
        self.channels = bins


@REPRESENTATIONS.register("halves")
class Halves:
    channels = 4


@MODELS.register("plain")
class Plain: ...


@LOSSES.register("charbonnier")
def charbonnier(restored: Any, sharp: Any, *, G_charbonnier_eps: float = 1e-9) -> None: ...


def huber_faults(arguments: Mapping[str, Any]) -> Faults:
    if not arguments["G_huber_delta"] > 0:
        yield "G_huber_delta", f"above 0; got {arguments['G_huber_delta']}"


@LOSSES.register("huber", faults=huber_faults)
def huber(restored: Any, sharp: Any, *, G_huber_delta: float = 1.0) -> None: ...


def base() -> Tree:
    """A file without faults."""
    return {
        "task": "a_task",
        "model": "plain",
        "datasets": {"train": {"dataset_type": "Frames", "dataroot_gt": "gt", "dataroot_lq": "lq"}},
        "netG": {"net_type": "tiny"},
        "train": {"total_iter": 100},
    }


def spiky(**spike: Any) -> Tree:
    """A file with spikes in training and test."""
    section = {"dataset_type": "Spikes", "dataroot": "d", "spike": spike}
    return base() | {"datasets": {"train": section, "test": dict(section)}}


def load(folder: Path, tree: Tree, *overrides: str) -> Options:
    """Loads a tree that is written to `folder`/opt.json, a key a line."""
    path = folder / "opt.json"
    path.write_text(json.dumps(tree, indent=1))
    return load_options(path, overrides, registries=REGISTRIES)


def faults(folder: Path, tree: Tree, *overrides: str) -> dict[str, str]:
    """What is wrong with a tree, by dotted name."""
    with pytest.raises(OptionError) as raised:
        load(folder, tree, *overrides)
    found = {}
    for fault in raised.value.faults:
        name, _, message = fault.partition(": ")
        found[name.split(" (")[0]] = message
    assert len(found) == len(raised.value.faults), "two faults of one option"
    return found
