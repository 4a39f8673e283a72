"""Linear layers with what follows them: the composition's numbers, with gradients and without."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.layers import linear as module
from models.layers.linear import linear


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


def test_onednn_is_for_plain_float32_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_has_onednn", lambda: True)
    x, weight = torch.randn(2, 3), torch.randn(4, 3)
    assert not module._by_onednn(x, weight)
    with torch.no_grad():
        assert module._by_onednn(x, weight)
        assert not module._by_onednn(x.double(), weight.double())
        assert not module._by_onednn(x.to("meta"), weight)
        with torch.autocast("cpu", torch.bfloat16):
            assert not module._by_onednn(x, weight)
    monkeypatch.setattr(module, "_has_onednn", lambda: False)
    with torch.no_grad():
        assert not module._by_onednn(x, weight)
