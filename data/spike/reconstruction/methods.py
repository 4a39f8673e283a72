"""Firing rate of each pixel at many instants of a stream at once: the methods behind reconstruct.py.

A method is given access to the stream by blocks and gives the rate at one moment after another. Sums and spike times
are carried from frame to frame, so that all frames of a stream cost little more than reading it. All sums are integers:
results are the same on every machine and do not depend on crop, flip, or the moments asked for together (those of
plasticity, which takes exponentials, on machines that compute these alike).

A further method is a class with `rates`; to let the commands use it, add it to `reconstruct.METHODS`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from data.spike.frame_sums import gaussian_support, gaussian_weights
from utils.user_error import UserError

Blocks = Callable[[int, int], Tensor]
"""From frames [begin, end) to their spikes, (end - begin, h, w) uint8."""

BLOCK = 64
"""Moments whose frames are decoded and held together, at most."""

FARTHEST = 2**13
"""Reach of an interval, at most: ages of spikes are int16."""


class RateMethod(ABC):
    """Estimates firing rates."""

    @abstractmethod
    def rates(self, blocks: Blocks, length: int, times: Sequence[int]) -> Iterator[Tensor]:
        """The firing rate at each of `times` (frames in [0, length)), (h, w) float32 in [0, 1]."""


class LocalMethod(RateMethod):
    """A method that looks at the frames around a moment only."""

    @abstractmethod
    def support(self, time: int, length: int) -> tuple[int, int]:
        """Frames [begin, end) that the rate at `time` depends on; neither decreases with `time`."""

    @abstractmethod
    def block_rates(self, spikes: Tensor, times: Sequence[int]) -> Iterator[Tensor]:
        """Rates at ascending `times`, counted from the block's first frame; `spikes` are the frames of all supports."""

    def rates(self, blocks: Blocks, length: int, times: Sequence[int]) -> Iterator[Tensor]:
        for group in _ascending_groups(times):
            begin, end = self.support(group[0], length)[0], self.support(group[-1], length)[1]
            yield from self.block_rates(blocks(begin, end), [time - begin for time in group])


def _ascending_groups(times: Sequence[int]) -> Iterator[list[int]]:
    """`times` cut where they do not ascend or spread over more than BLOCK frames."""
    group: list[int] = []
    for time in times:
        if group and not (group[-1] <= time < group[0] + BLOCK):
            yield group
            group = []
        group.append(time)
    if group:
        yield group


@dataclass(frozen=True)
class WindowRate(LocalMethod):
    """Spikes in `length` frames around a moment, over their number: texture from playback (TFP)."""

    length: int = 41

    def __post_init__(self) -> None:
        _at_least("window: length", self.length, 1)

    def support(self, time: int, length: int) -> tuple[int, int]:
        begin = time - self.length // 2
        return max(0, begin), min(length, begin + self.length)

    def block_rates(self, spikes: Tensor, times: Sequence[int]) -> Iterator[Tensor]:
        begin = end = 0
        count = torch.zeros(spikes.shape[1:], dtype=torch.int32, device=spikes.device)
        for time in times:
            first, last = self.support(time, len(spikes))
            while end < last:
                count += spikes[end]
                end += 1
            while begin < first:
                count -= spikes[begin]
                begin += 1
            yield count.float() / (last - first)


