"""Triton's attention against the plain formula, by pad, roll and partition; run in the interpreter by
`test_triton_attention.py`.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.layers.backends import sdpa  # noqa: F401  (registers the fallback)
from models.layers.backends.backend import Backend, _run_whole, choose_backend
from models.layers.backends.eager import EagerBackend
from models.layers.backends.triton import attention as triton_attention
from models.layers.backends.triton.attention import Tiles, window_attention
from models.layers.backends.triton.backend import TritonBackend
from models.layers.vrt.blocks import TMSA, BranchFactors
from models.layers.vrt.window_attention import BlockSettings, WindowCodes
from models.layers.vrt.window_layout import window_layout

Size3 = tuple[int, int, int]
HEADS = 2
SMALL = Tiles(16, 16, 4, 2)
LARGE = Tiles(128, 128, 4, 2)

# (batch, (T, H, W), window, shift, mutual, channels of a head, tiles)
CASES = [
    (1, (6, 8, 8), (6, 8, 8), (0, 4, 4), False, 16, LARGE),  # N = 384: three tiles of queries and of keys
    (2, (3, 8, 4), (3, 4, 4), (1, 2, 2), False, 20, LARGE),  # N = 48: less than a tile
    (1, (3, 3, 6), (2, 4, 4), (1, 2, 2), False, 5, SMALL),  # padded on all axes; two tiles of queries and of keys
    (1, (3, 8, 8), (2, 8, 8), (1, 0, 0), False, 16, LARGE),  # N = 128
    (1, (1, 8, 12), (1, 8, 8), (0, 0, 4), False, 20, LARGE),
    (1, (2, 8, 16), (2, 8, 8), (1, 0, 4), True, 16, LARGE),
    (1, (3, 6, 4), (2, 4, 4), (1, 2, 2), True, 20, SMALL),  # an odd number of frames: the last pairs with a padded one
    (1, (1, 3, 5), (2, 3, 5), (0, 0, 0), True, 7, SMALL),
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
    a, c, e = window
    n, t, h, w = x.shape[0], x.shape[1] // a, x.shape[2] // c, x.shape[3] // e
    split = x.reshape(n, t, a, h, c, w, e, 3, HEADS, -1)
    # (q k v, windows, heads, tokens of a window, channels of a head)
    tokens = split.permute(7, 0, 1, 3, 5, 8, 2, 4, 6, 9).reshape(3, n * t * h * w, HEADS, a * c * e, -1)
    ids = regions.view(t, a, h, c, w, e).permute(0, 2, 4, 1, 3, 5).reshape(t * h * w, -1).repeat(n, 1)
    mask = (ids[:, :, None] != ids[:, None]).to(x.dtype)[:, None] * -100
    if code is not None:
        places = code.reshape(len(code), 3, HEADS, -1).permute(1, 2, 0, 3)
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
    result = result.reshape(n, t, h, w, HEADS, a, c, e, -1).permute(0, 1, 5, 2, 6, 3, 7, 4, 8)
    result = result.reshape(n, t * a, h * c, w * e, -1)
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


def compare(case: tuple, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, size, window, shift, mutual, head_dim, tiles = case
    monkeypatch.setattr(triton_attention, "attention_tiles", lambda *_: tiles)
    scale = head_dim**-0.5
    given = inputs(batch, size, window, mutual, head_dim, dtype)
    exact = [None if x is None else x.double().requires_grad_() for x in given]
    given = [None if x is None else x.requires_grad_() for x in given]
    expected = plain_attention(*exact, window, shift, scale, mutual)  # type: ignore[arg-type]
    out, _ = window_attention(*given, window, shift, HEADS, scale, mutual)
    torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=tolerance)
    factor = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    reference = torch.autograd.grad((expected * factor).sum(), [x for x in exact if x is not None])
    got = torch.autograd.grad((out * factor).sum(), [x for x in given if x is not None])
    for a, b in zip(got, reference, strict=True):
        assert a.dtype == dtype
        largest = max(1.0, float(b.abs().max()))
        torch.testing.assert_close(a.double() / largest, b / largest, rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", CASES, ids=[str(case[1:6]) for case in CASES])
def test_float32(case: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    compare(case, torch.float32, 2e-6, monkeypatch)


@pytest.mark.parametrize("case", CASES[4:7:2], ids=[str(case[1:6]) for case in CASES[4:7:2]])
def test_bfloat16(case: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    compare(case, torch.bfloat16, 2e-2, monkeypatch)


def test_gradients_of_windows_in_groups_repeat_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs with several windows, the last with fewer, sum the same as programs with one, in a fixed order."""
    window, shift = (1, 4, 4), (0, 2, 2)
    tensors = [x for x in inputs(1, (1, 4, 12), window, False, 5, torch.float32) if x is not None]

    def gradients(programs: int) -> list[Tensor]:
        monkeypatch.setattr(triton_attention, "_PROGRAMS", programs)
        monkeypatch.setattr(triton_attention, "_BIAS_PROGRAMS", programs)
        leaves = [x.clone().requires_grad_() for x in tensors]
        out, _ = window_attention(*leaves, None, window, shift, HEADS, 0.4, False)
        return list(torch.autograd.grad(out.square().sum(), leaves))

    grouped = gradients(3)
    for a, b, one in zip(grouped, gradients(3), gradients(10**6), strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, one, rtol=0, atol=1e-5)


def test_operator_is_registered_as_torch_wants_it() -> None:
    tensors = inputs(1, (1, 3, 4), (2, 3, 4), True, 4, torch.float32)
    leaves = [None if x is None else x.requires_grad_() for x in tensors]
    settings = ((2, 3, 4), (0, 0, 0), HEADS, 0.5, True)
    utilities = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(window_attention, (*leaves, *settings), test_utils=utilities)


def test_block() -> None:
    """A block with both attentions, whole, recomputed, traced and under autocast, against the plain back end."""
    torch.manual_seed(0)
    window, size = (2, 4, 4), (3, 4, 6)
    block = TMSA(BlockSettings(8, 1, ()), WindowCodes(window, 8), shift=(1, 2, 2), mutual=True)
    torch.nn.init.normal_(block.attn.relative_position_bias_table)
    layout = window_layout(1, size, window, (1, 2, 2), pairs=True)
    x = torch.randn(math.prod(size), 8, requires_grad=True)
    leaves, factor = [x, *block.parameters()], torch.randn(x.shape)

    def results(backend: Backend, run: Callable[..., Tensor] = Backend.run) -> list[Tensor]:
        out = run(backend, block, x, layout)
        return [out, *torch.autograd.grad((out * factor).sum(), leaves)]

    expected, triton = results(EagerBackend()), choose_backend("triton", x.device, x.dtype)
    assert isinstance(triton, TritonBackend)
    entire = results(triton)
    for a, b in zip(entire, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(
            triton.run(block, x.detach().clone(), layout), entire[0].detach(), rtol=1e-5, atol=1e-5
        )
    block.checkpoint_attn = True
    for a, b in zip(results(triton), entire, strict=True):
        assert torch.equal(a, b)
    block.checkpoint_attn = False
    traced = torch.compile(_run_whole, backend="aot_eager", fullgraph=True)
    for a, b in zip(results(triton, lambda *args: traced(*args, BranchFactors())), entire, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        halved = results(triton)
    for a, b in zip(halved, entire, strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() < 0.03 * b.norm()
