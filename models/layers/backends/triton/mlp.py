"""A block's MLP half, x + fc2(GELU(fc11 LN x) * fc12 LN x), as one operator by a Triton kernel.

Normalised tokens and hidden channels are never written to memory, and the backward pass keeps x only: it recomputes
them by PyTorch's operations, one chunk of rows at a time, and sums gradients in a fixed order. The kernel is in
`norm_kernels.py`; the operators are registered with torch, like those of `attention.py`. They compute in the type of
the weights, with float32 sums; LayerNorm and GELU are in float32, the residual in the type of x.

Measured, and compared with the plain formula, by `python scripts/benchmark/bench_attention.py --half mlp` on a GPU.

Legend: C channels, H hidden channels.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from models.layers.backends.triton.attention import Tiles, interpreted, product_precision
from models.layers.ops import chunks
from models.layers.ops.chunks import slices


def mlp_tiles(precision: str, channels: int) -> Tiles:
    """Tiles whose sums stay in registers, as compiling for sm_90 reports, and that fit 100 KB of shared memory; their
    columns are hidden channels.

    Args:
        precision: from `product_precision`.
        channels: C.
    """
    wide = channels > 128
    if precision == "half":
        return Tiles(64 if wide else 128, 32, 8, 2)
    return Tiles(32, 16, 8, 1) if precision == "ieee32" else Tiles(64, 16, 8, 1 if wide else 2)


def split_lanes(channels: int) -> tuple[int, int]:
    """Two powers of two, each at least 16 (or the second 0), with the smallest sum that is at least `channels`."""
    first = max(16, 1 << channels.bit_length() - 1)
    rest = channels - first
    if rest <= 0:
        return first, 0
    second = max(16, 1 << (rest - 1).bit_length())
    return (2 * first, 0) if second == first else (first, second)


@torch.library.custom_op("s_vrt::add_gated_mlp", mutates_args=())
def add_gated_mlp(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    fc11_weight: Tensor,
    fc11_bias: Tensor,
    fc12_weight: Tensor,
    fc12_bias: Tensor,
    fc2_weight: Tensor,
    fc2_bias: Tensor,
    keep: Tensor | None,
    eps: float,
) -> Tensor:
    """x + keep * fc2(GELU(fc11 LN x) * fc12 LN x).

    Args:
        x: (rows, C).
        norm_weight, norm_bias: (C,), of the LayerNorm.
        fc11_weight, fc12_weight: (H, C). fc2_weight: (C, H). Products are computed in the type of these weights.
        fc11_bias, fc12_bias: (H,). fc2_bias: (C,).
        keep: (samples,), factor of each sample's branch, or None; a sample has rows / samples rows.
        eps: of the LayerNorm.

    Returns:
        (rows, C) of the type of x.
    """
    from models.layers.backends.triton.norm_kernels import mlp_forward

    x, out = x.contiguous(), torch.empty_like(x, memory_format=torch.contiguous_format)
    (rows, channels), hidden = x.shape, fc11_weight.shape[0]
    precision = product_precision(fc11_weight.dtype)
    tiles, lanes = mlp_tiles(precision, channels), split_lanes(channels)
    weights = (fc11_weight.contiguous(), fc12_weight.contiguous(), fc2_weight.contiguous())
    mlp_forward[(-(-rows // tiles.rows),)](
        *(x, norm_weight, norm_bias, weights[0], fc11_bias, weights[1], fc12_bias, weights[2], fc2_bias, keep, out),
        *(rows, rows if keep is None else rows // keep.numel(), eps),
        C=channels,
        HIDDEN=hidden,
        BLOCK_M=tiles.rows,
        BLOCK_H=tiles.columns,
        LANES_A=lanes[0],
        LANES_B=lanes[1],
        KEPT=keep is not None,
        PRECISION="upcast" if interpreted() else "tf32" if precision == "tf32" else "ieee",
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )
    return out


@torch.library.custom_op("s_vrt::add_gated_mlp_backward", mutates_args=())
def add_gated_mlp_backward(
    grad: Tensor, x: Tensor, parameters: Sequence[Tensor], keep: Tensor | None, eps: float
) -> list[Tensor]:
    """Gradients of x and the eight parameters of `add_gated_mlp`, given its output's."""
    grad_x = torch.empty_like(x)
    sums = [torch.zeros_like(parameter, dtype=torch.float32) for parameter in parameters]
    factors = None if keep is None else keep.repeat_interleave(len(x) // keep.numel())[:, None]
    with torch.autocast(x.device.type, enabled=False):
        for chunk in backward_chunks(x, len(parameters[3])):
            branch = grad[chunk] if factors is None else grad[chunk] * factors[chunk]
            of_rows, *of_parameters = _gradients(branch, x[chunk], parameters, eps)
            grad_x[chunk] = of_rows.add_(grad[chunk])
            for total, one in zip(sums, of_parameters, strict=True):
                total += one
    return [grad_x, *(total.to(parameter.dtype) for total, parameter in zip(sums, parameters, strict=True))]


def _gradients(grad: Tensor, x: Tensor, parameters: Sequence[Tensor], eps: float) -> tuple[Tensor, ...]:
    """Gradients of x, without the residual's, and of the parameters, given the branch's, for a chunk of rows."""
    norm_weight, norm_bias, fc11_weight, fc11_bias, fc12_weight, fc12_bias, fc2_weight, _ = parameters
    dtype = fc11_weight.dtype
    normal, statistics = layer_norm(x, norm_weight, norm_bias, eps)
    y, grad = normal.to(dtype), grad.to(dtype)
    before = F.linear(y, fc11_weight, fc11_bias.to(dtype))
    gate, value = F.gelu(before), F.linear(y, fc12_weight, fc12_bias.to(dtype))
    of_hidden = grad @ fc2_weight
    of_value, of_before = of_hidden * gate, torch.ops.aten.gelu_backward(of_hidden * value, before)
    of_y = of_before @ fc11_weight + of_value @ fc12_weight
    return (
        *layer_norm_backward(of_y, x, norm_weight, norm_bias, statistics),
        *(of_before.T @ y, of_before.sum(0, dtype=torch.float32)),
        *(of_value.T @ y, of_value.sum(0, dtype=torch.float32)),
        *(grad.T @ (gate * value), grad.sum(0, dtype=torch.float32)),
    )


def backward_chunks(x: Tensor, width: int) -> Iterator[slice]:
    """Chunks of the rows of x, whose float32 intermediate results with `width` channels fit `chunks.BACKWARD`."""
    return slices(len(x), chunks.BACKWARD.items(x, 4 * width))


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """LayerNorm of rows in float32, and the statistics that `layer_norm_backward` needs."""
    normal, *statistics = torch.native_layer_norm(x.float(), [x.shape[1]], weight.float(), bias.float(), eps)
    return normal, (statistics[0], statistics[1])


def layer_norm_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, statistics: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias, float32."""
    return torch.ops.aten.native_layer_norm_backward(
        grad.float(), x.float(), [x.shape[1]], *statistics, weight.float(), bias.float(), [True, True, True]
    )


@add_gated_mlp.register_fake
def _(x, *_others):  # type: ignore[no-untyped-def]
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@add_gated_mlp_backward.register_fake
def _(grad, x, parameters, keep, eps):  # type: ignore[no-untyped-def]
    return [torch.empty_like(given) for given in (x, *parameters)]


def _setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]
    ctx.eps = inputs[10]
    ctx.save_for_backward(*inputs[:10])


def _backward(ctx, grad):  # type: ignore[no-untyped-def]
    x, *parameters, keep = ctx.saved_tensors
    return *add_gated_mlp_backward(grad, x, parameters, keep, ctx.eps), None, None


add_gated_mlp.register_autograd(_backward, setup_context=_setup_context)


@register_flop_formula(torch.ops.s_vrt.add_gated_mlp)
def _flop(x, norm_weight, norm_bias, fc11_weight, *_others, **_kwargs):  # type: ignore[no-untyped-def]
    """Three products with a weight."""
    return 3 * 2 * x[0] * fc11_weight[0] * fc11_weight[1]


@register_flop_formula(torch.ops.s_vrt.add_gated_mlp_backward)
def _backward_flop(grad, x, parameters, *_others, **_kwargs):  # type: ignore[no-untyped-def]
    """Two of the three products again, and two products for the gradients of each of the three."""
    return _flop(x, *parameters) * 8 // 3
