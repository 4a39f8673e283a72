"""Encodes a spike stream as input channels of a network: representation, hot-pixel filter, normalisation.

    encoding = build_encoding({"representation": "voxel", "bins": 32}, spike_threshold=2.0)
    channels = encoding.encode_crop(stream, window, top=100, left=200, h=96, w=96)        # (32, 96, 96) float32

`encode_crop` decodes only the frames and pixels on which the result depends; it equals the crop of the whole picture's
encoding bit for bit, hot pixels included.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

import data.spike.charge
import data.spike.guidance  # noqa: F401  (these register themselves)
from data.spike.representations import Representation
from data.spike.sync import ExposureWindow
from utils.spike_loader import SpikeStream
from utils.user_error import UserError
from utils.utils_registry import REPRESENTATIONS, Faults, raise_faults

# Above the thresholds of cameras, which are at most a few times a full scale of 16 bits; far below float32's limit.
HIGHEST_THRESHOLD = 1e6
HOT_RATE = 0.95  # firing rate of a hot pixel with `hot_pixel_filter` true; scenes fire at up to 1/threshold


class SpikeEncoding:
    """A representation with its threshold, hot-pixel filter and normalisation.

    Args:
        representation: from REPRESENTATIONS.
        threshold: the stream's, > 0: intensity = firing rate x threshold.
        normalize: {"mean", "std"}, each a number or one per channel; the result is (x - mean) / std. None: x.
        hot_rate: a pixel that fires in at least this share of the decoded frames is hot; each of its channels is
            replaced by the median of its up to 8 neighbours' (the mean of the middle two if their number is even).
            None: off.

    Attributes:
        channels: number of channels.
        brightness_true: the result is intensity: the representation's is, and it is not normalised.
        halo: width in pixels of the border around a crop on which the result depends, 0 or 1.

    Raises:
        UserError: threshold, hot rate or normalisation out of range.
    """

    def __init__(
        self,
        representation: Representation,
        threshold: float,
        normalize: Mapping[str, Any] | None = None,
        hot_rate: float | None = None,
    ) -> None:
        raise_faults("", threshold_faults(threshold))
        if hot_rate is not None and not 0 < hot_rate <= 1:
            raise UserError(f"hot_pixel_filter is {hot_rate}; false, true or a firing rate in (0, 1] is needed.")
        self.representation = representation
        self.threshold = threshold
        self.hot_rate = hot_rate
        self.channels = representation.channels
        self.brightness_true = representation.brightness_true and normalize is None
        self.halo = 0 if hot_rate is None else 1
        self._mean_std = None if normalize is None else _mean_std(normalize, self.channels)

    def support(self, window: ExposureWindow, length: int) -> tuple[int, int]:
        """Frames [begin, end) of a stream of `length` frames to decode for this exposure."""
        window.check(length)
        begin, end = self.representation.support(window, length)
        return min(begin, window.begin), max(end, window.end)

    def __call__(self, spikes: np.ndarray, window: ExposureWindow) -> np.ndarray:
        """Encodes a whole picture, (T, h, w) uint8 or bool 0/1 -> (channels, h, w) float32.

        Args:
            window: the exposure, in frames of `spikes`. The array's borders count as the picture's.

        Raises:
            UserError: the exposure is not inside the block.
            ValueError: `spikes` is not (T, h, w) uint8 or bool.
        """
        if spikes.ndim != 3 or spikes.dtype not in (np.uint8, np.bool_):
            raise ValueError(f"spikes are {spikes.dtype} of shape {spikes.shape}; (T, h, w) uint8 or bool is needed.")
        begin, end = self.support(window, len(spikes))
        return self._encode(spikes[begin:end].view(np.uint8), window.shifted(-begin))

    def encode_crop(
        self,
        stream: SpikeStream,
        window: ExposureWindow,
        top: int,
        left: int,
        h: int,
        w: int,
        *,
        time_reversed: bool = False,
    ) -> np.ndarray:
        """Encodes a box of a stream, (channels, h, w) float32, equal to that box of the whole picture's encoding.

        Args:
            window: the exposure, in frames of the file.
            top, left, h, w: the box, in the upright picture.
            time_reversed: encode the stream in reversed time (`window` still in frames of the file).

        Raises:
            UserError: box or exposure outside the stream; the message names the file.
        """
        if h < 1 or w < 1:
            raise UserError(f"{stream.filepath}: a crop of {h}x{w} spike pixels was asked for.")
        length = len(stream)
        try:
            if time_reversed:
                window = window.reversed(length)
            begin, end = self.support(window, length)
        except UserError as fault:
            raise UserError(f"{stream.filepath}: {fault}") from fault
        first = length - end if time_reversed else begin
        above, before = min(self.halo, max(top, 0)), min(self.halo, max(left, 0))
        below = min(self.halo, max(stream.spike_h - top - h, 0))
        after = min(self.halo, max(stream.spike_w - left - w, 0))
        spikes = stream.crop(first, end - begin, top - above, left - before, h + above + below, w + before + after)
        encoded = self._encode(spikes[::-1] if time_reversed else spikes, window.shifted(-begin))
        return np.ascontiguousarray(encoded[:, above : above + h, before : before + w])

    def _encode(self, spikes: np.ndarray, window: ExposureWindow) -> np.ndarray:
        """Encodes spikes (T, h, w), exactly the frames of `support` (hot pixels need all), to (channels, h, w)."""
        encoded = self.representation(spikes, window, self.threshold)
        if self.hot_rate is not None:
            _replace_hot(encoded, spikes, self.hot_rate)
        if self._mean_std is not None:
            mean, std = self._mean_std
            encoded -= mean
            encoded /= std
        return encoded


def threshold_faults(spike_threshold: float | None) -> Faults:
    """Faults of a spike camera's threshold; None stands for the data's own."""
    if spike_threshold is not None and not 0 < spike_threshold <= HIGHEST_THRESHOLD:
        limits = f"a number above 0 is needed, and up to {HIGHEST_THRESHOLD:g} (GoPro spike set: 2.0)"
        yield "spike_threshold", f"{limits}; got {spike_threshold}"


def build_encoding(
    spike: Mapping[str, Any],
    spike_threshold: float,
    spike_normalize: Mapping[str, Any] | None = None,
    hot_pixel_filter: bool | float = False,
) -> SpikeEncoding:
    """The encoding of the options.

    Args:
        spike: {"representation": name, **its parameters}; missing parameters have their defaults.
        spike_threshold, spike_normalize: as in SpikeEncoding.
        hot_pixel_filter: False: off; True: from a firing rate of 0.95; a number: from that rate.

    Raises:
        UserError: unknown representation or parameter (the message lists the choices), or a value out of range.
    """
    parameters = dict(spike)
    if "representation" not in parameters:
        raise UserError(f'spike: "representation" is missing; choices: {", ".join(REPRESENTATIONS.names())}.')
    name = parameters.pop("representation")
    known = REPRESENTATIONS.parameters(name)
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise UserError(
            f"spike: representation {name!r} has no parameter {', '.join(unknown)}; "
            f"it has: {', '.join(known) or 'none'}."
        )
    hot_rate = (
        {False: None, True: HOT_RATE}[hot_pixel_filter] if isinstance(hot_pixel_filter, bool) else hot_pixel_filter
    )
    return SpikeEncoding(REPRESENTATIONS.get(name)(**parameters), spike_threshold, spike_normalize, hot_rate)


def _mean_std(normalize: Mapping[str, Any], channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation as (channels or 1, 1, 1) float32."""
    if set(normalize) != {"mean", "std"}:
        raise UserError(f'spike_normalize has {sorted(normalize)}; "mean" and "std" are needed.')
    arrays = []
    for key in ("mean", "std"):
        values = np.atleast_1d(np.asarray(normalize[key], np.float32))
        if values.shape not in ((1,), (channels,)) or not np.isfinite(values).all():
            raise UserError(f"spike_normalize.{key} is {normalize[key]}; one number, or {channels} (one per channel).")
        arrays.append(values[:, None, None])
    if not (arrays[1] > 0).all():
        raise UserError(f"spike_normalize.std is {normalize['std']}; numbers above 0 are needed.")
    return arrays[0], arrays[1]


def _replace_hot(encoded: np.ndarray, spikes: np.ndarray, hot_rate: float) -> None:
    """Sets the channels of hot pixels to the median of their neighbours', in place.

    The median preserves saturated areas (most neighbours equal the pixel) and ignores a second hot pixel nearby.
    """
    counts = spikes.sum(axis=0, dtype=np.uint32)
    rows, columns = np.nonzero(counts >= hot_rate * len(spikes))
    if not len(rows) or encoded[0].size == 1:
        return
    padded = np.pad(encoded, ((0, 0), (1, 1), (1, 1)), constant_values=np.nan)
    shifts = [(row, column) for row in (0, 1, 2) for column in (0, 1, 2) if (row, column) != (1, 1)]
    neighbours = np.stack([padded[:, rows + row, columns + column] for row, column in shifts])
    encoded[:, rows, columns] = np.nanmedian(neighbours, axis=0)
