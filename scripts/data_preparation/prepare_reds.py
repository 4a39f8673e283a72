"""Lays out REDS as the recipes 001, 002 and 007 expect it; the four test clips of REDS4 are kept out of training.

    python -m scripts.data_preparation.prepare_reds --raw_root trainsets/REDS
    python -m scripts.data_preparation.prepare_reds --opt options/vrt/007_train_vrt_videodeblurring_reds.json

From RAW/{train,val}/{train,val}_{sharp,blur,sharp_bicubic/X4}/000/00000000.png (or without the first folder) come
trainsets/REDS/train_{sharp,blur,sharp_bicubic}_with_val, in which the validation clips 000 to 029 are called 240 to 269
and 000, 011, 015 and 020 are missing, and testsets/REDS4/{GT,blur,sharp_bicubic} with those four.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.data_preparation.flags import layout_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(layout_parser(str(__doc__), "REDS"))

from data.video_clips import VAL_PARTITIONS
from scripts.data_preparation.preparation import Layout, clip_folders, run_layout

KINDS = {"gt": ("sharp", ""), "lq": ("blur", ""), "bicubic": ("sharp_bicubic", "X4")}
TRAINING_CLIPS = 240


def raw_clips(raw: Path, split: str) -> dict[str, dict[str, Path]]:
    """Raw folders by side and clip."""
    sides = {}
    for side, (kind, inner) in KINDS.items():
        clips = _clips(raw, "train", kind, inner)
        if split == "train":
            validation = _clips(raw, "val", kind, inner)
            clips |= {f"{int(clip) + TRAINING_CLIPS:03d}": folder for clip, folder in validation.items()}
        held_out = VAL_PARTITIONS["REDS4"]
        sides[side] = {clip: folder for clip, folder in clips.items() if (clip in held_out) == (split == "test")}
    return sides


def _clips(raw: Path, part: str, kind: str, inner: str) -> dict[str, Path]:
    """Clips of a downloaded archive, in its own folder or beside the others."""
    name = f"{part}_{kind}"
    return clip_folders(raw / part / name / inner) or clip_folders(raw / name / inner)


LAYOUT = Layout(
    name="REDS",
    usual={
        "train": {
            "gt": "trainsets/REDS/train_sharp_with_val",
            "lq": "trainsets/REDS/train_blur_with_val",
            "bicubic": "trainsets/REDS/train_sharp_bicubic_with_val",
        },
        "test": {"gt": "testsets/REDS4/GT", "lq": "testsets/REDS4/blur", "bicubic": "testsets/REDS4/sharp_bicubic"},
    },
    clips=raw_clips,
    unpack="Unpack train_sharp.zip, train_blur.zip, train_sharp_bicubic.zip and those of val there.",
    complete={"train": (266, 26600), "test": (4, 400)},
)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code: 0 done, 2 a folder is missing or incomplete."""
    return run_layout(LAYOUT, str(__doc__), argv)


if __name__ == "__main__":
    sys.exit(main())
