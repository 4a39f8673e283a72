"""Blocks that keep nothing for the backward pass have the numbers of those that keep everything."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils.checkpoint import checkpoint

from models.layers.backends.backend import Backend
from models.layers.backends.eager import EagerBackend
from models.layers.backends.sdpa import SdpaBackend
from models.layers.ops import chunks
from models.layers.ops.chunks import Budget, laid_out_for
from models.layers.vrt.blocks import TMSA
from models.layers.vrt.window_attention import BlockSettings, WindowCodes
from models.layers.vrt.window_layout import Size3, WindowLayout, window_layout
from models.training.estimate import StorageCount

SDPA = SdpaBackend()
# (T, H, W), window, shift, mutual; batches of two. Whole windows, padded axes, shifts in time, odd T.
CASES = [
    ((3, 8, 8), (3, 4, 4), (0, 0, 0), False),
    ((5, 10, 13), (4, 4, 4), (2, 2, 2), False),
    ((4, 8, 8), (2, 4, 4), (0, 0, 0), True),
    ((5, 9, 6), (2, 4, 4), (1, 2, 2), True),
]
SHIFTED = CASES[3]


def make(size: Size3, window: Size3, shift: Size3, mutual: bool, dim: int = 8) -> tuple[TMSA, WindowLayout, Tensor]:
    """A block in training, the layout of two clips, and their tokens."""
    torch.manual_seed(3)
    block = TMSA(
        BlockSettings(dim, 2, ()), WindowCodes(window, dim if mutual else 0), shift=shift, mutual=mutual, drop_path=0.5
    )
    torch.nn.init.normal_(block.attn.relative_position_bias_table)
    layout = window_layout(2, size, window, shift, pairs=mutual)
    return block.double(), layout, torch.randn(len(layout.inverse), dim, dtype=torch.float64, requires_grad=True)


def pass_through(
    block: TMSA, layout: WindowLayout, x: Tensor, run: Callable[..., Tensor] = SDPA.run, seed: int = 5
) -> list[Tensor | None]:
    """Output, and gradients of the tokens and of every parameter."""
    torch.manual_seed(seed)
    leaves = [x, *block.parameters()]
    for leaf in leaves:
        leaf.grad = None
    out = run(block, x, layout)
    # Drawn in double precision, so that it is the same in all types.
    grad = torch.randn(out.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    out.backward(grad.to(out.dtype))
    return [out.detach(), *(leaf.grad for leaf in leaves)]


def kept_everything(block: TMSA, layout: WindowLayout, x: Tensor, seed: int = 5) -> list[Tensor | None]:
    """The same by the path of a GPU."""
    with laid_out_for("cuda"):
        return pass_through(block, layout, x, seed=seed)


def assert_same(got: list[Tensor | None], reference: list[Tensor | None]) -> None:
    for a, b in zip(got, reference, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def kept_bytes(run: Callable[[], Tensor], block: TMSA) -> int:
    """Bytes that a forward pass keeps, weights not counted."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in (*block.parameters(), *block.buffers())}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of three windows of 32 tokens and 8 channels, of two in the backward pass: they end within kinds."""
    monkeypatch.setattr(chunks, "ROWS", Budget(cpu=3 * 32 * 24 * 8, accelerator=1 << 30))
    monkeypatch.setattr(chunks, "BACKWARD", Budget(cpu=2 * 32 * 24 * 8, accelerator=1 << 30))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", [5, 6])
def test_equals_keeping_everything(small_chunks: None, case: tuple, seed: int) -> None:
    """With drop path, whose draws are the same."""
    block, layout, x = make(*case)
    assert_same(pass_through(block, layout, x, seed=seed), kept_everything(block, layout, x, seed=seed))


@pytest.mark.parametrize("mlp", [False, True], ids=["attention", "block"])
def test_a_gpu_recomputes_where_it_is_asked_to(monkeypatch: pytest.MonkeyPatch, mlp: bool) -> None:
    block, layout, x = make(*SHIFTED)
    expected = kept_everything(block, layout, x)
    with laid_out_for("cuda"):
        all_bytes = kept_bytes(lambda: SDPA.run(block, x, layout), block)
        block.checkpoint_attn, block.checkpoint_ffn = True, mlp
        tokens = x.untyped_storage().nbytes()
        kept = kept_bytes(lambda: SDPA.run(block, x, layout), block)
    assert kept == tokens if mlp else tokens < kept < 0.6 * all_bytes
    monkeypatch.setattr(chunks, "BACKWARD", Budget(cpu=1, accelerator=2 * 32 * 24 * 8))
    assert_same(kept_everything(block, layout, x), expected)


