"""What "auto" takes: of fake back ends the fastest that is right; once per network, and from the cache."""

import logging
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from models.layers.backends import backend, choices, problem
from models.layers.backends.automatic import AutomaticBackend, fitted
from models.layers.backends.backend import COMPUTE_BACKENDS, backend_called
from models.layers.backends.problem import parts_of
from models.layers.backends.sdpa import SdpaBackend
from models.layers.ops.chunks import laid_out_for
from models.network_vrt import VRT
from tests.models.vrt_cases import small_vrt


class Counting(SdpaBackend):
    calls = 0

    def attend(self, *given: Any) -> Tensor:
        type(self).calls += 1
        return super().attend(*given)


class Fast(Counting):
    """Right."""


class Slow(Counting):
    def attend(self, *given: Any) -> Tensor:
        end = time.process_time() + 2e-3
        while time.process_time() < end:
            pass
        return super().attend(*given)


class Wrong(Counting):
    def attend(self, *given: Any) -> Tensor:
        return 1.5 * super().attend(*given)


class NotANumber(Counting):
    def attend(self, *given: Any) -> Tensor:
        out = super().attend(*given)
        return torch.where(out == out.max(), torch.nan, out)


class Raises(Counting):
    def attend(self, *given: Any) -> Tensor:
        raise RuntimeError("nvrtc: error: failed to open\nand what follows")


class OutOfMemory(Counting):
    """Only at the size of the run: the check is small."""

    def attend(self, *given: Any) -> Tensor:
        if given[0].shape[0] > 9:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return super().attend(*given)


class WrongGradient(Counting):
    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
        return super().attend(q, k.detach(), v, bias, scale)


FAKES = [Slow, Wrong, NotANumber, Raises, OutOfMemory, WrongGradient, Fast]


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Fake back ends under their classes' names, and an empty cache, whose folder it is."""
    monkeypatch.setattr(COMPUTE_BACKENDS, "_parts", dict(COMPUTE_BACKENDS._parts))
    for fake in FAKES:
        COMPUTE_BACKENDS.register(fake.__name__)(fake)
        monkeypatch.setattr(fake, "calls", 0)
    monkeypatch.setattr(choices, "cache_folder", lambda: tmp_path)
    monkeypatch.delenv("S_VRT_RETUNE", raising=False)
    return tmp_path


def automatic_vrt(*fakes: type[Counting], worth: float = 0.0) -> VRT:
    """A small network whose "auto" chooses among back ends."""
    network = small_vrt()
    network.automatic = AutomaticBackend([fake.__name__ for fake in fakes], {"cpu": worth}, seconds=0.05)
    return network


def clip() -> Tensor:
    return torch.rand(1, 2, 3, 16, 24)


def chosen(network: VRT, grad: bool = False, x: Tensor | None = None) -> str:
    """The name of what would compute the network's pass."""
    with torch.set_grad_enabled(grad):
        return type(network._executor(clip() if x is None else x)).__name__


