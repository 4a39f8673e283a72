"""The back end "native" of `netG.compute_backend`: window attention on a CPU by `native_attention.cpp`.

When the back end is first used, the system's compiler (CXX, or c++) compiles the C++ file for this processor, in
seconds; the library is kept in the user's cache. If that fails, the back end is refused and "sdpa" is used instead.

Scores never leave the cache; each costs two multiply-adds per channel and one exponential. The backward pass recomputes
the weights from the saved sums of exponentials, and sums the bias' gradient in an order that does not depend on the
number of threads.
Measured by `python scripts/benchmark/bench_attention.py --compare sdpa,native`.
Test: `python -m pytest tests/models/layers/backends/cpu/test_native_attention.py`.

Legend: N tokens of a window, shapes (windows, heads, N, head_dim).
"""

import ctypes
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.flop_counter import register_flop_formula, sdpa_backward_flop_count, sdpa_flop_count

from models.layers.backends.backend import COMPUTE_BACKENDS
from models.layers.backends.cpu.library_cache import cached_library
from models.layers.backends.window_backend import WindowBackend

SOURCE = Path(__file__).with_suffix(".cpp")  # the kernel, which has this module's name
# Only compiled with OpenMP (-c), not linked: the library then uses PyTorch's OpenMP, and so its threads.
_FLAGS = ("-O3", "-funroll-loops", "-march=native", "-std=c++17", "-fopenmp", "-fPIC", "-c")
_COMPILER_SECONDS = 120  # the kernel takes seconds to compile; a compiler that hangs must not stop the run
# Partial sums of the bias' gradient, computed in parallel; each takes as much memory as the bias.
_MOST_PARTS = 16
_WINDOWS_PER_PART = 4  # at least: with fewer windows, adding up the partial sums would cost more than it gains
_TOLERANCE = 1e-4  # far above float32's rounding of the trial's sums, far below the effect of a wrong kernel


@COMPUTE_BACKENDS.register("native")
class NativeBackend(WindowBackend):
    """Attention of windows by a kernel of our own, on CPUs."""

    keys_first = True

    def refusal(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """See `Backend.refusal`."""
        if device.type != "cpu":
            return f"its kernel is for CPUs, and the tensors are on {device.type}"
        if dtype != torch.float32:
            return f"its kernel computes in float32, not in {dtype}"
        return _trial()

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
        """See `WindowBackend.attend`."""
        if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (q, k, v, bias)):
            return _NativeAttention.apply(q, k, v, bias, scale)
        return torch.ops.s_vrt.native_attention(q, k, v, bias, scale, False)[0]


class _NativeAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, bias, scale):  # type: ignore[no-untyped-def]
        # (windows, heads, N, head_dim) and, per query, the sum of exponentials for the backward pass
        out, sums = torch.ops.s_vrt.native_attention(q, k, v, bias, scale, True)
        ctx.save_for_backward(q, k, v, bias, out, sums)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        bias_needs_grad = ctx.needs_input_grad[3]
        grads = torch.ops.s_vrt.native_attention_backward(grad, *ctx.saved_tensors, ctx.scale, bias_needs_grad)
        return *grads[:3], grads[3] if bias_needs_grad else None, None


_operators = torch.library.Library("s_vrt", "FRAGMENT")
_operators.define(
    "native_attention(Tensor q, Tensor k, Tensor v, Tensor? bias, float scale, bool keep_sums) -> (Tensor, Tensor)"
)
_operators.define(
    "native_attention_backward(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor? bias, Tensor out, Tensor sums, "
    "float scale, bool bias_wanted) -> (Tensor, Tensor, Tensor, Tensor)"
)


def _attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float, keep_sums: bool
) -> tuple[Tensor, Tensor]:
    """softmax(q kT * scale + bias) v.

    Args:
        q, k, v: (windows, heads, N, head_dim) float32.
        bias: (1, 1 or heads, N, N): keys before queries.
        keep_sums: return the sums of exponentials, which the backward pass needs.

    Returns:
        (windows, heads, N, head_dim), with a token's heads adjacent in memory; and the logarithms to base 2 of the sums
        of exponentials, (windows, heads, N), or an empty tensor.
    """
    q, k, v = (_dense(x) for x in (q, k, v))
    out, sums = _outputs(q, keep_sums)
    bias = _in_tiles(bias)
    _library().native_attention(*_arguments(q, k, v, out), *_bias(bias), ctypes.c_float(scale), _address(sums))
    return out, sums


