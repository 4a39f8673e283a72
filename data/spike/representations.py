"""Spikes of one RGB frame as a few float32 channels: the representations an option can name.

    "spike": {"representation": "tfp", "bins": 4}, "spike_threshold": 2.0

Each takes the block of spikes that belongs to an RGB frame and its exposure, and gives (channels, h, w) float32. All
are per-pixel functions of the spikes and exact: the representation of a crop, flip or transpose equals the crop, flip
or transpose of the representation, bit for bit. In time-reversed spikes (`ExposureWindow.reversed`) the channels of
tfp, voxel and raw come out in reverse, halves exchanges its first two and negates the difference, centroid is
negated, count and gaussian stay, interval reads one frame later (it is taken at a frame's beginning), ema changes (it
is causal).

"Brightness-true" ones are firing rate x threshold: with the camera's threshold (`spike_threshold`; 2.0 for the GoPro
set, 1/0.6 for REDS_BASE) they read as the scene's intensity. They are not clipped: a bin can exceed 1 by the rounding
of spikes to frames.

A new one is a class with keyword parameters, `channels`, `brightness_true`, `support` and `__call__`,
registered under its name; data/spike/encoding.py and the datasets need no change.
"""

import math
from typing import Literal, Protocol

import numpy as np

from data.spike.frame_sums import (
    equal_bin_sums,
    gaussian_support,
    gaussian_weights,
    integer_weights,
    interval_rate,
    weighted_sums,
)
from data.spike.sync import ExposureWindow
from utils.user_error import UserError
from utils.utils_registry import REPRESENTATIONS

EMA_REACH = 8.0  # in (the longest) decays; beyond, below 4e-4 of the newest


class Representation(Protocol):
    """The interface of a registered representation.

    Attributes:
        channels: how many the result has.
        brightness_true: the channels read as the scene's intensity.
    """

    channels: int
    brightness_true: bool

    def support(self, window: ExposureWindow, length: int) -> tuple[int, int]:
        """Frames [begin, end) of a stream of `length` frames that the result depends on."""
        ...

    def __call__(self, spikes: np.ndarray, window: ExposureWindow, threshold: float) -> np.ndarray:
        """
        Args:
            spikes: (T, h, w) uint8 0/1, the frame's block.
            window: the exposure, in frames of the block.
            threshold: of the stream: intensity = rate x threshold.

        Returns:
            (channels, h, w) float32.
        """
        ...


class _OverExposure:
    """Reads the exposure's frames and no others."""

    def support(self, window: ExposureWindow, length: int) -> tuple[int, int]:
        return window.begin, window.end


@REPRESENTATIONS.register("tfp")
class PlaybackBins(_OverExposure):
    """Texture from playback: firing rate x threshold in bins of equal duration over the exposure.

    Args:
        bins: S, the number of channels.
    """

    brightness_true = True

    def __init__(self, *, bins: int = 4) -> None:
        _at_least("tfp", "bins", bins, 1)
        self.channels = bins

    def __call__(self, spikes: np.ndarray, window: ExposureWindow, threshold: float) -> np.ndarray:
        sums, _, bin_units = equal_bin_sums(spikes[window.begin : window.end], self.channels)
        return sums * np.float32(threshold / bin_units)


@REPRESENTATIONS.register("count")
class Count(PlaybackBins):
    """The number of spikes in the exposure, as firing rate x threshold: one channel, the blurred frame's intensity."""

    def __init__(self) -> None:
        super().__init__(bins=1)


@REPRESENTATIONS.register("halves")
class Halves(_OverExposure):
    """Four channels: first half, second half, difference first - second, whole exposure; each rate x threshold."""

    channels = 4
    brightness_true = True

    def __call__(self, spikes: np.ndarray, window: ExposureWindow, threshold: float) -> np.ndarray:
        sums, _, bin_units = equal_bin_sums(spikes[window.begin : window.end], 2)
        first, second = sums.astype(np.float32)
        rates = np.stack([first, second, first - second, (first + second) / 2])
        rates *= np.float32(threshold / bin_units)
        return rates


