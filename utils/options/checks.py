"""Checks of options against each other, and the options that are accepted but have no effect."""

from collections.abc import Iterator

from utils.options.faults import Fault
from utils.options.parts import Registries
from utils.options.schema import (
    DatasetOptions,
    DatasetsOptions,
    NetworkOptions,
    Options,
    TopOptions,
    TrainOptions,
    ValOptions,
)
from utils.tile_plan import AXES, check_tile
from utils.user_error import UserError
from utils.utils_memory import parse_memory
from utils.utils_registry import Registry

NO_EFFECT = {
    "use_static_graph": "a static graph would end the run at fix_iter",
    "merge_bn": "there is no batch normalisation to merge",
    "merge_bn_startpoint": "there is no batch normalisation to merge",
    "netG.init_bn_type": "networks initialise themselves",
    "netG.init_gain": "networks initialise themselves",
    "train.G_optimizer_reuse": "a run is always continued with all of its state",
    "train.G_regularizer_orthstep": "KAIR's weight regularizers are made for 2-D convolutions",
    "train.G_regularizer_clipstep": "KAIR's weight regularizers are made for 2-D convolutions",
}
"""Options without effect, and why; a test checks that the code does not read them. `gpu_ids` and `dist`: `unused`."""


def input_channels(section: DatasetOptions, n_channels: int, registries: Registries) -> int:
    """Channels of a data set's `L`: the frame's, plus the spikes' if they are concatenated; or spike frames alone.

    Raises:
        UserError: invalid parameters of the representation.
    """
    packs_spikes = _packing(section, registries)
    if packs_spikes == "window":
        return int(section.window)
    if packs_spikes != "concat":
        return n_channels
    return n_channels + _spike_channels(section, registries)


def spike_bins(section: DatasetOptions, registries: Registries) -> int | None:
    """Channels per frame of a data set's `L_spike`; None if its samples have none.

    Raises:
        UserError: invalid parameters of the representation.
    """
    return _spike_channels(section, registries) if _packing(section, registries) == "dual" else None


def _packing(section: DatasetOptions, registries: Registries) -> str | None:
    """How a data set's samples hold spikes: "concat", "dual", "window", or None; from `input_pack_mode` if there is
    such an option."""
    dataset = registries.datasets.get(section.dataset_type)
    packing: str | None = getattr(section, "input_pack_mode", getattr(dataset, "packs_spikes", None))
    return packing


def _spike_channels(section: DatasetOptions, registries: Registries) -> int:
    spike = section.arguments()["spike"]
    represent = registries.representations.get(spike.pop("representation"))
    return int(represent(**spike).channels)


def packing_faults(
    datasets: DatasetsOptions, net_type: str, takes_spikes: bool, registries: Registries
) -> Iterator[Fault]:
    """Faults of data sets without `L_spike` for a network that takes it, or with `L_spike` for one that does not."""
    for phase, section in datasets:
        if section is None or (_packing(section, registries) == "dual") == takes_spikes:
            continue
        keys = ("datasets", phase, "input_pack_mode") if hasattr(section, "input_pack_mode") else ("datasets", phase)
        if takes_spikes:
            remedy = 'takes spikes beside the frames: choose a dataset_type with spikes and input_pack_mode "dual"'
        else:
            remedy = 'takes none of the spikes that "dual" delivers beside the frames; choose "concat", or "vrt_spike"'
        yield keys, f"netG.net_type {net_type!r} {remedy}"


def channel_faults(channels: dict[str, int], key: str, value: int | None) -> Iterator[Fault]:
    """Faults where training set, test set and an explicit `netG.in_chans` or `netG.spike_bins` have different numbers
    of channels."""
    said = " and ".join(f"datasets.{phase} delivers {count}" for phase, count in channels.items())
    kind = "input" if key == "in_chans" else "spike"
    if len(set(channels.values())) > 1:
        yield (
            ("datasets",),
            f"{said} {kind} channels; give both the same spike representation and dataset types that pack it alike",
        )
    elif channels and value is not None and value not in channels.values():
        yield (("netG", key), f"is {value}, but {said} channels; leave {key} out to take it from the data")


def dataset_faults(phase: str, section: DatasetOptions, top: TopOptions | None) -> Iterator[Fault]:
    """Faults of a data set's `scale` and `gt_size` against the top level's `scale`."""
    if top is None:
        return
    if section.scale is not None and section.scale != top.scale:
        yield (("datasets", phase, "scale"), f"is {section.scale}, but the top scale is {top.scale}; leave it out")
    gt_size = getattr(section, "gt_size", None)
    if isinstance(gt_size, int) and gt_size % top.scale:
        yield (("datasets", phase, "gt_size"), f"{gt_size} is no multiple of scale, {top.scale}")


