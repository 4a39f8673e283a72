"""The spike toolbox: look at spike streams, make pictures and videos of them, simulate, convert and check them.

    python -m scripts.spikes info 000226.dat
    python -m scripts.spikes view 000226.dat --frame 40 --threshold 2
    python -m scripts.spikes render 000226.dat out.mp4 --method gaussian --stride 2 --fps 15 --threshold 2
    python -m scripts.spikes VERB --help

Exit code 2: a mistake in what was asked for, told on stderr.
"""

import argparse
import sys
from collections.abc import Sequence
from types import ModuleType

from scripts.spikes import check, convert, info, reconstruct, render, simulate, view
from utils.utils_cli import run_command

VERBS: dict[str, ModuleType] = {
    "info": info,
    "view": view,
    "render": render,
    "reconstruct": reconstruct,
    "simulate": simulate,
    "convert": convert,
    "check": check,
}
"""Each has `add_arguments(parser)` and `run(args)`; its docstring is the help."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.spikes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, module in VERBS.items():
        help_line = (module.__doc__ or "").split("\n")[0].split(": ", 1)[1]
        formatter = argparse.RawDescriptionHelpFormatter
        module.add_arguments(
            verbs.add_parser(name, help=help_line, description=module.__doc__, formatter_class=formatter)
        )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    args = build_parser().parse_args(argv)
    return run_command(lambda: VERBS[args.verb].run(args))


if __name__ == "__main__":
    sys.exit(main())
