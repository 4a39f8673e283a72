"""Firing rate of each pixel at many instants of a stream: the methods of reconstruct.py.

A method reads the stream in blocks and yields the rate at one instant after another. It updates sums and spike times
from frame to frame, so the rates at all frames take little longer than reading the stream. All sums are integers:
results are equal on all machines and independent of crop, flip and the other instants of a call (plasticity's, which
are computed with exponentials, on machines with the same exponential function).

To add a method, write a class with `rates`; for the commands, add it to `reconstruct.METHODS`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from data.spike.frame_sums import GAUSSIAN_REACH, gaussian_support, gaussian_weights
from data.spike.weighted_rates import rates_support, weighted_rate_planes
from utils.spike_interval import doubled_spikes_and_time
from utils.user_error import UserError

Blocks = Callable[[int, int], Tensor]
"""From frames [begin, end) to their spikes, (end - begin, h, w) uint8."""

BLOCK = 64
"""Longest span of instants, in frames, decoded together: bounds the memory, and the frames read twice are few."""

FARTHEST = 2**13
"""Greatest reach of an interval: ages of spikes, up to about 3 times as large, must fit into int16."""


class RateMethod(ABC):
    """Estimates firing rates."""

    @abstractmethod
    def rates(self, blocks: Blocks, length: int, times: Sequence[int]) -> Iterator[Tensor]:
        """The firing rate at each of `times` (frames in [0, length)), (h, w) float32 in [0, 1]."""


class LocalMethod(RateMethod):
    """A method that reads only the frames around an instant."""

    @abstractmethod
    def support(self, time: int, length: int) -> tuple[int, int]:
        """Frames [begin, end) that the rate at `time` depends on; both bounds never decrease with `time`."""

    @abstractmethod
    def block_rates(self, spikes: Tensor, times: Sequence[int]) -> Iterator[Tensor]:
        """Rates at ascending `times`, counted from the block's first frame; `spikes` are the frames of all supports."""

    def rates(self, blocks: Blocks, length: int, times: Sequence[int]) -> Iterator[Tensor]:
        for group in _ascending_groups(times):
            begin, end = self.support(group[0], length)[0], self.support(group[-1], length)[1]
            yield from self.block_rates(blocks(begin, end), [time - begin for time in group])


