"""The attention half, or the MLP half, of VRT's blocks by each back end: right, how fast, how much memory.

    python scripts/benchmark/bench_attention.py --device cuda --precision bf16 --step
    python scripts/benchmark/bench_attention.py --device cuda --precision tf32 --compare sdpa,triton --size 18x192x192
    python scripts/benchmark/bench_attention.py --device cuda --step --compare triton --tiles 64x64x4x2,64x128x8x2
    python scripts/benchmark/bench_attention.py --size 2x16x16 --compare eager,sdpa,native
    python scripts/benchmark/bench_attention.py --device cuda --half mlp --step --compare triton,triton_fused
    python scripts/benchmark/bench_attention.py --half core --size 6x32x32 --compare sdpa,native
    TRITON_INTERPRET=1 python scripts/benchmark/bench_attention.py --size 2x8x16 --compare eager,triton --repeats 1

LayerNorm and linear layers are part of both halves, the attention half's residual is not. `--half core` is
softmax(q kT * scale + bias) v alone, in the attention half's sizes, with a column of the GFLOP/s of its two products
(with --step seven); back ends that fuse it with other parts have none. Windows, shifts and channels
are those of VRT 006, at one size; blocks that don't fit the clip (a window longer than it) shrink theirs. Each back
end's result and gradients are first compared with those of `eager` in float64: the largest errors, as shares of the
largest value, are printed, and the exit code is 1 where one is above the limit of the precision. Then they take turns;
medians are printed, with the memory that a pass allocates at most. `--tiles` gives each ROWSxCOLUMNSxWARPSxSTAGES of
the Triton kernels a line of its own (of the MLP's kernel, COLUMNS are hidden channels).
"""

import argparse
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from unittest import mock

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.benchmark.flags import HALVES, bench_attention_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(bench_attention_parser(__doc__ or ""))

import torch
from torch import Tensor, nn

import models.network_vrt  # noqa: F401  (registers the back ends)
from models.layers.backends.backend import COMPUTE_BACKENDS, Backend
from models.layers.backends.eager import EagerBackend
from models.layers.backends.measure import timed
from models.layers.backends.problem import Problem
from models.layers.backends.token_backend import TokenBackend
from models.layers.backends.triton import attention as triton_attention
from models.layers.backends.triton import mlp as triton_mlp
from models.layers.backends.triton.attention import Tiles
from models.layers.backends.window_backend import WindowBackend
from models.layers.vrt.blocks import TMSA
from models.layers.vrt.window_attention import BlockSettings, WindowAttention, WindowCodes
from models.layers.vrt.window_layout import Size3, from_windows, to_windows, window_layout
from utils.user_error import UserError
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
# Of the MLPs: stages 1 to 7 and 8 of VRT 006, and stage 8 of super-resolution; twice as many are hidden.
CHANNELS = (96, 120, 180)


@dataclass(frozen=True)
class Contender:
    """A back end, and the tiles to use in place of its own choice."""

    name: str
    backend: Backend
    tiles: Tiles | None = None

    def choosing(self, tile_function: str) -> AbstractContextManager:
        """Within this context the function of that dotted name returns the contender's tiles."""
        if self.tiles is None:
            return nullcontext()
        return mock.patch(tile_function, lambda *_args, **_kwargs: self.tiles)


class TiledProblem(Problem):
    """A problem whose kernels' tiles can be chosen.

    Args:
        tile_function: dotted name of the function that chooses them.
    """

    gradient_limits: ClassVar = LIMITS
    flop = 0  # of a forward pass; 0: not told

    def __init__(self, module: nn.Module, inputs: list[Tensor], tile_function: str) -> None:
        super().__init__(module, inputs)
        self.tile_function = tile_function

    def error(self, got: Tensor, exact: Tensor) -> float:
        """The largest difference as a share of the largest value."""
        return float((got.double() - exact).abs().max() / exact.abs().max().clamp(min=1e-30))

    def solve(self, contender: Contender, step: bool, half: bool) -> list[Tensor]:
        """`run` of a contender with its tiles."""
        with contender.choosing(self.tile_function):
            return self.run(contender.backend, step, torch.bfloat16 if half else None)


