"""Triton's kernels that begin with LayerNorm, against PyTorch; run in the interpreter by `test_triton_mlp.py`."""

import logging
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.backends import backend, sdpa  # noqa: F401  (registers the fallback)
from models.layers.backends.backend import Backend, _run_whole, choose_backend
from models.layers.backends.eager import EagerBackend
from models.layers.backends.triton import backend as triton_backend
from models.layers.backends.triton import mlp as triton_mlp
from models.layers.backends.triton.attention import Tiles
from models.layers.backends.triton.backend import TritonBackend, TritonFusedBackend
from models.layers.backends.triton.mlp import add_gated_mlp
from models.layers.backends.triton.norm_linear import norm_linear
from models.layers.ops import chunks
from models.layers.ops.chunks import Budget
from models.layers.vrt.blocks import TMSA, BranchFactors, GatedMlp
from models.layers.vrt.window_attention import BlockSettings, WindowCodes
from models.layers.vrt.window_layout import window_layout

CPU = torch.device("cpu")
# (channels, hidden, rows, samples with drop path)
CASES = [(96, 192, 70, 0), (120, 240, 18, 3), (180, 360, 20, 2), (20, 50, 9, 0), (8, 16, 1, 1)]


def parts(channels: int, hidden: int) -> list[Tensor]:
    """A LayerNorm's and an MLP's parameters, none of them at its start."""
    torch.manual_seed(0)
    norm, mlp = nn.LayerNorm(channels), GatedMlp(channels, hidden, channels)
    for parameter in (norm.weight, norm.bias, mlp.fc11.bias, mlp.fc12.bias, mlp.fc2.bias):
        nn.init.normal_(parameter)
    linears = [parameter for layer in (mlp.fc11, mlp.fc12, mlp.fc2) for parameter in (layer.weight, layer.bias)]
    return [parameter.detach() for parameter in (norm.weight, norm.bias, *linears)]


