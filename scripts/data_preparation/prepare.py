"""Prepares the data set that an option file names, whichever it is (`launch_train.sh --prepare-data`).

    python -m scripts.data_preparation.prepare --opt options/vrt/005_train_vrt_videodeblurring_dvd.json [--tiles ...]

The folder names of datasets.train.dataroot_gt tell DVD, REDS, DAVIS and Vimeo-90K; anything else is laid out as GoPro.
The other flags are those of the data set's own prepare_*.py.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.flags import prepare_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(prepare_parser(__doc__ or ""))

from data.preparations import GOPRO, preparation_of
from scripts.data_preparation import (
    prepare_davis,
    prepare_dvd,
    prepare_gopro_spike_dataset,
    prepare_reds,
    prepare_vimeo90k,
)
from scripts.data_preparation.preparation import sections
from utils.utils_cli import run_command

COMMANDS: dict[str, Callable[[Sequence[str] | None], int]] = {
    "prepare_gopro_spike_dataset": prepare_gopro_spike_dataset.main,
    "prepare_dvd": prepare_dvd.main,
    "prepare_reds": prepare_reds.main,
    "prepare_davis": prepare_davis.main,
    "prepare_vimeo90k": prepare_vimeo90k.main,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code: 0 done, 2 a folder is missing or incomplete."""
    arguments, flags = prepare_parser(__doc__ or "").parse_known_args(argv)
    found: list[int] = []

    def prepare() -> None:
        preparation = preparation_of(sections(arguments.opt)["train"].get("dataroot_gt") or "") or GOPRO
        found.append(COMMANDS[preparation.command](["--opt", str(arguments.opt), *flags]))

    return run_command(prepare) or found[0]


if __name__ == "__main__":
    sys.exit(main())
