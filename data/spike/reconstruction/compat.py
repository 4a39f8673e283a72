"""Window, interval and plasticity with the conventions and the uint8 results of spikling and of SpikeCV, bit for bit.

                              interval at t                          if a spike is missing         value
    spikling interval_method  last spike < t, first spike >= t       the stream's first, last      255 // interval
    SpikeCV TFI.spikes2images last spike < t, first spike >= t       0                             255 // interval
    SpikeCV TFI.spikes2frame  last spike <= t, first spike > t       interval 2 * half             255 // interval

So SpikeCV's two differ by a frame: spikes2frame(t) == spikes2images(t + 1) except for missing spikes. All round
255 x rate down to integers and ignore the camera's threshold. New code uses data/spike/reconstruction/reconstruct.py.

Not copied: spikling's results from fewer frames, or NaN, for windows beyond the stream's end (a `UserError` here);
SpikeCV's index error at the end (the frames that exist are used); spikling's minutes per second of video; SpikeCV's
misspelt names.
"""

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from data.spike.reconstruction.methods import PlasticityRate
from utils.spike_loader import SpikeStream
from utils.user_error import UserError

LONGEST = 256  # frames searched: 255 // interval is 0 from this interval on


def load_spike_raw(path: str | Path, width: int = 400, height: int = 250) -> np.ndarray:
    """spikling's reader: the whole `.dat`, rows flipped, (T, height, width) uint8.

    Raises:
        SpikeFormatError: the file isn't a whole number of such frames.
    """
    return SpikeStream(path, height, width).get_spike_matrix()


def interval_method(seq: np.ndarray, mid: int) -> np.ndarray:
    """spikling's picture by interval.

    Args:
        seq: (T, h, w), 0 and 1 of any kind.
        mid: frame; the interval is from the last spike before it to the first at or after it.

    Returns:
        (h, w) uint8.

    Raises:
        UserError: not three dimensions, or no such frame.
    """
    _check(seq, mid, "mid")
    begin, end = max(0, mid - LONGEST), min(len(seq), mid + LONGEST)
    up = _first(seq[mid:end])
    down = _first(seq[begin:mid][::-1])
    # Without a spike on a side, the interval extends to the stream's first or last frame; for frame 0, to frame -1.
    up = np.where(up < 0, len(seq) - 1 - mid, up)
    down = np.where(down < 0, max(mid - 1, 0), down)
    return _shades(up + down + 1)


def window_method(seq: np.ndarray, start: int, length: int) -> np.ndarray:
    """spikling's picture by window: 255 x mean of frames [start, start + length), rounded down.

    Args:
        seq: (T, h, w), 0 and 1 of any kind.

    Returns:
        (h, w) uint8.

    Raises:
        UserError: not three dimensions, or a frame outside the stream.
    """
    _check(seq, start, "start")
    if length < 1 or start + length > len(seq):
        raise UserError(
            f"a window of {length} frames from frame {start} isn't possible; the stream has frames 0 to {len(seq) - 1}"
        )
    shades = (np.arange(length + 1) / length * 255).astype(np.uint8)
    result: np.ndarray = shades[seq[start : start + length].sum(axis=0, dtype=np.intp)]
    return result


class TFP:
    """SpikeCV's texture from playback. `device` has no effect.

    Args:
        spike_h, spike_w: size of the frames.
    """

    def __init__(self, spike_h: int, spike_w: int, device: object = None) -> None:
        self.spike_h, self.spike_w = spike_h, spike_w

    def spikes2images(self, spikes: np.ndarray, half_win_length: int) -> np.ndarray:
        """255 x mean over 2 * half_win_length + 1 frames, for each frame with half_win_length on both sides.

        Returns:
            (T - 2 half_win_length, h, w) uint8.

        Raises:
            UserError: another size than the object's, or fewer than 2 * half_win_length frames.
        """
        _check_size(spikes, self.spike_h, self.spike_w)
        times = _inside(len(spikes), half_win_length)
        images = np.empty((len(times), self.spike_h, self.spike_w), np.uint8)
        shades = self._shades(half_win_length)
        if len(times):
            count = spikes[: 2 * half_win_length].sum(axis=0, dtype=np.intp)
        for index, time in enumerate(times):
            count += spikes[time + half_win_length].astype(np.intp)
            images[index] = shades[count]
            count -= spikes[time - half_win_length].astype(np.intp)
        return images

    def spikes2frame(self, spikes: np.ndarray, key_ts: int, half_win_length: int) -> np.ndarray:
        """255 x mean over the frames around key_ts: (h, w) uint8.

        Raises:
            UserError: another size than the object's, or a window that extends beyond the stream.
        """
        _check_size(spikes, self.spike_h, self.spike_w)
        if half_win_length < 0 or key_ts - half_win_length < 0 or key_ts + half_win_length >= len(spikes):
            raise UserError(
                f"half window {half_win_length} around frame {key_ts} leaves the stream of {len(spikes)} frames"
            )
        window = spikes[key_ts - half_win_length : key_ts + half_win_length + 1]
        result: np.ndarray = self._shades(half_win_length)[window.sum(axis=0, dtype=np.intp)]
        return result

    @staticmethod
    def _shades(half: int) -> np.ndarray:
        """Gray values by number of spikes; the mean is rounded to float32, as in SpikeCV."""
        length = 2 * half + 1
        return (np.arange(length + 1, dtype=np.float32) / np.float32(length) * np.float32(255)).astype(np.uint8)


