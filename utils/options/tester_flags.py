"""Parses the flags of main_test_vrt.py, KAIR's and our own, and applies them to an option file."""

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.exposure_times import parse_times
from utils.options.flags import VIMEO_LIST, tester_parser
from utils.options.layers import load_layers
from utils.options.parts import Registries
from utils.user_error import UserError
from utils.utils_download import published_weights
from utils.utils_file import check_sha256
from utils.utils_option import DatasetOptions, Options, load_options

logger = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[2]
"""The checkout, so that shipped files are found from any working directory."""
OWN_TASKS, VRT_TASKS = ROOT / "options" / "svrt" / "test", ROOT / "options" / "vrt" / "test"
MODEL_ZOO = Path("model_zoo/vrt")
"""Folder of VRT's published weights, as in VRT. Our own are shipped: `path.pretrained_netG` of their option files."""

INSTANTS = "VideoInstantsTestDataset"
"""The data set of `--times`."""

STREAMS = "SpikeStreamTestDataset"
"""The data set of clips for networks that take spikes alone."""

TRUST_TIMES = "0:1:1/8"
"""Default of `--trust` and `--adapt`: between neighbours, light must be nearly linear, so motion must be small."""

LAYOUT_FOLDERS = ("sequences", "gt", "bix4", "bdx4")
"""Folders inside published sets that hold the clips, in lower case; they do not name the set."""


def parse(argv: Sequence[str] | None, description: str) -> argparse.Namespace:
    """Parses the command line."""
    parser = tester_parser(description)
    arguments = parser.parse_args(argv)
    if arguments.tile is not None and arguments.tile != ["auto"]:
        if len(arguments.tile) != 3 or not all(part.isdecimal() for part in arguments.tile):
            parser.error(f"argument --tile: three whole numbers or auto, not {' '.join(arguments.tile)}")
        arguments.tile = [int(part) for part in arguments.tile]
    return arguments


def options(arguments: argparse.Namespace) -> Options:
    """The options of --opt or --task, with those that the flags set.

    Raises:
        UserError: no such file or task, or faults of the options.
    """
    path = arguments.opt or task_file(arguments.task)
    if not path.is_file():
        raise UserError(f"There is no option file {path}.")
    tree = load_layers(path, arguments.set).tree
    alone = takes_spikes_alone(tree)
    flags: dict[str, Any] = {}
    if alone:
        check_spikes_alone(arguments, tree)
        flags |= stream_flags(arguments, tree)
    elif arguments.folder_lq is not None:
        flags |= folder_flags(arguments)
    elif arguments.folder_gt is not None or arguments.folder_spike is not None:
        given = "--folder_gt" if arguments.folder_gt is not None else "--folder_spike"
        raise UserError(f"{given}: it goes with the blurred frames; name them too, by --folder_lq")
    if arguments.tile is not None:
        flags["val.tile"] = arguments.tile[0] if arguments.tile == ["auto"] else arguments.tile
    if arguments.tile_overlap is not None:
        flags["val.tile_overlap"] = arguments.tile_overlap
    if arguments.tiling is not None:
        flags["val.tiling"] = arguments.tiling
    if arguments.all_clips:
        flags |= {"datasets.test.all_clips": True, "datasets.test.meta_info_file": None}
    if arguments.pair_by is not None:
        flags["datasets.test.pair_by"] = arguments.pair_by
    if arguments.max_memory is not None:
        flags["val.max_memory"] = arguments.max_memory
    if arguments.sigma or (arguments.sigma == 0 and _names_noise(path)):
        flags["datasets.test.sigma"] = arguments.sigma
    if (arguments.trust or arguments.adapt) and arguments.times is None:
        arguments.times = parse_times(TRUST_TIMES)
        logger.info("restores the instants %s of every exposure (--times chooses others)", TRUST_TIMES)
    if arguments.adapt and arguments.resume:
        raise UserError("--adapt: with --resume, frames of two sets of weights would be mixed; remove one of the two")
    if arguments.times is not None:
        flags |= {"datasets.test.dataset_type": INSTANTS, "datasets.test.times": arguments.times}
    if arguments.folder_instants is not None:
        flags["datasets.test.dataroot_instants"] = arguments.folder_instants
    if arguments.folder_lq is not None and not alone:
        flags = {**_as_trained(tree), **flags}
    if arguments.times is not None:
        check_instants(tree)
    if (arguments.trust or arguments.adapt) and (arguments.times[0] != 0 or arguments.times[-1] != 1):
        raise UserError("--times: must begin at 0 and end at 1, as 0:1:1/8, for --trust and --adapt")
    flags = _without_unknown(flags, tree)
    changes = [*(f"{key}={json.dumps(value)}" for key, value in flags.items()), *arguments.set]
    # Keys of another class of test set mean nothing to that of spikes alone.
    other = alone and arguments.folder_spike is not None and _dataset_type(tree, "test") != STREAMS
    opt = load_options(path, changes, replaced=[("datasets", "test")] if other else [])
    if getattr(opt.netG, "spynet_path", None) is None:
        return opt
    # The checkpoint includes SpyNet's weights, so its file is not needed.
    return opt.model_copy(update={"netG": opt.netG.model_copy(update={"spynet_path": None})})