@REPRESENTATIONS.register("centroid")
class Centroid(_OverExposure):
    """Mean time of the exposure's spikes, from -1 (its first moment) to 1 (its last); 0 where there is none.

    With frame t of L at the time (2t + 1 - L) / L. It tells how the light was distributed over the exposure and not
    how much of it there was: 0 at rest, negative where the pixel got darker. The threshold has no effect.
    """

    channels = 1
    brightness_true = False

    def __call__(self, spikes: np.ndarray, window: ExposureWindow, threshold: float) -> np.ndarray:
        exposed = spikes[window.begin : window.end]
        length = len(exposed)
        moment = np.zeros(exposed.shape[1:], np.int64)
        count = np.zeros(exposed.shape[1:], np.int64)
        for frame, fired in enumerate(exposed):
            moment += fired * np.int64(2 * frame + 1 - length)
            count += fired
        # Integers up to the division, so that reversed spikes give exactly the negative.
        result: np.ndarray = (moment / (length * np.maximum(count, 1))).astype(np.float32)[None]
        return result


@REPRESENTATIONS.register("voxel")
class Voxel(_OverExposure):
    """Spike counts in bins of equal duration over the exposure, log1p: the voxel branch's input.

    Mean and standard deviation are taken off by `spike_normalize`. The threshold has no effect.

    Args:
        bins: K, the number of channels.
        log1p: log(1 + count) in place of the count.
    """

    brightness_true = False

    def __init__(self, *, bins: int = 32, log1p: bool = True) -> None:
        _at_least("voxel", "bins", bins, 1)
        self.channels = bins
        self.log1p = log1p

    def __call__(self, spikes: np.ndarray, window: ExposureWindow, threshold: float) -> np.ndarray:
        sums, frame_units, bin_units = equal_bin_sums(spikes[window.begin : window.end], self.channels)
        # Few different sums exist: a table costs less than a logarithm per pixel.
        counts = np.arange(bin_units + 1) / frame_units
        return np.take((np.log1p(counts) if self.log1p else counts).astype(np.float32), sums)


@REPRESENTATIONS.register("raw")
class Raw:
    """The bits themselves in an odd window around the exposure's centre, oldest first.

    Args:
        length: number of frames and channels, odd.
        edge: where the window reaches outside the stream: "error", or "shift" it inwards (it is then
            no longer centred).
    """

    brightness_true = False

    def __init__(self, *, length: int = 41, edge: Literal["error", "shift"] = "error") -> None:
        _at_least("raw", "length", length, 1)
        if length % 2 == 0:
            raise UserError(f"spike representation raw: length is {length}; an odd number has a centre.")
        if edge not in ("error", "shift"):
            raise UserError(f'spike representation raw: edge is {edge!r}; choices: "error", "shift".')
        self.channels = length
        self.edge = edge

    def support(self, window: ExposureWindow, length: int) -> tuple[int, int]:
        begin = window.center - self.channels // 2
        shifted = min(max(begin, 0), length - self.channels)
        if shifted < 0 or (shifted != begin and self.edge == "error"):
            remedy = "a smaller length" + (' or edge "shift"' if shifted >= 0 else "")
            raise UserError(
                f"spike representation raw: the window [{begin}, {begin + self.channels}) around frame {window.center} "
                f"reaches outside the stream's [0, {length}); choose {remedy}."
            )
        return shifted, shifted + self.channels

    def __call__(self, spikes: np.ndarray, window: ExposureWindow, threshold: float) -> np.ndarray:
        begin, end = self.support(window, len(spikes))
        return spikes[begin:end].astype(np.float32)


@REPRESENTATIONS.register("interval")
class Interval:
    """Firing rate x threshold at the exposure's centre from the time between spikes (`data/spike/frame_sums.py`).

    Args:
        orders: one channel per k; 1 is TFI, 2 is sharper than any fixed window on the GoPro and REDS samples.
        reach: frames looked at on either side of the centre; pixels without k spikes there use all of them.
    """

    brightness_true = True

    def __init__(self, *, orders: list[int] = [2], reach: int = 64) -> None:  # noqa: B006 (only read)
        _at_least("interval", "number of orders", len(orders), 1)
        _at_least("interval", "orders", min(orders), 1)
        _at_least("interval", "reach", reach, 1)
        self.channels = len(orders)
        self.orders = list(orders)
        self.reach = reach

    def support(self, window: ExposureWindow, length: int) -> tuple[int, int]:
        return max(0, window.center - self.reach), min(length, window.center + self.reach)

    def __call__(self, spikes: np.ndarray, window: ExposureWindow, threshold: float) -> np.ndarray:
        rates = np.stack([interval_rate(spikes, window.center, order, self.reach) for order in self.orders])
        rates *= np.float32(threshold)
        return rates