class AttentionProblem(TiledProblem):
    """The attention half of a kind of block."""

    def __init__(self, case: Case, size: Size3, batch: int, device: torch.device) -> None:
        torch.manual_seed(0)
        codes = WindowCodes(case.window, case.dim if case.mutual else 0)
        self.norm = nn.LayerNorm(case.dim)
        self.attention = WindowAttention(BlockSettings(case.dim, 6, ()), codes, mutual=case.mutual)
        nn.init.normal_(self.attention.relative_position_bias_table)
        shift = tuple(length // 2 * case.shifted for length in case.window)
        self.layout = window_layout(batch, size, case.window, shift, pairs=case.mutual, device=device)  # type: ignore[arg-type]
        x, modules = torch.randn(batch * math.prod(size), case.dim), nn.ModuleList([self.norm, self.attention])
        super().__init__(modules.to(device), [x.to(device)], f"{triton_attention.__name__}.attention_tiles")

    def apply(self, backend: Backend) -> Tensor:
        """See `Problem.apply`: tokens (B*T*H*W, C) to what a block adds to them, as `TMSA` does it."""
        (x,), layout = self.inputs, self.layout
        if isinstance(backend, TokenBackend):
            return backend.attend_half(self.norm, self.attention, x, layout)
        assert isinstance(backend, WindowBackend)
        rows = layout.zero_padding(self.norm(to_windows(x, layout)))
        biases = self.attention.biases(layout.window, layout.kinds, backend.keys_first)
        return from_windows(self.attention(rows, layout, biases, backend.attend), layout)


def attention_problems(size: Size3, batch: int, device: torch.device) -> Iterator[tuple[str, TiledProblem]]:
    """All cases, by name."""
    for case in CASES:
        yield case.name, AttentionProblem(case, size, batch, device)


class MlpProblem(TiledProblem):
    """The MLP half of a block."""

    def __init__(self, channels: int, size: Size3, batch: int, device: torch.device) -> None:
        torch.manual_seed(0)
        self.block = TMSA(BlockSettings(channels, 1, ()), WindowCodes((1, 1, 1)))
        x, modules = torch.randn(batch * math.prod(size), channels), nn.ModuleList([self.block.norm2, self.block.mlp])
        super().__init__(modules.to(device), [x.to(device)], f"{triton_mlp.__name__}.mlp_tiles")

    def apply(self, backend: Backend) -> Tensor:
        """See `Problem.apply`: tokens (B*T*H*W, C) behind attention to a block's result."""
        (x,) = self.inputs
        # Without gradients the result may be written into the tokens, which the next pass takes again.
        x = x if torch.is_grad_enabled() else x.clone()
        return (
            backend.add_mlp(self.block, x, None) if isinstance(backend, TokenBackend) else self.block.add_mlp(x, None)
        )


def mlp_problems(size: Size3, batch: int, device: torch.device) -> Iterator[tuple[str, TiledProblem]]:
    """All cases, by name."""
    for channels in CHANNELS:
        yield f"MLP, {channels} channels", MlpProblem(channels, size, batch, device)


class CoreProblem(TiledProblem):
    """softmax(q kT * scale + bias) v for windows of `tokens`, all in one call, with queries, keys and values as a
    projection leaves them."""

    def __init__(
        self, tokens: int, dim: int, biased: bool, size: Size3, batch: int, device: torch.device, heads: int = 6
    ) -> None:
        torch.manual_seed(0)
        windows = max(1, batch * math.prod(size) // tokens)
        self.shape = (windows, tokens, 3, heads, dim // heads)
        self.scale = (dim // heads) ** -0.5
        self.flop = 4 * windows * tokens**2 * dim
        bias = nn.ParameterList([torch.randn(1, heads, tokens, tokens, device=device)] if biased else [])
        super().__init__(bias, [torch.randn(self.shape, device=device)], f"{triton_attention.__name__}.attention_tiles")

    def apply(self, backend: Backend) -> Tensor:
        """See `Problem.apply`: (windows, heads, N, head_dim)."""
        q, k, v = self.inputs[0].permute(2, 0, 3, 1, 4)  # (windows, heads, N, head_dim) each
        bias: Tensor | None = next(self.module.parameters(), None)
        if bias is not None and not torch.is_grad_enabled():
            bias = bias.detach()  # as in a block; SDPA would fall back to the math kernel
        if isinstance(backend, WindowBackend):
            keys_first = bias is not None and backend.keys_first
            return backend.attend(q, k, v, bias.mT.contiguous() if keys_first else bias, self.scale)  # type: ignore[union-attr]
        if not isinstance(backend, EagerBackend):
            raise UserError("--half core: this back end's kernel holds other parts of the block too")
        scores = q * self.scale @ k.mT
        return (scores if bias is None else scores + bias).softmax(-1) @ v


def core_problems(size: Size3, batch: int, device: torch.device) -> Iterator[tuple[str, TiledProblem]]:
    """One for each size of windows and width of heads in VRT 006; mutual attention has no bias."""
    for tokens, dim, biased in ((384, 96, True), (384, 120, True), (128, 96, True), (64, 120, True), (64, 96, False)):
        yield f"{tokens} tokens, head {dim // 6}", CoreProblem(tokens, dim, biased, size, batch, device)


@dataclass(frozen=True)
class Subject:
    """What is compared.

    Attributes:
        name: in the title.
        problems: of the command line's size, batch and device, the cases by name.
        tiled: the back end that `--tiles` are for.
    """

    name: str
    problems: Callable[[Size3, int, torch.device], Iterator[tuple[str, TiledProblem]]]
    tiled: str = "triton"


SUBJECTS = dict(
    zip(
        HALVES,
        (
            Subject("the attention half", attention_problems),
            Subject("the MLP half", mlp_problems, "triton_fused"),
            Subject("attention alone", core_problems),
        ),
        strict=True,
    )
)


def contenders(names: str, tiles: str | None, tiled: str, device: torch.device, dtype: torch.dtype) -> list[Contender]:
    """Those of the command line; `tiled` is the back end of the tiles.

    Raises:
        UserError: an unknown back end, one that can't run here, or malformed tiles.
    """
    found = []
    for name in names.split(","):
        backend = COMPUTE_BACKENDS.get(name)()
        reason = backend.refusal(device, dtype)
        if reason is not None:
            raise UserError(f"--compare {name}: {reason}")
        found.append(Contender(name, backend))
    for text in tiles.split(",") if tiles else ():
        try:
            rows, columns, warps, stages = map(int, text.split("x"))
        except ValueError:
            raise UserError(f"--tiles {text}: ROWSxCOLUMNSxWARPSxSTAGES, such as 64x64x4x2") from None
        if min(rows, columns) < 16 or any(n & (n - 1) for n in (rows, columns, warps)):
            raise UserError(f"--tiles {text}: rows, columns and warps are powers of two, rows and columns at least 16")
        backend = COMPUTE_BACKENDS.get(tiled)()
        found.append(Contender(f"{tiled} {text}", backend, Tiles(rows, columns, warps, stages)))
    return found


def compare(name: str, problem: TiledProblem, arguments: argparse.Namespace, among: list[Contender]) -> bool:
    """Prints a line for each contender; whether all are right."""
    device, half, step = torch.device(arguments.device), arguments.precision == "bf16", arguments.step
    exact = problem.exact(step)
    results = (problem.solve(contender, step, half) for contender in among)
    errors = [[problem.error(a, b) for a, b in zip(got, exact, strict=True)] for got in results]
    del exact

    def right(wrong: list[float]) -> bool:
        limits = LIMITS[arguments.precision], problem.gradient_limits[arguments.precision]
        return wrong[0] <= limits[0] and all(share <= limits[1] for share in wrong[1:])

    samples: list[list[tuple[float, int]]] = [[] for _ in among]
    for _ in range(arguments.repeats):
        for contender, sample in zip(among, samples, strict=True):
            sample.append(timed(lambda one=contender: problem.solve(one, step, half), device))  # type: ignore[misc]
    first = statistics.median(milliseconds for milliseconds, _ in samples[0])
    for contender, sample, wrong in zip(among, samples, errors, strict=True):
        median = statistics.median(milliseconds for milliseconds, _ in sample)
        peak = max(memory for _, memory in sample) / 1e9
        memory = f"{peak:9.3f}" if device.type == "cuda" else f"{'-':>9}"
        line = f"{name:26}{contender.name:25}{median:10.3f}{first / median:7.2f}{memory}"
        # The backward pass computes the scores once more, and four products of its own.
        flop = problem.flop * (3.5 if step else 1)
        line += f"{flop / median / 1e6:9.1f}" if flop else f"{'-':>9}"
        line += "".join(f"{max(part):10.1e}" for part in (wrong[:1], wrong[1:]) if part)
        print(line + ("" if right(wrong) else "  WRONG"), flush=True)
    return all(right(wrong) for wrong in errors)


def run(arguments: argparse.Namespace, subject: Subject) -> bool:
    """Compares and prints; whether all are right."""
    try:
        frames, height, width = map(int, arguments.size.split("x"))
    except ValueError:
        raise UserError(f"--size {arguments.size}: FRAMESxHEIGHTxWIDTH, such as 6x192x192") from None
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch sees no GPU here")
    torch.set_float32_matmul_precision("high" if arguments.precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = arguments.precision == "tf32"
    device = torch.device(arguments.device)
    dtype = torch.bfloat16 if arguments.precision == "bf16" else torch.float32
    among = contenders(arguments.compare, arguments.tiles, subject.tiled, device, dtype)
    hardware = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    what = "step" if arguments.step else "forward"
    print(
        f"{what} of {subject.name} of [{arguments.batch},{arguments.size}], {arguments.precision}, {hardware}, "
        f"torch {torch.__version__}; medians of {arguments.repeats} interleaved repeats"
    )
    columns = f"{'case':26}{'back end':25}{'ms':>10}{'ratio':>7}{'peak GB':>9}{'GFLOP/s':>9}{'error':>10}"
    print(columns + f"{'gradients':>10}" * arguments.step)
    found = subject.problems((frames, height, width), arguments.batch, device)
    return all([compare(name, problem, arguments, among) for name, problem in found])


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    arguments = bench_attention_parser(__doc__ or "").parse_args(argv)
    return exit_code(arguments, SUBJECTS[arguments.half])


def exit_code(arguments: argparse.Namespace, subject: Subject) -> int:
    """Measures; 0 where all is right, 1 where a back end is not, 2 for a mistake in the flags."""
    right: list[bool] = []
    code = run_command(lambda: right.append(run(arguments, subject)))
    return code or int(not all(right))


if __name__ == "__main__":
    sys.exit(main())
