"""What the preparations of all data sets share: raw clips are linked or copied to where the recipes look for them.

A `prepare_*.py` says which raw folder is which clip (`Split`); `prepare_splits` checks that every clip is whole on all
sides, looks for room on the disk, and lays the clips out one by one, so that an interrupted run goes on where it
stopped. Raw files are never changed. Nothing is half made: a folder, file or LMDB has its name only when complete.
"""

import argparse
import os
import shutil
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.frame_io import FolderFrames, natural_order
from data.frame_lmdb import lmdb_is_complete, write_lmdb
from data.preparations import preparation_of
from data.video_clips import frame_number, write_meta_info
from scripts.data_preparation.flags import RAW_ROOTS, SPLITS, layout_parser
from scripts.data_preparation.make_tiles import tile_frames
from utils.options.layers import load_layers
from utils.user_error import UserError
from utils.utils_cli import run_command
from utils.utils_file import list_folder
from utils.utils_image import PICTURE_SUFFIXES

TILES = "_tiles"
LMDB = ".lmdb"


@dataclass(frozen=True)
class Split:
    """The clips of one split.

    Attributes:
        name: "train" or "test".
        targets: folder to be made, by side: "gt", "lq", ...
        raw: raw folder of every clip's frames, by side.
        meta_info: file to write.
        complete: number of clips and frames of the complete data set, for a notice; None: not known.
    """

    name: str
    targets: dict[str, Path]
    raw: dict[str, dict[str, Path]]
    meta_info: Path
    complete: tuple[int, int] | None = None


@dataclass(frozen=True)
class Manner:
    """How clips are laid out: by copy or by link, what is made of them, whether what is there is recreated."""

    copy: bool = False
    lmdb: bool = False
    tiles: bool = False
    force: bool = False
    workers: int = 1


def manner(arguments: argparse.Namespace, roots: Sequence[str] = ()) -> Manner:
    """What the flags say; data roots of an option file (`wanted`) that end with .lmdb or _tiles ask for those."""
    return Manner(
        arguments.copy,
        arguments.generate_lmdb or any(root.endswith(LMDB) for root in roots),
        arguments.tiles or any(root.endswith(TILES) for root in roots),
        arguments.force,
        arguments.workers,
    )


def run(
    prepare: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser, argv: Sequence[str] | None
) -> int:
    """Parses and prepares; returns the exit code: 0 done, 2 something is missing or incomplete."""
    arguments = parser.parse_args(argv)
    return run_command(lambda: prepare(arguments))


def sections(option_file: Path | None) -> dict[str, dict[str, Any]]:
    """`datasets.train` and `datasets.test` of an option file as they stand there; missing ones are empty."""
    datasets: dict[str, Any] = {}
    if option_file is not None:
        document = load_layers(option_file)
        document.check(option_file)
        datasets = document.tree.get("datasets", {})
    return {split: datasets.get(split) or {} for split in SPLITS}


def folder_of(root: str) -> Path:
    """The folder of frames from which a data root of the options is made: without .lmdb and _tiles."""
    return Path(root.removesuffix(LMDB).removesuffix(TILES)).expanduser()


def targets_of(section: Mapping[str, Any], defaults: Mapping[str, Path]) -> dict[str, Path]:
    """The folders to make: those of the options (`dataroot_<side>`), else the usual ones."""
    return {
        side: folder_of(section[f"dataroot_{side}"]) if section.get(f"dataroot_{side}") else default
        for side, default in defaults.items()
    }


def meta_info_of(section: Mapping[str, Any], split: str, gt: Path) -> Path:
    """The meta info file to write: the options', else one beside the sharp frames."""
    named = section.get("meta_info_file")
    return Path(named).expanduser() if named else gt.parent / f"meta_info_{split}.txt"


def is_there(section: Mapping[str, Any]) -> bool:
    """Whether all data roots that a section names exist already, perhaps as LMDBs made elsewhere."""
    roots = [root for key, root in section.items() if key.startswith("dataroot_") and root]
    return bool(roots) and all(Path(root).expanduser().exists() for root in roots)


def clip_folders(root: Path, inner: str = "") -> dict[str, Path]:
    """Clips below a folder by name: <root>/<clip>/<inner>."""
    found = list_folder(root) if root.is_dir() else []
    return {path.name: path / inner for path in found if path.is_dir()}


