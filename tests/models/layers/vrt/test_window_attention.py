"""Window layouts, attention and TMSA blocks against a plain implementation, window by window and pair by pair."""

import copy
import shutil
from collections.abc import Iterator
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.layers.backends.backend import Backend
from models.layers.backends.eager import EagerBackend
from models.layers.backends.sdpa import SdpaBackend, attend
from models.layers.ops import chunks
from models.layers.ops.chunks import Budget
from models.layers.vrt.blocks import TMSA, BranchFactors
from models.layers.vrt.stage import TMSAG
from models.layers.vrt.window_attention import BlockSettings, WindowCodes, relative_position_index, sine_position_code
from models.layers.vrt.window_layout import WindowLayout, WindowLayouts, from_windows, to_windows, window_layout

Size3 = tuple[int, int, int]
SDPA = SdpaBackend()

# (batch, (T, H, W), window, shift, mutual): whole windows, padded axes, time shifts, odd T, one frame, tiny pictures.
CASES = [
    (1, (3, 8, 4), (3, 4, 4), (0, 0, 0), False),
    (2, (3, 8, 8), (3, 4, 4), (1, 2, 2), False),
    (1, (9, 10, 13), (4, 4, 4), (2, 2, 2), False),
    (2, (3, 3, 5), (6, 8, 8), (3, 4, 4), False),
    (2, (4, 6, 5), (2, 4, 4), (0, 0, 0), True),
    (1, (5, 12, 9), (2, 4, 4), (1, 2, 2), True),
    (1, (1, 5, 8), (2, 8, 8), (1, 4, 4), True),
    (1, (2, 16, 3), (2, 8, 8), (1, 4, 4), True),
]


def make_block(window: Size3, shift: Size3, mutual: bool, **options: object) -> TMSA:
    torch.manual_seed(3)
    block = TMSA(
        BlockSettings(8, 2, ()), WindowCodes(window, 8 if mutual else 0), shift=shift, mutual=mutual, **options
    )  # type: ignore[arg-type]
    torch.nn.init.normal_(block.attn.relative_position_bias_table)
    return block.double().eval()


