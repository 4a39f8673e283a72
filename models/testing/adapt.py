"""Fine-tunes a network that restores instants on the very clips that it is to restore, by what was measured of them.

    adaptation = adapt(network, clips, seconds=60, device=device)      # adaptation.network; the one given is unchanged

The loss is made of what `--trust` judges by (`utils/evaluation/trust.py`), on random crops:

    mean (re-blur - B)^2 + 0.07 mean excess of the spikes' squared residual, in spikes

No sharp frame is used. Every other exposure trains; those between decide: where they come to agree less with the
blurred frame or with the spikes, the weights of before are kept.
"""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from utils.evaluation.trust import (
    SPANS,
    Measured,
    Trust,
    charges,
    interpolation,
    judge,
    reblurred,
    spike_excess,
)
from utils.user_error import UserError

EXPOSURES = 6  # of each half at most: their instants are held in memory
REGION = 256  # pixels a side that are taken of each
CROP = 64  # pixels a side of a step
LEARNING_RATE = 1e-5  # a hundredth of training's: the weights are good, and the clips few
SPIKE_WEIGHT = 0.07
"""Of squared spikes, whose noise is the same at every threshold. With less, the re-blur leads away from the truth, as
light is linear between instants only nearly; with more, noise does."""

CLIP_NORM = 0.1


class InstantClips(Protocol):
    """A test set of instants (`data/dataset_video_instants.py`)."""

    times: list[float]
    spike_threshold: float

    @property
    def clips(self) -> Sequence[Any]:
        """Per clip `name` and the names of its `frames`: the instants, exposure after exposure."""

    def load(self, index: int, begin: int = 0, end: int | None = None) -> dict[str, Any]:
        """Frames [begin, end) of a clip: `L` (T,3,H,W) and `L_spike` (T,K,h,w)."""

    def place(self, clip: str, frame: str) -> tuple[str, Any]:
        """The blurred frame of an instant, and its exposure (`begin`, `end`, `center` in spike frames)."""

    def exposed_spikes(self, clip: str, frame: str) -> np.ndarray:
        """Spikes of a blurred frame's exposure, (L,h,w) uint8."""


