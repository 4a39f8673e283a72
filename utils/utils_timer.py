"""Times the sections of a training step: moving averages, samples per second, time left; records a profiler's trace.

    timer = Timer(device)
    with timer.step():
        with timer.section("data"):
            batch = next(batches)
        with timer.section("forward"):
            ...
    timer.seconds()                     # {"data": 0.01, "forward": 0.2, "step": 0.55}

On a GPU sections are timed by CUDA events, which need no synchronisation until they are read. "data" is always timed by
the host's clock, because the host waits for the loader.
"""

import logging
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

logger = logging.getLogger(__name__)

WHOLE = "step_total"  # name of the whole step; "step" is the section of the optimizer
HOST_SECTIONS = ("data",)  # sections in which the host waits, which CUDA events would not measure

# Seconds, or the CUDA events at beginning and end.
Span = float | tuple[torch.cuda.Event, torch.cuda.Event]


class Timer:
    """Times the sections of the last steps.

    Args:
        device: device of the sections' computation.
        window: number of last steps that are averaged.
    """

    def __init__(self, device: torch.device, window: int = 100) -> None:
        self.device = device
        self._steps: deque[dict[str, list[Span]]] = deque(maxlen=window)
        self._current: dict[str, list[Span]] = {}

    @contextmanager
    def step(self) -> Iterator[None]:
        """Times one optimizer step, its data included; time between steps (tests, saves) is not counted."""
        self._current = {}
        begin = time.perf_counter()
        yield
        self._current[WHOLE] = [time.perf_counter() - begin]
        self._steps.append(self._current)

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Times a part of a step; times of the same name within a step (micro-batches) are summed."""
        assert name != WHOLE, f"the name {WHOLE!r} is taken"
        span: Span
        if self.device.type == "cuda" and name not in HOST_SECTIONS:
            stream = torch.cuda.current_stream(self.device)
            span = (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
            span[0].record(stream)
            yield
            span[1].record(stream)
        else:
            begin = time.perf_counter()
            yield
            span = time.perf_counter() - begin
        self._current.setdefault(name, []).append(span)

    def seconds(self) -> dict[str, float]:
        """Mean seconds per step of every section and of the whole step (`step_total`); waits for the GPU.

        Empty before the end of the first step.
        """
        steps = [
            {name: sum(_length(span) for span in spans) for name, spans in step.items()} for step in list(self._steps)
        ]
        names = dict.fromkeys(name for step in steps for name in step)
        return {name: sum(step.get(name, 0.0) for step in steps) / len(steps) for name in names}

    def step_seconds(self) -> float:
        """Mean seconds of a whole step by the host's clock; NaN before the end of the first step."""
        spans = [step[WHOLE][0] for step in self._steps]
        return sum(map(_length, spans)) / len(spans) if spans else float("nan")

    def samples_per_second(self, batch_size: int) -> float:
        """Throughput, for `batch_size` samples per step over all ranks."""
        return batch_size / self.step_seconds()

    def share(self, name: str) -> float:
        """Share of a section in the time of a step, 0 to 1; 0 for one that was not timed."""
        seconds = self.seconds()
        return seconds.get(name, 0.0) / seconds[WHOLE] if seconds.get(WHOLE) else 0.0

    def eta(self, steps_left: int) -> str:
        """Estimated time of `steps_left` steps, without tests and saves; "?" before the end of the first step."""
        return duration(self.step_seconds() * steps_left) if self._steps else "?"


class StepProfiler:
    """Records steps of a run for chrome://tracing or https://ui.perfetto.dev; does nothing for 0 steps.

    The first step (allocation, compilation) is skipped, and the second one warms up the profiler.

    Args:
        steps: number of steps to record. folder: the folder for `trace_rank<rank>.json`.
    """

    def __init__(self, steps: int, folder: Path, rank: int, device: torch.device) -> None:
        self._profile: profile | None = None
        if steps <= 0:
            return
        path = folder / f"trace_rank{rank}.json"

        def write(done: profile) -> None:
            folder.mkdir(parents=True, exist_ok=True)
            done.export_chrome_trace(str(path))
            logger.info("Profile of %d steps written to %s", steps, path)

        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
        plan = schedule(wait=1, warmup=1, active=steps, repeat=1)
        self._profile = profile(activities=activities, schedule=plan, on_trace_ready=write, record_shapes=True)
        self._profile.start()

    def step(self) -> None:
        """Advances the profiler; call it after every step of the run."""
        if self._profile is not None:
            self._profile.step()

    def close(self) -> None:
        """Writes the trace if the run ends before all steps are recorded."""
        if self._profile is not None:
            self._profile.stop()


def duration(seconds: float) -> str:
    """Seconds as "0:01:05", "12:00:00" or "2d 03:04:05"."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return f"{days}d {hour:02d}:{minute:02d}:{second:02d}" if days else f"{hour}:{minute:02d}:{second:02d}"


def peak_gpu_gigabytes(device: torch.device) -> float | None:
    """Peak GPU memory of tensors so far, in GB (1e9 bytes); None on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None


def _length(span: Span) -> float:
    """Seconds of a span; waits until the GPU has reached its end."""
    if isinstance(span, tuple):
        span[1].synchronize()
        result: float = span[0].elapsed_time(span[1]) / 1000
        return result
    return span
