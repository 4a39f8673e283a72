"""Linear layers, fused with a following GELU, product or sum.

In float32 on a CPU they call oneDNN. On AVX-512 processors not made by Intel, oneDNN is faster than the library behind
PyTorch's matrix product, forward and backward. Without gradients its kernels apply GELU, product or sum while the
result is in registers. On other devices and types, PyTorch's separate operations are used.
Measured by `python scripts/benchmark/bench_vrt.py`. Test: `python -m pytest tests/models/layers/ops/test_linear.py`.
"""

from functools import cache

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from models.layers.ops.chunks import processor

# With fewer rows, calling oneDNN through Python costs more time than it saves.
_ROWS = 256


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    gelu: bool = False,
    times: Tensor | None = None,
    plus: Tensor | None = None,
) -> Tensor:
    """x weightT + bias, then at most one of GELU, product with `times`, sum with `plus`.

    Args:
        x: (..., in).
        weight: (out, in).
        bias: (out,) or None.
        times, plus: (..., out).

    Returns:
        (..., out).
    """
    assert gelu + (times is not None) + (plus is not None) <= 1
    if not torch.is_grad_enabled() and _by_onednn(x, weight):
        other, name = (plus, "add") if times is None else (times, "mul")
        return _onednn(x, weight, bias, other, name if other is not None else "gelu" if gelu else "none")
    large = x.numel() >= _ROWS * x.shape[-1]
    y = _Linear.apply(x, weight, bias) if large and _by_onednn(x, weight) else F.linear(x, weight, bias)
    if gelu:
        return F.gelu(y)
    if times is not None:
        return y * times
    return y if plus is None else y + plus


def zero_start(layer: nn.Module) -> None:
    """Sets all parameters of a layer to zero, so that adding its result changes nothing at first.

    The layer itself has a gradient in the first step; the layers before it have one from the second step on.
    """
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def product(a: Tensor, b: Tensor) -> Tensor:
    """a (m, k) @ b (k, n), both dense."""
    if not torch.is_grad_enabled() and _by_onednn(a, b):
        # `_linear_pointwise` expects (out, in); it packs the weight in either memory order, so `t()` costs no copy.
        return torch.ops.mkldnn._linear_pointwise(a, b.t(), None, "none", [], "none")
    return a @ b


def _by_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        processor(x) == "cpu"
        and x.dtype is weight.dtype is torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # ONNX has no such operation
        and _has_onednn()
    )


@cache
def _has_onednn() -> bool:
    # torch.compile calls this operation; some builds of PyTorch for other processors lack it.
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    # PyTorch has no shape function for this operation, which fake tensors (`models/training/estimate.py`) need.
    torch.library.register_fake("mkldnn::_linear_pointwise.binary", lambda x, other, *rest: torch.empty_like(other))
    return True


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None, other: Tensor | None, then: str) -> Tensor:
    """x weightT + bias, then "none", "gelu", or "mul" or "add" with `other`."""
    # oneDNN's fast kernels need dense inputs; for slices it falls back to slow reference code.
    x, weight = x.contiguous(), weight.contiguous()
    if other is None:
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, then, [], "none")
    return torch.ops.mkldnn._linear_pointwise.binary(x, other.contiguous(), weight, bias, then)


class _Linear(torch.autograd.Function):
    """F.linear by oneDNN."""

    @staticmethod
    def forward(ctx, x, weight, bias):  # type: ignore[no-untyped-def]
        x = x.contiguous()  # (..., in)
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight, bias, None, "none")  # (..., out)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        grad = grad.contiguous()
        rows = grad.flatten(0, -2)
        return (
            _onednn(grad, weight.t(), None, None, "none") if for_x else None,
            rows.t() @ x.flatten(0, -2) if for_weight else None,
            rows.sum(0) if for_bias else None,
        )
