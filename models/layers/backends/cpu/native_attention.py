"""Window attention on a CPU by `native_attention.cpp`.

When it is first used, the system's compiler (CXX, or c++, with CXXFLAGS) compiles the C++ file for this processor, in
seconds; the library is kept in the user's cache.

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
import shlex
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

from models.layers.backends.cpu.library_cache import cached_library

SOURCE = Path(__file__).with_suffix(".cpp")  # the kernel, which has this module's name
# Only compiled with OpenMP (-c), not linked: the library then uses PyTorch's OpenMP, and so its threads.
_FLAGS = ("-O3", "-funroll-loops", "-march=native", "-std=c++17", "-fopenmp", "-fPIC", "-c")
_COMPILER_SECONDS = 120  # the kernel takes seconds to compile; a compiler that hangs must not stop the run
# Partial sums of the bias' gradient, computed in parallel; each takes as much memory as the bias.
_MOST_PARTS = 16
_WINDOWS_PER_PART = 4  # at least: with fewer windows, adding up the partial sums would cost more than it gains
_TOLERANCE = 1e-4  # far above float32's rounding of the trial's sums, far below the effect of a wrong kernel


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """See `WindowBackend.attend`; the bias' keys come before its queries."""
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
_operators.define(
    "native_attention_gradients(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor? bias, Tensor out, Tensor sums, "
    "float scale, Tensor(a!) of_q, Tensor(b!) of_k, Tensor(c!) of_v, Tensor(d!)? of_bias) -> ()"
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
    of_q, of_k, of_v = (_outputs(q, False)[0] for _ in range(3))
    if bias is None or not bias_wanted:
        _attention_gradients(grad, q, k, v, bias, out, sums, scale, of_q, of_k, of_v, None)
        return of_q, of_k, of_v, q.new_zeros(0)
    tokens = q.shape[2]
    of_bias = zeros_for_bias(q, q.shape[0])
    _attention_gradients(grad, q, k, v, bias, out, sums, scale, of_q, of_k, of_v, of_bias)
    grad_bias = of_bias.sum(0, keepdim=True)[..., :tokens]
    return of_q, of_k, of_v, grad_bias.sum_to_size(1, bias.shape[1], tokens, tokens).contiguous()


def zeros_for_bias(q: Tensor, windows: int) -> Tensor:
    """Zeros to which `native_attention_gradients` adds the bias' gradient, for up to `windows` windows in a call.

    Args:
        q: (any, heads, N, head_dim).

    Returns:
        (partial sums, heads, N, N rounded up to a tile), keys before queries. The number of partial sums does not
        depend on the number of threads, so that the result does not either.
    """
    heads, tokens = q.shape[1:3]
    parts = max(1, min(_MOST_PARTS, windows // _WINDOWS_PER_PART))
    return q.new_zeros(parts, heads, tokens, tokens + -tokens % _tile())


def _attention_gradients(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    out: Tensor,
    sums: Tensor,
    scale: float,
    of_q: Tensor,
    of_k: Tensor,
    of_v: Tensor,
    of_bias: Tensor | None,
) -> None:
    """Writes the gradients of q, k and v into tensors with any strides but adjacent channels, and adds the bias'
    gradient to `of_bias` (`zeros_for_bias`)."""
    grad, q, k, v, out = (_dense(x) for x in (grad, q, k, v, out))
    bias = _in_tiles(bias)
    parts = 1 if of_bias is None else max(1, min(of_bias.shape[0], q.shape[0] // _WINDOWS_PER_PART))
    _library().native_attention_backward(
        *_arguments(q, k, v, out, grad, of_q, of_k, of_v), *_bias(bias), _address(sums), ctypes.c_int64(sums.stride(0)),
        ctypes.c_float(scale), ctypes.c_void_p(None) if of_bias is None else _address(of_bias), ctypes.c_int64(parts),
    )  # fmt: skip


_operators.impl("native_attention", _attention, "CPU")
_operators.impl("native_attention_backward", _attention_backward, "CPU")
_operators.impl("native_attention_gradients", _attention_gradients, "CPU")


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


@torch.library.register_fake("s_vrt::native_attention_gradients")
def _(*_args):  # type: ignore[no-untyped-def]
    return None


@register_flop_formula(torch.ops.s_vrt.native_attention)
def _flop(q, k, v, *_args, **_kwargs):  # type: ignore[no-untyped-def]
    return sdpa_flop_count(q, k, v)


@register_flop_formula([torch.ops.s_vrt.native_attention_backward, torch.ops.s_vrt.native_attention_gradients])
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
    flags = (*_FLAGS, *shlex.split(os.environ.get("CXXFLAGS", "")))
    version = _output_of([compiler, "--version"])
    # The meaning of -march=native is part of the key, as machines with different processors may share a cache.
    native = _output_of([compiler, "-march=native", "-dM", "-E", "-x", "c++", os.devnull])
    content = "\0".join((SOURCE.read_text(encoding="utf-8"), *flags, version, native, platform.platform()))

    def build(path: Path) -> None:
        unlinked = path.with_name("kernel.o")
        _output_of([compiler, *flags, str(SOURCE), "-o", str(unlinked)])
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
def trial() -> str | None:
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
    got = attend(q, k, v, bias, 0.3)
    expected_results = [expected, *torch.autograd.grad(expected, leaves, grad)]
    results = [got, *torch.autograd.grad(got, leaves, grad)]
    return max(float((a - b).detach().abs().max()) for a, b in zip(results, expected_results, strict=True))
