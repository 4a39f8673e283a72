"""The demo: a small data set with spikes, restored by the light network as it comes and by two networks trained on it.

    ./launch_train.sh 1 --demo                  (or python -m scripts.demo)

Runs the commands that it prints, in this process; each of them can be given by hand. The same command goes on where
Ctrl-C or SIGTERM stopped a training. --set changes options of the larger network; those of `train` go to both.
"""

import argparse
import logging
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.flags import demo_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(demo_parser(__doc__ or ""))

import data.select_dataset  # noqa: F401
import models.select_model  # noqa: F401  both register what option files name
import svrt
from utils.utils_cli import run_command
from utils.utils_option import load_options
from utils.utils_signal import MARKER

LIGHT = Path("options/demo/guided.json")
RESULTS = Path("results")
SHIPPED = "guided"  # task of the light network with the weights that come with the code
FOLDERS = {
    "--folder_lq": "trainsets/demo/GOPRO_Large/test_GT_blurred",
    "--folder_gt": "trainsets/demo/GOPRO_Large/test_GT",
    "--folder_spike": "trainsets/demo/GOPRO_Large_spike_seq/test",
}
NEXT = """
Open the report named above (index.html), drag, and choose what is on either side. Then
  your own film:  ./svrt restore clip.mp4 --spikes clip.dat -o sharp.mp4
  your own data:  ./svrt simulate --video clip.mp4 --root trainsets/mine
  train longer:   ./svrt train --opt {opt} --set train.total_iter=2000"""


class Ended(Exception):
    """A command has failed or was told to stop.

    Args:
        code: the demo's exit code.
    """

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; the exit code: 0 done or told to stop, else that of the command that failed."""
    arguments = demo_parser(__doc__ or "").parse_args(argv)
    try:
        return run_command(lambda: demo(arguments), go_on="the same command goes on")
    except Ended as ended:
        return ended.code


def demo(arguments: argparse.Namespace) -> None:
    """All its commands, in order.

    Raises:
        Ended: one of them failed, or a training was told to stop.
    """
    changes = ["--set", *arguments.set] if arguments.set else []
    print(
        f"Demo: makes clips with spikes in trainsets/demo, restores those for testing by the light network that comes "
        f"with the code, trains that on and {arguments.opt}, and compares them all. Under 10 minutes on 2 CPU cores. "
        "Ctrl-C stops it; the same command goes on.",
        flush=True,
    )
    command("simulate")
    if arguments.dry_run:
        command("train", "--opt", str(arguments.opt), *changes, "--dry-run")
        return
    folders = [word for pair in FOLDERS.items() for word in pair]
    command("test", "--task", SHIPPED, *folders, "--save_result", says="restored without any training")
    train(LIGHT, [change for change in arguments.set if change.startswith("train.")])
    command("test", "--opt", str(LIGHT), "--save_result", quiet=True)
    train(arguments.opt, arguments.set)
    names = {"light network": SHIPPED, "light network, trained on": load_options(LIGHT).task}
    compared = [f"{name}={RESULTS / task}" for name, task in names.items()]
    says = "all of them in one table and one report"
    command("test", "--opt", str(arguments.opt), "--save_result", "--compare", *compared, *changes, says=says)
    print(NEXT.format(opt=shlex.quote(str(arguments.opt))))


def train(path: Path, changes: Sequence[str]) -> None:
    """Trains an option file to its end.

    Raises:
        Ended: a failure, or a signal; the run is saved.
    """
    command("train", "--opt", str(path), *(["--set", *changes] if changes else []))
    if (load_options(path, changes).experiment_dir / MARKER).exists():
        raise Ended(0)


def command(*words: str, says: str = "", quiet: bool = False) -> None:
    """Runs a command of `svrt` as if by itself, after printing it.

    Args:
        words: verb and flags.
        says: what it is for.
        quiet: its output is not shown; messages of errors and progress are on standard error.

    Raises:
        Ended: with its exit code, if that is not 0.
    """
    print(f"\n{says and f'# {says}{os.linesep}'}$ {shlex.join(['./svrt', *words])}", flush=True)
    with own_logging(), _silence() if quiet else nullcontext():
        code = svrt.main(words)
    if code:
        raise Ended(code)


@contextmanager
def own_logging() -> Iterator[None]:
    """Removes the handlers that a command adds: the next one's lines do not go to the log of this one's training."""
    root = logging.getLogger()
    before = list(root.handlers)
    try:
        yield
    finally:
        for handler in [handler for handler in root.handlers if handler not in before]:
            root.removeHandler(handler)
            handler.close()


@contextmanager
def _silence() -> Iterator[None]:
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        yield


if __name__ == "__main__":
    sys.exit(main())
