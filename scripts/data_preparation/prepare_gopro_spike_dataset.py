"""Lays out GoPro and its spike sequences as the recipes expect them, without copying a picture.

    python -m scripts.data_preparation.prepare_gopro_spike_dataset --gopro_root trainsets/GOPRO_Large \\
        --spike_root trainsets/GOPRO_Large_spike_seq
    python -m scripts.data_preparation.prepare_gopro_spike_dataset --opt FILE       roots from the option file

From GOPRO_ROOT/{train,test}/<clip>/{sharp,blur} come GOPRO_ROOT/{train,test}_{GT,GT_blurred}/<clip> (symbolic links, or
copies with --copy), GOPRO_ROOT/meta_info_{train,test}.txt, and SPIKE_ROOT/config.yaml with the geometry 360x640. Clips
that are there already are kept; running it again goes on where it stopped.
"""

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from data.frame_io import FolderFrames
from utils.option_layers import load_layers
from utils.utils_file import atomic_write

PICTURES = {"GT": "sharp", "GT_blurred": "blur"}
CONFIG = "spike_h: 360\nspike_w: 640\nis_labeled: false\nlabeled_data_type: [0]\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code: 0 done, 2 a folder is missing or incomplete."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--opt", type=Path, help="option file that names the roots")
    parser.add_argument("--gopro_root", type=Path, help="folder with train/ and test/ of GOPRO_Large")
    parser.add_argument("--spike_root", type=Path, help="folder with train/ and test/ of the spike sequences")
    parser.add_argument("--splits", nargs="+", default=["train", "test"], choices=["train", "test"])
    parser.add_argument("--copy", action="store_true", help="copy the pictures instead of linking them")
    arguments = parser.parse_args(argv)
    try:
        gopro_root, spike_root = roots(arguments)
        for split in arguments.splits:
            clips = prepare_split(gopro_root, split, arguments.copy)
            check_spikes(spike_root, gopro_root, split, clips)
            print(f"{split}: {len(clips)} clips, {sum(clips.values())} frames")
        if not (spike_root / "config.yaml").exists():
            with atomic_write(spike_root / "config.yaml") as file:
                file.write(CONFIG)
        return 0
    except ValueError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2


def roots(arguments: argparse.Namespace) -> tuple[Path, Path]:
    """The folders of GoPro and of its spikes: from the flags, else from the option file's training set."""
    gopro_root, spike_root = arguments.gopro_root, arguments.spike_root
    if arguments.opt is not None:
        train = load_layers(arguments.opt).tree["datasets"]["train"]
        gopro_root = gopro_root or Path(train["dataroot_gt"]).parent
        spike_root = (
            spike_root or Path(train.get("dataroot_spike", gopro_root.parent / "GOPRO_Large_spike_seq/train")).parent
        )
    if gopro_root is None or spike_root is None:
        raise ValueError("name the folders by --gopro_root and --spike_root, or an option file by --opt")
    return gopro_root, spike_root


def prepare_split(gopro_root: Path, split: str, copy: bool) -> dict[str, int]:
    """Makes `<split>_GT` and `<split>_GT_blurred` and the split's meta info.

    Returns:
        Number of frames of every clip.

    Raises:
        ValueError: the raw folder is missing, or a clip lacks sharp or blurred frames; nothing of that clip is made.
    """
    raw = gopro_root / split
    laid_out = gopro_root / f"{split}_GT"
    names = sorted(path.name for path in (raw if raw.is_dir() else laid_out).glob("*/") if path.is_dir())
    if not names:
        raise ValueError(f"{raw}: no clips. Unpack GOPRO_Large so that {raw}/<clip>/sharp/000001.png exists.")
    for name in names:
        if raw.is_dir():
            lay_out(raw / name, gopro_root, split, copy)
    sharp = FolderFrames(laid_out, "--gopro_root")
    with atomic_write(gopro_root / f"meta_info_{split}.txt") as file:
        for clip, frames in sharp.clips.items():
            height, width = sharp.size(clip)
            file.write(f"{clip} {len(frames)} ({height},{width},3) {int(re.sub('[^0-9]', '', frames[0]) or 0)}\n")
    return {clip: len(frames) for clip, frames in sharp.clips.items()}


def lay_out(clip: Path, gopro_root: Path, split: str, copy: bool) -> None:
    """Links or copies the pictures of one raw clip to where the recipes look for them."""
    frames = {kind: sorted(path.name for path in (clip / source).glob("*.png")) for kind, source in PICTURES.items()}
    if not frames["GT"] or frames["GT"] != frames["GT_blurred"]:
        lone = sorted(set(frames["GT"]) ^ set(frames["GT_blurred"]))
        raise ValueError(f"{clip}: sharp/ and blur/ must hold the same frames; on one side only: {lone[:5] or 'all'}")
    for kind, source in PICTURES.items():
        target = gopro_root / f"{split}_{kind}" / clip.name
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if copy:
            half_made = target.with_name(f".{target.name}.tmp")
            shutil.copytree(clip / source, half_made, dirs_exist_ok=True)
            half_made.rename(target)
        else:
            target.symlink_to(Path("..") / split / clip.name / source)


def check_spikes(spike_root: Path, gopro_root: Path, split: str, clips: dict[str, int]) -> None:
    """Every frame needs its spike file.

    Raises:
        ValueError: names the first files that are missing.
    """
    lost = [
        str(path)
        for clip in clips
        for frame in sorted((gopro_root / f"{split}_GT_blurred" / clip).glob("*.png"))
        if not (path := spike_root / split / clip / "spike" / f"{frame.stem}.dat").exists()
    ]
    if lost:
        raise ValueError(f"{len(lost)} spike files are missing, the first: {', '.join(lost[:3])}")


if __name__ == "__main__":
    sys.exit(main())
