"""Pictures from spikes without training: window, interval, k-interval, Gaussian, charge, short-term plasticity.

    from data.spike.reconstruction.reconstruct import gaussian, k_interval
    picture = k_interval(stream, t=40, threshold=2.0)         # (h, w) float32 in [0, 1]
    video = gaussian(spikes, threshold=2.0)                   # all T frames, (T, h, w)

    window       number of spikes in `length` frames around t / length               texture from playback, TFP
    interval     1 / (time from the last spike to the next)                          texture from interval, TFI
    k_interval   (2k - 1) / (time from the k-th last spike to the k-th next)         DSFT of Spike2Flow and BSF
    gaussian     mean of the frames with Gaussian weights of `sigma` frames around t
    charge       the same Gaussian of the rates between spikes                       utils/charge.py
    short_term_plasticity      rate whose steady state a synapse model is in         TFSTP

Each returns firing rate x threshold, clipped to [0, 1]: the scene's intensity, if `threshold` is the camera's (GoPro
spikes 2.0, REDS_BASE 1/0.6; 1 for the rate itself). A pixel that fires in none of the frames read is 0, one that fires
in all of them min(1, threshold). Frames beyond the stream's ends are left out of sums and lengths.

`stream` is a `SpikeStream`, of which only the frames needed are decoded, a uint8 or bool array (T, h, w), or such a
tensor; tensors give tensors, on their device. `t` is a spike frame, several, or None for all; a picture does not depend
on the other frames of a call. Intervals are taken at the beginning of frame t, window, Gaussian and charge at its
middle.
`reconstruct_frames` yields one picture after another, for streams larger than memory.

The conventions of spikling and SpikeCV, with their uint8 results, are in data/spike/reconstruction/compat.py.
"""

import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.spike.reconstruction import METHOD_NAMES
from data.spike.reconstruction.methods import (
    ChargeRate,
    GaussianRate,
    IntervalRate,
    KIntervalRate,
    PlasticityRate,
    RateMethod,
    WindowRate,
)
from utils.spike_loader import SpikeStream
from utils.user_error import UserError

Spikes = SpikeStream | np.ndarray | Tensor
Times = int | Sequence[int] | None

METHODS: dict[str, type[RateMethod]] = {
    "window": WindowRate,
    "interval": IntervalRate,
    "k_interval": KIntervalRate,
    "gaussian": GaussianRate,
    "charge": ChargeRate,
    "plasticity": PlasticityRate,
}
"""By the names used in commands."""
assert tuple(METHODS) == METHOD_NAMES


def window(stream: Spikes, t: Times = None, threshold: float = 1.0, *, length: int = 41) -> Any:
    """Number of spikes in the frames [t - length // 2, t - length // 2 + length) / number of these frames."""
    return reconstruct(stream, WindowRate(length), t, threshold)


def interval(stream: Spikes, t: Times = None, threshold: float = 1.0, *, reach: int = 256) -> Any:
    """The inverse of the time between the last spike before t and the first at or after t; see `k_interval`."""
    return reconstruct(stream, IntervalRate(reach), t, threshold)


def k_interval(stream: Spikes, t: Times = None, threshold: float = 1.0, *, order: int = 2, reach: int = 64) -> Any:
    """(2k - 1) over the time from the k-th last spike before t to the k-th next one.

    The averaging time adapts to each pixel's brightness. On a side with fewer than k spikes within `reach` frames, all
    its spikes and all its frames count (data/spike/frame_sums.py).
    """
    return reconstruct(stream, KIntervalRate(order, reach), t, threshold)


def gaussian(stream: Spikes, t: Times = None, threshold: float = 1.0, *, sigma: float = 6.0) -> Any:
    """Mean of the frames with weights exp(-(frame - t)^2 / (2 sigma^2)), cut at 4 sigma."""
    return reconstruct(stream, GaussianRate(sigma), t, threshold)