def prepare_splits(splits: Sequence[Split], how: Manner) -> None:
    """Lays out all splits, or says what is missing before anything is made.

    Raises:
        UserError: a raw folder is missing, a clip is not whole, or the disk is too full.
    """
    faults = [fault for split in splits for fault in _incomplete(split)]
    if faults:
        shown = "".join(f"\n  {fault}" for fault in faults[:10])
        more = f"\n  ... and {len(faults) - 10} more" if len(faults) > 10 else ""
        raise UserError(f"The raw data are not complete; nothing was changed:{shown}{more}")
    _check_room(splits, how)
    for split in splits:
        for side, target in split.targets.items():
            for clip, raw in split.raw[side].items():
                lay_out(raw, target / clip, how)
        frames = FolderFrames(split.targets["gt"], "dataroot_gt")
        counts = write_meta_info(split.meta_info, frames, split.raw["gt"])
        for side, target in split.targets.items():
            derive(f"dataroot_{side}", target, sorted(split.raw[side]), how)
        total = sum(counts.values())
        print(f"{split.name}: {len(counts)} clips, {total} frames")
        if split.complete is not None and split.complete != (len(counts), total):
            print(f"Note: the complete {split.name} set has {split.complete[0]} clips, {split.complete[1]} frames.")


def derive(option: str, target: Path, clips: Sequence[str], how: Manner) -> None:
    """Makes the LMDB and the tiles of a folder that was laid out, as far as they are wanted and not there yet."""
    if how.lmdb or how.tiles:
        frames = FolderFrames(target, option)
        frames.clips = {clip: frames.clips[clip] for clip in sorted(clips, key=natural_order)}
        if how.tiles:
            tile_frames(frames, target.with_name(target.name + TILES), how.workers, how.force)
        path = target.with_name(target.name + LMDB)
        if how.lmdb and (how.force or not lmdb_is_complete(path, frames)):
            write_lmdb(path, frames)


def lay_out(raw: Path, target: Path, how: Manner) -> None:
    """Links or copies one clip; a whole one that is there is kept."""
    if target == raw:
        return
    if target.is_symlink():
        if not how.copy and not how.force and target.exists() and target.resolve() == raw.resolve():
            return
        target.unlink()
    elif target.exists():
        if not how.force and pictures(target) == pictures(raw):
            return
        if not how.force:
            raise UserError(f"{target} holds other frames than {raw}; --force replaces it")
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if not how.copy:
        link(raw, target)
        return
    half_made = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(half_made, ignore_errors=True)
    half_made.mkdir()
    for name in pictures(raw):
        shutil.copy2(raw / name, half_made / name)
    half_made.rename(target)


def link(raw: Path, target: Path) -> None:
    """Makes `target` a link to `raw`, relative to its folder: it survives that both are moved together, or mounted
    elsewhere."""
    raw, folder = raw.resolve(), target.parent.resolve()
    same_drive = raw.drive == folder.drive  # always, outside Windows
    target.symlink_to(os.path.relpath(raw, folder) if same_drive else raw, target_is_directory=True)


def pictures(folder: Path) -> list[str]:
    """Names of the picture files in a folder, in order."""
    return [path.name for path in list_folder(folder, PICTURE_SUFFIXES)] if folder.is_dir() else []


def _incomplete(split: Split) -> list[str]:
    """What the raw clips of a split lack."""
    faults = []
    clips = {clip for side in split.raw.values() for clip in side}
    if not clips:
        return [f"{split.name}: no clips where they were looked for"]
    for clip in sorted(clips, key=natural_order):
        frames: dict[str, list[str]] = {}
        for side, folders in split.raw.items():
            folder = folders.get(clip)
            frames[side] = [] if folder is None else [Path(name).stem for name in pictures(folder)]
            if not frames[side]:
                faults.append(f"{split.name}/{clip}: no pictures for {side}" + (f" in {folder}" if folder else ""))
        present = {side: names for side, names in frames.items() if names}
        for side, names in present.items():
            lacking = sorted(set().union(*present.values()) - set(names))
            if lacking:
                faults.append(f"{split.name}/{clip}: {split.raw[side][clip]} lacks {', '.join(lacking[:5])}")
        gaps = _gaps(next(iter(present.values()), []))
        if gaps:
            faults.append(f"{split.name}/{clip}: frame numbers are missing in between: {gaps}")
    return faults


def _gaps(names: Sequence[str]) -> str:
    numbers = {frame_number(name) for name in names}
    lacking = sorted(set(range(min(numbers, default=0), max(numbers, default=-1) + 1)) - numbers)
    return ", ".join(map(str, lacking[:5]))


