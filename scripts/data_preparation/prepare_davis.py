"""Lays out DAVIS 2017 as the recipe 008 (denoising) expects it: 90 clips to train on, those of test-dev to test.

    python -m scripts.data_preparation.prepare_davis --raw_root trainsets/DAVIS
    python -m scripts.data_preparation.prepare_davis --opt options/vrt/008_train_vrt_videodenoising_davis.json

From RAW/JPEGImages/480p/<clip>/00000.jpg and the lists RAW/ImageSets/2017/{train,val,test-dev}.txt come
trainsets/DAVIS/train_GT (train and val) and testsets/DAVIS-test (test-dev).
"""

import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.data_preparation.flags import layout_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(layout_parser(str(__doc__), "DAVIS"))

from scripts.data_preparation.preparation import Layout, clip_folders, run_layout
from utils.utils_file import check_relative, read_text

LISTS = {"train": ("train", "val"), "test": ("test-dev",)}


def raw_clips(raw: Path, split: str) -> dict[str, dict[str, Path]]:
    """Raw folders by side and clip; listed clips that are not there are reported as missing later."""
    lists = [raw / "ImageSets/2017" / f"{name}.txt" for name in LISTS[split]]
    listed = [clip for path in lists if path.is_file() for clip in read_text(path).split()]
    frames = raw / "JPEGImages/480p"
    if not any(path.is_file() for path in lists):
        return {"gt": clip_folders(frames) if split == "train" else {}}
    folders = clip_folders(frames)
    if split == "test" and not folders.keys() & set(listed):
        return {"gt": {}}  # test-dev is another download
    return {"gt": {clip: frames / check_relative(clip, raw) for clip in listed}}


LAYOUT = Layout(
    name="DAVIS",
    usual={"train": {"gt": "trainsets/DAVIS/train_GT"}, "test": {"gt": "testsets/DAVIS-test"}},
    clips=raw_clips,
    unpack="Unpack DAVIS-2017-trainval-480p.zip (for testing also test-dev) so that JPEGImages/480p is there.",
    complete={"train": (90, 6208)},
)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code: 0 done, 2 a folder is missing or incomplete."""
    return run_layout(LAYOUT, str(__doc__), argv)


if __name__ == "__main__":
    sys.exit(main())
