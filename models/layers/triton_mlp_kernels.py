"""Triton kernel of a block's MLP half, x + fc2(GELU(fc11 LN x) * fc12 LN x), on tokens (rows, C).

A program reads its rows of x once, keeps their normalised values on chip as the left factor of all products, goes
through the hidden channels tile by tile, and writes its rows of the result once: normalised tokens and hidden channels
never exist in memory.

Channels are rounded up to the sum of two powers of two by lanes of zeros: exact, and 96 take 64 + 32 lanes, not 128.

Test: `python -m pytest tests/models/layers/test_triton_mlp.py` (on a CPU, in Triton's interpreter).

Legend: C channels; a *lane* is a channel's place in a tile, a *unit* a hidden channel.
"""

# What a kernel is given has no type of Python's.
# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl

from models.layers.triton_kernels import _dot

HALF_ROOT = tl.constexpr(0.7071067811865476)


@triton.jit
def _tokens(x, row, known, FIRST: tl.constexpr, LANES: tl.constexpr, C: tl.constexpr):
    """(rows, LANES) float32 channels from FIRST on, zero beyond C and for rows that are not there."""
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
    """x + factor * (part + bias); x comes from the cache, as registers are for the sums."""
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
    """`add_gated_mlp` (triton_mlp.py) for BLOCK_M rows: grid (tiles of rows,).

    The channels are in LANES_A lanes and LANES_B more, which may be none.
    """
    token = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    known, row = token < rows, token.to(tl.int64)
    dtype = gate_weight.dtype.element_ty
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
    a = a * inverse * _vector(norm_weight, 0, LANES_A, C) + _vector(norm_bias, 0, LANES_A, C)
    a = a.to(dtype)
    result_a = tl.zeros((BLOCK_M, LANES_A), tl.float32)
    if LANES_B:
        b = b * inverse * _vector(norm_weight, LANES_A, LANES_B, C) + _vector(norm_bias, LANES_A, LANES_B, C)
        b = b.to(dtype)
        result_b = tl.zeros((BLOCK_M, LANES_B), tl.float32)
    for start in range(0, HIDDEN, BLOCK_H):
        unit = start + tl.arange(0, BLOCK_H)
        gate = _dot(a, _weight(gate_weight, unit, 0, LANES_A, C, HIDDEN), None, PRECISION)
        value = _dot(a, _weight(value_weight, unit, 0, LANES_A, C, HIDDEN), None, PRECISION)
        if LANES_B:
            gate = _dot(b, _weight(gate_weight, unit, LANES_A, LANES_B, C, HIDDEN), gate, PRECISION)
            value = _dot(b, _weight(value_weight, unit, LANES_A, LANES_B, C, HIDDEN), value, PRECISION)
        # Units beyond HIDDEN have no bias either: GELU(0) * 0.
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
