"""Signals become a flag, end what may be interrupted, and leave a marker."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from utils.utils_signal import SIGNALS, StopRequest, clear_preempted, exit_on_sigterm, mark_preempted


@pytest.fixture(autouse=True)
def as_from_a_terminal() -> Iterator[None]:
    """A shell starts its background jobs with SIGINT ignored, nohup with SIGHUP."""
    usual = {number: signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL for number in SIGNALS}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_sets_the_flag_and_handlers_come_back(number: signal.Signals) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)]
    with StopRequest() as stop:
        assert not stop.requested and stop.signal_name is None
        os.kill(os.getpid(), number)
        assert stop.requested and stop.signal_name == number.name
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal_name == number.name  # the first counts
    assert before == [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)]


def test_without_the_signals_that_windows_lacks() -> None:
    """In an interpreter of its own, as signals are looked up when modules are imported."""
    program = """
import signal
for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGKILL", "SIGALRM"):
    delattr(signal, name)
import data.sampler, utils.utils_signal
assert utils.utils_signal.SIGNALS == (signal.SIGTERM, signal.SIGINT)
with utils.utils_signal.StopRequest() as stop:
    signal.raise_signal(signal.SIGINT)
assert stop.signal_name == "SIGINT"
data.sampler.init_worker(0)
"""
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True, timeout=120)


def test_a_second_ctrl_c_ends_at_once() -> None:
    with StopRequest(), pytest.raises(KeyboardInterrupt):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_interruptible_action_ends_at_the_signal() -> None:
    reached = []

    def action() -> int:
        reached.append("begin")
        os.kill(os.getpid(), signal.SIGTERM)
        reached.append("end")
        return 1

    with StopRequest() as stop:
        assert stop.interruptible(lambda: 5) == 5
        assert stop.interruptible(action) is None and reached == ["begin"]
        assert stop.interruptible(action) is None and reached == ["begin"]  # not begun again
        os.kill(os.getpid(), signal.SIGTERM)  # outside, only the flag


def test_an_error_in_an_interruptible_action_passes() -> None:
    with StopRequest() as stop:
        with pytest.raises(KeyError):
            stop.interruptible(lambda: {}["x"])
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested


def test_the_marker(tmp_path: Path) -> None:
    mark_preempted(tmp_path, 7, "SIGUSR1")
    assert json.loads((tmp_path / "PREEMPTED").read_text()) == {"step": 7, "signal": "SIGUSR1"}
    clear_preempted(tmp_path)
    clear_preempted(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_sigterm_lets_blocks_clean_up() -> None:
    cleaned = []
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, exit_on_sigterm():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            cleaned.append(True)
    assert ended.value.code == 143 and cleaned and signal.getsignal(signal.SIGTERM) is before
