"""The attention half, or the MLP half, of VRT's blocks by each back end: right, how fast, how much memory.

    python scripts/benchmark/bench_attention.py --device cuda --precision bf16 --step
    python scripts/benchmark/bench_attention.py --device cuda --precision tf32 --compare sdpa,triton --size 18x192x192
    python scripts/benchmark/bench_attention.py --device cuda --step --compare triton --tiles 64x64x4x2,64x128x8x2
    python scripts/benchmark/bench_attention.py --size 2x16x16 --compare eager,sdpa
    python scripts/benchmark/bench_attention.py --device cuda --half mlp --step --compare triton,triton_fused
    TRITON_INTERPRET=1 python scripts/benchmark/bench_attention.py --size 2x8x16 --compare eager,triton --repeats 1

LayerNorm and linear layers are part of both halves, the attention half's residual is not. Windows, shifts and channels
are those of VRT 006, at one size; blocks that don't fit the clip (a window longer than it) shrink theirs. Each back
end's result and gradients are first compared with those of `eager` in float64: the largest error, as a share of the
largest value, is printed, and the exit code is 1 where one is above the limit of the precision. Then they take turns;
medians are printed, with the memory that a pass allocates at most. `--tiles` gives each ROWSxCOLUMNSxWARPSxSTAGES of
the Triton kernels a line of its own (of the MLP's kernel, COLUMNS are hidden channels).
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import models.network_vrt  # noqa: F401  (registers the back ends)
from models.layers import eager, triton_attention, triton_mlp
from models.layers.attention_backend import ATTENTION_BACKENDS, AttentionBackend, TokenBackend, WindowBackend
from models.layers.blocks import GatedMlp
from models.layers.triton_attention import Tiles
from models.layers.triton_mlp import MlpTiles
from models.layers.window_attention import WindowAttention, WindowCodes
from models.layers.window_layout import Size3, WindowLayout, from_windows, to_windows, window_layout
from utils.utils_cli import run_command

LIMITS = {"fp32": 1e-4, "tf32": 1e-2, "bf16": 5e-2}


@dataclass(frozen=True)
class Case:
    """A kind of block: its window, whether it is shifted, channels, and whether it has mutual attention as well."""

    name: str
    window: Size3
    shifted: bool
    dim: int
    mutual: bool = False


CASES = (
    Case("stage 1, pairs", (2, 8, 8), False, 96, True),
    Case("stage 1, pairs, shifted", (2, 8, 8), True, 96, True),
    Case("stage 1", (6, 8, 8), False, 96),
    Case("stage 1, shifted", (6, 8, 8), True, 96),
    Case("stage 8, shifted", (6, 8, 8), True, 120),
    Case("stage 8, frames, shifted", (1, 8, 8), True, 120),
)


CHANNELS = (96, 120, 180)
"""Of the MLPs: stages 1 to 7 and 8 of VRT 006, and stage 8 of super-resolution; twice as many are hidden."""


@dataclass(frozen=True)
class Contender:
    """A back end, and the tiles to use in place of its own choice."""

    name: str
    backend: AttentionBackend
    tiles: Tiles | None = None

    def choosing(self) -> ExitStack:
        """Inside, its tiles are chosen."""
        stack = ExitStack()
        if self.tiles is not None:
            tiles, mlp_tiles = self.tiles, MlpTiles(*self.tiles)
            stack.enter_context(mock.patch.object(triton_attention, "choose_tiles", lambda *_args, **_kwargs: tiles))
            stack.enter_context(mock.patch.object(triton_mlp, "choose_mlp_tiles", lambda *_args: mlp_tiles))
        return stack


def attend(
    norm: nn.LayerNorm, attention: WindowAttention, x: Tensor, layout: WindowLayout, backend: AttentionBackend
) -> Tensor:
    """Tokens (B*T*H*W, C) to what a block adds to them, as `TMSA` does it."""
    if isinstance(backend, TokenBackend):
        return backend.attend_half(norm, attention, x, layout)
    assert isinstance(backend, WindowBackend)
    windows = norm(to_windows(x, layout))
    if layout.padding is not None:
        windows = windows.masked_fill(layout.padding[:, None], 0)
    biases = attention.biases(layout.window, [kind for kind, _ in layout.segments])
    return from_windows(attention(windows, layout.window, layout.segments, biases, backend.attend), layout)


def add_mlp(norm: nn.LayerNorm, mlp: GatedMlp, x: Tensor, backend: AttentionBackend) -> Tensor:
    """A block's tokens (B*T*H*W, C) behind attention to its result, as `TMSA` does it."""
    added = backend.add_mlp(norm, mlp, x, None) if isinstance(backend, TokenBackend) else None
    if added is not None:
        return added
    return x + (eager.gated_mlp(mlp, norm(x)) if backend.plain else mlp(norm(x)))