@pytest.mark.parametrize("learns", ["relative_position_bias_table", "mlp.fc2.bias", "norm1", "attn.", ""])
def test_frozen_parameters(small_chunks: None, learns: str) -> None:
    """One of them learns, or some; then the tokens alone, which do not in the other cases."""
    block, layout, x = make(*SHIFTED)
    for name, parameter in block.named_parameters():
        parameter.requires_grad_(bool(learns) and learns in name)
    x.requires_grad_(not learns)
    got = pass_through(block, layout, x)
    assert sum(gradient is not None for gradient in got[1:]) == (
        sum(learns in name for name, _ in block.named_parameters()) if learns else 1
    )
    assert_same(got, kept_everything(block, layout, x))


def test_under_autocast(small_chunks: None) -> None:
    """The backward pass recomputes in the forward pass' precision, whatever rules where it is called."""
    block, layout, x = make(*SHIFTED)
    block.float()
    x = x.detach().float().requires_grad_()

    def halved(*arguments: object) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return SDPA.run(*arguments)

    exact, outside = pass_through(block, layout, x), pass_through(block, layout, x, halved)
    with laid_out_for("cuda"):
        entire = pass_through(block, layout, x, halved)
    with torch.autocast("cpu", torch.bfloat16):
        inside = pass_through(block, layout, x)
    for a, b, c, d in zip(outside, inside, entire, exact, strict=True):
        assert a is not None and b is not None and c is not None and d is not None
        assert a.dtype is torch.float32 and torch.equal(a, b)
        # The gradient of a key's bias is zero but for rounding.
        assert (a - c).norm() < 0.02 * c.norm() + 0.03
        assert (a - d).norm() < 0.03 * d.norm() + 0.03


def test_inside_another_recomputing(small_chunks: None) -> None:
    block, layout, x = make(*SHIFTED)

    def twice(*arguments: object) -> Tensor:
        return checkpoint(SDPA.run, *arguments, use_reentrant=False)

    assert_same(pass_through(block, layout, x, twice), pass_through(block, layout, x))


def test_what_would_give_wrong_gradients_is_refused() -> None:
    block, layout, x = make(*CASES[0])
    out = SDPA.run(block, x, layout)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        (gradient,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
        gradient.sum().backward()
    out = SDPA.run(block, x, layout)
    with torch.no_grad():
        block.mlp.fc2.bias += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


@pytest.mark.parametrize(
    "case", [((6, 16, 16), (6, 8, 8), (3, 4, 4), False), ((6, 16, 16), (2, 8, 8), (1, 4, 4), True)]
)
def test_attention_keeps_less_than_a_quarter_of_the_plain_ways(case: tuple) -> None:
    """What it keeps beyond the block's input, which the plain way does not count either."""
    block, layout, x = make(*case, dim=24)
    tokens = x.untyped_storage().nbytes()

    def of_attention(backend: Backend) -> int:
        block.checkpoint_attn = False
        kept = kept_bytes(lambda: backend.run(block, x, layout), block)
        block.checkpoint_attn = True
        return kept - kept_bytes(lambda: backend.run(block, x, layout), block)

    plain = of_attention(EagerBackend())
    assert plain > 10 * tokens
    block.checkpoint_attn = False
    # All that the block keeps, its MLP included.
    assert kept_bytes(lambda: SDPA.run(block, x, layout), block) == tokens < plain / 4


@pytest.mark.parametrize(
    "case", [((6, 64, 64), (6, 8, 8), (3, 4, 4), False), ((6, 64, 64), (2, 8, 8), (1, 4, 4), True)]
)
def test_no_intermediate_result_is_larger_than_a_chunks(case: tuple) -> None:
    size, window, shift, mutual = case
    codes = WindowCodes(window, 96 if mutual else 0)
    real = (
        TMSA(BlockSettings(96, 6, ()), codes, shift=shift, mutual=mutual),
        window_layout(1, size, window, shift, pairs=mutual),
    )
    mode = FakeTensorMode()
    with FakeCopyMode(mode):
        block, layout = deepcopy(real)
    with mode:
        x = torch.empty(6 * 64 * 64, 96, requires_grad=True)
        with StorageCount([*block.parameters(), *block.buffers(), x], deform_samples=False) as count:
            SDPA.run(block, x, layout).sum().backward()
    tokens = x.untyped_storage().nbytes()
    assert count.largest == tokens < 10 << 20
    # Output, its gradient and that of the tokens; biases, their gradients and the chunks.
    assert count.peak < 3 * tokens + (64 << 20)
