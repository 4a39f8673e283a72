"""How commands end: a user's mistake gives one message and exit code 2, a full disk one and 1, a fault of the code its
traceback.
"""

import errno
import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ROOT = Path(__file__).resolve().parents[1]
IN_WORKER = re.compile(r"Caught \w+ in DataLoader worker process \d+\.")


def program(module: str) -> str:
    """What a usage line calls the command of a module: `svrt VERB` where that started it, else `python -m MODULE`."""
    return sys.argv[0] if sys.argv[0].startswith("svrt ") else f"python -m {module}"


def run_command(command: Callable[[], None]) -> int:
    """Runs a command.

    By the rules of this code a `ValueError` raised in it names a mistake in options, data or flags and the remedy, so
    its message is all that is printed. One from a library below is a fault of ours, and passes with its traceback.

    Returns:
        Exit code: 0 done, 1 the disk is full, 2 a user's mistake.
    """
    try:
        command()
        return 0
    except ValueError as error:
        message = _message(error)
        if message is None:
            raise
        rank = os.environ.get("RANK", "0")
        sys.stderr.write(f"{'' if rank == '0' else f'[rank {rank}] '}Error: {message}\n")
        # The traceback keeps loaders alive; left to the garbage collector, each of their workers takes 5 s to end.
        traceback.clear_frames(error.__traceback__)
        return 2
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        name = "" if error.filename is None else f"{error.filename}: "
        sys.stderr.write(
            f"Error: {name}{error.strerror}; what was written before stays. Free some space and go on: "
            "training resumes by itself, testing with --resume\n"
        )
        return 1


def _message(error: ValueError) -> str | None:
    """What a statement of this repository has to say; None where another's raised the error."""
    text, frame = str(error), traceback.extract_tb(error.__traceback__)[-1]
    place, statement = frame.filename, frame.line or ""
    if IN_WORKER.match(text):
        # A loader's worker hands over its traceback as text, its exception's own message at the end.
        place, statement = re.findall(r'^  File "(.+)", line \d+, in .+\n +(.*)$', text, re.MULTILINE)[-1]
        text = re.split(r"^[\w.]*Error: ", text, flags=re.MULTILINE)[-1].rstrip()
    path = Path(place).resolve()
    ours = path.is_relative_to(ROOT) and ".venv" not in path.parts
    # A conversion or an unpacking that fails inside our statement is a fault of ours too.
    return text if ours and statement.startswith("raise ") else None
