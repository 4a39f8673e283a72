"""The flags of `main_train_vrt.py` and `main_test_vrt.py`, KAIR's and our own.

This module imports no slow module, so that `svrt train --help` answers at once.
"""

import argparse
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.exposure_times import parse_times
from utils.user_error import UserError
from utils.utils_cli import run_command, tell_missing_packages
from utils.utils_download import RELEASE

logger = logging.getLogger(__name__)

VIMEO_LIST = "data/meta_info/meta_info_Vimeo90K_test_GT.txt"
"""KAIR's list, at KAIR's path, of the Vimeo-90K test clips over which published scores are means."""


def trainer_parser(description: str) -> argparse.ArgumentParser:
    """The parser of `main_train_vrt.py`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_option_arguments(parser)
    parser.add_argument("--profile", type=int, default=0, metavar="N", help="write a profiler's trace of N steps")
    parser.add_argument(
        "--download",
        nargs="?",
        const=RELEASE,
        metavar="URL",
        help="fetch SpyNet's weights where they are missing, from the VRT release or another folder of the web",
    )
    return parser


def tester_parser(description: str) -> argparse.ArgumentParser:
    """The parser of `main_test_vrt.py`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--opt", type=Path, help="option file of the experiment to test")
    which.add_argument("--task", help="name of a published model, e.g. 006_VRT_videodeblurring_GoPro")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="a.b=c", help="change options")
    parser.add_argument(
        "--checkpoint", type=Path, help="a .pth file or experiment folder [the option file's, the task's]"
    )
    parser.add_argument(
        "--download",
        nargs="?",
        const=RELEASE,
        metavar="URL",
        help="download missing weights of --task, from the VRT release or from URL",
    )
    parser.add_argument(
        "--weights",
        choices=("params", "params_ema"),
        help="which weights of a checkpoint with both [--task: params, as the published tester; --opt: params_ema]",
    )
    parser.add_argument("--sigma", type=int, help="noise level of denoising out of 255 (10, 20, 30, 40, 50)")
    _add_clips(parser)
    _add_instants(parser)
    _add_tiles(parser)
    _add_results(parser)
    return parser


def _add_clips(parser: argparse.ArgumentParser) -> None:
    """The clips to restore."""
    parser.add_argument("--folder_lq", help="input: a folder of clips, one clip's folder, or a video file")
    parser.add_argument("--folder_gt", help="the sharp clips, in the same form; without them, no scores")
    parser.add_argument(
        "--pair_by", choices=("name", "order"), help="how to pair blurred with sharp clips and frames [name]"
    )
    parser.add_argument(
        "--all_clips", action="store_true", help="Vimeo-90K: score all septuplets, not those of the published list"
    )
    parser.add_argument("--folder_spike", help="folder of the clips' spike streams")


def _add_instants(parser: argparse.ArgumentParser) -> None:
    """Instants of the exposures, and judging them."""
    parser.add_argument(
        "--times",
        type=exposure_times,
        metavar="B:E:STEP",
        help="restore these instants of every exposure, 0 to 1, e.g. 0:1:1/16 or 0,1/4,1/2",
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="judge what is restored by blurring it again and by the recorded spikes; no sharp frames are needed",
    )
    parser.add_argument(
        "--adapt",
        type=duration,
        metavar="60s",
        help="first fine-tune the network on the clips themselves for this time, by the measurements of --trust",
    )
    parser.add_argument("--folder_instants", help="sharp pictures of instants, as simulate_dataset --instants writes")


def _add_tiles(parser: argparse.ArgumentParser) -> None:
    """Tiles, memory and device."""
    parser.add_argument(
        "--tile", nargs="+", metavar="T H W", help="frames, rows, columns of a tile, 0: the whole axis; or auto"
    )
    parser.add_argument(
        "--tile_overlap", type=int, nargs=3, metavar=("T", "H", "W"), help="overlap of neighbouring tiles"
    )
    parser.add_argument(
        "--tiling",
        choices=("even", "official"),
        help="placement of tiles: ours [even], or exactly the published tester's",
    )
    parser.add_argument("--max_memory", metavar="10GB", help="limit of GPU memory, or of the process's on a CPU")
    parser.add_argument("--device", choices=("cuda", "mps", "cpu"), help="device to compute on [a GPU if there is one]")


