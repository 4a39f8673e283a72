"""Ways to compute the same numbers measured against each other: right first, then time, then memory.

    rows = compare([Candidate("sdpa", error, run), ...], device)
    chosen = fastest(rows)              # None where none is right

Used for back ends (`automatic.py`) and for CUDA graphs (`models/testing/cuda_graphs.py`).
Test: `python -m pytest tests/models/layers/backends/test_measure.py`.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

# Seconds of timed passes in all; what compiles first, and the check, are not counted.
SECONDS = 2.0
# Rounds in which all take turns: a median of more changes little.
ROUNDS = 7
# Times that differ by less are equal: what clocks and other processes make of the same work.
NOISE = 0.03


@dataclass(frozen=True)
class Candidate:
    """A way to compute.

    Attributes:
        error: its largest relative error, and the error allowed; whatever it raises makes it fail.
        passes: how often each is needed, and one of it; the tensors that it gives must be finite.
    """

    name: str
    error: Callable[[], tuple[float, float]]
    passes: Sequence[tuple[int, Callable[[], Sequence[Tensor]]]]


@dataclass
class Measured:
    """What was found of a candidate.

    Attributes:
        error: see `Candidate`; None where the check failed. milliseconds: of all passes, once per round. memory: bytes
            that a pass allocates at most; 0 on a CPU. failure: why it is not to be used, or None.
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
    """A row for each candidate, in their order. Those that are right take turns until the time is used up, once each at
    least."""
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
    """The fastest that is right; of those that are as fast the one that takes least memory, then the first."""
    right = [row for row in rows if row.failure is None]
    if not right:
        return None
    limit = (1 + NOISE) * min(row.median for row in right)
    return min((row for row in right if row.median <= limit), key=lambda row: row.memory)


def timed(job: Callable[[], object], device: torch.device) -> tuple[float, int]:
    """Milliseconds of a pass, and the bytes that it allocates at most (0 on a CPU).

    On a GPU by events in its stream: they also count the time in which it waits for launches. On a CPU of all of the
    process's threads together, which other processes disturb less than the clock.
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
    """The norm of the difference as a share of the norm; NaN where a number is none."""
    exact = exact.double()
    return float((got.double() - exact).norm() / exact.norm().clamp(min=1e-30))


def one_line(error: BaseException) -> str:
    """What an error says, in a line: kernels' compilers quote their source, and CUDA's errors go on with advice."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].strip() if lines else 'no message'}"


def _attempt(row: Measured, job: Callable[[], None]) -> None:
    """Runs a job; whatever it raises, of a compiler, a launch or the allocator, is the row's failure."""
    try:
        job()
    except Exception as error:
        row.failure = one_line(error)


def _check(candidate: Candidate, row: Measured) -> None:
    """Fills in the error, and warms up."""
    row.error, limit = candidate.error()
    if not row.error <= limit:  # a comparison with NaN is never true
        row.failure = f"wrong: relative error {row.error:.1e}, allowed {limit:.1e}"
        return
    # At full size other kernels may be chosen than in the check.
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