def _ascending_groups(times: Sequence[int]) -> Iterator[list[int]]:
    """`times` split into ascending groups that span at most BLOCK frames."""
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
    """Number of spikes in `length` frames around an instant / number of frames: texture from playback (TFP)."""

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
    """The k-interval (`utils/spike_interval.py`).

    Attributes:
        order: k.
        reach: frames searched on each side.
    """

    order: int = 2
    reach: int = 64

    def __post_init__(self) -> None:
        _at_least("interval: order", self.order, 1)
        _at_least("interval: reach", self.reach, 1)
        if self.reach > FARTHEST:
            raise UserError(f"interval: reach is {self.reach}; at most {FARTHEST} frames are possible")

    def support(self, time: int, length: int) -> tuple[int, int]:
        return max(0, time - self.reach), min(length, time + self.reach)

    def block_rates(self, spikes: Tensor, times: Sequence[int]) -> Iterator[Tensor]:
        length = len(spikes)
        # The spikes after an instant are those before it in the time-reversed stream.
        after = list(self._before(spikes.flip(0), [length - time for time in reversed(times)]))[::-1]
        for (spikes_after, time_after), (spikes_before, time_before) in zip(
            after, self._before(spikes, times), strict=True
        ):
            yield (spikes_after + spikes_before).float() / (time_after + time_before).float()

    def _before(self, spikes: Tensor, times: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """`doubled_spikes_and_time` of the side before each of the ascending `times`, (h, w) int16."""
        # Selections are computed by products and maxima, in a thirtieth of the time of masked assignments.
        start = max(0, times[0] - self.reach)
        recent = spikes.new_full((self.order, *spikes.shape[1:]), -2 * FARTHEST, dtype=torch.int16)
        frame = start
        for time in times:
            while frame < time:
                fired = spikes[frame].to(torch.int16)
                for index in range(self.order - 1, 0, -1):
                    recent[index] += fired * (recent[index - 1] - recent[index])
                # Frames are numbered from 1, so that 0 means no spike in this frame.
                torch.maximum(recent[0], fired * (frame - start + 1) - (1 - fired) * 2 * FARTHEST, out=recent[0])
                frame += 1
            looked_at = min(self.reach, time)
            passed = (time - start) - recent  # (k, h, w), frames since each spike; 0 for the frame just before
            within = (looked_at - passed).clamp_(0, 1)  # (k, h, w), 1 for spikes within reach
            seen = within[0].clone()
            for index in range(1, self.order):
                seen += within[index]
            yield doubled_spikes_and_time(seen, within[-1], passed[-1], looked_at)


@dataclass(frozen=True)
class IntervalRate(KIntervalRate):
    """The inverse of the interval between the last spike and the next: texture from interval (TFI)."""

    order: int = field(default=1, init=False)
    reach: int = 256


@dataclass(frozen=True)
class GaussianRate(LocalMethod):
    """Mean of the frames with Gaussian weights of width `sigma` frames, cut at 4 sigma."""

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
            # Exact, as the sums are integers up to 2^24 in float32; a matrix product may be computed in TF32.
            for weight, frame in zip(weights.tolist(), spikes[begin:end], strict=True):
                total.add_(frame, alpha=weight)
            yield total * float(np.float32(1 / weights.sum(dtype=np.float64)))


@dataclass(frozen=True)
class ChargeRate(LocalMethod):
    """Gaussian mean of the rates between spikes (`utils/charge.py`): as sharp as `GaussianRate`, with less noise.

    Attributes:
        sigma: of the Gaussian, in frames, cut at 4 sigma.
        reach: longest interval, in frames; longer ones have the rate 0.
    """

    sigma: float = 4.0
    reach: int = 512

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf:
            raise UserError(f"charge: sigma is {self.sigma}; more than 0 frames are needed")
        _at_least("charge: reach", self.reach, 1)
        farthest = FARTHEST - BLOCK  # so that times in a block fit into int16
        if math.ceil(GAUSSIAN_REACH * self.sigma) + self.reach > farthest:
            raise UserError(
                f"charge: sigma is {self.sigma} and reach {self.reach}; {GAUSSIAN_REACH:g} * sigma + reach is at most "
                f"{farthest} frames"
            )

    def support(self, time: int, length: int) -> tuple[int, int]:
        return rates_support(*gaussian_support(time, self.sigma, length), self.reach, length)

    def block_rates(self, spikes: Tensor, times: Sequence[int]) -> Iterator[Tensor]:
        begin = gaussian_support(times[0], self.sigma, len(spikes))[0]
        end = gaussian_support(times[-1], self.sigma, len(spikes))[1]
        weights = np.zeros((len(times), end - begin), np.float32)
        for row, time in zip(weights, times, strict=True):
            first, last = gaussian_support(time, self.sigma, len(spikes))
            row[first - begin : last - begin] = gaussian_weights(time, self.sigma, first, last)
        sums = weighted_rate_planes(spikes, weights, begin, self.reach)  # (N, h, w)
        for total, rate in zip(weights.sum(1, dtype=np.float64).tolist(), sums, strict=True):
            yield rate / total


@dataclass(frozen=True)
class PlasticityRate(RateMethod):
    """Short-term plasticity (TFSTP): the constant firing rate whose steady state is the synapse's present state.

    Each pixel drives a synapse with resources R and release probability u. At a spike, dt frames after the last one,

        R <- 1 - [1 - R (1 - u)] exp(-dt / D)                 (Zheng et al., "High-speed image reconstruction
        u <- u0 + [u + f (1 - u) - u0] exp(-dt / F)            through short-term plasticity", CVPR 2021)

    At a constant rate r both converge, and either limit determines r:

        r_u = -1 / (F ln[(u - u0) / (u + f (1 - u) - u0)]),   r_R = -1 / (D ln[(1 - R) / (1 - R (1 - u))])

    The result is their mean: r_R depends on the last interval, r_u on about F frames. The state of a pixel that has not
    fired for `memory` frames is reset: its rate is 0, and its next spike only starts an interval. So the state depends
    on some hundred frames, not on the stream's beginning. (SpikeCV counts the first interval from the beginning, has F
    instead of f in the denominator of r_u, adds the two rates and stretches the histogram, which removes brightness.)

    Attributes:
        u0, f: release probability at rest, and its gain per spike.
        D, F: recovery times of R and u, in frames. The defaults of all four are SpikeCV's for reconstruction.
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
        """Frames to read before an instant so that, within float64, its state is independent of the first frame read.

        A pixel's first interval, of up to `memory` frames, is unknown; its effect decays with F and D while the pixel
        fires, and the last spike may be up to `memory` frames before the instant.
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
    """State of `PlasticityRate` in float64: 1 - R and u - u0, stored as differences since both approach 0."""

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
