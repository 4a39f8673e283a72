"""LayerNorm and a linear layer as one operator, by a Triton kernel (norm_kernels.py).

Used for a block's queries, keys and values; normalised tokens are never written to memory. As in `mlp.py`, the backward
pass keeps x only and recomputes the rest, one chunk of rows at a time; products are in the type of the weight, and
LayerNorm is in float32.

Measured by `python scripts/benchmark/bench_attention.py` on a GPU.

Legend: C channels.
"""

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from models.layers.backends.triton.attention import Tiles, interpreted, product_precision
from models.layers.backends.triton.mlp import backward_chunks, layer_norm, layer_norm_backward, split_lanes


def norm_linear_tiles(precision: str, channels: int) -> Tiles:
    """Like `mlp_tiles`; the columns are output channels."""
    if precision == "half":
        return Tiles(64, 64, 4, 2)
    return Tiles(32, 32, 8, 1) if precision == "ieee32" else Tiles(64, 32, 8, 1 if channels > 128 else 2)


@torch.library.custom_op("s_vrt::norm_linear", mutates_args=())
def norm_linear(
    x: Tensor, norm_weight: Tensor, norm_bias: Tensor, weight: Tensor, bias: Tensor | None, eps: float
) -> Tensor:
    """weight LN(x) + bias.

    Args:
        x: (rows, C).
        norm_weight, norm_bias: (C,), of the LayerNorm. eps: of the LayerNorm.
        weight: (out, C); the product is computed in its type. bias: (out,) or None.

    Returns:
        (rows, out) of the type of `weight`.
    """
    from models.layers.backends.triton.norm_kernels import norm_linear_forward

    (rows, channels), width = x.shape, len(weight)
    precision, lanes = product_precision(weight.dtype), split_lanes(channels)
    tiles, out = norm_linear_tiles(precision, channels), weight.new_empty(rows, width)
    norm_linear_forward[(-(-rows // tiles.rows),)](
        *(x.contiguous(), norm_weight, norm_bias, weight.contiguous(), bias, out, rows, eps),
        C=channels,
        OUT=width,
        BLOCK_M=tiles.rows,
        BLOCK_H=tiles.columns,
        LANES_A=lanes[0],
        LANES_B=lanes[1],
        BIASED=bias is not None,
        PRECISION="upcast" if interpreted() else "tf32" if precision == "tf32" else "ieee",
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )
    return out


@torch.library.custom_op("s_vrt::norm_linear_backward", mutates_args=())
def norm_linear_backward(
    grad: Tensor, x: Tensor, norm_weight: Tensor, norm_bias: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, norm_weight, norm_bias, weight and bias of `norm_linear`, given its output's."""
    grad_x = torch.empty_like(x)
    sums = [torch.zeros_like(like, dtype=torch.float32) for like in (norm_weight, norm_bias, weight, weight[:, 0])]
    with torch.autocast(x.device.type, enabled=False):
        for chunk in backward_chunks(x, len(weight)):
            normal, statistics = layer_norm(x[chunk], norm_weight, norm_bias, eps)
            of_y = grad[chunk] @ weight
            grad_x[chunk], *of_norm = layer_norm_backward(of_y, x[chunk], norm_weight, norm_bias, statistics)
            of_weight = grad[chunk].T @ normal.to(weight.dtype)
            for total, one in zip(sums, (*of_norm, of_weight, grad[chunk].sum(0, dtype=torch.float32)), strict=True):
                total += one
    kinds = (norm_weight.dtype, norm_bias.dtype, weight.dtype, torch.float32)
    of_norm_weight, of_norm_bias, of_weight, of_bias = (s.to(kind) for s, kind in zip(sums, kinds, strict=True))
    return grad_x, of_norm_weight, of_norm_bias, of_weight, of_bias


@norm_linear.register_fake
def _(x, norm_weight, norm_bias, weight, bias, eps):  # type: ignore[no-untyped-def]
    return weight.new_empty(len(x), len(weight))


@norm_linear_backward.register_fake
def _(grad, x, norm_weight, norm_bias, weight, eps):  # type: ignore[no-untyped-def]
    like = (torch.empty_like(given) for given in (x, norm_weight, norm_bias, weight))
    return *like, weight.new_empty(len(weight), dtype=torch.float32)


def _setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]
    *tensors, bias, ctx.eps = inputs
    ctx.bias_type = None if bias is None else bias.dtype
    ctx.save_for_backward(*tensors)


def _backward(ctx, grad):  # type: ignore[no-untyped-def]
    *grads, of_bias = norm_linear_backward(grad, *ctx.saved_tensors, ctx.eps)
    return *grads, None if ctx.bias_type is None else of_bias.to(ctx.bias_type), None


norm_linear.register_autograd(_backward, setup_context=_setup_context)


@register_flop_formula(torch.ops.s_vrt.norm_linear)
def _flop(x, norm_weight, norm_bias, weight, *_others, **_kwargs):  # type: ignore[no-untyped-def]
    return 2 * x[0] * weight[0] * weight[1]


@register_flop_formula(torch.ops.s_vrt.norm_linear_backward)
def _backward_flop(grad, *inputs, **_kwargs):  # type: ignore[no-untyped-def]
    """Two products, for the gradients of both factors."""
    return 2 * _flop(*inputs)