class Problem:
    """A half of a block with its weights and input.

    Args:
        modules: those with the weights. apply: input (rows, dim) and back end to the result.
    """

    def __init__(
        self, modules: nn.Module, apply: Callable[[Tensor, AttentionBackend], Tensor], rows: int, dim: int
    ) -> None:
        self.modules, self.apply = modules, apply
        device = next(modules.parameters()).device
        self.x = torch.randn(rows, dim).to(device).requires_grad_()
        self.factor = torch.randn(self.x.shape).to(device)

    def run(self, contender: Contender, step: bool, half: bool) -> list[Tensor]:
        """The result; of a step also all gradients."""
        leaves = [self.x, *self.modules.parameters()]
        with (
            contender.choosing(),
            torch.set_grad_enabled(step),
            torch.autocast(self.x.device.type, torch.bfloat16, half),
        ):
            out = self.apply(self.x, contender.backend)
        if not step:
            return [out]
        with contender.choosing():
            return [out.detach(), *torch.autograd.grad(out, leaves, self.factor.to(out.dtype))]

    def exact(self, step: bool) -> list[Tensor]:
        """`run` of the plain back end in float64."""
        parts = (self.modules.double(), self.x, self.factor)
        self.x, self.factor = (part.detach().double().requires_grad_(part.requires_grad) for part in parts[1:])
        try:
            return self.run(Contender("eager", ATTENTION_BACKENDS.get("eager")()), step, half=False)
        finally:
            self.modules.float()
            self.x, self.factor = parts[1:]


def attention_problem(case: Case, size: Size3, batch: int, device: torch.device) -> Problem:
    """The attention half of a kind of block."""
    torch.manual_seed(0)
    codes = WindowCodes(case.window, case.dim if case.mutual else 0)
    norm, attention = nn.LayerNorm(case.dim), WindowAttention(case.dim, 6, codes, mutual=case.mutual)
    modules = nn.ModuleList([norm, attention]).to(device)
    nn.init.normal_(attention.relative_position_bias_table)
    shift = tuple(length // 2 * case.shifted for length in case.window)
    layout = window_layout(batch, size, case.window, shift, pairs=case.mutual, device=device)  # type: ignore[arg-type]
    rows = batch * size[0] * size[1] * size[2]
    return Problem(modules, lambda x, backend: attend(norm, attention, x, layout, backend), rows, case.dim)


def mlp_problem(channels: int, size: Size3, batch: int, device: torch.device) -> Problem:
    """The MLP half."""
    torch.manual_seed(0)
    norm, mlp = nn.LayerNorm(channels), GatedMlp(channels, 2 * channels, channels)
    rows = batch * size[0] * size[1] * size[2]
    modules = nn.ModuleList([norm, mlp]).to(device)
    return Problem(modules, lambda x, backend: add_mlp(norm, mlp, x, backend), rows, channels)


def error(got: list[Tensor], exact: list[Tensor]) -> float:
    """Largest difference of result and gradients, each as a share of its largest value."""
    shares = []
    for a, b in zip(got, exact, strict=True):
        shares.append(float((a.double() - b).abs().max() / b.abs().max().clamp(min=1e-30)))
    return max(shares)


def measure(job: Callable[[], object], device: torch.device) -> tuple[float, int]:
    """Milliseconds of a pass, and the bytes that it allocates at most (0 on a CPU)."""
    if device.type != "cuda":
        start = time.perf_counter()
        job()
        return 1e3 * (time.perf_counter() - start), 0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    start = time.perf_counter()
    job()
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start), torch.cuda.max_memory_allocated() - before