class TFI:
    """SpikeCV's texture from interval. `device` has no effect.

    Args:
        spike_h, spike_w: size of the frames.
    """

    def __init__(self, spike_h: int, spike_w: int, device: object = None) -> None:
        self.spike_h, self.spike_w = spike_h, spike_w

    def spikes2images(self, spikes: np.ndarray, max_search_half_window: int = 20) -> np.ndarray:
        """Interval pictures of frames [half, T - half), (T - 2 half, h, w) uint8; all frames are searched for spikes.

        Raises:
            UserError: another size than the object's, or fewer than 2 * half frames.
        """
        _check_size(spikes, self.spike_h, self.spike_w)
        times = _inside(len(spikes), max_search_half_window)
        images = np.empty((len(times), self.spike_h, self.spike_w), np.uint8)
        missing = -2 * LONGEST  # so far away on either side that 255 // interval is 0
        upcoming = np.full(images.shape, missing, np.int32)
        following = np.full(spikes.shape[1:], -missing + len(spikes), np.int32)
        for time in range(len(spikes) - 1, times.start - 1, -1):
            following[spikes[time] == 1] = time
            if time in times:
                upcoming[time - times.start] = following
        last = np.full(spikes.shape[1:], missing, np.int32)
        for time in range(times.stop):
            if time in times:
                images[time - times.start] = _shades(upcoming[time - times.start] - last)
            last[spikes[time] == 1] = time
        return images

    def spikes2frame(self, spikes: np.ndarray, key_ts: int, max_search_half_window: int = 20) -> np.ndarray:
        """The interval picture between frames key_ts and key_ts + 1, (h, w) uint8.

        Frames [key_ts - half + 1, key_ts + half] are searched for spikes, except frame 0.

        Raises:
            UserError: another size than the object's, or half of the half window extends beyond the stream.
        """
        _check_size(spikes, self.spike_h, self.spike_w)
        half = max_search_half_window
        if half < 1 or key_ts - half // 2 < 0 or key_ts + half // 2 > len(spikes) or key_ts >= len(spikes):
            raise UserError(f"half window {half} around frame {key_ts} leaves the stream of {len(spikes)} frames")
        up = _first(spikes[key_ts + 1 : key_ts + half + 1])
        down = _first(spikes[max(key_ts - half + 1, 1) : key_ts + 1][::-1])
        return _shades(np.where((up < 0) | (down < 0), 2 * half, up + down + 1))