def _add_results(parser: argparse.ArgumentParser) -> None:
    """Reading, scores, and what is written."""
    parser.add_argument("--num_workers", type=int, default=0, help="threads that read frames in advance")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder of the results")
    parser.add_argument("--save_result", action="store_true", help="write every restored frame")
    parser.add_argument(
        "--save_video", action="store_true", help="write two videos of each clip: restored, side by side"
    )
    parser.add_argument("--fps", type=positive_float, help="frames per second of these videos [the input's, or 25]")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run with --save_result")
    parser.add_argument(
        "--sweep", nargs="+", metavar="KIND=V,V", help="also test on degraded spikes: threshold=1,2,4 drop=0.5"
    )
    parser.add_argument(
        "--compare",
        nargs="+",
        default=[],
        metavar="[NAME=]FOLDER",
        help="results of other tests (of --save_result): in the table and the report beside this one",
    )
    parser.add_argument("--cvvdp", action="store_true", help="measure ColorVideoVDP (pip install cvvdp)")
    parser.add_argument("--lpips", type=Path, metavar="FOLDER", help="weights of LPIPS [model_zoo/lpips, if there]")


def answer_first(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> None:
    """Answers --help, and mistakes in flags or in an option file's text, before a command's slow imports.

    `main` parses the command line again. Flags that the parser does not know are left to it: commands may pass them on.

    Args:
        argv: the command line, by default this process's.

    Raises:
        SystemExit: --help (0), or a mistake (2), as `main` would end.
    """
    if argv is None:
        tell_missing_packages()
    logging.disable()  # `main` gives the warnings
    try:
        arguments, _ = parser.parse_known_args(argv)
    finally:
        logging.disable(logging.NOTSET)
    option_file = getattr(arguments, "opt", None)
    if option_file is not None:
        from utils.options.layers import load_layers  # reads YAML, which --help does without

        def read() -> None:
            load_layers(Path(option_file), getattr(arguments, "set", ()))

        if code := run_command(read):
            raise SystemExit(code)


def is_reporting_rank() -> bool:
    """Whether this process reports to the user: rank 0 of the processes that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def add_option_arguments(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Adds --opt, --set and --dry-run, and KAIR's --launcher, --local_rank and --dist, which have no effect.

    Args:
        default: the option file without --opt; None: --opt is required.
    """
    parser.add_argument(
        "--opt", default=default, required=default is None, metavar="FILE", help="option file, JSON or YAML"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="options that override the file's, for instance train.total_iter=100 netG.depths=[2,2,2]",
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be run, and stop")
    for flags in (["--launcher"], ["--local_rank", "--local-rank"], ["--dist"]):
        parser.add_argument(*flags, action=_Ignored, help="accepted as in KAIR, without effect: torchrun decides")


class _Ignored(argparse.Action):
    """A flag of KAIR's scripts that has no effect here."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        if is_reporting_rank():
            logger.warning("%s has no effect: processes and devices follow torchrun's environment.", option_string)


def positive_int(text: str) -> int:
    """The type of a flag that is a whole number of at least 1."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"a whole number of at least 1, not {text!r}")
    return int(text)


def exposure_times(text: str) -> list[float]:
    """The type of a flag that gives instants of an exposure."""
    try:
        return parse_times(text)
    except UserError as fault:
        raise argparse.ArgumentTypeError(str(fault)) from None


def duration(text: str) -> float:
    """Parses a time above 0, such as "60s", "2min" or "90", to seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|min)?", text)
    if match is None or float(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"a time such as 60s or 2min is needed, got {text!r}")
    return float(match[1]) * (60 if match[2] == "min" else 1)


def positive_float(text: str) -> float:
    """The type of a flag that is a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"a number above 0, not {text!r}")
    return value
