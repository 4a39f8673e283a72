"""Lays out DVD (DeepVideoDeblurring) as the recipe 005 expects it: 61 clips to train on, 10 to test.

    python -m scripts.data_preparation.prepare_dvd --raw_root DeepVideoDeblurring_Dataset/quantitative_datasets
    python -m scripts.data_preparation.prepare_dvd --opt options/vrt/005_train_vrt_videodeblurring_dvd.json

From RAW/<clip>/{GT,input}/00000.jpg come trainsets/DVD/train_{GT,GT_blurred} and testsets/DVD10/test_{GT,GT_blurred}.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.data_preparation.flags import layout_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(layout_parser(str(__doc__), "DVD"))

from scripts.data_preparation.preparation import Layout, clip_folders, run_layout

TEST_CLIPS = {
    "720p_240fps_2", "IMG_0003", "IMG_0021", "IMG_0030", "IMG_0031",
    "IMG_0032", "IMG_0033", "IMG_0037", "IMG_0039", "IMG_0049",
}  # fmt: skip


def raw_clips(raw: Path, split: str) -> dict[str, dict[str, Path]]:
    """Raw folders by side and clip."""
    sides = {"gt": clip_folders(raw, "GT"), "lq": clip_folders(raw, "input")}
    return {
        side: {clip: folder for clip, folder in clips.items() if (clip in TEST_CLIPS) == (split == "test")}
        for side, clips in sides.items()
    }


LAYOUT = Layout(
    name="DVD",
    usual={
        "train": {"gt": "trainsets/DVD/train_GT", "lq": "trainsets/DVD/train_GT_blurred"},
        "test": {"gt": "testsets/DVD10/test_GT", "lq": "testsets/DVD10/test_GT_blurred"},
    },
    clips=raw_clips,
    unpack="Unpack DeepVideoDeblurring_Dataset.zip so that <raw_root>/IMG_0001/{GT,input}/00000.jpg exist.",
    complete={"train": (61, 5708), "test": (10, 1000)},
)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code: 0 done, 2 a folder is missing or incomplete."""
    return run_layout(LAYOUT, str(__doc__), argv)


if __name__ == "__main__":
    sys.exit(main())
