"""Lays out Vimeo-90K as the recipes 003, 004 (super-resolution) and 009 (interpolation) expect it.

    python -m scripts.data_preparation.prepare_vimeo90k --raw_root trainsets/vimeo90k
    python -m scripts.data_preparation.prepare_vimeo90k --opt options/vrt/009_train_vrt_videofi_vimeo_4frames.json

From RAW/vimeo_septuplet/{sequences/00001/0001/im1.png, sep_trainlist.txt, sep_testlist.txt} come
trainsets/vimeo90k/vimeo90k_train_GT_all and testsets/vimeo90k/vimeo90k_test_GT_all; from vimeo_septuplet_matlabLRx4 and
vimeo_septuplet_BDLRx4, where they are there, the *_LR7frames and *_BDLR7frames beside them.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.data_preparation.flags import layout_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(layout_parser(str(__doc__), "Vimeo-90K"))

from scripts.data_preparation.preparation import Layout, run_layout
from utils.utils_file import check_relative, read_text

SOURCES = {"gt": "vimeo_septuplet", "lq": "vimeo_septuplet_matlabLRx4", "bd": "vimeo_septuplet_BDLRx4"}
KINDS = {"gt": "GT_all", "lq": "LR7frames", "bd": "BDLR7frames"}


def raw_clips(raw: Path, split: str) -> dict[str, dict[str, Path]]:
    """Raw folders by side and clip; listed clips that are not there are reported as missing later."""
    listing = raw / SOURCES["gt"] / f"sep_{split}list.txt"
    listed = [check_relative(clip, listing) for clip in read_text(listing).split()] if listing.is_file() else []
    sequences = {side: raw / source / "sequences" for side, source in SOURCES.items()}
    return {
        side: {clip: folder / clip for clip in listed} if folder.is_dir() else {} for side, folder in sequences.items()
    }


LAYOUT = Layout(
    name="Vimeo-90K",
    usual={
        split: {side: f"{split}sets/vimeo90k/vimeo90k_{split}_{kind}" for side, kind in KINDS.items()}
        for split in ("train", "test")
    },
    clips=raw_clips,
    unpack="Unpack vimeo_septuplet.zip (and the low-resolution frames) there, with sep_trainlist.txt.",
    complete={"train": (64612, 452284), "test": (7824, 54768)},
)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code: 0 done, 2 a folder is missing or incomplete."""
    return run_layout(LAYOUT, str(__doc__), argv)


if __name__ == "__main__":
    sys.exit(main())
