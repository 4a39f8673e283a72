"""`netG.compute_backend: auto`: the registered back ends are measured on the running network's own blocks, once.

If the first pass is so large that measuring pays, each available back end computes a block of each kind, and the
alignment, of those that the network runs at full resolution (`problem.py`). Results, in training also gradients, are
first compared with the plain formula in float64, on weights and inputs drawn for each back end. The fastest correct
back end is used. The choice applies to the process and is stored in the user's cache (`choices.py`). Smaller passes use
the first available one of `PREFERENCE`.

Test: `python -m pytest tests/models/layers/backends/test_automatic.py`.

Legend: B batch, T frames, H height, W width, C channels.
"""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes

from models.layers.backends.backend import (
    COMPUTE_BACKENDS,
    PREFERENCE,
    Backend,
    backend_called,
    compute_dtype,
    preferred,
)
from models.layers.backends.choices import RETUNE, Choice, environment
from models.layers.backends.measure import SECONDS, Candidate, Measured, compare, fastest
from models.layers.backends.problem import LIMITS, Part, Problem, parts_of, worst_error
from models.layers.ops.chunks import processor
from models.layers.vrt.window_layout import Size3
from utils.utils_memory import give_back_memory, is_out_of_memory

logger = logging.getLogger(__name__)

# Tokens of a pass times parameters of the network from which measuring pays. On a CPU such a pass takes half a minute
# of processor time, and measuring seconds; on a GPU it is 6x32x32 tokens of the full network, whose runs take hours.
WORTH = {"cpu": 3e12, "cuda": 1e11}
# Most tokens of a measured block: on a CPU some windows, on a GPU enough to keep it busy.
MEASURED_TOKENS = {"cpu": 6 * 16 * 16, "cuda": 6 * 256 * 256}
# Rows, columns and frames of a check: two windows of 8 with padding, and an odd number of frames.
CHECKED_SIDE, CHECKED_FRAMES = 12, 7
SMALLEST_SIDE = 8  # of the grid measured: a window


@dataclass
class AutomaticBackend:
    """The back ends chosen for "auto" in one network.

    Attributes:
        candidates: names of the back ends compared, in order of preference; None: all registered ones with
            `Backend.automatic`.
        worth: see `WORTH`.
        seconds: total time of timed passes.
    """

    candidates: Sequence[str] | None = None
    worth: Mapping[str, float] = field(default_factory=lambda: WORTH)
    seconds: float = SECONDS
    _chosen: dict[tuple[Any, ...], str] = field(default_factory=dict)

    def choose(self, x: Tensor, parameters: Callable[[], int], modules: Iterable[nn.Module]) -> Backend:
        """The back end for a pass on x.

        Args:
            x: (B, T, C, H, W).
            parameters: returns the network's number of parameters.
            modules: those that run on the full grid (T, H, W).
        """
        device, dtype, step = x.device, compute_dtype(x), torch.is_grad_enabled()
        key = (device, dtype, step)
        if key not in self._chosen:
            pixels = x.numel() // x.shape[2]
            if not _can_measure(x, dtype) or pixels * parameters() < self.worth.get(device.type, math.inf):
                return backend_called(preferred(device, dtype))
            batch, frames, _, height, width = x.shape
            # On a CPU all back ends align in the same way.
            parts = parts_of(modules, aligned=frames > 1 and device.type != "cpu")
            self._chosen[key] = self._choose(parts, _Circumstances(batch, (frames, height, width), device, dtype, step))
        return backend_called(self._chosen[key])

    def names(self) -> list[str]:
        """Names of the back ends chosen so far."""
        return sorted(set(self._chosen.values()))

    def _choose(self, parts: Sequence[Part], how: "_Circumstances") -> str:
        """The name of the fastest correct back end, from the cache or by a measurement."""
        names = self.candidates or sorted(filter(_is_automatic, COMPUTE_BACKENDS.names()), key=_preference)
        refusals = {name: backend_called(name).refusal(how.device, how.dtype) for name in names}
        able = [name for name, reason in refusals.items() if reason is None]
        refused = [f"not {name!r}: {reason}" for name, reason in refusals.items() if reason is not None]
        if len(able) < 2:
            return preferred(how.device, how.dtype)
        key = {**how.key(), "parts": [part.describe() for part in parts], "among": able}
        kept = Choice.read(key)
        if kept is not None and kept.name in able:
            logger.info("%s, as measured before: %s. %s=1 measures again.", how.told(kept.name), kept.figures, RETUNE)
            return kept.name
        rows = how.compare(able, parts, self.seconds)
        best = fastest(rows)
        for row in rows:
            if row.failure is not None:
                logger.warning("netG.compute_backend 'auto': %s.", row)
        figures = "; ".join([*(str(row) for row in rows if row.failure is None), *refused])
        if best is None:
            name = preferred(how.device, how.dtype)
            logger.warning("%s, unmeasured: none passed.", how.told(name))
            return name
        path = Choice(key, best.name, figures).write()
        logger.info("%s: %s. Kept in %s.", how.told(best.name), figures, path or "no file")
        return best.name