def scale_faults(net: NetworkOptions, top: TopOptions | None) -> Iterator[Fault]:
    """Fault of the network's `upscale` against the top level's `scale`."""
    upscale = getattr(net, "upscale", None)
    if top is not None and isinstance(upscale, int) and upscale != top.scale:
        yield (("netG", "upscale"), f"is {upscale}, but scale is {top.scale}; they must be equal")


def train_faults(train: TrainOptions, registries: Registries) -> Iterator[Fault]:
    """Faults of the loss's name, and of keys of `train` that depend on each other."""
    if registries.losses.names():
        yield from name_fault(("train", "G_lossfn_type"), train.G_lossfn_type, registries.losses)
    if train.G_scheduler_type == "MultiStepLR" and not train.G_scheduler_milestones:
        yield (("train", "G_scheduler_milestones"), "required by MultiStepLR: the steps at which the rate drops")
    periods, weights = train.G_scheduler_periods, train.G_scheduler_restart_weights
    if isinstance(weights, list) and not (isinstance(periods, list) and len(periods) == len(weights)):
        yield (
            ("train", "G_scheduler_restart_weights"),
            "a list needs G_scheduler_periods to be a list of the same length",
        )
    if train.vgg_layer_weights is not None and len(train.vgg_layer_weights) != len(train.vgg_layers):
        yield (("train", "vgg_layer_weights"), f"needs {len(train.vgg_layers)} values, one for each of vgg_layers")


def val_faults(val: ValOptions, net: NetworkOptions | None) -> Iterator[Fault]:
    """Faults of tiles against their overlap and the attention window."""
    if val.max_memory is not None:
        try:
            parse_memory(val.max_memory)
        except UserError as error:
            yield (("val", "max_memory"), str(error).partition(": ")[2])
    tile = val.tile_size
    if val.tiling == "official":
        yield from _official_faults(val, net)
    if tile == "auto":
        return
    keys = ["tile"] * 3 if val.tile else ["num_frame_testing", "size_patch_testing", "size_patch_testing"]
    window = _values(net, "window_size")
    if len(window) == 3 and min(window) > 0:
        try:
            check_tile(tile, window)
        except UserError as error:
            yield (("val", keys[-1]), str(error))
    for axis, (size, overlap, blend) in enumerate(zip(tile, val.tile_overlap_size, val.blend_size, strict=True)):
        if not size:
            continue
        if overlap >= size:
            yield (("val", keys[axis]), f"tiles of {size} {AXES[axis]} can't overlap by {overlap}")
        if blend is not None and blend > overlap:
            yield (("val", "blend", axis), f"{blend} {AXES[axis]} are more than the tiles' overlap, {overlap}")


def _official_faults(val: ValOptions, net: NetworkOptions | None) -> Iterator[Fault]:
    """Faults of options that the published tester, and so its tiling, does not support."""
    only = '"official" is the published tester\'s tiling:'
    if val.tile == "auto":
        yield (("val", "tiling"), f'{only} it has no tile "auto"; name a tile')
    elif len(set(val.tile_size[1:])) > 1 or len(set(val.tile_overlap_size[1:])) > 1:
        yield (("val", "tiling"), f"{only} its tiles are square, and their overlap is the same for rows and columns")
    if val.blend is not None:
        yield (("val", "tiling"), f"{only} its blend is fixed; leave blend out")
    if hasattr(net, "spike_bins"):
        yield (("val", "tiling"), f'{only} it does not support spikes beside the frames; leave it at "even"')


def name_fault(keys: tuple[str, ...], name: str, registry: Registry) -> Iterator[Fault]:
    """The fault of a name that is not registered."""
    unknown = registry.name_fault(name)
    if unknown is not None:
        yield keys, unknown


def _values(section: NetworkOptions | None, key: str) -> list[int]:
    """The values of an option that is a list; [] if the section has no such option."""
    value = getattr(section, key, None)
    return list(value) if isinstance(value, (list, tuple)) else []


def unused(opt: Options, world_size: int | None) -> Iterator[str]:
    """A notice for each option that was set but has no effect.

    Args:
        world_size: number of processes started by torchrun or the platform; None if started directly.
    """
    if opt.gpu_ids is not None and (world_size is not None or len(opt.gpu_ids) > 1):
        yield (
            f"gpu_ids {opt.gpu_ids} has no effect: torchrun's --nproc_per_node (or ./launch_train.sh N) decides how "
            "many GPUs work, CUDA_VISIBLE_DEVICES which."
        )
    if opt.dist is not None and opt.dist != (world_size is not None):
        processes = "one process" if world_size is None else f"{world_size} processes of torchrun"
        yield f"dist: {str(opt.dist).lower()} has no effect: this run has {processes}."
    for name, reason in NO_EFFECT.items():
        section, _, key = name.rpartition(".")
        holder = getattr(opt, section) if section else opt
        if getattr(holder, key) != type(holder).model_fields[key].default:
            yield f"{name} has no effect: {reason}."
