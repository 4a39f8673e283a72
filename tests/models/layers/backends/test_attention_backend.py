"""Which back end computes attention: choice, fallback, and the same numbers from each."""

import logging
from typing import get_args, get_type_hints

import pytest
import torch

from models.layers.backends import attention_backend
from models.layers.backends.attention import FlexBackend, SdpaBackend
from models.layers.backends.attention_backend import ATTENTION_BACKENDS, choose_backend
from models.layers.backends.eager import EagerBackend
from models.network_vrt import VRT
from tests.models.vrt_cases import small_vrt

CPU, FLOAT = torch.device("cpu"), torch.float32


def test_names_choose_back_ends() -> None:
    assert isinstance(choose_backend("sdpa", CPU, FLOAT), SdpaBackend)
    assert isinstance(choose_backend("eager", CPU, FLOAT), EagerBackend)
    assert isinstance(choose_backend("auto", CPU, torch.float64), SdpaBackend)
    with pytest.raises(ValueError, match=r"netG.attention_backend.*'flesh'.*Did you mean 'flex'"):
        choose_backend("flesh", CPU, FLOAT)


def test_a_back_end_that_cannot_run_is_replaced_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    attention_backend._warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert isinstance(choose_backend("flex", CPU, FLOAT), SdpaBackend)
        assert isinstance(choose_backend("flex", CPU, FLOAT), SdpaBackend)
    assert [record.getMessage() for record in caplog.records] == [
        "netG.attention_backend 'flex' can't run here: FlexAttention has its backward pass on CUDA GPUs only, and the "
        "tensors are on cpu. 'sdpa' is used instead."
    ]


def test_every_choice_of_the_network_is_registered() -> None:
    assert set(get_args(get_type_hints(VRT.__init__)["attention_backend"])) == {"auto", *ATTENTION_BACKENDS.names()}


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("heads", [0, 1, 2])
def test_flex_equals_sdpa(heads: int) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(5, 6, 3, 2, 4).permute(2, 0, 3, 1, 4)
    bias = torch.randn(1, heads, 6, 6) if heads else None
    expected = SdpaBackend().attend(q, k, v, bias, 0.3)
    torch.testing.assert_close(FlexBackend().attend(q, k, v, bias, 0.3), expected, rtol=0, atol=1e-6)


def test_the_attribute_chooses_for_the_whole_network(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small_vrt(attention_backend="eager")
    x = torch.rand(2, 3, 3, 20, 16)
    calls, aligned = [], []
    attend, align = EagerBackend.attend_tokens, EagerBackend.align
    monkeypatch.setattr(EagerBackend, "attend_tokens", lambda *given: (calls.append(1), attend(*given))[1])
    monkeypatch.setattr(EagerBackend, "align", lambda *given: (aligned.append(1), align(*given))[1])
    with torch.no_grad():
        plain = network(x)
        assert len(calls) == sum(network_blocks(network))
        assert len(aligned) == 7
        network.attention_backend = "sdpa"
        torch.testing.assert_close(network(x), plain, rtol=0, atol=2e-4)
    assert len(calls) == sum(network_blocks(network))


def network_blocks(network: torch.nn.Module) -> list[int]:
    return [1 for name, _ in network.named_modules() if name.endswith(".attn")]