def _check_room(splits: Sequence[Split], how: Manner) -> None:
    """
    Raises:
        UserError: copies, LMDBs and tiles would not fit on the disk.
    """
    if not (how.copy or how.lmdb or how.tiles):
        return
    needed: dict[int, tuple[Path, float]] = {}  # by disk
    for split in splits:
        for side, target in split.targets.items():
            files = [folder / name for folder in split.raw[side].values() for name in pictures(folder)]
            for product, factor in _made(target, how, jpeg=bool(files) and files[0].suffix.lower() != ".png"):
                if product.exists() and not how.force:
                    continue  # partly there at least; what is still missing is not known cheaply
                place = next(parent for parent in (product, *product.absolute().parents) if parent.exists())
                disk, size = place.stat().st_dev, factor * sum(file.stat().st_size for file in files)
                needed[disk] = place, needed.get(disk, (place, 0.0))[1] + size
    for place, size in needed.values():
        free = shutil.disk_usage(place).free
        if size > free:
            raise UserError(
                f"{place}: about {size / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free; "
                "links alone (without --copy, --generate_lmdb and --tiles) need none"
            )


def _made(target: Path, how: Manner, jpeg: bool) -> list[tuple[Path, float]]:
    """What will be made of a folder, and its size over the raw files'."""
    sizes = [(target, 1.0)] if how.copy else []
    sizes += [(target.with_name(target.name + LMDB), 1.05)] if how.lmdb else []
    return sizes + ([(target.with_name(target.name + TILES), 6.0 if jpeg else 1.1)] if how.tiles else [])


@dataclass(frozen=True)
class Layout:
    """A data set that is laid out by its folders alone.

    Attributes:
        name: for people; a key of `RAW_ROOTS`.
        usual: where a side of a split goes unless an option file says otherwise, by split and side; "gt" is first.
        clips: from the raw folder and a split to the raw folder of every clip's frames, by side.
        unpack: what the raw folder has to hold, for messages.
        complete: clips and frames of the complete splits.
    """

    name: str
    usual: dict[str, dict[str, str]]
    clips: Callable[[Path, str], dict[str, dict[str, Path]]]
    unpack: str
    complete: dict[str, tuple[int, int]]


def run_layout(layout: Layout, doc: str, argv: Sequence[str] | None) -> int:
    """The command of a data set; returns the exit code: 0 done, 2 something is missing or incomplete."""
    parser = layout_parser(doc, layout.name)
    return run(lambda arguments: _prepare_layout(layout, arguments), parser, argv)


def _prepare_layout(layout: Layout, arguments: argparse.Namespace) -> None:
    candidates = [arguments.out_root / raw for raw in RAW_ROOTS[layout.name]]
    raw_root = arguments.raw_root or next((raw for raw in candidates if raw.is_dir()), candidates[0])
    chosen = sections(arguments.opt)
    splits = []
    for name in arguments.splits:
        targets = _targets(layout, name, chosen[name], arguments)
        raw = layout.clips(raw_root, name) if targets else {}
        asked = arguments.opt is not None
        present = {side: target for side, target in targets.items() if raw.get(side)}
        lacking = sorted(targets.keys() - present.keys())
        if lacking and is_there(chosen[name]):
            print(f"{name}: no raw data, and all that the options name is there; left alone")
            continue
        if "gt" in lacking or (asked and lacking):
            raise UserError(f"{raw_root}: no {name} clips for {', '.join(lacking)}. {layout.unpack}")
        if lacking:
            print(f"{name}: {', '.join(lacking)} left out, not in {raw_root}")
        if present:
            clips = {side: raw[side] for side in present}
            meta_info = meta_info_of(chosen[name], name, present["gt"])
            splits.append(Split(name, present, clips, meta_info, layout.complete.get(name)))
    roots = [str(value) for section in chosen.values() for key, value in section.items() if key.startswith("dataroot_")]
    prepare_splits(splits, manner(arguments, roots))


def _targets(layout: Layout, split: str, section: Mapping[str, Any], arguments: argparse.Namespace) -> dict[str, Path]:
    """The folders to make of a split, by side: all usual ones, or those that the option file names."""
    usual = {side: arguments.out_root / folder for side, folder in layout.usual[split].items()}
    if arguments.opt is None:
        return usual
    named = {side: folder_of(section[f"dataroot_{side}"]) for side in ("gt", "lq") if section.get(f"dataroot_{side}")}
    by_name = {Path(folder).name: side for side, folder in layout.usual[split].items()}
    if split == "test" and named and not any(_belongs(folder, by_name, layout) for folder in named.values()):
        print(f"test: {', '.join(map(str, named.values()))} is no part of {layout.name}; left alone")
        return {}
    fallback = dict(zip(("gt", "lq"), layout.usual[split], strict=False))
    if named.get("gt") == named.get("lq"):
        fallback["lq"] = "gt"  # interpolation and denoising: both sides are the sharp frames
    return {by_name.get(folder.name, fallback.get(option, "gt")): folder for option, folder in named.items()}


def _belongs(folder: Path, usual: Container[str], layout: Layout) -> bool:
    """Whether a folder that an option file names is a side of this data set."""
    preparation = preparation_of(folder)
    return folder.name in usual or (preparation is not None and preparation.name == layout.name)