@dataclass(frozen=True)
class KIntervalRate(LocalMethod):
    """The k-interval, as data/spike/frame_sums.py states it.

    Attributes:
        order: k.
        reach: frames looked at on either side.
    """

    order: int = 2
    reach: int = 64

    def __post_init__(self) -> None:
        _at_least("interval: order", self.order, 1)
        _at_least("interval: reach", self.reach, 1)
        if self.reach > FARTHEST:
            raise UserError(f"interval: reach is {self.reach}; at most {FARTHEST} frames can be looked at")

    def support(self, time: int, length: int) -> tuple[int, int]:
        return max(0, time - self.reach), min(length, time + self.reach)

    def block_rates(self, spikes: Tensor, times: Sequence[int]) -> Iterator[Tensor]:
        length = len(spikes)
        # Played backwards, what follows a moment becomes what precedes it.
        after = list(self._before(spikes.flip(0), [length - time for time in reversed(times)]))[::-1]
        for (spikes_after, time_after), (spikes_before, time_before) in zip(
            after, self._before(spikes, times), strict=True
        ):
            yield (spikes_after + spikes_before).float() / (time_after + time_before).float()

    def _before(self, spikes: Tensor, times: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """Twice the spikes and twice the time of the side before each of the ascending `times`, (h, w) int16."""
        # Choices are written as products and maxima, which take a thirtieth of the time of a masked assignment.
        start = max(0, times[0] - self.reach)
        recent = spikes.new_full((self.order, *spikes.shape[1:]), -2 * FARTHEST, dtype=torch.int16)
        frame = start
        for time in times:
            while frame < time:
                fired = spikes[frame].to(torch.int16)
                for index in range(self.order - 1, 0, -1):
                    recent[index] += fired * (recent[index - 1] - recent[index])
                # Frame numbers begin at 1, so that 0 stands for no spike in this frame.
                torch.maximum(recent[0], fired * (frame - start + 1) - (1 - fired) * 2 * FARTHEST, out=recent[0])
                frame += 1
            looked_at = min(self.reach, time)
            ages = (time - start + 1) - recent  # 1 for the frame just before
            within = (looked_at + 1 - ages).clamp_(0, 1)
            count, full = within[0].clone(), within[-1]
            for index in range(1, self.order):
                count += within[index]
            yield 2 * count - full, 2 * looked_at + full * (2 * ages[-1] - 1 - 2 * looked_at)


@dataclass(frozen=True)
class IntervalRate(KIntervalRate):
    """The inverse of the interval between the last spike and the next: texture from interval (TFI)."""

    order: int = field(default=1, init=False)
    reach: int = 256


@dataclass(frozen=True)
class GaussianRate(LocalMethod):
    """Mean of the frames under a Gaussian of `sigma` frames, cut at 4 sigma."""

    sigma: float = 6.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf:
            raise UserError(f"gaussian: sigma is {self.sigma}; more than 0 frames are needed")

    def support(self, time: int, length: int) -> tuple[int, int]:
        return gaussian_support(time, self.sigma, length)

    def block_rates(self, spikes: Tensor, times: Sequence[int]) -> Iterator[Tensor]:
        for time in times:
            begin, end = self.support(time, len(spikes))
            weights = gaussian_weights(time, self.sigma, begin, end)
            total = torch.zeros(spikes.shape[1:], device=spikes.device)
            # Exact: integers up to 2^24 in float32. A matrix product may be computed in TF32, which is not.
            for weight, frame in zip(weights.tolist(), spikes[begin:end], strict=True):
                total.add_(frame, alpha=weight)
            yield total * float(np.float32(1 / weights.sum(dtype=np.float64)))


@dataclass(frozen=True)
class PlasticityRate(RateMethod):
    """Short-term plasticity (TFSTP): the rate at which the synapse model would be at rest in its present state.

    Each pixel drives a synapse with resources R and release probability u. At a spike, dt frames after the last one,

        R <- 1 - [1 - R (1 - u)] exp(-dt / D)                 (Zheng et al., "High-speed image reconstruction
        u <- u0 + [u + f (1 - u) - u0] exp(-dt / F)            through short-term plasticity", CVPR 2021)

    At a constant rate r both come to rest, and each can be solved for r:

        r_u = -1 / (F ln[(u - u0) / (u + f (1 - u) - u0)]),   r_R = -1 / (D ln[(1 - R) / (1 - R (1 - u))])

    The result is their mean: r_R follows the last interval, r_u the last F frames. A pixel that has not fired for
    `memory` frames is forgotten: it reads 0, and its next spike only starts the clock. So the state depends on some
    hundred frames and not on the stream's beginning. (SpikeCV counts the first interval from there, has F in place of
    f in the denominator of r_u, adds the two rates and stretches the histogram, so that it shows no brightness.)

    Attributes:
        u0, f: release probability at rest, and its gain per spike.
        D, F: recovery times of R and u, in frames. Defaults: SpikeCV's for reconstruction.
        memory: longest interval between spikes, in frames.
    """

    u0: float = 0.15
    f: float = 0.15
    D: float = 1.0
    F: float = 10.0
    memory: int = 256

    def __post_init__(self) -> None:
        if not (0 < self.u0 < 1 and 0 < self.f < 1 and 0 < self.D < math.inf and 0 < self.F < math.inf):
            raise UserError(f"{self}: u0 and f in (0, 1) and D and F above 0 frames are needed")
        _at_least("plasticity: memory", self.memory, 1)

    @property
    def settling(self) -> int:
        """Frames before a moment after which the state no longer depends on where reading began, to float64.

        A pixel's first interval, of up to `memory` frames, is missed; what it would have left decays with F and D
        while the pixel fires, and the last spike may lie up to `memory` frames back.
        """
        return 2 * self.memory + math.ceil(40 * max(self.D, self.F))

    def rates(self, blocks: Blocks, length: int, times: Sequence[int]) -> Iterator[Tensor]:
        frame, state = 0, None
        for time in times:
            if state is None or not frame - 1 <= time <= frame + self.settling:
                begin = frame = max(0, time - self.settling)
                spikes = blocks(begin, min(begin + BLOCK, length))
                state = _Synapse(self, spikes[0])
            while frame <= time:
                if frame - begin == len(spikes):
                    begin, spikes = frame, blocks(frame, min(frame + BLOCK, length))
                state.update(spikes[frame - begin].bool())
                frame += 1
            yield state.rate()


class _Synapse:
    """State of `PlasticityRate` in float64: 1 - R and u - u0, since both come close to 0."""

    def __init__(self, model: PlasticityRate, like: Tensor) -> None:
        self.model = model
        self.used = torch.zeros(like.shape, dtype=torch.float64, device=like.device)
        self.excess = torch.zeros_like(self.used)
        self.last_rate = torch.zeros_like(self.used)
        self.waited = torch.full_like(self.used, model.memory)

    def update(self, fired: Tensor) -> None:
        """One frame, (h, w) bool."""
        model = self.model
        self.waited += 1
        where = fired.flatten().nonzero()[:, 0]
        waited, used, excess = (state.take(where) for state in (self.waited, self.used, self.excess))
        known = waited <= model.memory
        u = model.u0 + excess
        used = (u + used * (1 - u)) * torch.exp(-waited / model.D)
        excess = (excess + model.f * (1 - u)) * torch.exp(-waited / model.F)
        u = model.u0 + excess
        by_release = -1 / (model.F * torch.log(excess / (excess + model.f * (1 - u))))
        by_resources = -1 / (model.D * torch.log(used / (u + used * (1 - u))))
        self.used.put_(where, used * known)
        self.excess.put_(where, excess * known)
        self.last_rate.put_(where, ((by_release + by_resources) / 2).clamp_(0, 1) * known)
        self.waited.put_(where, torch.zeros_like(waited))

    def rate(self) -> Tensor:
        """(h, w) float32."""
        return (self.last_rate * (self.waited <= self.model.memory)).float()


def _at_least(what: str, value: int, minimum: int) -> None:
    if value < minimum:
        raise UserError(f"{what} is {value}; at least {minimum} is needed")