def task_file(task: str) -> Path:
    """The option file of a published model, ours or VRT's.

    Raises:
        UserError: unknown task; the message lists the choices.
    """
    files = {file.stem: file for folder in (VRT_TASKS, OWN_TASKS) for file in folder.glob("*.json")}
    if task not in files:
        raise UserError(f"--task: there is no published model {task!r}. Choices: {', '.join(sorted(files))}.")
    return files[task]


def check_instants(tree: Mapping[str, Any]) -> None:
    """
    Raises:
        UserError: the network of the options does not take the instant as an input.
    """
    networks, section = Registries().networks, tree.get("netG")
    able = [name for name in networks.names() if getattr(networks.get(name), "takes_instants", False)]
    named = section.get("net_type") if isinstance(section, Mapping) else None
    if named not in able:
        raise UserError(
            f"--times: {named} restores the centre of an exposure alone; networks that restore any instant: "
            f"{', '.join(able)} (--task guided)"
        )


def takes_spikes_alone(tree: Mapping[str, Any]) -> bool:
    """Whether the network of the options turns spikes into pictures, without frames."""
    registry = Registries().datasets
    named = _dataset_type(tree, "test") or _dataset_type(tree, "train")
    if named is None:
        return tree.get("model") == "spikling"
    return named in registry.names() and getattr(registry.get(named), "packs_spikes", None) == "window"


def check_spikes_alone(arguments: argparse.Namespace, tree: Mapping[str, Any]) -> None:
    """
    Raises:
        UserError: flags that a network of spikes alone can't do anything with, or clips without spikes.
    """
    network = _network_class(tree)
    for flag in ("times", "trust", "adapt", "folder_instants", "sweep", "sigma"):
        if getattr(arguments, flag):
            raise UserError(
                f"--{flag}: for networks that restore blurred frames; this one makes pictures of spikes alone (at "
                "other moments: --folder_spike without --folder_lq, --set datasets.test.stride=1)"
            )
    if arguments.folder_spike is None and (arguments.folder_lq is not None or arguments.folder_gt is not None):
        raise UserError("--folder_spike: this network makes pictures of spikes alone; name the frames' spikes")
    if not getattr(network, "whole_pictures", False) or arguments.tile is None:
        return
    if arguments.tile == ["auto"]:
        arguments.tile = [1, 0, 0]  # the only ones
    elif any(arguments.tile[1:]):
        raise UserError(
            "--tile: this network normalises each picture as a whole, so parts would differ; use --tile 1 0 0"
        )


