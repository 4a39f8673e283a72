"""The timer against a clock that the test turns."""

import json
import math
import time
from pathlib import Path

import pytest
import torch

from utils.utils_timer import WHOLE, StepProfiler, Timer, duration, peak_gpu_gigabytes

CPU = torch.device("cpu")


class Clock:
    """A clock that moves only when told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def __call__(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def run_step(timer: Timer, wait: Clock, data: float, forward: float, rest: float = 0) -> None:
    with timer.step():
        with timer.section("data"):
            wait(data)
        for _ in range(2):  # two micro-batches
            with timer.section("forward"):
                wait(forward / 2)
        wait(rest)


def test_sections_add_up_within_a_step_and_average_over_steps(wait: Clock) -> None:
    timer = Timer(CPU)
    run_step(timer, wait, 1, 4, rest=1)
    wait(1000)  # a test or a save
    run_step(timer, wait, 3, 4)
    assert timer.seconds() == pytest.approx({"data": 2, "forward": 4, WHOLE: 6.5})
    assert timer.step_seconds() == pytest.approx(6.5)
    assert timer.samples_per_second(13) == pytest.approx(2)
    assert timer.share("data") == pytest.approx(2 / 6.5)
    assert timer.share("absent") == 0
    assert timer.eta(10) == "0:01:05"


def test_averages_move(wait: Clock) -> None:
    timer = Timer(CPU, window=2)
    for seconds in (100, 1, 3):
        run_step(timer, wait, 0, seconds)
    assert timer.step_seconds() == pytest.approx(2)


def test_a_section_that_is_not_in_every_step(wait: Clock) -> None:
    timer = Timer(CPU)
    run_step(timer, wait, 1, 1)
    with timer.step(), timer.section("extra"):
        wait(4)
    assert timer.seconds() == pytest.approx({"data": 0.5, "forward": 0.5, "extra": 2, WHOLE: 3})


def test_before_the_first_step() -> None:
    timer = Timer(CPU)
    assert timer.seconds() == {} and timer.eta(5) == "?" and timer.share("data") == 0
    assert math.isnan(timer.step_seconds())
    assert peak_gpu_gigabytes(CPU) is None


def test_a_step_that_raises_is_not_counted(wait: Clock) -> None:
    timer = Timer(CPU)
    with pytest.raises(KeyError), timer.step():
        wait(1000)
        raise KeyError
    run_step(timer, wait, 1, 1)
    assert timer.step_seconds() == pytest.approx(2)


@pytest.mark.parametrize(
    "seconds, text",
    [(0, "0:00:00"), (65.4, "0:01:05"), (43200, "12:00:00"), (183845, "2d 03:04:05"), (59.6, "0:01:00")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_sections_count_the_gpus_time() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    timer = Timer(device)
    torch.cuda._sleep(1)  # loads the kernel
    torch.cuda.synchronize()
    with timer.step():
        with timer.section("data"):
            time.sleep(0.05)
        with timer.section("forward"):
            torch.cuda._sleep(50_000_000)
    seconds = timer.seconds()
    assert 0.05 <= seconds["data"] < 0.2
    assert seconds["forward"] > 0.01 > seconds[WHOLE] - seconds["data"]  # the host did not wait
    assert peak_gpu_gigabytes(device) is not None


def test_a_profile_has_the_steps_asked_for(tmp_path: Path) -> None:
    profiler = StepProfiler(2, tmp_path / "profile", 3, torch.device("cpu"))
    for _ in range(6):
        torch.ones(8).add(1)
        profiler.step()
    profiler.close()
    events = json.loads((tmp_path / "profile" / "trace_rank3.json").read_text())["traceEvents"]
    steps = {event["name"] for event in events if event["name"].startswith("ProfilerStep#")}
    assert steps == {"ProfilerStep#2", "ProfilerStep#3"} and any(event["name"] == "aten::add" for event in events)


def test_a_run_that_ends_early_leaves_what_was_recorded_and_none_without_steps(tmp_path: Path) -> None:
    for steps, folder in ((5, tmp_path / "early"), (0, tmp_path / "none")):
        profiler = StepProfiler(steps, folder, 0, torch.device("cpu"))
        for _ in range(3):
            profiler.step()
        profiler.close()
    assert (tmp_path / "early" / "trace_rank0.json").exists() and not (tmp_path / "none").exists()
