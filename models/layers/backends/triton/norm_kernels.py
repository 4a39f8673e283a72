"""Triton kernels on tokens (rows, C) that begin with LayerNorm: a block's MLP half (mlp.py),
x + fc2(GELU(fc11 LN x) * fc12 LN x), and a linear layer, such as that of queries, keys and values (norm_linear.py).

A program reads its rows of x once, keeps their normalised values on chip as the left factor of all products, loops over
tiles of the weights' rows, and writes its rows of the result once: normalised tokens and hidden channels are never
written to memory.

Channels are padded with lanes of zeros to the sum of two powers of two, which is exact: 96 take 64 + 32 lanes, not 128.

Test: `python -m pytest tests/models/layers/backends/triton/test_mlp.py` (on a CPU, in Triton's interpreter).

Legend: C channels; a *lane* is a channel's place in a tile, a *unit* a hidden channel.
"""

# Arguments of kernels have no Python types.
# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl

from models.layers.backends.triton.attention_kernels import _dot

HALF_ROOT = tl.constexpr(0.7071067811865476)  # sqrt(1/2), of GELU(x) = x/2 * (1 + erf(x * sqrt(1/2)))


@triton.jit
def _tokens(x, row, known, FIRST: tl.constexpr, LANES: tl.constexpr, C: tl.constexpr):
    """(rows, LANES) float32 channels from FIRST on, zero beyond C and for missing rows."""
    lane = FIRST + tl.arange(0, LANES)
    inside = known[:, None] & (lane < C)[None, :]
    return tl.load(x + row[:, None] * C + lane[None, :], mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _vector(values, FIRST: tl.constexpr, LANES: tl.constexpr, C: tl.constexpr):
    lane = FIRST + tl.arange(0, LANES)
    return tl.load(values + lane, mask=lane < C, other=0.0).to(tl.float32)[None, :]


@triton.jit
def _centred(part, mean, FIRST: tl.constexpr, LANES: tl.constexpr, C: tl.constexpr):
    lane = FIRST + tl.arange(0, LANES)
    return tl.where((lane < C)[None, :], part - mean[:, None], 0.0)


@triton.jit
def _normalised(
    x, row, known, weight, bias, eps, DTYPE: tl.constexpr, C: tl.constexpr, LANES_A: tl.constexpr,
    LANES_B: tl.constexpr,
):  # fmt: skip
    """LayerNorm of rows: LANES_A lanes, and LANES_B further ones (if LANES_B is 0, the first ones again)."""
    a = _tokens(x, row, known, 0, LANES_A, C)
    total = tl.sum(a, 1)
    if LANES_B:
        b = _tokens(x, row, known, LANES_A, LANES_B, C)
        total += tl.sum(b, 1)
    mean = total / C
    a = _centred(a, mean, 0, LANES_A, C)
    squares = tl.sum(a * a, 1)
    if LANES_B:
        b = _centred(b, mean, LANES_A, LANES_B, C)
        squares += tl.sum(b * b, 1)
    inverse = (1.0 / tl.sqrt(squares / C + eps))[:, None]
    a = (a * inverse * _vector(weight, 0, LANES_A, C) + _vector(bias, 0, LANES_A, C)).to(DTYPE)
    if LANES_B:
        b = b * inverse * _vector(weight, LANES_A, LANES_B, C) + _vector(bias, LANES_A, LANES_B, C)
        b = b.to(DTYPE)
    else:
        b = a
    return a, b


@triton.jit
def _project(
    a, b, weight, unit, C: tl.constexpr, OUT: tl.constexpr, LANES_A: tl.constexpr, LANES_B: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Normalised rows times the rows `unit` of a weight (OUT, C), in float32."""
    result = _dot(a, _weight(weight, unit, 0, LANES_A, C, OUT), None, PRECISION)
    if LANES_B:
        result = _dot(b, _weight(weight, unit, LANES_A, LANES_B, C, OUT), result, PRECISION)
    return result


@triton.jit
def _weight(weight, unit, FIRST: tl.constexpr, LANES: tl.constexpr, C: tl.constexpr, HIDDEN: tl.constexpr):
    """(LANES, units) of a weight (HIDDEN, C)."""
    lane = FIRST + tl.arange(0, LANES)
    inside = (lane < C)[:, None] & (unit < HIDDEN)[None, :]
    return tl.load(weight + unit[None, :] * C + lane[:, None], mask=inside, other=0.0)


@triton.jit
def _weight_out(weight, unit, FIRST: tl.constexpr, LANES: tl.constexpr, C: tl.constexpr, HIDDEN: tl.constexpr):
    """(units, LANES) of a weight (C, HIDDEN)."""
    lane = FIRST + tl.arange(0, LANES)
    inside = (unit < HIDDEN)[:, None] & (lane < C)[None, :]
    return tl.load(weight + lane[None, :] * HIDDEN + unit[:, None], mask=inside, other=0.0)


@triton.jit
def _write(
    part, x, out, bias, factor, row, known, FIRST: tl.constexpr, LANES: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Writes x + factor * (part + bias). x is read again, from the cache, to leave the registers to the sums."""
    lane = FIRST + tl.arange(0, LANES)
    skip = _tokens(x, row, known, FIRST, LANES, C)
    result = skip + (part + _vector(bias, FIRST, LANES, C)) * factor
    inside = known[:, None] & (lane < C)[None, :]
    tl.store(out + row[:, None] * C + lane[None, :], result.to(out.dtype.element_ty), mask=inside)


@triton.jit
def mlp_forward(
    x, norm_weight, norm_bias, gate_weight, gate_bias, value_weight, value_bias, out_weight, out_bias, keep, out,
    rows, rows_per_sample, eps,
    C: tl.constexpr, HIDDEN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_H: tl.constexpr, LANES_A: tl.constexpr,
    LANES_B: tl.constexpr, KEPT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """`add_gated_mlp` (mlp.py) for BLOCK_M rows: grid (tiles of rows,).

    The channels are in LANES_A lanes and LANES_B further ones, which may be 0.
    """
    token = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    known, row = token < rows, token.to(tl.int64)
    dtype: tl.constexpr = gate_weight.dtype.element_ty
    a, b = _normalised(x, row, known, norm_weight, norm_bias, eps, dtype, C, LANES_A, LANES_B)
    result_a = tl.zeros((BLOCK_M, LANES_A), tl.float32)
    if LANES_B:
        result_b = tl.zeros((BLOCK_M, LANES_B), tl.float32)
    for start in range(0, HIDDEN, BLOCK_H):
        unit = start + tl.arange(0, BLOCK_H)
        gate = _project(a, b, gate_weight, unit, C, HIDDEN, LANES_A, LANES_B, PRECISION)
        value = _project(a, b, value_weight, unit, C, HIDDEN, LANES_A, LANES_B, PRECISION)
        # Units beyond HIDDEN add nothing: their bias is 0 too, and GELU(0) * 0 = 0.
        gate += tl.load(gate_bias + unit, mask=unit < HIDDEN, other=0.0).to(tl.float32)[None, :]
        value += tl.load(value_bias + unit, mask=unit < HIDDEN, other=0.0).to(tl.float32)[None, :]
        hidden = (0.5 * gate * (1.0 + tl.erf(gate * HALF_ROOT)) * value).to(dtype)
        result_a = _dot(hidden, _weight_out(out_weight, unit, 0, LANES_A, C, HIDDEN), result_a, PRECISION)
        if LANES_B:
            result_b = _dot(hidden, _weight_out(out_weight, unit, LANES_A, LANES_B, C, HIDDEN), result_b, PRECISION)
    factor = tl.full((BLOCK_M, 1), 1.0, tl.float32)
    if KEPT:
        factor = tl.load(keep + token // rows_per_sample, mask=known, other=0.0).to(tl.float32)[:, None]
    _write(result_a, x, out, out_bias, factor, row, known, 0, LANES_A, C)
    if LANES_B:
        _write(result_b, x, out, out_bias, factor, row, known, LANES_A, LANES_B, C)


@triton.jit
def norm_linear_forward(
    x, norm_weight, norm_bias, weight, bias, out, rows, eps,
    C: tl.constexpr, OUT: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_H: tl.constexpr, LANES_A: tl.constexpr,
    LANES_B: tl.constexpr, BIASED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """`norm_linear` (norm_linear.py) for BLOCK_M rows, BLOCK_H output channels at a time: grid (tiles of rows,)."""
    token = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    known, row = token < rows, token.to(tl.int64)
    dtype: tl.constexpr = weight.dtype.element_ty
    a, b = _normalised(x, row, known, norm_weight, norm_bias, eps, dtype, C, LANES_A, LANES_B)
    for start in range(0, OUT, BLOCK_H):
        unit = start + tl.arange(0, BLOCK_H)
        result = _project(a, b, weight, unit, C, OUT, LANES_A, LANES_B, PRECISION)
        if BIASED:
            result += tl.load(bias + unit, mask=unit < OUT, other=0.0).to(tl.float32)[None, :]
        inside = known[:, None] & (unit < OUT)[None, :]
        tl.store(out + row[:, None] * OUT + unit[None, :], result.to(dtype), mask=inside)
