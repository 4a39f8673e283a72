"""Adapting to a clip: by its measurements alone, on a copy, and never for the worse on the held-out half."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import models.testing.adapt as module
from data.spike.sync import ExposureWindow
from models.testing.adapt import Adaptation, HeldOut, adapt, halves
from utils.user_error import UserError

CPU = torch.device("cpu")
TIMES = [0.0, 0.5, 1.0]


class Clip:
    name = "clip"

    def __init__(self, exposures: int) -> None:
        self.frames = [f"{frame}_{number}" for frame in range(exposures) for number in range(len(TIMES))]


class Gray:
    """Still gray clips of 16x16 with spikes of 8x8: light 0.5, so that a pixel fires every fourth frame."""

    times, spike_threshold = TIMES, 2.0

    def __init__(self, exposures: int = 4, width: int = 16) -> None:
        self.clips, self.width = [Clip(exposures)], width

    def load(self, index: int, begin: int = 0, end: int | None = None) -> dict[str, Tensor]:
        assert end is not None
        return {"L": torch.full((end - begin, 3, 16, self.width), 0.5), "L_spike": torch.ones(end - begin, 2, 8, 8)}

    def place(self, clip: str, frame: str) -> tuple[str, ExposureWindow]:
        name, number = frame.split("_")
        return name, ExposureWindow(0, 16, 8).at(TIMES[int(number)])

    def exposed_spikes(self, clip: str, frame: str) -> np.ndarray:
        phases = np.arange(64).reshape(8, 8) % 4
        return (np.arange(16)[:, None, None] % 4 == phases).astype(np.uint8)


class Offset(nn.Module):
    """Adds a number to the blurred frame."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.tensor(offset))

    def forward(self, L: Tensor, L_spike: Tensor) -> Tensor:
        return L + self.offset


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that lets 30 steps be taken in 30 seconds, and a rate at which they lead somewhere."""
    clock = iter(range(1000))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(module, "LEARNING_RATE", 1e-3)


@pytest.mark.usefixtures("steps")
def test_it_learns_from_the_measurements_on_a_copy() -> None:
    network = Offset(0.04)
    result = adapt(network, Gray(), 30, CPU)
    assert float(network.offset.detach()) == pytest.approx(0.04)  # untouched
    assert not result.kept and result.network is not network and result.steps == 29
    assert result.network.get_parameter("offset").item() < 0.039
    assert result.after.reblur_psnr > result.before.reblur_psnr and "adapted weights are used" in str(result)


@pytest.mark.usefixtures("steps")
def test_the_weights_of_before_are_kept_where_the_held_out_half_gets_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(network: nn.Module, *_: Any) -> Tensor:
        return -network.get_parameter("offset")

    monkeypatch.setattr(module, "disagreement", wrong)
    network = Offset(0.01)
    result = adapt(network, Gray(), 30, CPU)
    assert result.kept and result.network is network and "weights of before are kept" in str(result)


def test_one_measurement_may_not_pay_for_the_other() -> None:
    before = HeldOut(contradiction=1e-4, reblur_psnr=40, spike_ll=-20)
    assert HeldOut(0.9e-4, 40.5, -20).agrees_more(before)
    assert not HeldOut(0.9e-4, 41, -20.1).agrees_more(before)
    assert not HeldOut(0.9e-4, 39, -19.9).agrees_more(before)
    assert not before.agrees_more(before)
    assert isinstance(str(Adaptation(nn.Identity(), True, 1, before, before)), str)


def test_crops_lie_on_whole_spike_pixels() -> None:
    (first, *_), held_out = halves(Gray(), np.random.default_rng(0))
    assert len(held_out) == 2 and first.ratio == 2
    part = first.crop(8, np.random.default_rng(0))
    assert part.measured.blurred.shape == (3, 8, 8)
    assert part.measured.spikes.shape == (16, 4, 4) and part.channels.shape == (3, 2, 4, 4)


def test_mistakes() -> None:
    with pytest.raises(UserError, match="two frames are needed"):
        halves(Gray(exposures=1), np.random.default_rng(0))
    with pytest.raises(UserError, match="whole multiple"):
        halves(Gray(width=20), np.random.default_rng(0))