@pytest.mark.parametrize("grad", [False, True])
def test_the_fastest_that_is_right_is_taken(grad: bool, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        name = chosen(automatic_vrt(*FAKES), grad)
    assert name == "Fast" or (name == "WrongGradient" and not grad), "its result is right"
    failures = "\n".join(record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
    for name in ("Wrong", "NotANumber"):
        assert f"netG.compute_backend 'auto': not '{name}': wrong: relative error" in failures
    assert "not 'Raises': RuntimeError: nvrtc: error: failed to open." in failures and "what follows" not in failures
    assert "not 'OutOfMemory': OutOfMemoryError: CUDA out of memory. Tried to allocate." in failures
    assert ("not 'WrongGradient': wrong: relative error" in failures) == grad
    (line,) = (message for message in caplog.messages if "Kept in" in message)
    assert f"for {'training' if grad else 'testing'} on cpu in float32: 'Slow' " in line and "\n" not in line


def test_it_is_measured_once_and_kept_for_the_next_process(
    fakes: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    network = automatic_vrt(Slow, Fast)
    assert chosen(network) == "Fast"
    slow_calls = Slow.calls
    assert slow_calls and len(list(fakes.iterdir())) == 1
    assert chosen(network) == "Fast" and Slow.calls == slow_calls, "the choice holds for the network"
    with caplog.at_level(logging.INFO):
        assert chosen(automatic_vrt(Slow, Fast)) == "Fast" and Slow.calls == slow_calls, "and is in the cache"
    assert "as measured before: 'Slow'" in caplog.text
    chosen(automatic_vrt(Slow, Fast), grad=True)
    assert Slow.calls > slow_calls and len(list(fakes.iterdir())) == 2, "training is another matter"
    slow_calls = Slow.calls
    monkeypatch.setenv("S_VRT_RETUNE", "1")
    assert chosen(automatic_vrt(Slow, Fast)) == "Fast" and Slow.calls > slow_calls


def test_small_and_unreal_passes_are_not_measured() -> None:
    preferred = type(backend_called(backend.preferred(torch.device("cpu"), torch.float32))).__name__
    tokens_by_parameters = 2 * 16 * 24 * sum(parameter.numel() for parameter in small_vrt().parameters())
    assert chosen(automatic_vrt(Slow, Fast, worth=tokens_by_parameters + 1)) == preferred
    assert chosen(automatic_vrt(Slow, Fast, worth=tokens_by_parameters)) == "Fast"
    network = automatic_vrt(Slow, Fast)
    with laid_out_for("cuda"):  # a CPU's tensors that stand for a GPU's
        assert chosen(network) == preferred
    with FakeTensorMode():
        assert chosen(network) == preferred
    torch.use_deterministic_algorithms(True)
    try:
        assert chosen(network) == preferred
    finally:
        torch.use_deterministic_algorithms(False)
    assert chosen(network, x=clip().double()) == "SdpaBackend"


def test_where_none_is_right_the_preferred_one_computes(caplog: pytest.LogCaptureFixture) -> None:
    network = automatic_vrt(Wrong, Raises)
    assert chosen(network) == type(backend_called(backend.preferred(torch.device("cpu"), torch.float32))).__name__
    assert "unmeasured: none passed" in caplog.text


def test_measuring_leaves_no_trace() -> None:
    """Neither in random numbers nor in weights and their gradients; the pass itself is a back end's."""
    network, x = automatic_vrt(Slow, Fast), clip()
    network.train()
    weights = [parameter.clone() for parameter in network.parameters()]
    torch.manual_seed(0)
    out = network(x)
    drawn = torch.rand(1)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(a, b) for a, b in zip(weights, network.parameters(), strict=True))
    torch.manual_seed(0)
    network.compute_backend = "Fast"
    assert torch.equal(network(x), out) and torch.equal(torch.rand(1), drawn)


def test_under_autocast_and_without_memory(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert chosen(automatic_vrt(Wrong, Fast)) == "Fast"

    def none_left(*_: Any, **__: Any) -> Tensor:
        raise MemoryError("none left")

    monkeypatch.setattr(problem, "drawn", none_left)
    assert chosen(automatic_vrt(Slow, Fast)) not in ("Slow", "Fast")
    assert "unmeasured: none passed" in caplog.text


def test_kinds_of_parts() -> None:
    """Of the full grid: pairs and whole windows, shifted or not, and the alignments."""
    network = small_vrt()
    full_size = (network.stage1, network.stage7, *network.stage8[1:])
    kinds = [part.describe() for part in parts_of(full_size, aligned=True)]
    blocks = sum(1 for top in full_size for name, _ in top.named_modules() if name.endswith(".attn"))
    assert sum(kind[-1] for kind in kinds if kind[0] == "block") == blocks > len(kinds)
    assert [kind[-1] for kind in kinds if kind[0] == "alignment"] == [2]
    assert all(part.describe()[0] == "block" for part in parts_of(full_size, aligned=False))


def test_large_grids_are_measured_in_part() -> None:
    assert fitted(1, (6, 192, 192), 6 * 192 * 192) == (1, (6, 192, 192))
    assert fitted(4, (6, 192, 192), 6 * 192 * 192) == (1, (6, 192, 192))
    assert fitted(1, (18, 720, 1280), 6 * 256 * 256) == (1, (18, 96, 160))
    assert fitted(1, (100, 16, 16), 64) == (1, (100, 8, 8))