def stream_flags(arguments: argparse.Namespace, tree: Mapping[str, Any]) -> dict[str, Any]:
    """Options for a network of spikes alone: its clips if the command line names them, and pictures one by one."""
    val = tree.get("val")
    tiled = isinstance(val, Mapping) and ("tile" in val or "num_frame_testing" in val)
    # A picture's window of spikes takes as much memory as a hundred frames, and pictures do not depend on each other.
    flags: dict[str, Any] = {} if tiled else {"val.tile": [1, 0, 0], "val.tile_overlap": [0, 20, 20]}
    if arguments.folder_spike is None:
        return flags
    network, phase = _network_class(tree), "test" if _dataset_type(tree, "test") else "train"
    named, window = _dataset_type(tree, phase), (_section(tree, phase) or {}).get("window")
    if window is None and named is not None:
        window = Registries().datasets.parameters(named)["window"].default
    roots = {"spike": arguments.folder_spike, "lq": arguments.folder_lq, "gt": arguments.folder_gt}
    return {
        **flags,
        "datasets.test.dataset_type": STREAMS,
        **({} if window is None else {"datasets.test.window": window}),
        "datasets.test.partial_windows": getattr(network, "partial_windows", False),
        **{f"datasets.test.dataroot_{name}": root for name, root in roots.items()},
    }


def _section(tree: Mapping[str, Any], phase: str) -> Mapping[str, Any] | None:
    """`datasets.train` or `datasets.test` of an option file; None if it has none."""
    datasets = tree.get("datasets")
    section = datasets.get(phase) if isinstance(datasets, Mapping) else None
    return section if isinstance(section, Mapping) else None


def _dataset_type(tree: Mapping[str, Any], phase: str) -> str | None:
    """Of `datasets.train` or `datasets.test`; None also where `--set` alone names keys of the section."""
    named = (_section(tree, phase) or {}).get("dataset_type")
    return None if named is None else str(named)


def _network_class(tree: Mapping[str, Any]) -> Any:
    """The class of the network that the options name; None if there is none of that name."""
    networks, section = Registries().networks, tree.get("netG")
    named = section.get("net_type") if isinstance(section, Mapping) else None
    return networks.get(str(named)) if named in networks.names() else None


def _names_noise(path: Path) -> bool:
    """Whether an option file sets a noise level. Only then does `--sigma 0`, KAIR's default, override it."""
    return "sigma" in (_section(load_layers(path).tree, "test") or {})


def folder_flags(arguments: argparse.Namespace) -> dict[str, Any]:
    """Options for clips named on the command line; with --task, by the folder's name as in the published tester.

    vimeo: scores the middle frame of the septuplets of the published list. Frame interpolation: for davis, vid4 and
    ucf101 restores the frames left out of the input; for any other folder interpolates new frames between all frames.
    """
    roots = {"lq": arguments.folder_lq, "gt": arguments.folder_gt, "spike": arguments.folder_spike}
    flags: dict[str, Any] = {f"datasets.test.dataroot_{name}": root for name, root in roots.items() if root is not None}
    name, task = set_name(arguments.folder_lq), arguments.task or ""
    interpolates = "videofi" in task
    if task and "vimeo" in name:
        flags["datasets.test.dataset_type"] = "VideoTestVimeo90KDataset"
        if interpolates:
            flags["datasets.test.temporal_scale"] = 2
        else:
            flags["val.pad_seq"] = True  # pads the seven frames to eight, as the published tester
        if interpolates or arguments.folder_gt is not None:
            flags["datasets.test.meta_info_file"] = VIMEO_LIST
    elif interpolates:
        kinds = {"ucf101": "VFI_UCF101", "davis": "VFI_DAVIS", "vid4": "VFI_Vid4"}
        kind = next((kind for part, kind in kinds.items() if part in name), "VideoInterpolationTestDataset")
        flags["datasets.test.dataset_type"] = kind
        if kind != "VFI_UCF101":
            flags |= {"val.tile": [0, 256, 256], "val.tile_overlap": [0, 20, 20]}
    else:
        flags["datasets.test.meta_info_file"] = None
    if arguments.folder_gt is None:
        flags["datasets.test.dataroot_gt"] = None
    return flags