class _Weighted:
    """A mean of frames with smooth weights, normalised over the frames that exist, x threshold."""

    brightness_true = True

    def _rates(self, spikes: np.ndarray, weights: np.ndarray, threshold: float) -> np.ndarray:
        """One channel per row of integer weights over the frames of `spikes`."""
        scale = (threshold / weights.sum(axis=1, dtype=np.float64)).astype(np.float32)
        result: np.ndarray = weighted_sums(spikes, weights) * scale[:, None, None]
        return result


@REPRESENTATIONS.register("gaussian")
class Gaussian(_Weighted):
    """Firing rate x threshold under a Gaussian around the exposure's centre, cut at 4 sigma.

    Args:
        sigma: in spike frames; 6 suits the GoPro set (8 spike frames per sharp frame).
    """

    channels = 1

    def __init__(self, *, sigma: float = 6.0) -> None:
        if not sigma > 0:
            raise UserError(f"spike representation gaussian: sigma is {sigma}; more than 0 frames are needed.")
        self.sigma = sigma

    def support(self, window: ExposureWindow, length: int) -> tuple[int, int]:
        return gaussian_support(window.center, self.sigma, length)

    def __call__(self, spikes: np.ndarray, window: ExposureWindow, threshold: float) -> np.ndarray:
        begin, end = self.support(window, len(spikes))
        weights = gaussian_weights(window.center, self.sigma, begin, end)
        return self._rates(spikes[begin:end], weights[None], threshold)


@REPRESENTATIONS.register("ema")
class EMA(_Weighted):
    """Exponential moving averages of the spikes at the exposure's last frame, x threshold: what a causal filter holds.

    Frames before the exposure count where the block has them, back to 8 of the longest decay.

    Args:
        decays: time constants in spike frames, one channel each; a frame's weight is exp(-age / decay).
    """

    def __init__(self, *, decays: list[float] = [4.0, 16.0, 64.0]) -> None:  # noqa: B006 (only read)
        _at_least("ema", "number of decays", len(decays), 1)
        if not min(decays) > 0:
            raise UserError(f"spike representation ema: decays are {decays}; more than 0 frames are needed.")
        self.channels = len(decays)
        self.decays = list(decays)

    def support(self, window: ExposureWindow, length: int) -> tuple[int, int]:
        return max(0, window.end - math.ceil(EMA_REACH * max(self.decays))), window.end

    def __call__(self, spikes: np.ndarray, window: ExposureWindow, threshold: float) -> np.ndarray:
        begin, end = self.support(window, len(spikes))
        ages = [end - 1 - frame for frame in range(begin, end)]
        weights = [integer_weights([math.exp(-age / decay) for age in ages]) for decay in self.decays]
        return self._rates(spikes[begin:end], np.stack(weights), threshold)


@REPRESENTATIONS.register("contrast")
class Contrast:
    """Two channels: `gaussian`, and `gaussian` minus `count`; each rate x threshold.

    The second channel is what the exposure blurred away, as the spikes saw it:

        sharp - blurred  is about  rate around the centre - rate over the exposure

    This is the additive form of the spike-guided deblurring model (SDM; Chen et al., SpikeReveal, 2024), which takes
    the quotient. As an input to a network it is nearly the residual to be learned, so short trainings profit most.
    Scale it to about one with `"spike_normalize": {"mean": [0, 0], "std": [1, 0.1]}`.

    Args:
        sigma: of the Gaussian around the exposure's centre, in spike frames.
    """

    channels = 2
    brightness_true = True

    def __init__(self, *, sigma: float = 6.0) -> None:
        self.moment, self.exposure = Gaussian(sigma=sigma), Count()

    def support(self, window: ExposureWindow, length: int) -> tuple[int, int]:
        begin, end = self.moment.support(window, length)
        return min(begin, window.begin), max(end, window.end)

    def __call__(self, spikes: np.ndarray, window: ExposureWindow, threshold: float) -> np.ndarray:
        sharp, blurred = (part(spikes, window, threshold) for part in (self.moment, self.exposure))
        return np.concatenate([sharp, sharp - blurred])


def _at_least(name: str, parameter: str, value: int, minimum: int) -> None:
    if value < minimum:
        raise UserError(f"spike representation {name}: {parameter} is {value}; at least {minimum} is needed.")
