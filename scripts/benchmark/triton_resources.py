"""What the kernels of attention, around it and of alignment take on a GPU, as its compiler says; no GPU is needed.

    python scripts/benchmark/triton_resources.py
    python scripts/benchmark/triton_resources.py --capability 86 --dtype fp32 --precision high

Compiles the kernels that forward and backward pass of VRT's windows and alignment and the forward pass around windows
launch, with the arguments they are launched with, and prints for a window and the channels of a head, for the channels
of a token, or for channels, groups and neighbours of alignment: registers per thread, bytes that don't fit in them per
thread, shared memory per program, and how many warps of the 64 of a multiprocessor that leaves room for (on sm_90:
64 Ki registers, 227 KiB of shared memory).
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.benchmark.flags import triton_resources_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(triton_resources_parser(__doc__ or ""))

import torch
from torch import Tensor

from models.layers.backends.triton import deform as triton_deform
from models.layers.backends.triton.attention import interpreted, window_attention, window_attention_backward
from models.layers.backends.triton.mlp import add_gated_mlp
from models.layers.backends.triton.norm_linear import norm_linear
from utils.user_error import UserError
from utils.utils_cli import run_command

KERNELS = ("attention_forward", "attention_backward", "attention_backward_bias")
ALIGNMENT_KERNELS = (
    "features_forward", "features_backward", "deform_forward", "deform_backward", "deform_backward_weight"
)  # fmt: skip
FUSED_KERNELS = ("norm_linear_forward", "mlp_forward")
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
_POINTERS = {torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.int32: "*i32", torch.int64: "*i64"}
# Window, channels of a head, whether it is mutual attention: what VRT 006 has, by its stages.
CASES = (
    ((6, 8, 8), 16, False),
    ((2, 8, 8), 16, False),
    ((2, 8, 8), 16, True),
    ((6, 8, 8), 20, False),
    ((1, 8, 8), 20, False),
)
# Channels of VRT's tokens: deblurring's, and super-resolution's last ones.
CHANNELS = (96, 120, 180)
# Channels, groups and neighbours of alignment: those of VRT 006, 001 and 002.
ALIGNMENT_CASES = ((96, 16, 1), (120, 12, 1), (120, 24, 3))


class Compiler:
    """Stands for a kernel: compiles it for the arguments it is launched with, instead of running it."""

    def __init__(self, kernel: Any, capability: int) -> None:
        self.kernel, self.capability = kernel, capability
        self.compiled: Any = None

    def __getitem__(self, grid: tuple[int, int, int]) -> Any:
        return self._compile

    def _compile(self, *args: Any, num_warps: int, num_stages: int, **constants: Any) -> None:
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        values = dict(zip(self.kernel.arg_names, args, strict=False)) | constants
        signature: dict[str, Any] = {}
        fixed, aligned = {}, {}
        for i, name in enumerate(self.kernel.arg_names):
            value = values[name]
            if name in constants or value is None:
                signature[name], fixed[(i,)] = "constexpr", value
            elif isinstance(value, Tensor):
                signature[name], aligned[(i,)] = _POINTERS[value.dtype], [["tt.divisibility", 16]]
            else:
                signature[name] = ("i32",) * 3 if isinstance(value, tuple) else _scalar(value)
        source = ASTSource(self.kernel, signature, fixed, aligned)
        options = {"num_warps": num_warps, "num_stages": num_stages}
        self.compiled = triton.compile(source, target=GPUTarget("cuda", self.capability, 32), options=options)


def _scalar(value: float) -> str:
    return "fp32" if isinstance(value, float) else "i32"


@contextmanager
def _compiling(module: ModuleType, names: Sequence[str], capability: int) -> Iterator[dict[str, Compiler]]:
    """Inside, launching one of a module's kernels compiles it."""
    compilers = {name: Compiler(getattr(module, name), capability) for name in names}
    try:
        for name, compiler in compilers.items():
            setattr(module, name, compiler)
        yield compilers
    finally:
        for name, compiler in compilers.items():
            setattr(module, name, compiler.kernel)


def _compiled(compilers: dict[str, Compiler]) -> dict[str, Any]:
    return {name: compiler.compiled for name, compiler in compilers.items() if compiler.compiled is not None}


