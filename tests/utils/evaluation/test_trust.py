"""Trust: what agrees with blurred frame and spikes is left alone, a pasted object is painted; exact numbers."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from data.spike.simulation.simulate import ExposedFrame, Exposure, expose
from utils.evaluation.trust import (
    PEAK,
    Measured,
    charges,
    interpolation,
    judge,
    log_likelihood,
    rate_excess,
    reblurred,
    spike_excess,
    to_light,
    to_stored,
)
from utils.evaluation.trust_meter import painted

LENGTH, SIDE = 49, 48


class Scene(NamedTuple):
    """Sharp pictures (N,3,H,W) and what was measured while they passed."""

    sharp: Tensor
    measured: Measured


def scene(light: str = "srgb", threshold: float = 2.0, told: float | None = None) -> Scene:
    """Smooth stripes that move by 6 pixels during an exposure; nine instants."""
    x = np.arange(SIDE)
    frames = []
    for tick in range(57):
        wave = 0.5 + 0.3 * np.sin((x[None] + x[:, None] / 2 - tick / 8) / 4)
        frames.append(np.repeat((255 * wave)[..., None], 3, 2).round().astype(np.uint8))
    (frame,) = expose(
        frames,
        Exposure(7, 7),
        threshold=threshold,
        start=np.random.default_rng(0),
        light="linear" if light == "linear" else "srgb",
        instants=9,
    )
    return Scene(planes(frame), Measured(blurred(frame), spikes(frame), told or threshold, list(frame.instants)))


def planes(frame: ExposedFrame) -> Tensor:
    return torch.from_numpy(np.stack(list(frame.instants.values()))).permute(0, 3, 1, 2).float() / 255


def blurred(frame: ExposedFrame) -> Tensor:
    return torch.from_numpy(frame.blurred).permute(2, 0, 1).float() / 255


def spikes(frame: ExposedFrame) -> Tensor:
    return torch.from_numpy(frame.spikes[:LENGTH]).float()


@pytest.mark.parametrize("light", ["srgb", "linear"])
def test_the_truth_does_not_contradict(light: str) -> None:
    sharp, measured = scene(light)
    trust = judge(sharp, measured)
    assert trust.painted == 0 and trust.reblur_psnr > 45 and trust.linear == (light == "linear")
    assert trust.gain == pytest.approx(1, abs=0.02)
    still = judge(measured.blurred.expand_as(sharp), measured)
    # A film of blurred frames blurs to the frame, but the spikes have seen more.
    assert still.reblur_psnr == PEAK or light == "linear"
    assert still.spike_ll < trust.spike_ll
    assert still.contradiction.square().mean() > 2 * trust.contradiction.square().mean()


def test_a_pasted_object_is_painted() -> None:
    sharp, measured = scene()
    pasted = sharp.clone()
    pasted[:, :, 16:32, 16:32] = torch.tensor([0.9, 0.2, 0.1])[:, None, None]
    contradiction = judge(pasted, measured).contradiction
    picture = painted(np.full((SIDE, SIDE, 3), 100, np.uint8), contradiction.numpy())
    coloured = picture[..., 0] != picture[..., 2]
    assert coloured[16:32, 16:32].all()
    coloured[11:37, 11:37] = False  # the neighbourhood
    assert not coloured.any()


def test_what_blurs_away_is_seen_by_the_spikes_alone() -> None:
    """An object of the right mean at the wrong time: twice as bright in the first half, dark in the second."""
    sharp, measured = scene()
    wrong, box = sharp.clone(), (slice(None), slice(16, 32), slice(16, 32))
    mean = reblurred(sharp, interpolation(measured.offsets, LENGTH), linear=False)[box]
    wrong[:4, :, 16:32, 16:32], wrong[5:, :, 16:32, 16:32] = (mean * 1.6).clamp(max=1), mean * 0.4
    trust = judge(wrong, measured)
    assert (trust.contradiction[18:30, 18:30] > 0.06).float().mean() > 0.9


def test_a_wrong_threshold_is_a_gain() -> None:
    told = scene(threshold=2.0, told=4.0)
    assert judge(*told).gain == pytest.approx(2, rel=0.02)
    assert judge(*told).painted == 0


def test_interpolation() -> None:
    weights = interpolation([0, 2, 5], 6)
    assert torch.allclose(weights.sum(1), torch.ones(6))
    assert torch.equal(weights[[0, 2, 5]], torch.eye(3))
    assert weights[1].tolist() == [0.5, 0.5, 0] and weights[3].tolist() == pytest.approx([0, 2 / 3, 1 / 3])


def test_charges_spans_and_likelihood() -> None:
    # Light of 0.5 at a threshold of 2: a spike every 4 frames, whatever the pixel began with.
    instants, spikes = torch.full((2, 3, 4, 4), 0.5), torch.zeros(16, 2, 2)
    for place, phase in enumerate(range(4)):
        spikes[phase::4, place // 2, place % 2] = 1
    measured = Measured(instants[0], spikes, 2.0, [0, 15])
    charge = charges(instants, measured, interpolation([0, 15], 16), linear=False)
    assert torch.allclose(charge, torch.full((16, 2, 2), 0.25))
    assert torch.allclose(spike_excess(charge, measured), torch.zeros(2, 2), atol=1e-6)
    assert torch.allclose(spike_excess(2 * charge, measured), torch.full((2, 2), 0.25), atol=1e-6)  # twice 0.5
    # At a constant light, the rate between spikes is the light's, whatever the phase.
    assert torch.allclose(rate_excess(charge, measured), torch.zeros(2, 2), atol=1e-4)
    assert torch.allclose(rate_excess(2 * charge, measured), torch.full((2, 2), 0.25), atol=0.02)
    expected = 4 * np.log(0.25) + 12 * np.log(0.75)
    assert log_likelihood(charge, spikes) == pytest.approx(expected, rel=1e-5)


def test_the_curve_of_stored_values() -> None:
    values = torch.linspace(0, 1, 256)
    assert torch.allclose(to_stored(to_light(values)), values, atol=1e-5)