def plain_block(block: TMSA, x: Tensor) -> Tensor:
    """x (B, T, H, W, C): x + attention(LN x), then + mlp(LN x), by the definitions."""
    full, (frames, height, width) = block.window, x.shape[1:4]
    size = (frames, height, width)
    window = [min(n, w) for n, w in zip(size, full, strict=True)]
    shift = [0 if n <= w else s for n, w, s in zip(size, full, block.shift, strict=True)]
    if block.mutual:
        window[0] = 2
    padded = [-(-n // w) * w for n, w in zip(size, window, strict=True)]
    y = F.layer_norm(x, x.shape[-1:], block.norm1.weight, block.norm1.bias)
    pads = [p - n for p, n in zip(padded, size, strict=True)]
    y = F.pad(y, (0, 0, 0, pads[2], 0, pads[1], 0, pads[0]))
    y = torch.roll(y, [-s for s in shift], (1, 2, 3))
    out = torch.zeros_like(y)
    for b in range(x.shape[0]):
        for corner in product(*[range(0, p, w) for p, w in zip(padded, window, strict=True)]):
            box = (b, *[slice(c, c + w) for c, w in zip(corner, window, strict=True)])
            places = list(product(*[range(w) for w in window]))
            labels = [
                tuple(label(c + i, p, w, s) for c, i, p, w, s in zip(corner, place, padded, window, shift, strict=True))
                for place in places
            ]
            tokens = y[box].reshape(-1, x.shape[-1])
            out[box] = plain_attention(block, tokens, places, labels).view(*window, -1)
    out = torch.roll(out, shift, (1, 2, 3))[:, :frames, :height, :width]
    x = x + out
    z = F.layer_norm(x, x.shape[-1:], block.norm2.weight, block.norm2.bias)
    return x + block.mlp.fc2(F.gelu(block.mlp.fc11(z)) * block.mlp.fc12(z))


def label(i: int, padded: int, window: int, shift: int) -> int:
    """Region of a rolled coordinate: what a shift brought to the same window keeps apart."""
    if not shift:
        return 0
    return 0 if i < padded - window else 1 if i < padded - shift else 2


def plain_attention(block: TMSA, tokens: Tensor, places: list, labels: list) -> Tensor:
    attn, count = block.attn, len(places)
    table = attn.relative_position_bias_table
    full = block.window
    rows = torch.empty(count, count, dtype=torch.int64)
    for (i, a), (j, b) in product(enumerate(places), repeat=2):
        t, h, w = (p - q + n - 1 for p, q, n in zip(a, b, full, strict=True))
        rows[i, j] = (t * (2 * full[1] - 1) + h) * (2 * full[2] - 1) + w
    bias = table[rows].permute(2, 0, 1)
    mask = torch.tensor([[0.0 if a == b else -100.0 for b in labels] for a in labels], dtype=tokens.dtype)
    result = plain_heads(attn, attn.qkv_self, tokens, tokens, bias + mask)
    if not block.mutual:
        return attn.proj(result)
    half = count // 2
    code = sine_position_code(full[1], full[2], tokens.shape[1]).view(full[1], full[2], -1).to(tokens.dtype)
    coded = tokens + torch.stack([code[h, w] for _, h, w in places])
    # The first frame's mask for both directions, whatever the second frame's regions are.
    spatial = mask[:half, :half]
    first = plain_heads(attn, attn.qkv_mut, coded[half:], coded[:half], spatial)
    second = plain_heads(attn, attn.qkv_mut, coded[:half], coded[half:], spatial)
    return attn.proj(torch.cat((torch.cat((first, second)), result), 1))


def plain_heads(attn, qkv, queries: Tensor, remaining: Tensor, bias: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
    q = qkv(queries).view(-1, 3, attn.num_heads, queries.shape[1] // attn.num_heads)[:, 0]
    k, v = qkv(remaining).view(-1, 3, attn.num_heads, queries.shape[1] // attn.num_heads)[:, 1:].unbind(1)
    scores = torch.einsum("nhd,mhd->hnm", q, k) * attn.scale + bias
    return torch.einsum("hnm,mhd->nhd", scores.softmax(-1), v).flatten(1)


@pytest.mark.parametrize("backend", [SDPA, EagerBackend()], ids=["sdpa", "eager"])
@pytest.mark.parametrize(("batch", "size", "window", "shift", "mutual"), CASES)
def test_block_equals_plain_block(
    batch: int, size: Size3, window: Size3, shift: Size3, mutual: bool, backend: Backend
) -> None:
    """Forward with and without gradients, and the gradient of every weight and of the input."""
    block = make_block(window, shift, mutual)
    x = torch.randn(batch, *size, 8, dtype=torch.float64, requires_grad=True)
    layout = window_layout(batch, size, window, shift, pairs=mutual)
    expected = plain_block(block, x)
    got = backend.run(block, x.reshape(-1, 8), layout).view_as(x)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)
    factor = torch.randn_like(expected)
    leaves = [x, *block.parameters()]
    reference = torch.autograd.grad((expected * factor).sum(), leaves)
    for a, b in zip(torch.autograd.grad((got * factor).sum(), leaves), reference, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)
    with torch.no_grad():
        tokens = x.reshape(-1, 8).clone()
        torch.testing.assert_close(backend.run(block, tokens, layout).view_as(x), expected, rtol=0, atol=1e-10)
        assert torch.equal(tokens, x.reshape(-1, 8))  # the input is left alone,
        if backend is SDPA:
            assert backend.run(block, tokens, layout, overwrite=True) is tokens  # unless it is to be overwritten
            torch.testing.assert_close(tokens.view_as(x), expected, rtol=0, atol=1e-10)


def test_chunks_of_windows_equal_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    block = make_block((2, 4, 4), (1, 2, 2), True)
    layout = window_layout(2, (5, 12, 9), (2, 4, 4), (1, 2, 2), pairs=True)
    x = torch.randn(2 * 5 * 12 * 9, 8, dtype=torch.float64)
    with torch.no_grad():
        entire = SDPA.run(block, x, layout)
        monkeypatch.setattr(chunks, "ROWS", Budget(cpu=3 * 32 * 24 * 8, accelerator=1))
        torch.testing.assert_close(SDPA.run(block, x, layout), entire, rtol=0, atol=1e-12)


def test_first_and_last_frame_attend_to_each_other_in_shifted_mutual_blocks() -> None:
    """A quirk the published weights were trained with: the wrapped pair of frames is not masked."""
    block = make_block((2, 4, 4), (1, 2, 2), True)
    layout = window_layout(1, (6, 8, 8), (2, 4, 4), (1, 2, 2), pairs=True)
    x = torch.randn(6, 8, 8, 8, dtype=torch.float64)
    other = x.clone()
    other[5] += torch.randn_like(other[5])
    with torch.no_grad():
        change = (
            (SDPA.run(block, x.view(-1, 8), layout) - SDPA.run(block, other.view(-1, 8), layout))
            .view_as(x)
            .abs()
            .amax((1, 2, 3))
        )
        assert change[0] > 1e-3
        assert change[2:5].max() == 0
        block.attn.proj.weight[:, :8] = 0  # mutual half
        change = (
            (SDPA.run(block, x.view(-1, 8), layout) - SDPA.run(block, other.view(-1, 8), layout))
            .view_as(x)
            .abs()
            .amax((1, 2, 3))
        )
        assert change[0] == 0


def change_of_frames(block: TMSA, x: Tensor, other: Tensor, layout: WindowLayout) -> Tensor:
    """(T,) largest difference of the results for two clips."""
    results = [SDPA.run(block, clip.view(-1, 8), layout).view_as(x) for clip in (x, other)]
    return (results[0] - results[1]).abs().amax((1, 2, 3))


def test_no_token_pair_matrix_is_kept_for_the_backward_pass() -> None:
    for case in ((False, (6, 8, 8), (3, 4, 4)), (True, (2, 8, 8), (1, 4, 4))):
        mutual, window, shift = case
        block = make_block(window, shift, mutual).float()
        layout = window_layout(1, (6, 24, 24), window, shift, pairs=mutual)
        per_window = layout.tokens_per_window
        kept: list[tuple[int, ...]] = []

        def pack(tensor: Tensor, kept: list = kept) -> Tensor:
            kept.append(tuple(tensor.shape))
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            SDPA.run(block, torch.randn(6 * 24 * 24, 8), layout).sum().backward()
        pairs = (per_window, per_window), (per_window // 2, per_window // 2)
        assert kept
        assert not [shape for shape in kept if shape[-2:] in pairs and len(shape) == 4 and shape[0] > 1]


def test_masks_are_not_expanded_over_windows() -> None:
    layout = window_layout(2, (12, 40, 48), (6, 8, 8), (3, 4, 4))
    assert [kind for kind, _ in layout.segments] == list(range(8))
    assert sum(count for _, count in layout.segments) == 2 * 2 * 5 * 6
    assert [kind for kind, _ in window_layout(1, (6, 40, 48), (6, 8, 8), (3, 4, 4)).segments] == [0, 1, 2, 3]
    block = make_block((6, 8, 8), (3, 4, 4), False)
    biases = block.attn.biases(layout.window, range(8))
    assert all(bias.shape == (1, 2, 384, 384) for bias, _ in biases.values())


@pytest.mark.parametrize("shift", [(0, 0, 0), (1, 2, 2)])
def test_window_order_is_a_permutation_with_exact_gradient(shift: Size3) -> None:
    layout = window_layout(2, (5, 6, 9), (2, 4, 4), shift, pairs=True)
    x = torch.randn(2 * 5 * 6 * 9, 3, dtype=torch.float64, requires_grad=True)
    assert torch.equal(from_windows(to_windows(x, layout), layout), x)
    assert layout.padding is not None
    assert int((~layout.padding).sum()) == len(x)
    factor = torch.randn(len(layout.index), 3, dtype=torch.float64).masked_fill_(layout.padding[:, None], 0)
    (to_windows(x, layout) * factor).sum().backward()
    plain = x.detach().clone().requires_grad_()
    (plain[layout.index] * factor).sum().backward()
    assert plain.grad is not None
    torch.testing.assert_close(x.grad, plain.grad, rtol=0, atol=0)
    tokens = torch.randn(len(layout.index), 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda t: from_windows(t, layout), tokens.requires_grad_())


def test_layouts_of_a_pass_are_made_once() -> None:
    layouts = WindowLayouts(1, torch.device("cpu"))
    arguments = ((2, 8, 8), (2, 4, 4), (1, 2, 2), True)
    assert layouts.get(*arguments) is layouts.get(*arguments)


@pytest.mark.parametrize("bias", ["learned", "fixed", "none"])
def test_attend_equals_softmax(bias: str) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(5, 2, 6, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    added = None if bias == "none" else torch.randn(1, 2, 6, 6, dtype=torch.float64, requires_grad=bias == "learned")
    leaves = [q, k, v] + ([added] if bias == "learned" and added is not None else [])
    scores = q @ k.transpose(-2, -1) * 0.3
    expected = (scores if added is None else scores + added).softmax(-1) @ v
    got = attend(q, k, v, added, 0.3)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    factor = torch.randn_like(expected)
    reference = torch.autograd.grad((expected * factor).sum(), leaves)
    for a, b in zip(torch.autograd.grad((got * factor).sum(), leaves), reference, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_attend_backward_in_chunks_equals_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def gradients() -> Iterator[Tensor]:
        torch.manual_seed(0)
        q, k, v = (torch.randn(7, 2, 6, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
        bias = torch.randn(1, 2, 6, 6, dtype=torch.float64, requires_grad=True)
        yield from torch.autograd.grad(attend(q, k, v, bias, 0.5).pow(2).sum(), (q, k, v, bias))

    entire = list(gradients())
    monkeypatch.setattr(chunks, "SCORES", Budget(cpu=3 * 2 * 36 * 8, accelerator=1))
    for a, b in zip(gradients(), entire, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_relative_position_index() -> None:
    index = relative_position_index((2, 3, 4))
    assert index.shape == (24, 24)
    assert index.unique().tolist() == list(range(3 * 5 * 7))
    # One step in time, height or width changes the row by 5*7, 7 or 1.
    assert (index[12, 0] - index[0, 0], index[4, 0] - index[0, 0], index[1, 0] - index[0, 0]) == (35, 7, 1)
    # A window with fewer frames is the index' beginning, up to where its middle lies.
    assert torch.equal(index[:12, :12] - index[0, 0], relative_position_index((1, 3, 4)) - 17)


def test_small_windows_use_the_same_relative_positions() -> None:
    codes = WindowCodes((3, 4, 5))
    table = torch.randn(5 * 7 * 9, 2)
    bias = codes.relative_bias(table, (2, 3, 2))
    places = list(product(range(2), range(3), range(2)))
    for (i, a), (j, b) in product(enumerate(places), repeat=2):
        t, h, w = (p - q for p, q in zip(a, b, strict=True))
        assert torch.equal(bias[:, i, j], table[((t + 2) * 7 + h + 3) * 9 + w + 4])


def test_groups_shift_odd_blocks_by_half_a_window() -> None:
    group = TMSAG(BlockSettings(8, 2, (0.0,) * 4), 4, WindowCodes((6, 8, 8)), mutual=False)
    assert [block.shift for block in group.blocks] == [(0, 0, 0), (3, 4, 4)] * 2


@pytest.mark.parametrize("gradients", [False, True])
def test_drop_path_leaves_out_whole_branches_of_a_sample(gradients: bool) -> None:
    block = make_block((2, 4, 4), (1, 2, 2), True, drop_path=0.5).train()
    layout = window_layout(3, (3, 6, 6), (2, 4, 4), (1, 2, 2), pairs=True)
    x = torch.randn(3 * 3 * 6 * 6, 8, dtype=torch.float64)
    samples = x.view(3, -1, 8)
    factors = BranchFactors(torch.tensor([0.0, 2.0, 0.0]).double(), torch.tensor([0.0, 0.0, 2.0]).double())
    block.draw_factors = lambda batch, like: factors  # type: ignore[method-assign]
    with torch.set_grad_enabled(gradients):
        got = SDPA.run(block, x, layout).detach().view_as(samples)
    assert torch.equal(got[0], samples[0])
    z = F.layer_norm(samples[2], (8,), block.norm2.weight, block.norm2.bias)
    torch.testing.assert_close(got[2], samples[2] + 2 * block.mlp(z).detach(), rtol=0, atol=1e-12)
    del block.draw_factors
    block.eval()
    attended = x + 2 * (to_attention(block, x, layout))
    torch.testing.assert_close(got[1], attended.view_as(samples)[1], rtol=0, atol=1e-12)


def to_attention(block: TMSA, x: Tensor, layout) -> Tensor:  # type: ignore[no-untyped-def]
    """The attention branch alone: what the block adds when its MLP gives zero."""
    saved = block.mlp.fc2.weight.detach().clone(), block.mlp.fc2.bias.detach().clone()
    with torch.no_grad():
        block.mlp.fc2.weight.zero_()
        block.mlp.fc2.bias.zero_()
        branch = SDPA.run(block, x, layout) - x
        block.mlp.fc2.weight.copy_(saved[0])
        block.mlp.fc2.bias.copy_(saved[1])
    return branch


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_block_equals_the_block() -> None:
    block = make_block((2, 4, 4), (1, 2, 2), True).float()
    layout = window_layout(1, (3, 8, 8), (2, 4, 4), (1, 2, 2), pairs=True)
    compiled = copy.deepcopy(block)
    compiled.compile()
    x = torch.randn(3 * 8 * 8, 8, requires_grad=True)
    expected = SDPA.run(block, x, layout)
    torch.testing.assert_close(SDPA.run(compiled, x, layout), expected, rtol=0, atol=1e-5)
    reference = torch.autograd.grad(expected.square().sum(), [x, *block.parameters()])
    leaves = [x, *compiled.parameters()]
    for a, b in zip(torch.autograd.grad(SDPA.run(compiled, x, layout).square().sum(), leaves), reference, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(SDPA.run(compiled, x, layout), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("silent", ["attn.proj", "mlp.fc2"])
def test_branches_kept_by_drop_path_are_divided_by_their_probability(silent: str) -> None:
    """A branch is left out for a sample, or added 1 / (1 - drop_path) times, so that its mean is the branch."""
    block = make_block((2, 4, 4), (0, 0, 0), False, drop_path=0.75)
    for parameter in block.get_submodule(silent).parameters():
        torch.nn.init.zeros_(parameter)
    layout = window_layout(64, (2, 4, 4), (2, 4, 4), (0, 0, 0))
    x = torch.randn(1, 2 * 4 * 4, 8, dtype=torch.float64).expand(64, -1, -1)
    with torch.no_grad():
        branch = SDPA.run(block, x.reshape(-1, 8), layout).view_as(x) - x
        added = SDPA.run(block.train(), x.reshape(-1, 8), layout).view_as(x) - x
    kept = added.abs().amax((1, 2)) > 0
    torch.testing.assert_close(added[kept], 4 * branch[kept], rtol=0, atol=1e-12)
    assert 5 <= kept.sum() <= 30  # 16 are expected, of 64
