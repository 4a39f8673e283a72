"""Progress of a command: a bar on a terminal; otherwise (a file, a pipe, a platform's log) a line every 30 seconds.

    with progress(100, "testing", "frame") as bar:
        bar.update()
    for picture in track(pictures, 100, "simulating", "picture"): ...

Both are written to standard error, as standard output is for the command's result.
"""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

SECONDS = 30.0  # between lines: a log of a day then has 2880 of them

Item = TypeVar("Item")


class Bar(Protocol):
    """The interface of a progress bar."""

    def update(self, count: int = 1) -> object:
        """Adds `count` to the finished items."""

    def set_description(self, title: str) -> None:
        """Sets the title to the current activity."""


class ProgressLines:
    """Prints lines like "testing: 12 of 24 frames, 1.2 frames/s, ETA 0:10", the first one after 30 seconds.

    Args:
        total, done: number of all items, and of those finished before.
        title: name of the activity. unit: name of an item, in the singular.
    """

    def __init__(self, total: int, title: str, unit: str, done: int = 0) -> None:
        self.total, self.title, self.unit, self.done = total, title, unit, done
        self._first, self._begin = done, time.monotonic()
        self._told = self._begin

    def update(self, count: int = 1) -> None:
        """Adds `count` to the finished items."""
        self.done += count
        now = time.monotonic()
        if now - self._told >= SECONDS:
            self._told = now
            # The rate counts items of this run only, as earlier ones took none of its time.
            rate = (self.done - self._first) / (now - self._begin)
            eta = tqdm.format_interval((self.total - self.done) / rate)
            done = f"{self.done} of {self.total} {self.unit}s"
            sys.stderr.write(f"{self.title}: {done}, {rate:.3g} {self.unit}s/s, ETA {eta}\n")
            sys.stderr.flush()

    def set_description(self, title: str) -> None:
        """Sets the title to the current activity."""
        self.title = title


@contextmanager
def progress(total: int, title: str, unit: str, done: int = 0, enabled: bool = True) -> Iterator[Bar]:
    """Shows the progress of a block; log lines appear above the bar.

    Args:
        total, done: number of all items, and of those finished before.
        title: name of the activity. unit: name of an item, in the singular.
        enabled: False: print nothing, as on ranks other than 0.
    """
    if not enabled or sys.stderr.isatty():
        with (
            tqdm(total=total, initial=done, desc=title, unit=unit, dynamic_ncols=True, disable=not enabled) as bar,
            logging_redirect_tqdm(),
        ):
            yield bar
    else:
        yield ProgressLines(total, title, unit, done)


def track(items: Iterable[Item], total: int, title: str, unit: str) -> Iterator[Item]:
    """Yields the items and counts each one as finished when the next one is requested."""
    with progress(total, title, unit) as bar:
        for item in items:
            yield item
            bar.update()
