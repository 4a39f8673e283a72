"""Representations: the spikes of one RGB frame as a few float32 channels, chosen by name in the options.

    "spike": {"representation": "tfp", "bins": 4}, "spike_threshold": 2.0

A representation maps the block of spikes of an RGB frame and its exposure to (channels, h, w) float32. All are exact
functions of single pixels: the representation of a crop, flip or transpose equals the crop, flip or transpose of the
representation, bit for bit. Reversing the spikes in time (`ExposureWindow.reversed`) reverses the order of the channels
of tfp, voxel and raw, exchanges the first two of halves and negates its difference, negates centroid, leaves count and
gaussian unchanged, shifts interval by one frame (it is taken at a frame's beginning) and changes ema (it is causal).

Brightness-true representations are firing rate x threshold: with the camera's threshold (`spike_threshold`; 2.0 for the
GoPro set, 1/0.6 for REDS_BASE) they are the scene's intensity. They are not clipped: a bin can exceed 1, as spikes are
rounded to frames.

To add a representation, register a class with keyword parameters, `channels`, `brightness_true`, `support` and
`__call__` under its name; data/spike/encoding.py and the data sets need no change.
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

EMA_REACH = 8.0  # times the longest decay; older frames weigh less than exp(-8) = 3.4e-4 of the newest


class Representation(Protocol):
    """The interface of a registered representation.

    Attributes:
        channels: number of channels of the result.
        brightness_true: whether the channels are the scene's intensity.
    """

    channels: int
    brightness_true: bool

    def support(self, window: ExposureWindow, length: int) -> tuple[int, int]:
        """Frames [begin, end) of a stream of `length` frames that the result depends on."""
        ...

    def __call__(self, spikes: np.ndarray, window: ExposureWindow, threshold: float) -> np.ndarray:
        """
        Args:
            spikes: (T, h, w) uint8 0/1, the RGB frame's block.
            window: the exposure, in spike frames of the block.
            threshold: the stream's; intensity = rate x threshold.

        Returns:
            (channels, h, w) float32.
        """
        ...


class _OverExposure:
    """Reads only the exposure's frames."""

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
    """Mean time of the exposure's spikes, from -1 (beginning) to 1 (end); 0 in pixels without spikes.

    Frame t of L is at the time (2t + 1 - L) / L. The result depends on the distribution of the light over the exposure,
    not on its amount: 0 for constant light, negative in pixels that became darker. The threshold has no effect.
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
    """log(1 + spike count) in bins of equal duration over the exposure: the voxel branch's input.

    `spike_normalize` subtracts the mean and divides by the standard deviation. The threshold has no effect.

    Args:
        bins: K, the number of channels.
        log1p: False: the count itself.
    """

    brightness_true = False

    def __init__(self, *, bins: int = 32, log1p: bool = True) -> None:
        _at_least("voxel", "bins", bins, 1)
        self.channels = bins
        self.log1p = log1p

    def __call__(self, spikes: np.ndarray, window: ExposureWindow, threshold: float) -> np.ndarray:
        sums, frame_units, bin_units = equal_bin_sums(spikes[window.begin : window.end], self.channels)
        # There are few different sums: a table takes less time than a logarithm per pixel.
        counts = np.arange(bin_units + 1) / frame_units
        return np.take((np.log1p(counts) if self.log1p else counts).astype(np.float32), sums)


@REPRESENTATIONS.register("raw")
class Raw:
    """The spikes of an odd number of frames around the exposure's centre, oldest first.

    Args:
        length: number of frames and channels, odd.
        edge: if the frames extend beyond the stream: "error", or "shift" them inwards (then off the centre).
    """

    brightness_true = False

    def __init__(self, *, length: int = 41, edge: Literal["error", "shift"] = "error") -> None:
        _at_least("raw", "length", length, 1)
        if length % 2 == 0:
            raise UserError(f"spike representation raw: length is {length}; an odd number is needed.")
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
                f"spike representation raw: the frames [{begin}, {begin + self.channels}) around frame {window.center} "
                f"extend beyond the stream's [0, {length}); choose {remedy}."
            )
        return shifted, shifted + self.channels

    def __call__(self, spikes: np.ndarray, window: ExposureWindow, threshold: float) -> np.ndarray:
        begin, end = self.support(window, len(spikes))
        return spikes[begin:end].astype(np.float32)


@REPRESENTATIONS.register("interval")
class Interval:
    """Firing rate x threshold at the exposure's centre from the time between spikes (`data/spike/frame_sums.py`).

    Args:
        orders: one channel per k; 1 is TFI; 2 is sharper than any fixed averaging time on the GoPro and REDS samples.
        reach: frames searched on each side of the centre; a pixel with fewer than k spikes there uses all these frames.
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
    """Weighted mean of the frames within the stream x threshold; the weights are normalised over these frames."""

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
    """Exponential moving averages of the spikes up to the exposure's last frame, x threshold: a causal filter.

    Frames of the block before the exposure count too, back to 8 times the longest decay.

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

    The second channel estimates the difference between the sharp and the blurred frame:

        sharp - blurred  is about  rate around the centre - rate over the exposure

    This is the additive form of the spike-guided deblurring model (SDM; Chen et al., SpikeReveal, 2024), which uses
    the quotient. It is close to the residual that a network learns, so it helps short trainings most.
    `"spike_normalize": {"mean": [0, 0], "std": [1, 0.1]}` scales it to about one.

    Args:
        sigma: the Gaussian's around the exposure's centre, in spike frames.
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