def compile_kernels(
    capability: int,
    dtype: torch.dtype,
    window: tuple[int, int, int],
    head_dim: int,
    mutual: bool,
    *,
    heads: int = 6,
    padded: bool = False,
) -> dict[str, Any]:
    """Triton's compiled kernels of a forward and backward pass in shifted windows, by name.

    Args:
        capability: of the GPU, such as 90.
        dtype, window, head_dim, mutual, heads: see `window_attention`.
        padded: the grid is not a multiple of the window.
    """
    from models.layers.backends.triton import attention_kernels as triton_kernels

    tokens = window[0] * window[1] * window[2]
    size = [length + padded for length in window]
    qkv = torch.zeros(1, *size, 3 * heads * head_dim, dtype=dtype)
    bias = None if mutual else torch.zeros(heads, tokens, tokens)
    code = torch.zeros(window[1] * window[2], qkv.shape[-1], dtype=dtype) if mutual else None
    shift = tuple(length // 2 for length in window)
    tensors, settings = (qkv, bias, torch.zeros(qkv.shape[-1]), code), (window, shift, heads, head_dim**-0.5, mutual)
    with _compiling(triton_kernels, KERNELS, capability) as compilers:
        out, lse = window_attention(*tensors, *settings)
        window_attention_backward(out, *tensors, out, lse, *settings)
    return _compiled(compilers)


def compile_alignment(
    capability: int, dtype: torch.dtype, channels: int, groups: int, neighbours: int
) -> dict[str, Any]:
    """Triton's compiled kernels of alignment's forward and backward pass, by name."""
    from models.layers.backends.triton import deform_kernels as triton_deform_kernels

    frames, raw = torch.zeros(2, 4, 4, channels, dtype=dtype), torch.zeros(2, 4, 4, 27 * groups, dtype=dtype)
    flows, targets = torch.zeros(2, neighbours, 2, 4, 4), torch.zeros(2, dtype=torch.int32)
    sources, weight = torch.zeros(2, neighbours, dtype=torch.int32), torch.zeros(channels, channels, 3, 3)
    with _compiling(triton_deform_kernels, ALIGNMENT_KERNELS, capability) as compilers:
        features = triton_deform.alignment_features(frames, targets, sources, flows)
        triton_deform.alignment_features_backward(features, frames, targets, sources, flows)
        inputs = (raw, flows, frames, sources, weight)
        out = triton_deform.deformable_alignment(*inputs, weight[:, 0, 0, 0], 10.0)
        triton_deform.deformable_alignment_backward(out, *inputs, 10.0)
    return _compiled(compilers)


def compile_fused(capability: int, dtype: torch.dtype, channels: int) -> dict[str, Any]:
    """Triton's compiled kernels of an MLP half with drop path and of a projection, by name; tokens are in float32.

    Args:
        capability: of the GPU, such as 90.
        dtype: of the products.
        channels: C; twice as many are hidden.
    """
    from models.layers.backends.triton import norm_kernels as triton_norm_kernels

    hidden = 2 * channels
    shapes = [(hidden, channels), (hidden,), (hidden, channels), (hidden,), (channels, hidden), (channels,)]
    weights = [torch.zeros(shape, dtype=dtype if len(shape) > 1 else torch.float32) for shape in shapes]
    x, norm, keep = torch.zeros(128, channels), torch.zeros(channels), torch.ones(2)
    with _compiling(triton_norm_kernels, FUSED_KERNELS, capability) as compilers:
        add_gated_mlp(x, norm, norm, *weights, keep, 1e-5)
        norm_linear(x, norm, norm, torch.zeros(3 * channels, channels, dtype=dtype), torch.zeros(3 * channels), 1e-5)
    return _compiled(compilers)


def registers(kernel: Any) -> tuple[int, int]:
    """Registers of a thread, and bytes that it spills to memory, as ptxas tells for the kernel's code."""
    import triton

    ptxas = Path(triton.__file__).parent / "backends/nvidia/bin/ptxas"
    target = re.search(r"\.target (sm_\w+)", kernel.asm["ptx"])
    assert target is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(kernel.asm["ptx"])
        command = [str(ptxas), "-v", f"--gpu-name={target[1]}", str(path), "-o", str(path.with_suffix(".cubin"))]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    used, spilled = re.search(r"Used (\d+) registers", said), re.search(r"(\d+) bytes spill stores", said)
    assert used is not None and spilled is not None, said
    return int(used[1]), int(spilled[1])


def run(arguments: argparse.Namespace) -> None:
    """Compiles and prints."""
    if interpreted():
        raise UserError("TRITON_INTERPRET=1 leaves nothing to compile: unset it")
    torch.set_float32_matmul_precision(arguments.precision)
    capability, dtype = arguments.capability, DTYPES[arguments.dtype]
    header = f"{'registers':>11}{'spilled':>9}{'shared KiB':>12}{'warps':>7}"
    print(f"{'kernel':26}{'window':>10}{'width':>7}{header}")
    for window, head_dim, mutual in CASES:
        title = "x".join(map(str, window)) + (" m" if mutual else "")
        _print_rows(compile_kernels(capability, dtype, window, head_dim, mutual), f"{title:>10}{head_dim:7}")
    for channels in CHANNELS:
        _print_rows(compile_fused(capability, dtype, channels), f"{'-':>10}{channels:7}")
    print(f"{'kernel':26}{'C, G, K':>17}{header}")
    for case in ALIGNMENT_CASES:
        _print_rows(compile_alignment(capability, dtype, *case), f"{','.join(map(str, case)):>17}")


def _print_rows(compiled: dict[str, Any], case: str) -> None:
    for name, kernel in compiled.items():
        used, spilled = registers(kernel)
        warps, shared = kernel.metadata.num_warps, kernel.metadata.shared
        programs = min(65536 // (warps * 32 * -(-used // 8) * 8), (227 << 10) // max(shared, 1))
        room = min(64, programs * warps)
        print(f"{name:26}{case}{used:11}{spilled:9}{shared / 1024:12.1f}{room:7}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    arguments = triton_resources_parser(__doc__ or "").parse_args(argv)
    return run_command(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
