"""Consistency of an exposure's restored instants with its measurements: the blurred frame and the spikes.

    re-blur    the mean of the instants over the exposure, against the blurred frame B
    spikes     the rates between the spikes (`utils/charge.py`) at `MOMENTS`, against those of the spikes that a pixel
               would fire in the light of the instants

Light is assumed to be linear between instants. The charge at the exposure's beginning is unknown: spikes are simulated
with `PHASES` of it, and the variance over them is what any picture's rates differ by; a greater residual contradicts
the picture. Neither comparison needs the sharp frame. Both miss errors that change neither frame nor spikes, such as
detail that is finer than a spike pixel and lost in the blur.

Cameras average stored values or linear light; the one with the better fit is used. The spikes' gain, which depends on
the threshold, is fitted for each frame.

    D^2 = mean over colours of (re-blur - B)^2 + 1/3 (excess of the rates' squared residual, as light)

Legend: N instants, L spike frames of the exposure, H, W of the frame, h, w of the sensor.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.charge import interpolated_rates

LUMA = (0.299, 0.587, 0.114)  # BT.601, of stored values
LUMINANCE = (0.2126, 0.7152, 0.0722)  # of linear light, IEC 61966-2-1
SPIKE_SHARE = 1 / 3  # one gray residual beside the mean of three colours'
NEIGHBOURHOOD = 9  # side in pixels of the square over which contradictions are averaged, as single counts are noisy
SPANS = 2  # of the exposure; shorter ones have too few spikes, and the whole exposure has no timing
MOMENTS = 5  # of the exposure, from its first spike frame to its last
# Standard deviation of the Gaussians over rates at the moments: half of the distance of neighbours, as a share of the
# exposure; below the least one, in frames, rates of few spikes have no more than their noise.
MOMENT_WIDTH, LEAST_WIDTH = 1 / 8, 3.0
PHASES = 4  # initial charges, equidistant
PAINTED = 0.06  # D from which a pixel is said to contradict; restorations of simulated clips stay below
PEAK = 10 * math.log10(255**2 * 12)  # dB, of pictures that differ only by rounding to 8 bits
CERTAIN = 1e-3  # least probability of a spike and of none: with noise, neither is impossible


@dataclass(frozen=True)
class Measured:
    """Measurements of an exposure, and the times of the restored instants.

    Attributes:
        blurred: (3,H,W) in [0,1].
        spikes: (L,h,w) of 0 and 1, the exposure's.
        threshold: the spike camera's.
        offsets: spike frames of the N instants, from the exposure's first; ascending from 0 to L - 1.
    """

    blurred: Tensor
    spikes: Tensor
    threshold: float
    offsets: Sequence[int]


@dataclass(frozen=True)
class Trust:
    """The verdict on one exposure.

    Attributes:
        contradiction: (H,W) D, in units of light, 1 is white.
        reblur_psnr: PSNR of the re-blurred instants against the blurred frame, in dB.
        spike_ll: log-likelihood of the spikes per pixel in nats, given the light of the instants.
        rate_ll: the same, given the spikes' own rate, a Gaussian's at every spike frame.
        gain: ratio of spikes to the charge from the pictures; 1 if the threshold is correct.
        linear: whether the blurred frame averages linear light.
    """

    contradiction: Tensor
    reblur_psnr: float
    spike_ll: float
    rate_ll: float
    gain: float
    linear: bool

    @property
    def painted(self) -> float:
        """Share of the pixels that contradict the measurement."""
        return float((self.contradiction > PAINTED).float().mean())


def judge(instants: Tensor, measured: Measured) -> Trust:
    """The verdict on restored instants (N,3,H,W) in [0,1]."""
    return min((_judge(instants, measured, linear) for linear in (False, True)), key=_disagreement)


def _disagreement(trust: Trust) -> float:
    return float(trust.contradiction.square().mean())


def _judge(instants: Tensor, measured: Measured, linear: bool) -> Trust:
    weights = interpolation(measured.offsets, len(measured.spikes)).to(instants)  # (L,N)
    blur_error = reblurred(instants, weights, linear) - measured.blurred  # (3,H,W)
    charge = charges(instants, measured, weights, linear)  # (L,h,w)
    gain = fitted_gain(charge, measured.spikes)
    square = blur_error.square().mean(0, keepdim=True)  # (1,H,W)
    excess = F.interpolate(
        rate_excess(charge * gain, measured)[None, None], square.shape[1:], mode="bilinear", align_corners=False
    )[0]  # (1,H,W)
    contradiction = (_mean_around(square) + SPIKE_SHARE * _mean_around(excess).clamp(min=0)).sqrt()[0]
    mse = float(square.mean())
    return Trust(
        contradiction=contradiction,
        reblur_psnr=PEAK if mse == 0 else min(PEAK, -10 * math.log10(mse)),
        spike_ll=log_likelihood(charge * gain, measured.spikes),
        rate_ll=log_likelihood(own_rate(measured.spikes), measured.spikes),
        gain=gain,
        linear=linear,
    )


def interpolation(offsets: Sequence[int], length: int) -> Tensor:
    """Weights (L,N) of the instants' light in that of every spike frame, linear between instants."""
    times = torch.tensor(offsets, dtype=torch.float64)
    clock = torch.arange(length, dtype=torch.float64)
    after = torch.searchsorted(times, clock).clamp(1, len(times) - 1)  # (L,)
    share = ((clock - times[after - 1]) / (times[after] - times[after - 1])).clamp(0, 1)
    weights = torch.zeros(length, len(times), dtype=torch.float64)
    weights.scatter_(1, after[:, None] - 1, (1 - share)[:, None])
    return weights.scatter_(1, after[:, None], share[:, None]).float()