def contenders(names: str, tiles: str | None, half: str, device: torch.device, dtype: torch.dtype) -> list[Contender]:
    """Those of the command line.

    Raises:
        ValueError: an unknown back end, one that can't run here, or malformed tiles.
    """
    found = []
    for name in names.split(","):
        backend = ATTENTION_BACKENDS.get(name)()
        reason = backend.refusal(device, dtype)
        if reason is not None:
            raise ValueError(f"--compare {name}: {reason}")
        found.append(Contender(name, backend))
    for text in tiles.split(",") if tiles else ():
        try:
            rows, columns, warps, stages = map(int, text.split("x"))
        except ValueError:
            raise ValueError(f"--tiles {text}: ROWSxCOLUMNSxWARPSxSTAGES, such as 64x64x4x2") from None
        if min(rows, columns) < 16 or any(n & (n - 1) for n in (rows, columns, warps)):
            raise ValueError(f"--tiles {text}: rows, columns and warps are powers of two, rows and columns at least 16")
        backend = ATTENTION_BACKENDS.get("triton_fused" if half == "mlp" else "triton")()
        found.append(Contender(f"triton {text}", backend, Tiles(rows, columns, warps, stages)))
    return found


def compare(name: str, problem: Problem, arguments: argparse.Namespace, among: list[Contender]) -> bool:
    """Prints a line for each contender; whether all are right."""
    device, half, step = torch.device(arguments.device), arguments.precision == "bf16", arguments.step
    exact = problem.exact(step)
    errors = [error(problem.run(contender, step, half), exact) for contender in among]
    del exact
    samples: list[list[tuple[float, int]]] = [[] for _ in among]
    for _ in range(arguments.repeats):
        for contender, sample in zip(among, samples, strict=True):
            sample.append(measure(lambda one=contender: problem.run(one, step, half), device))  # type: ignore[misc]
    first = statistics.median(milliseconds for milliseconds, _ in samples[0])
    for contender, sample, wrong in zip(among, samples, errors, strict=True):
        median = statistics.median(milliseconds for milliseconds, _ in sample)
        peak = max(memory for _, memory in sample) / 1e9
        memory = f"{peak:9.3f}" if device.type == "cuda" else f"{'-':>9}"
        verdict = "" if wrong <= LIMITS[arguments.precision] else "  WRONG"
        print(
            f"{name:26}{contender.name:22}{median:10.3f}{first / median:7.2f}{memory}{wrong:10.1e}{verdict}",
            flush=True,
        )
    return all(wrong <= LIMITS[arguments.precision] for wrong in errors)


def run(arguments: argparse.Namespace) -> bool:
    """Compares and prints; whether all are right."""
    try:
        frames, height, width = map(int, arguments.size.split("x"))
    except ValueError:
        raise ValueError(f"--size {arguments.size}: FRAMESxHEIGHTxWIDTH, such as 6x192x192") from None
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: PyTorch sees no GPU here")
    torch.set_float32_matmul_precision("high" if arguments.precision == "tf32" else "highest")
    device = torch.device(arguments.device)
    dtype = torch.bfloat16 if arguments.precision == "bf16" else torch.float32
    among = contenders(arguments.compare, arguments.tiles, arguments.half, device, dtype)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    what = "step" if arguments.step else "forward"
    print(
        f"{what} of the {arguments.half} half of [{arguments.batch},{arguments.size}], {arguments.precision}, {name}, "
        f"torch {torch.__version__}; medians of {arguments.repeats} interleaved repeats"
    )
    print(f"{'blocks':26}{'back end':22}{'ms':>10}{'ratio':>7}{'peak GB':>9}{'error':>10}")
    where = ((frames, height, width), arguments.batch, device)
    if arguments.half == "mlp":
        jobs = [(f"MLP, {channels} channels", partial(mlp_problem, channels, *where)) for channels in CHANNELS]
    else:
        jobs = [(case.name, partial(attention_problem, case, *where)) for case in CASES]
    return all([compare(title, make(), arguments, among) for title, make in jobs])


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=("attention", "mlp"), default="attention", help="of a block")
    parser.add_argument("--compare", default="eager,sdpa,triton", help="back ends, with commas between")
    parser.add_argument("--tiles", help="tiles of the Triton kernels to try, with commas between")
    parser.add_argument("--size", default="6x192x192", help="FRAMESxHEIGHTxWIDTH")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--step", action="store_true", help="forward and backward pass instead of the forward pass")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=LIMITS, default="fp32")
    parser.add_argument("--repeats", type=int, default=10)
    arguments = parser.parse_args(argv)
    right: list[bool] = []
    code = run_command(lambda: right.append(run(arguments)))
    return code or int(not all(right))


if __name__ == "__main__":
    sys.exit(main())
