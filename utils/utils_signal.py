"""Stops a run on request: a signal sets a flag, and the run saves and ends between two steps.

    with StopRequest() as stop:
        while not any_rank(stop.requested, dist):
            ...                                           # one step
        scores = stop.interruptible(lambda: test())       # None after a signal, as a test can take an hour

Schedulers and torchrun send SIGTERM before SIGKILL; SLURM usually warns by SIGUSR1; a closed terminal sends SIGHUP,
which nohup ignores; Ctrl-C sends SIGINT, and a second one ends the process at once. A stopped run writes
`experiments/<task>/PREEMPTED`, because torchrun's exit code is the same as after a failure; the next start removes it.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from utils.utils_file import atomic_write

# The signals named above; Windows lacks SIGHUP and SIGUSR1.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1") if hasattr(signal, name))
MARKER = "PREEMPTED"  # name of the file that tells a stopped run from a failed one

Result = TypeVar("Result")


def heeded_signals() -> list[signal.Signals]:
    """The signals that stop a run: all of `SIGNALS`, except SIGHUP if it is ignored, as under nohup.

    SIGINT stops it even if ignored: shell scripts ignore it in background jobs, but it is only sent on purpose.
    """
    hangup = getattr(signal, "SIGHUP", None)
    return [n for n in SIGNALS if n != hangup or signal.getsignal(n) is not signal.SIG_IGN]


class Interrupted(BaseException):
    """Raised by a signal inside `StopRequest.interruptible`, and caught there."""


class StopRequest:
    """Context in which signals set a flag; afterwards the previous handlers are restored.

    Attributes:
        signal_name: name of the first signal, such as "SIGTERM"; None before.
    """

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self._interrupting = False
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether this process was asked to stop."""
        return self.signal_name is not None

    def __enter__(self) -> "StopRequest":
        # Python delivers signals to the main thread only, and raises an error for handlers set in another one.
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in heeded_signals()}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def interruptible(self, action: Callable[[], Result]) -> Result | None:
        """The action's result, or None if a signal came: before it starts, or while it runs, which ends it at once.

        The action must not change state that is kept, nor communicate with other ranks.
        """
        try:
            self._interrupting = True
            result = None if self.requested else action()
            self._interrupting = False
            return result
        except Interrupted:
            return None
        finally:
            self._interrupting = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal_name = self.signal_name or signal.Signals(number).name
        if self._interrupting:
            self._interrupting = False
            raise Interrupted


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """SIGTERM ends the block by SystemExit(143), so that its `finally` clauses remove unfinished files."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def stop_with_parent(poll_seconds: float = 1.0, grace_seconds: float = 120.0) -> None:
    """Stops this process after its parent has ended: by SIGTERM, on which it saves, and after `grace_seconds` by exit.

    Ranks of a killed launcher would otherwise go on training, and occupy its GPUs and its folder.

    Args:
        poll_seconds: interval at which the parent is checked.
        grace_seconds: time to save a checkpoint.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(poll_seconds)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace_seconds)
        os._exit(1)

    threading.Thread(target=watch, name="stop_with_parent", daemon=True).start()


def mark_preempted(experiment_dir: Path, step: int, signal_name: str) -> None:
    """Writes the marker that a signal stopped the run after `step`."""
    with atomic_write(experiment_dir / MARKER) as file:
        json.dump({"step": step, "signal": signal_name}, file)


def clear_preempted(experiment_dir: Path) -> None:
    """Removes the marker of an earlier stop."""
    (experiment_dir / MARKER).unlink(missing_ok=True)
