"""The spike toolbox: look at spike streams, make pictures and videos of them, simulate, convert and check them.

    python -m scripts.spikes info 000226.dat
    python -m scripts.spikes view 000226.dat --frame 40 --threshold 2
    python -m scripts.spikes render 000226.dat out.mp4 --method gaussian --stride 2 --fps 15 --threshold 2
    python -m scripts.spikes VERB --help

Exit code 2: a mistake in what was asked for, told on stderr.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from utils.utils_cli import program, run_command, tell_missing_packages

VERBS = {
    "info": "size, firing rates, order of bits, hot and dead pixels of a stream",
    "view": "one moment by all methods, side by side in a PNG",
    "page": "a stream as one HTML file: any instant, method and width, zoom, saved pictures",
    "render": "a stream as a video, by any method",
    "reconstruct": "moments of a stream as PNG files",
    "simulate": "the spikes of a video, and its blurred and sharp frames on the same clock",
    "convert": "a stream in another form: .dat, .npy, .npz, turned, cut",
    "check": "a stream against its picture: flip, order of bits, spike frame",
}
"""Each is a module of this package with `add_arguments(parser)` and `run(args)`, imported when it is asked for."""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    formatter = argparse.RawDescriptionHelpFormatter
    prog = program("scripts.spikes")
    parser = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=formatter)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, help_line in VERBS.items():
        verb = verbs.add_parser(name, help=help_line, formatter_class=formatter)
        if words[:1] == [name]:
            module = importlib.import_module(f"scripts.spikes.{name}")
            verb.description = module.__doc__
            module.add_arguments(verb)
    args = parser.parse_args(words)
    return run_command(lambda: module.run(args), go_on="the same command starts again and replaces what is written")


if __name__ == "__main__":
    tell_missing_packages()
    sys.exit(main())
