"""Makes tiled TIFFs of folders of frames: lossless, a little larger than PNG, and a crop is decoded many times faster.

    python -m scripts.data_preparation.make_tiles trainsets/GOPRO_Large/train_GT trainsets/GOPRO_Large/train_GT_blurred
    "dataroot_gt": "trainsets/GOPRO_Large/train_GT_tiles", "filename_ext": "tif", ...

<folder>_tiles/<clip>/<frame>.tif is made beside each folder; the originals stay as they are. Frames that are there are
kept; running it again goes on where it stopped. `scripts/benchmark/bench_loader.py` measures the gain.
"""

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from utils.utils_cli import tell_missing_packages

if __name__ == "__main__":  # before what is installed is imported
    tell_missing_packages()

import cv2
import numpy as np

from data.frame_io import FolderFrames, Frames
from data.picture_crop import encode_tiles
from utils.user_error import UserError
from utils.utils_cli import run_command
from utils.utils_file import atomic_write
from utils.utils_progress import progress


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code: 0 done, 2 a folder is missing or a frame damaged."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="<clip>/<frame> below it")
    parser.add_argument("--workers", type=int, default=4, help="processes")
    parser.add_argument("--force", action="store_true", help="recreate what is there already")
    arguments = parser.parse_args(argv)

    def make() -> None:
        for folder in arguments.folders:
            frames = FolderFrames(folder, "FOLDER")
            target = folder.with_name(f"{folder.name}_tiles")
            written = tile_frames(frames, target, arguments.workers, arguments.force)
            print(f"{target}: {written} frames made, {sum(map(len, frames.clips.values())) - written} were there")

    return run_command(make)


def tile_frames(frames: Frames, target: Path, workers: int, force: bool = False) -> int:
    """Writes <target>/<clip>/<frame>.tif of every frame; returns how many were not there yet.

    Raises:
        UserError: a frame can't be read.
    """
    keys = [(clip, frame) for clip, names in frames.clips.items() for frame in names]
    todo = [key for key in keys if force or not _path(target, *key).is_file()]
    write = partial(_write_tiles, frames, target)
    with progress(len(todo), target.name, "frame") as bar:
        if workers < 2 or len(todo) < 2 * workers:
            for key in todo:
                write(key)
                bar.update()
        else:
            with ProcessPoolExecutor(workers) as pool:
                for _ in pool.map(write, todo, chunksize=4):
                    bar.update()
    return len(todo)


def _write_tiles(frames: Frames, target: Path, key: tuple[str, str]) -> None:
    cv2.setNumThreads(0)
    picture = frames.read(*key)
    if picture.dtype != np.uint8:
        raise UserError(
            f"{frames.where(*key)}: {picture.dtype}; tiles hold 8 bits per channel, leave such sets as they are"
        )
    with atomic_write(_path(target, *key), "wb") as file:
        file.write(encode_tiles(picture))


def _path(target: Path, clip: str, frame: str) -> Path:
    return target / clip / f"{frame}.tif"


if __name__ == "__main__":
    sys.exit(main())