def reblurred(instants: Tensor, weights: Tensor, linear: bool) -> Tensor:
    """The blurred frame of the instants: (N,3,H,W) and weights (L,N) to (3,H,W)."""
    share = weights.mean(0)[:, None, None, None]  # (N,1,1,1)
    if not linear:
        return (instants * share).sum(0)
    return to_stored((to_light(instants) * share).sum(0))


def charges(instants: Tensor, measured: Measured, weights: Tensor, linear: bool) -> Tensor:
    """Charge per spike frame in units of the threshold: (N,3,H,W) to (L,h,w)."""
    colours = torch.tensor(LUMINANCE if linear else LUMA).to(instants)[:, None, None]
    light = ((to_light(instants) if linear else instants) * colours).sum(1)  # (N,H,W)
    height, width = measured.spikes.shape[1:]
    sensed = F.adaptive_avg_pool2d(light, (height, width))  # (N,h,w)
    result: Tensor = torch.tensordot(weights, sensed, 1) / measured.threshold  # (L,h,w)
    return result


def fitted_gain(charge: Tensor, spikes: Tensor) -> float:
    """Ratio of spikes to charge; 1 without charge."""
    total = float(charge.sum())
    return float(spikes.sum()) / total if total > 0 else 1.0


def rate_excess(charge: Tensor, measured: Measured) -> Tensor:
    """Squared difference of the rates of recorded and simulated spikes minus its variance, as squared light (h,w)."""
    length = len(charge)
    moments = torch.linspace(0, length - 1, MOMENTS, device=charge.device)
    weights = _gaussians(moments, length, max(LEAST_WIDTH, MOMENT_WIDTH * length))  # (M,L)
    recorded = torch.tensordot(weights, interpolated_rates(measured.spikes), 1)  # (M,h,w)
    total = charge.cumsum(0)  # (L,h,w)
    phases = [(phase + 0.5) / PHASES for phase in range(PHASES)]
    counts = [(total + phase).floor() for phase in phases]  # (L,h,w)
    fired = [count.diff(dim=0, prepend=torch.zeros_like(count[:1])) for count in counts]  # (L,h,w)
    # (PHASES,M,h,w)
    rates = torch.stack([torch.tensordot(weights, interpolated_rates(spikes), 1) for spikes in fired])
    # The recorded rates vary as each of the simulated ones, and so does, less, the mean of these.
    variance = rates.var(0) * (1 + 1 / PHASES)  # (M,h,w)
    excess: Tensor = ((recorded - rates.mean(0)).square() - variance).mean(0)  # (h,w)
    return excess * measured.threshold**2


def spike_excess(charge: Tensor, measured: Measured) -> Tensor:
    """Squared difference of spans' counts and charges minus its expected variance, as squared light (h,w).

    Less sensitive than `rate_excess`, but differentiable by the charge: a part of the loss of models/testing/adapt.py.
    A pixel that integrates a charge of c thresholds, from an unknown initial charge, fires floor(c) or floor(c) + 1
    times, with a variance of f (1 - f), f = c - floor(c).
    """
    length = len(charge)
    bounds = [round(part * length / (2 * SPANS)) for part in range(2 * SPANS + 1)]
    excess = []
    for first, last in zip(bounds, bounds[2:], strict=False):  # half of each span is the next one's
        expected, counted = charge[first:last].sum(0), measured.spikes[first:last].sum(0)  # (h,w)
        remainder = expected.detach() % 1
        unit = measured.threshold / (last - first)  # light of one spike
        excess.append(((counted - expected).square() - remainder * (1 - remainder)) * unit**2)
    return torch.stack(excess).mean(0)


def own_rate(spikes: Tensor, sigma: float = 5.0) -> Tensor:
    """Probability of a spike in every spike frame, the rate with Gaussian weights, (L,h,w)."""
    moments = torch.arange(len(spikes), dtype=torch.float32, device=spikes.device)
    result: Tensor = torch.tensordot(_gaussians(moments, len(spikes), sigma), spikes.float(), 1)
    return result


def _gaussians(moments: Tensor, length: int, sigma: float) -> Tensor:
    """(M,L) weights of the spike frames around moments (M,), each row of sum 1."""
    clock = torch.arange(length, dtype=torch.float32, device=moments.device)
    weights = torch.exp(-((moments[:, None] - clock) ** 2) / (2 * sigma**2))
    return weights / weights.sum(1, keepdim=True)


def log_likelihood(charge: Tensor, spikes: Tensor) -> float:
    """Log-likelihood of spikes (L,h,w), whose probabilities are `charge`; per pixel, in nats."""
    probability = charge.clamp(CERTAIN, 1 - CERTAIN)
    fired = spikes.to(torch.bool)
    return float(torch.where(fired, probability, 1 - probability).log().sum(0).mean())


def to_light(stored: Tensor) -> Tensor:
    """Linear light of sRGB values in [0,1] (IEC 61966-2-1)."""
    return torch.where(stored <= 0.04045, stored / 12.92, ((stored + 0.055) / 1.055).clamp(min=1e-6) ** 2.4)


def to_stored(light: Tensor) -> Tensor:
    """sRGB values of linear light in [0,1], the inverse of `to_light`."""
    return torch.where(light <= 0.0031308, light * 12.92, 1.055 * light.clamp(min=1e-6) ** (1 / 2.4) - 0.055)


def _mean_around(plane: Tensor) -> Tensor:
    """(1,H,W) averaged over `NEIGHBOURHOOD`."""
    return F.avg_pool2d(plane, NEIGHBOURHOOD, 1, NEIGHBOURHOOD // 2, count_include_pad=False)
