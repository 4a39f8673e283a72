"""How commands end: a user's mistake gives one message and exit code 2, a fault of the code its traceback."""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run_command(command: Callable[[], None]) -> int:
    """Runs a command.

    By the rules of this code a `ValueError` raised in it names a mistake in options, data or flags and the remedy, so
    its message is all that is printed. One from a library below is a fault of ours, and passes with its traceback.

    Returns:
        Exit code: 0 done, 2 a user's mistake.
    """
    try:
        command()
        return 0
    except ValueError as error:
        if not _is_ours(error):
            raise
        rank = os.environ.get("RANK", "0")
        sys.stderr.write(f"{'' if rank == '0' else f'[rank {rank}] '}Error: {error}\n")
        return 2


def _is_ours(error: ValueError) -> bool:
    """Whether a statement of this repository raised the error (in a loader's worker too, whose traceback is text)."""
    place = Path(traceback.extract_tb(error.__traceback__)[-1].filename).resolve()
    from_worker = "in DataLoader worker process" in str(error)
    return from_worker or (place.is_relative_to(ROOT) and ".venv" not in place.parts)
