"""Linear layers with what follows them: the composition's numbers, with gradients and without."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.layers.ops import linear as module
from models.layers.ops.chunks import laid_out_for
from models.layers.ops.linear import linear


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("what", ["nothing", "gelu", "times", "plus"])
def test_equals_the_composition(what: str, bias: bool) -> None:
    torch.manual_seed(0)
    x, weight, other = torch.randn(3, 7, 12), torch.randn(5, 24)[:, 4:16], torch.randn(3, 5, 7).transpose(1, 2)
    b = torch.randn(5) if bias else None
    y = F.linear(x.double(), weight.double(), None if b is None else b.double())
    expected = {"nothing": y, "gelu": F.gelu(y), "times": y * other, "plus": y + other}[what]
    extra: dict[str, Tensor | bool] = {"nothing": {}, "gelu": {"gelu": True}}.get(what, {what: other})
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            got = linear(x, weight, b, **extra)  # type: ignore[arg-type]
        torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rows", [1024, 999, 5], ids=["images", "no whole images", "few"])
@pytest.mark.parametrize("learns", ["xwb", "x", "w", "b", "xw"])
def test_gradients_are_those_of_the_composition(rows: int, learns: str) -> None:
    """Of a slice of a weight, without bias too; exact to rounding."""
    torch.manual_seed(0)
    tensors = {"x": torch.randn(rows, 2, 12), "w": torch.randn(5, 24)[:, 4:16], "b": torch.randn(5)}
    leaves = [tensors[name].requires_grad_() for name in learns]
    bias = None if learns == "xw" else tensors["b"]
    factor = torch.randn(rows, 2, 5)
    y = F.linear(tensors["x"].double(), tensors["w"].double(), None if bias is None else bias.double())
    reference = torch.autograd.grad((y * factor).sum(), leaves)
    got = torch.autograd.grad(linear(tensors["x"], tensors["w"], bias), leaves, factor)
    for a, b in zip(got, reference, strict=True):
        assert a.dtype is torch.float32
        torch.testing.assert_close(a, b, rtol=1e-5, atol=2e-5 * rows**0.5)


def test_gradients_of_the_fallback() -> None:
    x, weight, bias, other = (torch.randn(*shape).double().requires_grad_() for shape in ((4, 3), (2, 3), (2,), (4, 2)))
    assert torch.autograd.gradcheck(
        lambda *t: linear(*t[:3], times=t[3]) + linear(*t[:3], gelu=True), (x, weight, bias, other)
    )


def test_onednn_is_for_plain_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_has_onednn", lambda: True)
    x, weight = torch.randn(2, 3), torch.randn(4, 3)
    assert module._by_onednn(x, weight)
    assert not module._by_onednn(x.double(), weight.double())
    assert not module._by_onednn(x.bfloat16(), weight.bfloat16())
    assert not module._by_onednn(x.to("meta"), weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert not module._by_onednn(x, weight)
    with laid_out_for("cuda"):
        assert not module._by_onednn(x, weight)
    monkeypatch.setattr(module, "_has_onednn", lambda: False)
    assert not module._by_onednn(x, weight)
