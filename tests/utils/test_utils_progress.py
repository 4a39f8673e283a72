"""Progress: a bar on a terminal, a line every 30 seconds elsewhere, and the log above it."""

import io
import logging
import sys
import time

import pytest

from utils.utils_progress import progress, track


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("terminal, enabled, shown", [(True, True, True), (True, False, False), (False, False, False)])
def test_a_bar_for_a_terminal(monkeypatch: pytest.MonkeyPatch, terminal: bool, enabled: bool, shown: bool) -> None:
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress(10, "training", "step", done=4, enabled=enabled) as bar:
        bar.update()
    assert ("training" in stream.getvalue() and "5/10" in stream.getvalue()) == shown
    assert (stream.getvalue() != "") == shown


def test_a_line_every_30_seconds_elsewhere(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    with progress(100, "training", "step", done=40) as bar:
        for _ in range(8):
            clock += 8.0
            bar.update(2)
    # Two steps every 8 seconds; the 40 before took none of this time.
    assert capsys.readouterr().err.splitlines() == [
        "training: 48 of 100 steps, 0.25 steps/s, ETA 03:28",
        "training: 56 of 100 steps, 0.25 steps/s, ETA 02:56",
    ]


def test_items_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(track("abc", 3, "writing", "picture")) == ["a", "b", "c"]
    assert "3/3" in stream.getvalue()


def test_log_lines_stay_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, log = Terminal(), logging.getLogger("test_progress")
    monkeypatch.setattr(sys, "stderr", stream)
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [handler])
    with progress(2, "testing", "frame"):
        log.warning("a line")
    assert "\ra line\n" in stream.getvalue()  # at the start of a line, after the bar was wiped out