def set_name(folder: str) -> str:
    """Name of a data set's folder, in lower case.

    For a folder inside a published set, such as vimeo_septuplet/sequences or Vid4/GT, the name of the folder above.
    """
    path = Path(folder).expanduser().absolute()
    return (path.parent if path.name.lower() in LAYOUT_FOLDERS else path).name.lower()


def shipped_weights(opt: Options) -> Path:
    """Path of the weights of one of our own models, which are shipped with the code.

    Raises:
        UserError: the file is missing or was changed.
    """
    assert opt.path.pretrained_netG is not None, opt.task
    path = ROOT / opt.path.pretrained_netG
    if not path.is_file():
        raise UserError(f"{path}: missing; it comes with the code: git checkout -- {opt.path.pretrained_netG}")
    check_sha256(path)
    return path


def _as_trained(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Flags for a test set like the training set (class, spikes and so on), if the options have no test set."""
    registry = Registries().datasets
    train = None if _dataset_type(tree, "test") else _section(tree, "train")
    named = str((train or {}).get("dataset_type"))
    tested_by = getattr(registry.get(named), "tested_by", None) if named in registry.names() else None
    if train is None or tested_by is None:
        return {}
    own = ("dataset_type", "num_frame", "meta_info_file")  # valid for training only, or set by the command line
    kept = {key: value for key, value in train.items() if key in registry.parameters(tested_by) and key not in own}
    kept = {key: value for key, value in kept.items() if not key.startswith("dataroot")}
    packing = getattr(registry.get(named), "packs_spikes", None)
    if packing is not None and "input_pack_mode" in registry.parameters(tested_by):
        kept.setdefault("input_pack_mode", packing)  # generated samples have no option for it
    return {f"datasets.test.{key}": value for key, value in {"dataset_type": tested_by, **kept}.items()}


def _without_unknown(flags: Mapping[str, Any], tree: Mapping[str, Any]) -> dict[str, Any]:
    """Removes flags that set null for an option that the test set does not have."""
    registry = Registries().datasets
    chosen = str(flags.get("datasets.test.dataset_type", _dataset_type(tree, "test")))
    known = registry.parameters(chosen) if chosen in registry.names() else {}
    return {key: value for key, value in flags.items() if value is not None or key.rpartition(".")[2] in known}


def input_root(section: DatasetOptions) -> str:
    """Where a test set's input is read from: its blurred frames, or else its spikes."""
    arguments = section.arguments()
    return next(str(arguments[key]) for key in ("dataroot_lq", "dataroot_spike", "dataroot") if arguments.get(key))


def check_noise(opt: Options) -> None:
    """Checks that a noise level is given exactly if the network takes one.

    Raises:
        UserError: a noise level for a network that takes none, or none for one that takes it.
    """
    takes, given = getattr(opt.netG, "nonblind_denoising", False), getattr(opt.datasets.test, "sigma", 0) > 0
    if takes and not given:
        raise UserError(f"--sigma: {opt.task} needs the noise level out of 255; it was trained on 10, 20, 30, 40, 50")
    if given and not takes:
        raise UserError(f"--sigma: {opt.task} takes no noise level (netG.nonblind_denoising is false); leave it out")


def checkpoint_of(opt: Options, arguments: argparse.Namespace) -> Path:
    """Path of the weights: --checkpoint, else the experiment's folder or the published model's file.

    Raises:
        UserError: there are none; the message says where to put them.
    """
    if arguments.checkpoint is not None:
        result: Path = arguments.checkpoint
        return result
    if arguments.opt is None and task_file(arguments.task).parent == OWN_TASKS:
        return shipped_weights(opt)
    if arguments.opt is None:
        return published_weights(MODEL_ZOO / f"{opt.task}.pth", arguments.download)
    if not opt.experiment_dir.exists():
        raise UserError(
            f"{opt.experiment_dir}: there is no checkpoint; train first ({arguments.opt}), or name another with "
            "--checkpoint"
        )
    return opt.experiment_dir