def charge(stream: Spikes, t: Times = None, threshold: float = 1.0, *, sigma: float = 4.0, reach: int = 512) -> Any:
    """Gaussian mean of the rates between spikes, as `gaussian` of the spikes; see `ChargeRate`."""
    return reconstruct(stream, ChargeRate(sigma, reach), t, threshold)


def short_term_plasticity(stream: Spikes, t: Times = None, threshold: float = 1.0, **parameters: Any) -> Any:
    """The constant firing rate whose steady state is the plasticity state of the pixel after frame t.

    Causal: reads no frame after t. `parameters`: see `PlasticityRate`.
    """
    return reconstruct(stream, PlasticityRate(**parameters), t, threshold)


def reconstruct(stream: Spikes, method: RateMethod, t: Times = None, threshold: float = 1.0) -> Any:
    """Pictures at one, several or all spike frames.

    Args:
        stream: `SpikeStream`, or (T, h, w) uint8 or bool, numpy or torch.
        method: one of data/spike/reconstruction/methods.py.
        t: spike frame, spike frames, or None for all.
        threshold: the stream's; intensity = rate x threshold.

    Returns:
        (h, w), or (N, h, w) for several; float32 in [0, 1]; a tensor for a tensor, else numpy.

    Raises:
        UserError: no frames, another kind of array, a frame that is not in the stream, or a threshold not above 0.
    """
    times = [t] if isinstance(t, int | np.integer) else t
    frames = list(reconstruct_frames(stream, method, times, threshold))
    if isinstance(t, int | np.integer):
        return frames[0]
    return torch.stack(frames) if isinstance(stream, Tensor) else np.stack(frames)


def reconstruct_frames(
    stream: Spikes, method: RateMethod, times: Iterable[int] | None = None, threshold: float = 1.0
) -> Iterator[Any]:
    """As `reconstruct`, one (h, w) picture after another; only the frames that the method needs are in memory.

    Args:
        times: spike frames in any order, fastest if ascending; None: all.

    Raises:
        UserError: as `reconstruct`, by the call itself.
    """
    source = SpikeSource(stream)
    if not threshold > 0:
        raise UserError(f"the spike threshold is {threshold}; a number above 0 is needed (GoPro spike set: 2.0)")
    asked = list(range(source.length)) if times is None else [operator.index(time) for time in times]
    outside = [time for time in asked if not 0 <= time < source.length]
    if outside or not asked:
        raise UserError(
            f"{f'there is no spike frame {outside[0]}' if outside else 'no spike frame is given'}; "
            f"the stream has frames 0 to {source.length - 1}"
        )
    scaled = ((rate * threshold).clamp_(0, 1) for rate in method.rates(source.block, source.length, asked))
    return scaled if isinstance(stream, Tensor) else (picture.numpy() for picture in scaled)


class SpikeSource:
    """Frames of any kind of stream as uint8 tensors.

    Attributes:
        length: frames T, at least 1.
    """

    def __init__(self, stream: Spikes) -> None:
        self.stream = stream
        if not isinstance(stream, SpikeStream):
            known = (np.uint8, np.bool_, torch.uint8, torch.bool)
            if stream.ndim != 3 or stream.dtype not in known:
                raise UserError(
                    f"spikes are {stream.dtype} of shape {tuple(stream.shape)}; (T, h, w) uint8 or bool is needed"
                )
            if 0 in stream.shape:
                raise UserError(f"spikes of shape {tuple(stream.shape)} are empty; at least one pixel is needed")
        self.length = len(stream)

    def block(self, begin: int, end: int) -> Tensor:
        """Frames [begin, end), (end - begin, h, w) uint8."""
        if isinstance(self.stream, SpikeStream):
            return torch.from_numpy(self.stream.get_block_spikes(begin, end - begin))
        part = self.stream[begin:end]
        # A copy, as torch can't share memory with flipped views and read-only files.
        spikes = part.to(torch.uint8) if isinstance(part, Tensor) else torch.from_numpy(np.array(part, np.uint8))
        if spikes.max() > 1:
            raise UserError(f"spikes must be 0 or 1, found {int(spikes.max())} in frames [{begin}, {end})")
        return spikes
