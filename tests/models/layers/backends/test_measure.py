"""Measuring candidates: right first, then time, then memory."""

import time

import torch
from torch import Tensor

from models.layers.backends.measure import Candidate, Measured, compare, fastest, one_line, relative_error

CPU = torch.device("cpu")


def candidate(name: str, seconds: float = 0.0, count: int = 1, error: float = 0.0, result: float = 1.0) -> Candidate:
    def run() -> list[Tensor]:
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass
        return [torch.tensor(result)]

    return Candidate(name, lambda: (error, 0.1), [(count, run)])


def row(name: str, milliseconds: float, memory: int) -> Measured:
    return Measured(name, 0.0, [milliseconds], memory)


def test_right_ones_take_turns() -> None:
    rows = compare(
        [candidate("slow", 4e-3), candidate("often", 2e-3, count=100), candidate("wrong", error=0.2)], CPU, seconds=0.1
    )
    slow, often, wrong = rows
    assert 1 <= len(slow.milliseconds) == len(often.milliseconds) <= 7 and not wrong.milliseconds
    assert 4 <= slow.median < 200 <= often.median
    assert wrong.failure == "wrong: relative error 2.0e-01, allowed 1.0e-01"
    assert fastest(rows) is slow
    assert str(slow).startswith("'slow' 4") and str(wrong).startswith("not 'wrong': wrong")


def test_each_is_timed_once_at_least() -> None:
    rows = compare([candidate("a"), candidate("b")], CPU, seconds=0)
    assert [len(found.milliseconds) for found in rows] == [1, 1]


def test_numbers_that_are_none_never_pass() -> None:
    nan = float("nan")
    rows = compare([candidate("error", error=nan), candidate("result", result=nan)], CPU)
    assert all("wrong" in str(found.failure) for found in rows) and fastest(rows) is None
    assert not relative_error(torch.tensor([nan, 1.0]), torch.ones(2)) < 1


def test_of_equal_times_the_leanest_then_the_first() -> None:
    assert fastest([row("a", 1.0, 5), row("b", 1.02, 4), row("c", 1.1, 0)]) == row("b", 1.02, 4)
    assert fastest([row("a", 1.0, 5), row("b", 1.0, 5)]) == row("a", 1.0, 5)


def test_relative_error() -> None:
    assert relative_error(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0])) == 0.1
    assert one_line(ValueError("\n  first\nsecond")) == "ValueError: first"
    assert one_line(AssertionError()) == "AssertionError: no message"