@dataclass(frozen=True)
class _Circumstances:
    """A pass: its grid (B, T, H, W), device, type of products, and whether gradients are wanted."""

    batch: int
    size: Size3
    device: torch.device
    dtype: torch.dtype
    step: bool

    def key(self) -> dict[str, Any]:
        """All that a choice depends on, except the network."""
        return {
            **environment(self.device),
            "type": str(self.dtype).removeprefix("torch."),
            "products": torch.get_float32_matmul_precision(),
            "training": self.step,
            # Similar numbers of pixels share a choice.
            "pixels": 4 ** ((self.batch * math.prod(self.size)).bit_length() // 2),
        }

    def told(self, name: str) -> str:
        """The choice, for the log."""
        kind, use = str(self.dtype).removeprefix("torch."), "training" if self.step else "testing"
        return f"netG.compute_backend 'auto' is {name!r} for {use} on {self.device} in {kind}"

    def compare(self, names: Sequence[str], parts: Sequence[Part], seconds: float) -> list[Measured]:
        """A row for each back end; none if the inputs do not fit into memory."""
        generator = torch.Generator(self.device).manual_seed(0)
        batch, size = fitted(self.batch, self.size, MEASURED_TOKENS[self.device.type])
        # Outside the caller's modes, since measuring allocates and differentiates.
        with _disable_current_modes(), torch.inference_mode(False):
            try:
                problems = [(part.count, part.problem(batch, size, generator, self.device)) for part in parts]
                rows = compare([self._candidate(name, parts, problems) for name in names], self.device, seconds)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                rows = []
        if self.device.type == "cuda":
            problems = []
            give_back_memory(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)  # the run's own peak is not that of the comparison
        return rows

    def _candidate(self, name: str, parts: Sequence[Part], problems: Sequence[tuple[int, Problem]]) -> Candidate:
        backend = backend_called(name)
        amp_dtype = None if self.dtype == torch.float32 else self.dtype
        passes = [(count, partial(problem.run, backend, self.step, amp_dtype)) for count, problem in problems]
        return Candidate(name, partial(self._error, backend, parts, amp_dtype), passes)

    def _error(self, backend: Backend, parts: Sequence[Part], amp_dtype: torch.dtype | None) -> tuple[float, float]:
        """The relative error that is greatest relative to its limit, and this limit.

        Weights and inputs are drawn anew for each back end: else a kernel that writes nothing would pass in memory with
        the correct result of another.
        """
        generator = torch.Generator()
        generator.seed()
        frames, height, width = self.size
        size = (min(frames, CHECKED_FRAMES), min(height, CHECKED_SIDE), min(width, CHECKED_SIDE))
        worst = (0.0, LIMITS[self.dtype])
        for part in parts:
            problem = part.problem(min(self.batch, 2), size, generator, self.device)
            found = worst_error(problem, backend, self.step, amp_dtype)
            if not found[0] <= found[1]:
                return found
            worst = max(worst, found, key=lambda pair: pair[0] / pair[1])
        return worst


def fitted(batch: int, size: Size3, tokens: int) -> tuple[int, Size3]:
    """A grid (B, T, H, W) reduced to at most `tokens`, if possible: fewer clips, then fewer rows and columns."""
    frames, height, width = size
    batch = max(1, min(batch, tokens // math.prod(size)))
    while batch * frames * height * width > tokens and max(height, width) > SMALLEST_SIDE:
        if height >= width:
            height = max(SMALLEST_SIDE, _half(height))
        else:
            width = max(SMALLEST_SIDE, _half(width))
    return batch, (frames, height, width)


def _half(side: int) -> int:
    """Half of a side, rounded up to whole windows."""
    return -(-side // 2 // SMALLEST_SIDE) * SMALLEST_SIDE


def _can_measure(x: Tensor, dtype: torch.dtype) -> bool:
    """Whether passes on x compute numbers, in a type of `LIMITS`, and may differ by rounding between runs."""
    if isinstance(x, FakeTensor) or processor(x) != x.device.type or torch.compiler.is_compiling():
        return False
    if torch.are_deterministic_algorithms_enabled() or x.dtype != torch.float32 or dtype not in LIMITS:
        return False
    return x.device.type == "cpu" or not torch.cuda.is_current_stream_capturing()


def _is_automatic(name: str) -> bool:
    return backend_called(name).automatic


def _preference(name: str) -> tuple[int, str]:
    return PREFERENCE.index(name) if name in PREFERENCE else len(PREFERENCE), name
