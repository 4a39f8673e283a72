"""scripts/benchmark/bench_metrics.py on a few small frames: every job has a time, the ratio is theirs."""

import json
from typing import Any

import pytest

from scripts.benchmark.bench_metrics import main, medians
from tests.tiny import alone


def run(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, Any]:
    capsys.readouterr()
    with alone():
        assert main(["--size", "32", "32", "--frames", "2", "--rounds", "1", *flags]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_times_and_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    found = run(capsys, "--json")
    times = found["milliseconds"]
    assert set(times) == {"restoration", "scores"} and min(times.values()) > 0
    assert found["ratio"] == times["scores"] / times["restoration"]
    assert list(found["parts"]) == ["psnr", "ssim", "psnr_y", "ssim_y", "optical_flow", "training-free"]


def test_jobs_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []
    found = medians({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert order == list("ababab") and set(found) == {"a", "b"}


def test_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--frames", "1"]) == 2
    assert "--frames 2" in capsys.readouterr().err