@dataclass(frozen=True)
class Exposed:
    """A region of an exposure: what the network takes and what was measured.

    Attributes:
        channels: (N,K,h,w) spikes as seen from the instants.
        measured: the region's blurred frame and spikes.
        ratio: frame pixels per spike pixel, a whole number.
    """

    channels: Tensor
    measured: Measured
    ratio: int

    def restored(self, network: nn.Module) -> Tensor:
        """The instants, (N,3,H,W)."""
        blurred = self.measured.blurred.expand(len(self.channels), -1, -1, -1)
        result: Tensor = network(blurred[None], self.channels[None])[0].float()
        return result

    def crop(self, side: int, rng: np.random.Generator) -> "Exposed":
        """A random part of `side` frame pixels, or all where it is smaller."""
        height, width = self.channels.shape[-2:]
        rows, columns = (min(side // self.ratio, length) for length in (height, width))
        top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
        fine, coarse = (
            (slice(scale * top, scale * (top + rows)), slice(scale * left, scale * (left + columns)))
            for scale in (self.ratio, 1)
        )
        measured = self.measured
        part = Measured(
            measured.blurred[(slice(None), *fine)],
            measured.spikes[(slice(None), *coarse)],
            measured.threshold,
            measured.offsets,
        )
        return Exposed(self.channels[(slice(None), slice(None), *coarse)], part, self.ratio)

    def to(self, device: torch.device) -> "Exposed":
        """The same on a device."""
        measured = self.measured
        moved = Measured(measured.blurred.to(device), measured.spikes.to(device), measured.threshold, measured.offsets)
        return Exposed(self.channels.to(device), moved, self.ratio)


@dataclass(frozen=True)
class HeldOut:
    """Means over the exposures that decide.

    Attributes:
        contradiction: squared. reblur_psnr: in dB. spike_ll: log-likelihood of the spikes per pixel, in nats.
    """

    contradiction: float
    reblur_psnr: float
    spike_ll: float

    def agrees_more(self, other: "HeldOut") -> bool:
        """Whether pictures agree more with what was measured than `other` ones: with one more, with none less."""
        return (
            self.contradiction < other.contradiction
            and self.reblur_psnr >= other.reblur_psnr
            and self.spike_ll >= other.spike_ll - 1e-3  # rounding of the mean of thousands of pixels
        )


@dataclass(frozen=True)
class Adaptation:
    """The result.

    Attributes:
        network: with the adapted weights, or those of before.
        kept: whether the weights of before are kept.
        steps: that were taken.
        before, after: on the held-out exposures.
    """

    network: nn.Module
    kept: bool
    steps: int
    before: HeldOut
    after: HeldOut

    def __str__(self) -> str:
        verdict = "not better: the weights of before are kept" if self.kept else "better: the adapted weights are used"
        return (
            f"adapted in {self.steps} steps; held-out frames: re-blur PSNR {self.before.reblur_psnr:.2f} -> "
            f"{self.after.reblur_psnr:.2f} dB, spike log-likelihood {self.before.spike_ll:.3f} -> "
            f"{self.after.spike_ll:.3f}, contradiction {self.before.contradiction**0.5:.4f} -> "
            f"{self.after.contradiction**0.5:.4f}: {verdict}"
        )


def adapt(network: nn.Module, clips: InstantClips, seconds: float, device: torch.device, seed: int = 0) -> Adaptation:
    """Fine-tunes a copy of a network on the clips for a time.

    Args:
        network: takes (B,T,3,H,W) and (B,T,K,h,w), on `device`; left as it is.
        seconds: of training; judging comes on top.
        seed: of regions and crops.

    Raises:
        UserError: fewer than two exposures, or spikes whose pixels are no whole number of frame pixels.
    """
    rng = np.random.default_rng(seed)
    training, held_out = ([each.to(device) for each in half] for half in halves(clips, rng))
    candidate = copy.deepcopy(network).eval()
    before = judged(candidate, held_out)
    verdicts = [_verdict(candidate, each) for each in training]  # gain and camera do not move while the weights do
    optimizer = torch.optim.Adam(candidate.parameters(), lr=LEARNING_RATE)
    steps, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        index = int(rng.integers(len(training)))
        loss = disagreement(candidate, training[index].crop(CROP, rng), verdicts[index])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(candidate.parameters(), CLIP_NORM)
        optimizer.step()
        steps += 1
    after = judged(candidate, held_out)
    kept = not after.agrees_more(before)
    return Adaptation(network if kept else candidate, kept, steps, before, after)


def disagreement(network: nn.Module, exposed: Exposed, verdict: Trust) -> Tensor:
    """The loss of a crop; `verdict` says the spikes' gain and whether the frame averages linear light."""
    instants, measured = exposed.restored(network), exposed.measured
    weights = interpolation(measured.offsets, len(measured.spikes)).to(instants)  # (L,N)
    blur_error = reblurred(instants, weights, verdict.linear) - measured.blurred  # (3,H,W)
    charge = charges(instants, measured, weights, verdict.linear) * verdict.gain  # (L,h,w)
    spike = SPANS * measured.threshold / len(measured.spikes)  # light of one in a span
    return blur_error.square().mean() + SPIKE_WEIGHT * spike_excess(charge, measured).mean() / spike**2


def judged(network: nn.Module, exposures: Sequence[Exposed]) -> HeldOut:
    """Means of the verdicts on exposures."""
    verdicts = [_verdict(network, each) for each in exposures]
    rows = [(float(v.contradiction.square().mean()), v.reblur_psnr, v.spike_ll) for v in verdicts]
    return HeldOut(*np.mean(rows, axis=0).tolist())


def halves(clips: InstantClips, rng: np.random.Generator) -> tuple[list[Exposed], list[Exposed]]:
    """Regions of every other exposure, and of those between; of many exposures evenly chosen ones."""
    count = len(clips.times)
    places = [(index, k) for index, clip in enumerate(clips.clips) for k in range(len(clip.frames) // count)]
    if len(places) < 2:
        raise UserError("--adapt: two frames are needed, one to learn from and one to judge by; there is one")
    training, held_out = (
        [exposure(clips, *part[i * len(part) // number], rng) for i in range(number)]
        for part in (places[::2], places[1::2])
        for number in [min(EXPOSURES, len(part))]
    )
    return training, held_out


def exposure(clips: InstantClips, index: int, number: int, rng: np.random.Generator) -> Exposed:
    """A random region of exposure `number` of a clip."""
    clip, count = clips.clips[index], len(clips.times)
    begin = number * count
    windows = [clips.place(clip.name, name) for name in clip.frames[begin : begin + count]]
    frame = windows[0][0]
    # Short exposures have fewer spike frames than instants were asked for.
    offsets = {window.center - window.begin: place for place, (_, window) in enumerate(windows)}
    if len(offsets) < 2:
        raise UserError(f"--adapt: {clip.name}/{frame}: an exposure of one spike frame has no instants")
    sample = clips.load(index, begin, begin + count)
    spikes = torch.from_numpy(clips.exposed_spikes(clip.name, frame)).float()
    ratio, rest = divmod(sample["L"].shape[-1], spikes.shape[-1])
    if rest or sample["L"].shape[-2] != ratio * spikes.shape[-2]:
        raise UserError("--adapt: the frame's size has to be a whole multiple of the spike picture's")
    channels = sample["L_spike"][[offsets[offset] for offset in sorted(offsets)]]
    measured = Measured(sample["L"][0], spikes, clips.spike_threshold, sorted(offsets))
    return Exposed(channels, measured, ratio).crop(REGION, rng)


def _verdict(network: nn.Module, exposed: Exposed) -> Trust:
    with torch.no_grad():
        return judge(exposed.restored(network).clamp(0, 1), exposed.measured)