class TFSTP:
    """SpikeCV's texture from short-term plasticity: the synapse of `PlasticityRate` with SpikeCV's readout.

    Each frame's rates r_u + r_R are stretched to [0, 255] and their histogram is equalised, which removes brightness;
    r_u has F instead of the paper's f. The state (R, u) is kept between calls.

    Args:
        spike_h, spike_w: size of the frames.
        device: where to compute.
        u0, D, F, f: the synapse's, see `PlasticityRate`; the defaults are SpikeCV's for reconstruction.
    """

    def __init__(
        self,
        spike_h: int,
        spike_w: int,
        device: torch.device | str = "cpu",
        *,
        u0: float = PlasticityRate.u0,
        D: float = PlasticityRate.D,
        F: float = PlasticityRate.F,
        f: float = PlasticityRate.f,
    ) -> None:
        self.spike_h, self.spike_w = spike_h, spike_w
        self.u0, self.D, self.F, self.f = u0, D, F, f
        self.R = torch.ones(spike_h, spike_w, device=device)
        self.u = torch.full_like(self.R, u0)
        self.last_spike = torch.zeros_like(self.R)

    @staticmethod
    def spike2interval(spikes: np.ndarray) -> np.ndarray:
        """The interval that contains each frame: b - a for frames a + 1 to b between spikes at a and b, else inf.

        Args:
            spikes: (T, h, w), 0 and 1 of any kind.

        Returns:
            (T, h, w) float64.
        """
        frames = np.arange(len(spikes), dtype=float)[:, None, None]
        following = np.minimum.accumulate(np.where(spikes, frames, np.inf)[::-1])[::-1]
        last = np.full(spikes.shape, -np.inf)
        last[1:] = np.maximum.accumulate(np.where(spikes, frames, -np.inf))[:-1]
        result: np.ndarray = following - last
        return result

    def spikes2images_online(self, spikes: np.ndarray) -> np.ndarray:
        """A picture at every frame from the spikes up to it, (T, h, w) uint8. An interval counts once it has ended.

        Raises:
            UserError: another size than the object's.
        """
        _check_size(spikes, self.spike_h, self.spike_w)
        images = np.empty(spikes.shape, np.uint8)
        for time, frame in enumerate(spikes):
            fired = self._on_device(frame)  # (h, w) bool
            self._update(fired, (time + 1 - self.last_spike)[fired])
            self.last_spike[fired] = time + 1
            images[time] = self._image()
        return images

    def spikes2images_offline(self, spikes: np.ndarray) -> np.ndarray:
        """Pictures from the whole stream, (T, h, w) uint8: an interval counts in all its frames except the spike's.

        An interval of one frame counts in this frame. The first picture is black.

        Raises:
            UserError: another size than the object's.
        """
        _check_size(spikes, self.spike_h, self.spike_w)
        images = np.zeros(spikes.shape, np.uint8)
        intervals = self.spike2interval(spikes)
        for time in range(1, len(spikes)):
            interval = intervals[time]
            counts = np.isfinite(interval) & (spikes[time] == 0) | (interval == 1)
            known = torch.from_numpy(interval[counts]).float().to(self.R.device)
            self._update(self._on_device(counts), known)
            images[time] = self._image()
        return images

    def _on_device(self, frame: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(frame != 0)).to(self.R.device)

    def _update(self, where: Tensor, interval: Tensor) -> None:
        """A spike after `interval` frames (n,) in the n pixels of `where` (h, w)."""
        R, u = self.R[where], self.u[where]
        self.R[where] = 1 - (1 - R * (1 - u)) * torch.exp(-interval / self.D)
        self.u[where] = self.u0 + (u + self.f * (1 - u) - self.u0) * torch.exp(-interval / self.F)

    def _image(self) -> np.ndarray:
        R, u = self.R, self.u
        by_release = -1 / (self.F * torch.log((u - self.u0) / (self.F - self.u0 + u * (1 - self.f))))
        by_resources = -1 / (self.D * torch.log((1 - R) / (1 - R * (1 - u))))
        rates = (by_release + by_resources).cpu().numpy()  # (h, w)
        low, high = rates.min(), rates.max()
        # Before the first spike all rates are 0 and can't be stretched.
        shades = (rates - low) / (high - low) * 255 if high > low else np.zeros_like(rates)
        return cv2.equalizeHist(shades.astype(np.uint8))


def _first(frames: np.ndarray) -> np.ndarray:
    """Index of the first spike of each pixel, -1 without one; (h, w) int."""
    if len(frames) == 0:
        return np.full(frames.shape[1:], -1)
    fired = frames == 1
    return np.where(fired.any(axis=0), fired.argmax(axis=0), -1)


def _shades(interval: np.ndarray) -> np.ndarray:
    """255 / interval rounded down, uint8."""
    return (255 // interval).astype(np.uint8)


def _inside(length: int, half: int) -> range:
    """Frames with `half` frames on both sides."""
    if half < 0 or length < 2 * half:
        raise UserError(f"the stream has {length} frames; a half window of {half} needs at least {2 * max(half, 0)}")
    return range(half, length - half)


def _check(seq: np.ndarray, time: int, name: str) -> None:
    if seq.ndim != 3 or not 0 <= time < len(seq):
        raise UserError(
            f"{name} is frame {time} of spikes of shape {seq.shape}; (T, h, w) and a frame in [0, T) are needed"
        )


def _check_size(spikes: np.ndarray, height: int, width: int) -> None:
    if spikes.ndim != 3 or spikes.shape[1:] != (height, width):
        raise UserError(f"spikes have shape {spikes.shape}; (T, {height}, {width}) is needed")