def _attention_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    out: Tensor,
    sums: Tensor,
    scale: float,
    bias_wanted: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and, where wanted, of a bias per head."""
    grad, q, k, v = (_dense(x) for x in (grad, q, k, v))
    of_q, of_k, of_v = (_outputs(q, False)[0] for _ in range(3))
    bias = _in_tiles(bias)
    parts, heads, tokens = max(1, min(_MOST_PARTS, q.shape[0] // _WINDOWS_PER_PART)), *q.shape[1:3]
    sums_of_bias = q.new_zeros((parts, heads, *bias.shape[2:]) if bias is not None and bias_wanted else (0,))
    _library().native_attention_backward(
        *_arguments(q, k, v, out, grad, of_q, of_k, of_v), *_bias(bias), _address(sums), ctypes.c_float(scale),
        _address(sums_of_bias), ctypes.c_int64(parts),
    )  # fmt: skip
    if bias is None or not bias_wanted:
        return of_q, of_k, of_v, sums_of_bias
    grad_bias = sums_of_bias.sum(0, keepdim=True)[..., :tokens]
    return of_q, of_k, of_v, grad_bias.sum_to_size(1, bias.shape[1], tokens, tokens).contiguous()


_operators.impl("native_attention", _attention, "CPU")
_operators.impl("native_attention_backward", _attention_backward, "CPU")


def _outputs(q: Tensor, keep_sums: bool) -> tuple[Tensor, Tensor]:
    windows, heads, tokens, width = q.shape
    sums = q.new_empty((windows, heads, tokens) if keep_sums else (0,))
    return q.new_empty(windows, tokens, heads, width).transpose(1, 2), sums


@torch.library.register_fake("s_vrt::native_attention")
def _(q, k, v, bias, scale, keep_sums):  # type: ignore[no-untyped-def]
    return _outputs(q, keep_sums)


@torch.library.register_fake("s_vrt::native_attention_backward")
def _(grad, q, k, v, bias, out, sums, scale, bias_wanted):  # type: ignore[no-untyped-def]
    return *(_outputs(q, False)[0] for _ in range(3)), q.new_empty(bias.shape if bias_wanted else (0,))


@register_flop_formula(torch.ops.s_vrt.native_attention)
def _flop(q, k, v, *_args, **_kwargs):  # type: ignore[no-untyped-def]
    return sdpa_flop_count(q, k, v)


@register_flop_formula(torch.ops.s_vrt.native_attention_backward)
def _backward_flop(grad, q, k, v, *_args, **_kwargs):  # type: ignore[no-untyped-def]
    return sdpa_backward_flop_count(grad, q, k, v)


def _dense(x: Tensor) -> Tensor:
    """x, or a copy whose channels are adjacent in memory."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _address(x: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(x.data_ptr() if x.numel() else None)


def _arguments(*tensors: Tensor) -> tuple[ctypes.Array, ctypes.Array, ctypes.Array]:
    """Sizes of the first tensor, and addresses and strides of all tensors, for the C++ functions."""
    strides = [stride for x in tensors for stride in x.stride()[:3]]
    return (
        (ctypes.c_int64 * 4)(*tensors[0].shape),
        (ctypes.c_void_p * len(tensors))(*[x.data_ptr() for x in tensors]),
        (ctypes.c_int64 * len(strides))(*strides),
    )


def _in_tiles(bias: Tensor | None) -> Tensor | None:
    """The bias with its queries padded to a multiple of the kernel's tile."""
    if bias is None:
        return None
    missing = -bias.shape[-1] % _tile()
    return F.pad(bias, (0, missing)) if missing else bias.contiguous()


def _bias(bias: Tensor | None) -> tuple[ctypes.c_void_p, ctypes.c_int64]:
    """Address of the bias, and the stride between its heads: 0 if they share one."""
    if bias is None:
        return ctypes.c_void_p(None), ctypes.c_int64(0)
    return _address(bias), ctypes.c_int64(bias.stride(1) if bias.shape[1] > 1 else 0)


@cache
def _tile() -> int:
    """Number of queries that the kernel processes together."""
    return _library().native_tile()


@cache
def _library() -> ctypes.CDLL:
    """The compiled kernel.

    Raises:
        OSError, RuntimeError, subprocess.SubprocessError: no compiler, a failed compilation, or no writable cache.
    """
    compiler = shutil.which(os.environ.get("CXX") or "c++")
    if compiler is None:
        raise RuntimeError("no C++ compiler found; install one (Debian: apt install g++) or name it in CXX")
    version = _output_of([compiler, "--version"])
    # The meaning of -march=native is part of the key, as machines with different processors may share a cache.
    native = _output_of([compiler, "-march=native", "-dM", "-E", "-x", "c++", os.devnull])
    content = "\0".join((SOURCE.read_text(encoding="utf-8"), *_FLAGS, version, native, platform.platform()))

    def build(path: Path) -> None:
        unlinked = path.with_name("kernel.o")
        _output_of([compiler, *_FLAGS, str(SOURCE), "-o", str(unlinked)])
        _output_of([compiler, "-shared", str(unlinked), "-o", str(path)])
        unlinked.unlink()

    return ctypes.CDLL(str(cached_library("native_attention", content, build)))


def _output_of(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILER_SECONDS)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        first = next((line for line in lines if "error" in line), " ".join(lines[-1:]))
        raise RuntimeError(f"{Path(command[0]).name} failed: {first}")
    return done.stdout


@cache
def _trial() -> str | None:
    """Why the kernel can't be used (no library, or a wrong result on a small case); None if it works."""
    plain = torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False)
    with _disable_current_modes(), plain[0], plain[1], plain[2]:
        try:
            difference = _difference()
        except Exception as error:  # any error of compiler, loader or disk: another back end still works
            return f"its kernel can't be compiled or tried: {type(error).__name__}: {error}"
    # `not <=` instead of `>`, so that NaN counts as a failure.
    if not difference <= _TOLERANCE:
        return f"a trial of its kernel gave {difference:.2g} beside the plain formula's result"
    return None


def _difference() -> float:
    """Largest difference between kernel and plain formula, over result and gradients."""
    generator = torch.Generator().manual_seed(0)
    q, k, v, grad = (torch.randn(3, 2, 21, 10, generator=generator) for _ in range(4))
    bias = torch.randn(1, 2, 21, 21, generator=generator)
    leaves = [leaf.requires_grad_() for leaf in (q, k, v, bias)]
    expected = (q @ k.mT * 0.3 + bias.mT).softmax(-1) @ v
    got = NativeBackend().attend(q, k, v, bias, 0.3)
    expected_results = [expected, *torch.autograd.grad(expected, leaves, grad)]
    results = [got, *torch.autograd.grad(got, leaves, grad)]
    return max(float((a - b).detach().abs().max()) for a, b in zip(results, expected_results, strict=True))
