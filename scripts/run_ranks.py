"""torchrun that passes signals on: the ranks save and end by themselves, and the exit code is theirs.

    python -m scripts.run_ranks --standalone --nproc_per_node=2 main_train_vrt.py --opt FILE

torchrun by itself kills the ranks some seconds after a SIGTERM, ends with 1 however well they ended, and dies of a
SIGUSR1 while they run on. Here SIGTERM, SIGINT, SIGHUP and SIGUSR1 reach every rank of this machine as SIGTERM, and the
ranks tell those of other machines. The time to save is what the sender of the signal gives; a second signal ends the
ranks as torchrun does. Without /proc (outside Linux) the first one does.

The last line tells which rank failed first, and of what where no message of its own has said it. Exit code: 0 where all
ranks ended well, told to stop or not; else that of the rank that failed first, and for one that a signal ended, as in a
shell, 128 plus its number.
"""

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.utils_cli import tell_missing_packages

if __name__ == "__main__":  # before what is installed is imported
    tell_missing_packages()

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

from utils.utils_signal import heeded_signals

PASSED_ON = heeded_signals()
QUIET = {  # loggers of torchrun, and from which level on they are heard
    "torch.distributed.elastic.multiprocessing.api": logging.ERROR,  # a line for each rank that it ends
    "torch.distributed.elastic.multiprocessing.errors.error_handler": logging.CRITICAL,  # the error again, as JSON
}


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: torchrun's."""
    # What torchrun is left to handle; it would take over the others when it starts the ranks. Newer versions set the
    # first variable from their flag --signals-to-handle, whose default the second one is.
    for variable in ("TORCHELASTIC_SIGNALS_TO_HANDLE", "PET_SIGNALS_TO_HANDLE"):
        os.environ[variable] = "SIGQUIT"
    for number in PASSED_ON:
        signal.signal(number, _pass_on)
    for name, level in QUIET.items():
        logging.getLogger(name).setLevel(level)
    try:
        torchrun(argv)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        code = failure.exitcode
        # Last, below what the other ranks and torchrun have to say of the same.
        sys.stderr.write(f"Rank {rank} failed first: {failure.message}\n")
        return code if code > 0 else 128 - code
    except SignalException as error:
        return 128 + error.sigval
    return 0


def _pass_on(number: int, frame: FrameType | None) -> None:
    """Sends SIGTERM to the ranks; for the second signal, or where there are no ranks, ends as torchrun would."""
    for repeated in PASSED_ON:
        signal.signal(repeated, _give_up)
    ranks = _children()
    if not ranks:
        _give_up(number, frame)
    for rank in ranks:
        with contextlib.suppress(ProcessLookupError):
            os.kill(rank, signal.SIGTERM)


def _give_up(number: int, frame: FrameType | None) -> None:
    raise SignalException(f"Process {os.getpid()} got signal {number}", signal.Signals(number))


def _children() -> list[int]:
    """Processes that this one has started and that still run."""
    listed = Path(f"/proc/self/task/{os.getpid()}/children")
    return [int(child) for child in listed.read_text().split()] if listed.exists() else []


if __name__ == "__main__":
    sys.exit(main())
