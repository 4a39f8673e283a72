"""Triton's attention against the plain formula, by pad, roll and partition; run in the interpreter by
`test_triton_attention.py`.
"""

import math

import pytest
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from models.layers.triton_attention import window_attention

Size3 = tuple[int, int, int]
HEADS = 2

# (batch, (T, H, W), window, shift, mutual, channels of a head)
CASES = [
    (1, (6, 8, 8), (6, 8, 8), (0, 4, 0), False, 16),  # N = 384: three tiles of keys, six of queries
    (2, (3, 8, 8), (3, 4, 4), (1, 2, 2), False, 20),  # N = 48: less than a tile
    (1, (5, 6, 9), (2, 4, 4), (1, 2, 2), False, 5),  # padded on all axes
    (1, (3, 8, 8), (2, 8, 8), (1, 0, 0), False, 16),  # N = 128: two tiles of queries
    (1, (2, 8, 20), (1, 8, 8), (0, 0, 4), False, 20),
    (1, (4, 8, 16), (2, 8, 8), (1, 0, 4), True, 16),
    (1, (3, 10, 6), (2, 4, 4), (1, 2, 2), True, 20),  # an odd number of frames: the last pairs with a padded one
    (2, (1, 3, 5), (2, 3, 5), (0, 0, 0), True, 7),
]


def plain_attention(
    qkv: Tensor,
    bias: Tensor | None,
    fill: Tensor | None,
    code: Tensor | None,
    window: Size3,
    shift: Size3,
    scale: float,
    mutual: bool,
) -> Tensor:
    """What `window_attention` is to compute."""
    sizes = qkv.shape[1:4]
    ends = [-length % extent for length, extent in zip(sizes, window, strict=True)]
    pads = (0, 0, 0, ends[2], 0, ends[1], 0, ends[0])
    x = F.pad(qkv, pads)
    if fill is not None:
        x = x + F.pad(torch.zeros_like(qkv[..., :1]), pads, value=1) * fill
    x = torch.roll(x, [-step for step in shift], (1, 2, 3))
    regions = torch.zeros(x.shape[1:4])
    for axis, (extent, step) in enumerate(zip(window, shift, strict=True)):
        if step:
            last = regions.narrow(axis, regions.shape[axis] - extent, extent)
            last += 10**axis
            last.narrow(axis, extent - step, step).add_(10**axis)
    cut = dict(zip(("a", "c", "e"), window, strict=True))
    tokens = rearrange(x, "n (t a) (h c) (w e) (p k d) -> p (n t h w) k (a c e) d", **cut, p=3, k=HEADS)
    ids = rearrange(regions, "(t a) (h c) (w e) -> (t h w) (a c e)", **cut).repeat(x.shape[0], 1)
    mask = (ids[:, :, None] != ids[:, None]).to(x.dtype)[:, None] * -100
    if code is not None:
        places = rearrange(code, "n (p k d) -> p k n d", p=3, k=HEADS)
        tokens = tokens + places.repeat(1, 1, window[0], 1)[:, None]
    q, k, v = tokens
    half = mask.shape[-1] // 2
    if mutual:
        q = torch.cat((q[:, :, half:], q[:, :, :half]), 2)
        parts = [slice(0, half), slice(half, None)]
        mask = mask[..., :half, :half]
        out = [((q[:, :, p] @ k[:, :, p].mT * scale + mask).softmax(-1) @ v[:, :, p]) for p in parts]
        result = torch.cat(out, 2)
    else:
        scores = q @ k.mT * scale + mask
        result = (scores if bias is None else scores + bias).softmax(-1) @ v
    grid = dict(zip(("t", "h", "w"), (n // e for n, e in zip(x.shape[1:4], window, strict=True)), strict=True))
    result = rearrange(result, "(n t h w) k (a c e) d -> n (t a) (h c) (w e) (k d)", **cut, **grid)
    return torch.roll(result, shift, (1, 2, 3))[:, : sizes[0], : sizes[1], : sizes[2]]


def inputs(
    batch: int, size: Size3, window: Size3, mutual: bool, head_dim: int, dtype: torch.dtype
) -> list[Tensor | None]:
    """qkv, bias, fill and code; values that bfloat16 has, so that all types see the same."""
    generator = torch.Generator().manual_seed(0)
    count, width = math.prod(window), 3 * HEADS * head_dim
    shapes = [(batch, *size, width), (HEADS, count, count), (width,), (window[1] * window[2], width)]
    tensors = [torch.randn(shape, generator=generator).bfloat16().to(dtype) for shape in shapes]
    return [tensors[0], None if mutual else tensors[1], tensors[2], tensors[3] if mutual else None]


def compare(case: tuple, dtype: torch.dtype, tolerance: float) -> None:
    batch, size, window, shift, mutual, head_dim = case
    scale = head_dim**-0.5
    given = inputs(batch, size, window, mutual, head_dim, dtype)
    exact = [None if x is None else x.double().requires_grad_() for x in given]
    given = [None if x is None else x.requires_grad_() for x in given]
    expected = plain_attention(*exact, window, shift, scale, mutual)  # type: ignore[arg-type]
    out, _ = window_attention(*given, window, shift, HEADS, scale, mutual)
    torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=tolerance)
    factor = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    wanted = torch.autograd.grad((expected * factor).sum(), [x for x in exact if x is not None])
    got = torch.autograd.grad((out * factor).sum(), [x for x in given if x is not None])
    for name, a, b in zip(("qkv", "bias or fill", "fill or code"), got, wanted, strict=True):
        assert a.dtype == dtype
        size_of = max(1.0, float(b.abs().max()))
        torch.testing.assert_close(a.double() / size_of, b / size_of, rtol=0, atol=tolerance, msg=lambda m, n=name: n + m)


@pytest.mark.parametrize("case", CASES, ids=[str(case[1:]) for case in CASES])
def test_float32(case: tuple) -> None:
    compare(case, torch.float32, 2e-6)


@pytest.mark.parametrize("case", CASES[4:7], ids=[str(case[1:]) for case in CASES[4:7]])
def test_bfloat16(case: tuple) -> None:
    compare(case, torch.bfloat16, 2e-2)
