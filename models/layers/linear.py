"""Linear layers, with what often follows one in the same pass over memory.

On a CPU, without gradients and in float32, they go to oneDNN, whose kernels apply GELU, a product or a sum while the
result is in registers, and which on processors with AVX-512 that are not Intel's is twice as fast as the library that
PyTorch's own matrix product calls. Everywhere else it is the plain composition.
Measured by `python scripts/benchmark/bench_vrt.py`. Test: `python -m pytest tests/models/layers/test_linear.py`.
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from models.layers.processor import processor


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    gelu: bool = False,
    times: Tensor | None = None,
    plus: Tensor | None = None,
) -> Tensor:
    """x weightT + bias, and at most one of: its GELU, its product with `times`, its sum with `plus`.

    Args:
        x: (..., in).
        weight: (out, in).
        bias: (out,) or None.
        times, plus: (..., out).

    Returns:
        (..., out).
    """
    assert gelu + (times is not None) + (plus is not None) <= 1
    if _by_onednn(x, weight):
        # Its fast kernels want dense inputs; for a slice it takes its reference code, a hundred times slower.
        x, weight = x.contiguous(), weight.contiguous()
        other, name = (plus, "add") if times is None else (times, "mul")
        if other is not None:
            return torch.ops.mkldnn._linear_pointwise.binary(x, other.contiguous(), weight, bias, name)
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "gelu" if gelu else "none", [], "none")
    y = F.linear(x, weight, bias)
    if gelu:
        return F.gelu(y)
    if times is not None:
        return y * times
    return y if plus is None else y + plus


def product(a: Tensor, b: Tensor) -> Tensor:
    """a (m, k) @ b (k, n), both dense."""
    if _by_onednn(a, b):
        # A linear layer takes a transposed weight as it is, and packs it either way.
        return torch.ops.mkldnn._linear_pointwise(a, b.t(), None, "none", [], "none")
    return a @ b


def _by_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        not torch.is_grad_enabled()
        and processor(x) == "cpu"
        and x.dtype is weight.dtype is torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and _has_onednn()
    )


@cache
def _has_onednn() -> bool:
    # The operation is what torch.compile calls; some builds of PyTorch for other processors lack it.
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