def plain(x: Tensor, parameters: list[Tensor], keep: Tensor | None) -> Tensor:
    """What `add_gated_mlp` is to compute, by the modules of a block."""
    channels, hidden = x.shape[1], len(parameters[3])
    modules = nn.Sequential(nn.LayerNorm(channels), GatedMlp(channels, hidden, channels))
    names = [f"{layer}.{kind}" for layer in ("0", "1.fc11", "1.fc12", "1.fc2") for kind in ("weight", "bias")]
    branch = torch.func.functional_call(modules, dict(zip(names, parameters, strict=True)), x)
    return x + (branch if keep is None else branch * keep.repeat_interleave(len(x) // len(keep))[:, None])


def compare(case: tuple[int, int, int, int], types: tuple[torch.dtype, torch.dtype], tolerance: float) -> None:
    """Types of x and of the weights; values that bfloat16 has, so that all types see the same."""
    channels, hidden, rows, samples = case
    keep = torch.tensor([1.25, 0.0, 1.0])[:samples] if samples else None
    values = [value.bfloat16().float() for value in (torch.randn(rows, channels), *parts(channels, hidden))]
    exact = [value.double().requires_grad_() for value in values]
    # Weights are in the type of the products, vectors in float32, as under autocast.
    kinds = [types[0], *(types[1] if value.dim() > 1 else torch.float32 for value in values[1:])]
    given = [value.to(kind).requires_grad_() for value, kind in zip(values, kinds, strict=True)]
    expected = plain(exact[0], exact[1:], None if keep is None else keep.double())
    out = add_gated_mlp(*given, None if keep is None else keep.to(types[0]), 1e-5)
    factor = torch.randn(out.shape).to(types[0])
    reference = [expected, *torch.autograd.grad((expected * factor).sum(), exact)]
    got = [out, *torch.autograd.grad((out * factor).sum(), given)]
    assert [value.dtype for value in got] == [types[0], *kinds]
    assert_close(got, reference, tolerance)


def assert_close(got: list[Tensor], reference: list[Tensor], tolerance: float) -> None:
    """Each relative to its largest value."""
    for a, b in zip(got, reference, strict=True):
        largest = float(b.detach().abs().max())
        torch.testing.assert_close(a.double() / largest, b / largest, rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_float32(case: tuple[int, int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    # Several tiles of rows, and in the backward pass several chunks of them.
    monkeypatch.setattr(triton_mlp, "mlp_tiles", lambda *_: Tiles(16, 32, 4, 1))
    monkeypatch.setattr(chunks, "BACKWARD", Budget(cpu=4 * case[1] * 8, accelerator=1))
    compare(case, (torch.float32, torch.float32), 2e-6)


@pytest.mark.parametrize("residual", [torch.float32, torch.bfloat16])
def test_bfloat16(residual: torch.dtype) -> None:
    compare(CASES[0], (residual, torch.bfloat16), 2e-2)


def test_chunks_of_the_backward_pass_repeat_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    leaves = [t.requires_grad_() for t in (torch.randn(50, 24), *parts(24, 48))]

    def gradients(rows: int) -> tuple[Tensor, ...]:
        monkeypatch.setattr(chunks, "BACKWARD", Budget(cpu=4 * 48 * rows, accelerator=1))
        return torch.autograd.grad(add_gated_mlp(*leaves, None, 1e-5).square().sum(), leaves)

    for a, b, entire in zip(gradients(7), gradients(7), gradients(50), strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, entire, rtol=1e-5, atol=1e-5)


def test_operator_is_registered_as_torch_wants_it() -> None:
    leaves = [t.requires_grad_() for t in (torch.randn(6, 8), *parts(8, 16))]
    utilities = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(add_gated_mlp, (*leaves, torch.tensor([0.0, 2.0]), 1e-5), test_utils=utilities)
    torch.library.opcheck(norm_linear, (*leaves[:5], 1e-5), test_utils=utilities)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize(("channels", "width", "rows"), [(96, 288, 70), (20, 50, 3)])
def test_projection(
    channels: int,
    width: int,
    rows: int,
    dtype: torch.dtype,
    tolerance: float,
    biased: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """LayerNorm and a linear layer, backward in several chunks."""
    monkeypatch.setattr(chunks, "BACKWARD", Budget(cpu=4 * width * 8, accelerator=1))
    shapes = [(rows, channels), (channels,), (channels,), (width, channels), *([(width,)] if biased else [])]
    values = [torch.randn(shape).bfloat16().float() for shape in shapes]
    given = [value.to(dtype if i == 3 else torch.float32).requires_grad_() for i, value in enumerate(values)]
    exact = [value.double().requires_grad_() for value in values]
    bias = [None] * (not biased)
    expected = F.linear(F.layer_norm(exact[0], [channels], *exact[1:3]), *exact[3:])
    out = norm_linear(*given, *bias, 1e-5)
    factor = torch.randn(out.shape).to(dtype)
    reference = [expected, *torch.autograd.grad((expected * factor).sum(), exact)]
    got = [out, *torch.autograd.grad((out * factor).sum(), given)]
    assert [value.dtype for value in got] == [dtype, *(leaf.dtype for leaf in given)]
    assert_close(got, reference, tolerance)


def test_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block with drop path, whole, without gradients, traced and under autocast, against the plain back end."""
    torch.manual_seed(0)
    window, size, keep = (2, 4, 4), (2, 4, 4), torch.tensor([0.0, 2.0])
    block = TMSA(BlockSettings(8, 1, (), checkpoint_ffn=True), WindowCodes(window, 8), mutual=True)
    monkeypatch.setattr(block, "draw_factors", lambda *_: BranchFactors(keep, keep))
    layout = window_layout(2, size, window, (0, 0, 0), pairs=True)
    x = torch.randn(2 * math.prod(size), 8, requires_grad=True)
    leaves, factor = [x, *block.parameters()], torch.randn(x.shape)

    def results(backend: Backend, run: Callable[..., Tensor] = Backend.run) -> list[Tensor]:
        out = run(backend, block, x, layout)
        return [out, *torch.autograd.grad((out * factor).sum(), leaves)]

    expected, fused = results(EagerBackend()), choose_backend("triton_fused", CPU, x.dtype)
    assert isinstance(fused, TritonFusedBackend)
    for module in (GatedMlp, nn.LayerNorm):
        monkeypatch.setattr(module, "forward", None)
    entire = results(fused)
    for a, b in zip(entire, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(fused.run(block, x.detach(), layout), entire[0].detach(), rtol=1e-5, atol=1e-5)
    traced = torch.compile(_run_whole, backend="aot_eager", fullgraph=True)
    for a, b in zip(results(fused, lambda *given: traced(*given, BranchFactors(keep, keep))), entire, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        halved = results(fused)
    for a, b in zip(halved, entire, strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() < 0.03 * b.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_trial(dtype: torch.dtype) -> None:
    assert TritonFusedBackend().refusal(CPU, dtype) is None


def test_a_failing_trial_leaves_attention(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    backend._warn_once.cache_clear()
    monkeypatch.setattr(triton_backend, "_fused_difference", lambda *_: float("nan"))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert type(choose_backend("triton_fused", CPU, torch.float32)) is TritonBackend
    (message,) = caplog.messages
    assert "'triton_fused' can't run here: a trial of its kernels gave nan" in message
    assert message.endswith("'triton' is used instead.")
