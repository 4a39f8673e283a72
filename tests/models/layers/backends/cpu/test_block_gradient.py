"""The backward pass of a block that is written out, against autograd through the plain way in double precision."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils.checkpoint import checkpoint

from models.layers.backends.cpu.native import NativeBackend
from models.layers.backends.eager import EagerBackend
from models.layers.ops import chunks
from models.layers.ops.chunks import Budget
from models.layers.vrt.blocks import TMSA
from models.layers.vrt.window_attention import BlockSettings, WindowCodes
from models.layers.vrt.window_layout import WindowLayout
from tests.models.layers.backends.cpu.test_native_attention import needs_kernel
from tests.models.layers.backends.test_recompute import CASES, SHIFTED, kept_bytes, make, pass_through

# Samples, of two, whose attention and whose MLP is dropped after this seed.
SEEDS = {1: (1, 1), 3: (2, 2), 4: (0, 2), 6: (0, 0), 10: (2, 1)}
NATIVE, EAGER = NativeBackend(), EagerBackend()

pytestmark = needs_kernel


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of three windows of 32 tokens and 8 channels, of two in the backward pass: they end within kinds."""
    monkeypatch.setattr(chunks, "ROWS", Budget(cpu=3 * 32 * 24 * 4, accelerator=1 << 30))
    monkeypatch.setattr(chunks, "BACKWARD", Budget(cpu=2 * 32 * 24 * 4, accelerator=1 << 30))


def both(case: tuple) -> tuple[tuple[TMSA, WindowLayout, Tensor], tuple[TMSA, WindowLayout, Tensor]]:
    """The same block and tokens in double precision and in float32."""
    block, layout, x = make(*case)
    return (block, layout, x), (deepcopy(block).float(), layout, x.detach().float().requires_grad_())


def assert_near(got: list[Tensor | None], exact: list[Tensor | None]) -> None:
    for a, b in zip(got, exact, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            torch.testing.assert_close(a.double(), b, rtol=0, atol=2e-5 * max(1.0, float(b.abs().max())))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("seed", "dropped"), SEEDS.items(), ids=str)
def test_equals_autograd_through_the_plain_way(case: tuple, seed: int, dropped: tuple[int, int]) -> None:
    """With drop path, which leaves out a branch of none, one or both samples."""
    exact, rounded = both(case)
    torch.manual_seed(seed)
    factors = rounded[0].draw_factors(2, rounded[2])
    assert tuple(int((factor == 0).sum()) for factor in (factors.attention, factors.mlp)) == dropped
    assert_near(pass_through(*rounded, NATIVE.run, seed=seed), pass_through(*exact, EAGER.run, seed=seed))


@pytest.mark.parametrize("case", [CASES[1], SHIFTED])
def test_recomputed_attention_gives_the_same(case: tuple) -> None:
    _, (block, layout, x) = both(case)
    expected = pass_through(block, layout, x, NATIVE.run)
    tokens = x.untyped_storage().nbytes()
    # The middle, and of each attention the result and two heads' sums of exponentials; padded places included.
    attentions = 2 if block.mutual else 1
    per_place = x.shape[1] + attentions * (x.shape[1] + 2)
    assert kept_bytes(lambda: NATIVE.run(block, x, layout), block) == tokens + 4 * per_place * layout.index.numel()
    block.checkpoint_attn = True
    assert kept_bytes(lambda: NATIVE.run(block, x, layout), block) == tokens
    for a, b in zip(pass_through(block, layout, x, NATIVE.run), expected, strict=True):
        assert a is not None and b is not None
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("learns", ["relative_position_bias_table", "mlp.fc2.bias", "norm1", "attn.", ""])
def test_frozen_parameters_get_no_gradient(learns: str) -> None:
    """One of them learns, or some; then the tokens alone, which do not in the other cases."""
    exact, rounded = both(SHIFTED)
    for block, _, x in (exact, rounded):
        for name, parameter in block.named_parameters():
            parameter.requires_grad_(bool(learns) and learns in name)
        x.requires_grad_(not learns)
    assert_near(pass_through(*rounded, NATIVE.run), pass_through(*exact, EAGER.run))


def test_projections_without_bias() -> None:
    torch.manual_seed(1)
    _, layout, x = make(*SHIFTED)
    settings = BlockSettings(8, 2, (), qkv_bias=False)
    block = TMSA(settings, WindowCodes((2, 4, 4), 8), shift=(1, 2, 2), mutual=True).double()
    got = pass_through(deepcopy(block).float(), layout, x.detach().float().requires_grad_(), NATIVE.run)
    assert_near(got, pass_through(block, layout, x, EAGER.run))


def test_inside_another_recomputing() -> None:
    _, (block, layout, x) = both(SHIFTED)

    def twice(*arguments: object) -> Tensor:
        return checkpoint(NATIVE.run, *arguments, use_reentrant=False)

    for a, b in zip(pass_through(block, layout, x, twice), pass_through(block, layout, x, NATIVE.run), strict=True):
        assert a is not None and b is not None and torch.equal(a, b)


def test_what_would_give_wrong_gradients_is_refused() -> None:
    _, (block, layout, x) = both(CASES[0])
    out = NATIVE.run(block, x, layout)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        (gradient,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
        gradient.sum().backward()
    out = NATIVE.run(block, x, layout)
    with torch.no_grad():
        block.mlp.fc2.bias += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_tensors_without_data_are_enough_to_estimate_memory() -> None:
    """A step is counted on fake tensors; with drop path, whose draws then have no values."""
    block, layout, _ = make(*SHIFTED)
    mode = FakeTensorMode()
    with FakeCopyMode(mode):
        twin, places = deepcopy((block.float(), layout))
    with mode:
        x = torch.empty(len(layout.inverse), 8, requires_grad=True)
        NATIVE.run(twin, x, places).sum().backward()
    assert x.grad is not None and x.grad.shape == x.shape
    assert all(parameter.grad is not None for parameter in twin.parameters())
