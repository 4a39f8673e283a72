"""Lays out GoPro and its spike sequences as the recipes expect them, without copying a picture.

    python scripts/data_preparation/prepare_gopro_spike_dataset.py                  folders of the RGB and spike recipes
    python scripts/data_preparation/prepare_gopro_spike_dataset.py --opt FILE       folders of an option file
    python scripts/data_preparation/prepare_gopro_spike_dataset.py --gopro_root trainsets/GOPRO_Large \\
        --spike_root trainsets/GOPRO_Large_spike_seq

From GOPRO_ROOT/{train,test}/<clip>/{sharp,blur} come GOPRO_ROOT/{train,test}_{GT,GT_blurred}/<clip> (symbolic links, or
copies with --copy) and GOPRO_ROOT/meta_info_{train,test}.txt, or the folders and files that the option file names.
Where there are spikes, SPIKE_ROOT/config.yaml gets their geometry (half the frames': 360x640), and every
SPIKE_ROOT/{train,test}/<clip> a sync.json. GoPro has two sets of blurred frames: --blur chooses, <folder>.json beside
the laid out frames records which. What is there already is kept; running it again goes on where it stopped.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.data_preparation.flags import BLURS, prepare_gopro_spike_dataset_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(prepare_gopro_spike_dataset_parser(__doc__ or ""))

from data.frame_io import FolderFrames
from data.spike.sync import GOPRO_CLIP, GOPRO_SPIKES_PER_FRAME
from data.spike_io import SpikeFrames
from data.video_clips import Clip, report_faults
from scripts.data_preparation.make_sync import windows_by_rule, write_clip
from scripts.data_preparation.preparation import (
    Split,
    clip_folders,
    is_there,
    manner,
    meta_info_of,
    prepare_splits,
    run,
    sections,
    targets_of,
)
from utils.spike_loader import find_geometry
from utils.spike_writer import write_config
from utils.user_error import UserError
from utils.utils_file import atomic_write, read_json

"""GoPro's two sets of blurred frames, in folders of these names."""

RECIPE = Path(__file__).resolve().parents[2] / "options/vrt/006_train_vrt_videodeblurring_gopro_rgbspike.json"
"""The option file whose folders are made where the command line names none."""

WHOLE = {"train": (22, 2103), "test": (11, 1111)}
SPIKE_RATIO = 2  # frame pixels per spike pixel


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code: 0 done, 2 a folder is missing or incomplete."""
    return run(prepare, prepare_gopro_spike_dataset_parser(__doc__ or ""), argv)


def prepare(arguments: argparse.Namespace) -> None:
    """Lays out the splits asked for, then their spikes."""
    if arguments.opt is None and arguments.gopro_root is None:
        arguments.opt = RECIPE
    chosen = sections(arguments.opt)
    roots = [str(root) for section in chosen.values() for key, root in section.items() if key.startswith("dataroot_")]
    root = arguments.gopro_root or _gopro_root(chosen["train"])
    splits, blurs = [], {}
    for name in arguments.splits:
        targets = targets_of(chosen[name], {"gt": root / f"{name}_GT", "lq": root / f"{name}_GT_blurred"})
        blur = choose_blur(targets["lq"], arguments.blur, arguments.force)
        raw = {"gt": clip_folders(root / name, "sharp"), "lq": clip_folders(root / name, blur)}
        if raw["gt"]:
            blurs[targets["lq"]] = blur
        else:  # laid out by other means already
            raw = {side: clip_folders(target) for side, target in targets.items()}
        if raw["gt"]:
            splits.append(Split(name, targets, raw, meta_info_of(chosen[name], name, targets["gt"]), WHOLE[name]))
        elif is_there(chosen[name]):
            print(f"{name}: no raw data, and all that the options name is there; left alone")
        elif arguments.opt is None or chosen[name]:
            raise UserError(
                f"{root / name}: no clips. Unpack GOPRO_Large so that {root / name}/<clip>/sharp/000001.png exists."
            )
    prepare_splits(splits, manner(arguments, roots))
    for folder, blur in blurs.items():
        if recorded_blur(folder) != blur:
            with atomic_write(record_of(folder)) as file:
                file.write(json.dumps({"blur": blur}) + "\n")
        print(f"{folder}: blurred frames of {blur}, recorded in {record_of(folder).name}")
    for split in splits:
        spikes = _spike_root(arguments, chosen, split.name)
        if spikes is not None:
            prepare_spikes(split, spikes, arguments)


def record_of(folder: Path) -> Path:
    """The file beside a folder of blurred frames that says which of GoPro's they are."""
    return folder.with_name(f"{folder.name}.json")


