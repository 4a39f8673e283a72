"""Compares ways to compute the same numbers: by correctness first, then time, then memory.

    rows = compare([Candidate("sdpa", error, run), ...], device)
    chosen = fastest(rows)              # None if none is correct

Used for back ends (`automatic.py`) and for CUDA graphs (`models/testing/cuda_graphs.py`).
Test: `python -m pytest tests/models/layers/backends/test_measure.py`.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

# Total seconds of timed passes, short against a run; compilation and the check are not included.
SECONDS = 2.0
# Rounds in which each candidate is timed once: a median over more changes little.
ROUNDS = 7
# Times are equal if they differ by less: clocks and other processes cause such differences.
NOISE = 0.03


@dataclass(frozen=True)
class Candidate:
    """A way to compute.

    Attributes:
        error: returns the largest relative error and the limit; any exception is a failure of the candidate.
        passes: number of repetitions and the function, for each part of the computation; its tensors must be finite.
    """

    name: str
    error: Callable[[], tuple[float, float]]
    passes: Sequence[tuple[int, Callable[[], Sequence[Tensor]]]]


@dataclass
class Measured:
    """Results of a candidate.

    Attributes:
        error: see `Candidate`; None if the check raised an exception.
        milliseconds: of all passes, one number per round.
        memory: most bytes allocated by a pass; 0 on a CPU.
        failure: why the candidate can't be used, or None.
    """

    name: str
    error: float | None = None
    milliseconds: list[float] = field(default_factory=list)
    memory: int = 0
    failure: str | None = None

    @property
    def median(self) -> float:
        """Milliseconds of all passes."""
        return statistics.median(self.milliseconds)

    def __str__(self) -> str:
        if self.failure is not None:
            return f"not {self.name!r}: {self.failure}"
        memory = f", {self.memory / 1e9:.2f} GB" if self.memory else ""
        return f"{self.name!r} {self.median:.3g} ms{memory}, error {self.error:.1e}"


def compare(candidates: Sequence[Candidate], device: torch.device, seconds: float = SECONDS) -> list[Measured]:
    """A row for each candidate, in the same order. Correct candidates are timed in turn, at least once each, until the
    time is used up."""
    rows = [Measured(candidate.name) for candidate in candidates]
    runs = list(zip(candidates, rows, strict=True))
    for candidate, row in runs:
        _attempt(row, lambda one=candidate, row=row: _check(one, row))  # type: ignore[misc]
    end = time.perf_counter() + seconds
    for round_number in range(ROUNDS):
        if round_number and time.perf_counter() > end:
            break
        for candidate, row in runs:
            if row.failure is None:
                _attempt(row, lambda one=candidate, row=row: _time(one, row, device))  # type: ignore[misc]
    return rows


def fastest(rows: Sequence[Measured]) -> Measured | None:
    """The fastest correct candidate; among equally fast ones that with the least memory, then the first."""
    right = [row for row in rows if row.failure is None]
    if not right:
        return None
    limit = (1 + NOISE) * min(row.median for row in right)
    return min((row for row in right if row.median <= limit), key=lambda row: row.memory)


def timed(job: Callable[[], object], device: torch.device) -> tuple[float, int]:
    """Milliseconds of a pass, and the most bytes that it allocates (0 on a CPU).

    On a GPU, time is measured by events in its stream, so it includes waiting for launches. On a CPU it is the
    processor time of all threads, which other processes affect less than elapsed time.
    """
    if device.type != "cuda":
        begin = time.process_time()
        job()
        return 1e3 * (time.process_time() - begin), 0
    with torch.cuda.device(device):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        job()
        end.record()
        end.synchronize()
        return start.elapsed_time(end), torch.cuda.max_memory_allocated() - before


def relative_error(got: Tensor, exact: Tensor) -> float:
    """The norm of the difference over the norm of `exact`; NaN if a number is NaN."""
    exact = exact.double()
    return float((got.double() - exact).norm() / exact.norm().clamp(min=1e-30))


def one_line(error: BaseException) -> str:
    """An error's message in one line, without the source quoted by kernel compilers and the advice in CUDA's errors."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].strip() if lines else 'no message'}"


def _attempt(row: Measured, job: Callable[[], None]) -> None:
    """Runs a job; any exception, from a compiler, a launch or the allocator, becomes the row's failure."""
    try:
        job()
    except Exception as error:
        row.failure = one_line(error)


def _check(candidate: Candidate, row: Measured) -> None:
    """Sets the row's error, and runs each pass once before it is timed."""
    row.error, limit = candidate.error()
    if not row.error <= limit:  # a comparison with NaN is never true
        row.failure = f"wrong: relative error {row.error:.1e}, allowed {limit:.1e}"
        return
    # At full size, libraries may choose other kernels than in the check.
    for _, run in candidate.passes:
        if not all(bool(torch.isfinite(result).all()) for result in run()):
            row.failure = "wrong: numbers that are not finite"
            return


def _time(candidate: Candidate, row: Measured, device: torch.device) -> None:
    total = 0.0
    for count, run in candidate.passes:
        milliseconds, memory = timed(run, device)
        total += count * milliseconds
        row.memory = max(row.memory, memory)
    row.milliseconds.append(total)
