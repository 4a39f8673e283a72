"""How commands end: a user's mistake gives one message and exit code 2, a full disk one and 1, a fault of the code its
traceback.
"""

import errno
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable

from utils.user_error import UserError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
IN_WORKER = re.compile(r"Caught \w+ in DataLoader worker process \d+\.")


def program(module: str) -> str:
    """What a usage line calls the command of a module: `svrt VERB` where that started it, else `python -m MODULE`."""
    return sys.argv[0] if sys.argv[0].startswith("svrt ") else f"python -m {module}"


def run_command(command: Callable[[], None], go_on: str = "") -> int:
    """Runs a command.

    The message of a `UserError` is all that is printed. Every other exception passes with its traceback, except a full
    disk and Ctrl-C.

    Args:
        go_on: what to do after Ctrl-C or where the disk was full.

    Returns:
        Exit code: 0 done, 1 the disk is full, 2 a user's mistake, 130 Ctrl-C.
    """
    try:
        command()
        return 0
    except UserError as error:
        rank = os.environ.get("RANK", "0")
        sys.stderr.write(f"{'' if rank == '0' else f'[rank {rank}] '}Error: {_message(error)}\n")
        # The traceback keeps loaders alive; left to the garbage collector, each of their workers takes 5 s to end.
        traceback.clear_frames(error.__traceback__)
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"\nStopped by Ctrl-C{'; ' * bool(go_on)}{go_on}\n")
        return 128 + signal.SIGINT
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        name = "" if error.filename is None else f"{error.filename}: "
        sys.stderr.write(
            f"Error: {name}{error.strerror}; free some space, then {go_on or 'start the same command again'}\n"
        )
        return 1


def _message(error: UserError) -> str:
    """The message of a user's mistake, without the traceback that a loader's worker puts before it."""
    text = str(error)
    if IN_WORKER.match(text):
        # PyTorch raises the worker's error type again with the worker's whole traceback as its text.
        text = re.split(rf"^(?:\w+\.)*{type(error).__name__}: ", text, flags=re.MULTILINE)[-1].rstrip()
    return text