def recorded_blur(folder: Path) -> str | None:
    """What the record says; None where there is none."""
    record = record_of(folder)
    return read_json(record).get("blur") if record.is_file() else None


def choose_blur(folder: Path, asked: str | None, force: bool) -> str:
    """Which of GoPro's blurred frames a folder gets: those asked for, else those that it has, else `blur`.

    Raises:
        UserError: the folder has others than those asked for, and is not to be recreated.
    """
    # Links tell too, of folders that were laid out before there were records.
    links = [path.resolve().name for path in sorted(folder.glob("*")) if path.is_symlink()]
    present = recorded_blur(folder) or next((name for name in links if name in BLURS), None)
    if asked is not None and present not in (None, asked) and not force:
        raise UserError(
            f"{folder} holds frames of {present}, not of {asked}; --force recreates it, or let the option file name "
            "another folder"
        )
    return asked or present or BLURS[0]


def prepare_spikes(split: Split, spikes: Path, arguments: argparse.Namespace) -> None:
    """Checks that every frame has its spikes, and writes config.yaml and every clip's sync.json.

    Args:
        spikes: <clip>/spike/<frame>.dat below it; config.yaml goes into its parent.

    Raises:
        UserError: names the spike files that are missing or of another size.
    """
    frames = FolderFrames(split.targets["gt"], "dataroot_gt")
    clips = [Clip(clip, tuple(frames.clips[clip])) for clip in split.raw["gt"]]
    height, width = frames.size(clips[0].name)
    size = find_geometry(spikes) or (
        arguments.spike_h or height // SPIKE_RATIO,
        arguments.spike_w or width // SPIKE_RATIO,
    )
    found = SpikeFrames.plain(spikes, clips, size)
    # What an old sync.json says is looked at when it is read; it may be about to be rewritten.
    report_faults([f for f in found.faults if "sync.json: " not in f], f"The spikes in {spikes} can't be used")
    if find_geometry(spikes) is None:
        write_config(spikes.parent / "config.yaml", *size)
    for clip in clips:
        folder = spikes / clip.name
        if arguments.force or not (folder / "sync.json").is_file():
            windows = windows_by_rule(folder, clip, size)
            write_clip(folder, windows)
            averaged = int(match[1]) if (match := GOPRO_CLIP.match(clip.name)) else None
            if averaged and any(
                window.end != GOPRO_SPIKES_PER_FRAME * (averaged - 1) + 1 for window in windows.values()
            ):
                count = GOPRO_SPIKES_PER_FRAME * averaged
                print(f"Note: {folder}: files are not of {count} spike frames, as its name implies; taken whole")


def _gopro_root(train: dict[str, str]) -> Path:
    if not train.get("dataroot_gt"):
        raise UserError("name the folder of GoPro by --gopro_root, or an option file with a training set by --opt")
    return Path(train["dataroot_gt"]).expanduser().parent


def _spike_root(arguments: argparse.Namespace, chosen: dict[str, dict[str, str]], split: str) -> Path | None:
    """The folder of a split's spikes; None where neither flag nor option file names one."""
    if arguments.spike_root is not None:
        return Path(arguments.spike_root) / split
    if chosen[split].get("dataroot_spike"):
        return Path(chosen[split]["dataroot_spike"]).expanduser()
    train = chosen["train"].get("dataroot_spike")
    return Path(train).expanduser().parent / split if train and not chosen[split] else None


if __name__ == "__main__":
    sys.exit(main())
