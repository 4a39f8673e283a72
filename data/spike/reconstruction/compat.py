"""Window and interval with the conventions and the uint8 results of spikling and of SpikeCV, bit for bit.

                              interval at t                          where a spike is missing      value
    spikling interval_method  last spike < t, first spike >= t       the stream's first, last      255 // interval
    SpikeCV TFI.spikes2images last spike < t, first spike >= t       0                             255 // interval
    SpikeCV TFI.spikes2frame  last spike <= t, first spike > t       interval 2 * half             255 // interval

so that SpikeCV's two disagree by a frame, spikes2frame(t) == spikes2images(t + 1) but for missing spikes. All cut
255 x rate to whole numbers; none knows the camera's threshold. New code uses data/spike/reconstruction/reconstruct.py.

Two faults are not kept: spikling's windows beyond the stream's end (fewer frames, or NaN) and SpikeCV's index error at
it are a `UserError` and the frames that exist; spikling's minutes per second of video, and SpikeCV's misspelt names.
"""

from pathlib import Path

import numpy as np

from utils.spike_loader import SpikeStream
from utils.user_error import UserError

LONGEST = 256  # 255 // interval is 0 from here on


def load_spike_raw(path: str | Path, width: int = 400, height: int = 250) -> np.ndarray:
    """spikling's reader: the whole `.dat`, rows turned, (T, height, width) uint8.

    Raises:
        SpikeFormatError: the file is no whole number of such frames.
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
    # A side without a spike counts to the stream's first or last frame; before frame 0 there is frame -1.
    up = np.where(up < 0, len(seq) - 1 - mid, up)
    down = np.where(down < 0, max(mid - 1, 0), down)
    return _shades(up + down + 1)


def window_method(seq: np.ndarray, start: int, length: int) -> np.ndarray:
    """spikling's picture by window: 255 x mean of frames [start, start + length), cut to whole numbers.

    Args:
        seq: (T, h, w), 0 and 1 of any kind.

    Returns:
        (h, w) uint8.

    Raises:
        UserError: not three dimensions, or a frame that is not there.
    """
    _check(seq, start, "start")
    if length < 1 or start + length > len(seq):
        raise UserError(
            f"a window of {length} frames from frame {start} was asked for; the stream has frames 0 to {len(seq) - 1}"
        )
    shades = (np.arange(length + 1) / length * 255).astype(np.uint8)
    return shades[seq[start : start + length].sum(axis=0, dtype=np.intp)]


class TFP:
    """SpikeCV's texture from playback. `device` is accepted and without effect.

    Args:
        spike_h, spike_w: size of the frames.
    """

    def __init__(self, spike_h: int, spike_w: int, device: object = None) -> None:
        self.spike_h, self.spike_w = spike_h, spike_w

    def spikes2images(self, spikes: np.ndarray, half_win_length: int) -> np.ndarray:
        """255 x mean over 2 * half_win_length + 1 frames, for each frame that has them: (T - 2 half, h, w) uint8.

        Raises:
            UserError: another size than the object's, or fewer frames than half windows.
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
            UserError: another size than the object's, or a window that leaves the stream.
        """
        _check_size(spikes, self.spike_h, self.spike_w)
        if half_win_length < 0 or key_ts - half_win_length < 0 or key_ts + half_win_length >= len(spikes):
            raise UserError(
                f"half window {half_win_length} around frame {key_ts} leaves the stream of {len(spikes)} frames"
            )
        window = spikes[key_ts - half_win_length : key_ts + half_win_length + 1]
        return self._shades(half_win_length)[window.sum(axis=0, dtype=np.intp)]

    @staticmethod
    def _shades(half: int) -> np.ndarray:
        """By number of spikes; the mean is a float32 there."""
        length = 2 * half + 1
        return (np.arange(length + 1, dtype=np.float32) / np.float32(length) * np.float32(255)).astype(np.uint8)


class TFI:
    """SpikeCV's texture from interval. `device` is accepted and without effect.

    Args:
        spike_h, spike_w: size of the frames.
    """

    def __init__(self, spike_h: int, spike_w: int, device: object = None) -> None:
        self.spike_h, self.spike_w = spike_h, spike_w

    def spikes2images(self, spikes: np.ndarray, max_search_half_window: int = 20) -> np.ndarray:
        """Interval pictures of frames [half, T - half), (T - 2 half, h, w) uint8; spikes are sought in all frames.

        Raises:
            UserError: another size than the object's, or fewer frames than half windows.
        """
        _check_size(spikes, self.spike_h, self.spike_w)
        times = _inside(len(spikes), max_search_half_window)
        images = np.empty((len(times), self.spike_h, self.spike_w), np.uint8)
        missing = -2 * LONGEST  # far enough that the interval gives 0, on either side
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

        Spikes are sought in frames [key_ts - half + 1, key_ts + half], but not in frame 0.

        Raises:
            UserError: another size than the object's, or half of the half window leaves the stream.
        """
        _check_size(spikes, self.spike_h, self.spike_w)
        half = max_search_half_window
        if half < 1 or key_ts - half // 2 < 0 or key_ts + half // 2 > len(spikes) or key_ts >= len(spikes):
            raise UserError(f"half window {half} around frame {key_ts} leaves the stream of {len(spikes)} frames")
        up = _first(spikes[key_ts + 1 : key_ts + half + 1])
        down = _first(spikes[max(key_ts - half + 1, 1) : key_ts + 1][::-1])
        return _shades(np.where((up < 0) | (down < 0), 2 * half, up + down + 1))


def _first(frames: np.ndarray) -> np.ndarray:
    """Index of the first spike of each pixel, -1 where there is none; (h, w) int."""
    if len(frames) == 0:
        return np.full(frames.shape[1:], -1)
    fired = frames == 1
    return np.where(fired.any(axis=0), fired.argmax(axis=0), -1)


def _shades(interval: np.ndarray) -> np.ndarray:
    """255 / interval cut to whole numbers, uint8."""
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
