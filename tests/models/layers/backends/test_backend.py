"""Which back end computes: choice, fallback, and the same numbers from each."""

import logging
from pathlib import Path

import pytest
import torch

from models.layers.backends import backend
from models.layers.backends.backend import COMPUTE_BACKENDS, choose_backend
from models.layers.backends.eager import EagerBackend
from models.layers.backends.flex import FlexBackend
from models.layers.backends.sdpa import SdpaBackend
from models.network_vrt import VRT
from tests.models.vrt_cases import SMALL, small_vrt
from utils.options.layers import load_layers
from utils.user_error import UserError

CPU, FLOAT = torch.device("cpu"), torch.float32


def test_names_choose_back_ends() -> None:
    assert isinstance(choose_backend("sdpa", CPU, FLOAT), SdpaBackend)
    assert isinstance(choose_backend("eager", CPU, FLOAT), EagerBackend)
    assert isinstance(choose_backend("auto", CPU, torch.float64), SdpaBackend)
    with pytest.raises(ValueError, match=r"netG.compute_backend.*'flesh'.*Did you mean 'flex'"):
        choose_backend("flesh", CPU, FLOAT)


def test_a_back_end_that_cannot_run_is_replaced_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    backend._warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert isinstance(choose_backend("flex", CPU, FLOAT), SdpaBackend)
        assert isinstance(choose_backend("flex", CPU, FLOAT), SdpaBackend)
    assert [record.getMessage() for record in caplog.records] == [
        "netG.compute_backend 'flex' can't run here: FlexAttention has its backward pass on CUDA GPUs only, and the "
        "tensors are on cpu. 'sdpa' is used instead."
    ]


def test_a_registered_back_end_computes_under_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no other edit; its option is tested in `tests/models/test_network_faults.py`."""

    class Doubled(SdpaBackend):
        def attend(self, *given):  # type: ignore[no-untyped-def]
            return 2 * super().attend(*given)

    monkeypatch.setattr(COMPUTE_BACKENDS, "_parts", dict(COMPUTE_BACKENDS._parts))
    COMPUTE_BACKENDS.register("doubled")(Doubled)
    network, x = small_vrt(compute_backend="doubled"), torch.rand(1, 2, 3, 8, 8)
    with torch.no_grad():
        doubled = network(x)
        network.compute_backend = "sdpa"
        assert not torch.allclose(network(x), doubled, atol=1e-3)


def test_an_unknown_back_end_is_refused_by_the_network_with_the_choices() -> None:
    with pytest.raises(
        UserError, match=r"netG.compute_backend.*'flesh'.*'flex'\? Choices: eager, .*triton_fused, auto"
    ):
        VRT(**SMALL, compute_backend="flesh")


def test_the_former_key_is_an_alias(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_text('{"netG": {"attention_backend": "eager"}}')
    assert load_layers(recipe).tree["netG"] == {"compute_backend": "eager"}
    (fault,) = load_layers(recipe, ["netG.attention_backend=eager", "netG.compute_backend=sdpa"]).faults
    assert "netG.attention_backend and netG.compute_backend are the same option" in fault


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("heads", [0, 1, 2])
def test_flex_equals_sdpa(heads: int) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(5, 6, 3, 2, 4).permute(2, 0, 3, 1, 4)
    bias = torch.randn(1, heads, 6, 6) if heads else None
    expected = SdpaBackend().attend(q, k, v, bias, 0.3)
    torch.testing.assert_close(FlexBackend().attend(q, k, v, bias, 0.3), expected, rtol=0, atol=1e-6)


def test_the_attribute_chooses_for_the_whole_network(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = small_vrt(compute_backend="eager")
    x = torch.rand(2, 3, 3, 20, 16)
    calls, aligned = [], []
    attend, align = EagerBackend.attend_tokens, EagerBackend.align_clip
    monkeypatch.setattr(EagerBackend, "attend_tokens", lambda *given: (calls.append(1), attend(*given))[1])
    monkeypatch.setattr(EagerBackend, "align_clip", lambda *given: (aligned.append(1), align(*given))[1])
    with torch.no_grad():
        plain = network(x)
        assert len(calls) == sum(network_blocks(network))
        assert len(aligned) == 7
        network.compute_backend = "sdpa"
        torch.testing.assert_close(network(x), plain, rtol=0, atol=2e-4)
    assert len(calls) == sum(network_blocks(network))


def network_blocks(network: torch.nn.Module) -> list[int]:
    return [1 for name, _ in network.named_modules() if name.endswith(".attn")]
