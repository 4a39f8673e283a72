"""Augments spikes in training: other thresholds, photon noise, hot pixels, slightly shifted exposures.

Each is an option of the data set, off by default, and drawn per sample from (seed, epoch, index). Spikes are changed in
the file's order, before representation, time reversal, flips and transposition. So the changed spikes of a flipped or
reversed sample are flipped or reversed bit for bit (if the representation is symmetric in time).
Test: `python -m pytest tests/data/test_spike_augment.py`.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.augment import SPIKE_CHANGE, chance
from data.spike.encoding import SpikeEncoding
from data.spike.sync import ExposureWindow
from utils.spike_loader import SpikeStream
from utils.user_error import UserError

DRAW, HOT, RAISE, PHOTONS = range(4)  # keys of independent random streams; append new ones, as others must not change


@dataclass(frozen=True)
class SpikeChange:
    """One sample's changes.

    Attributes:
        gain: factor of the encoded channels.
        kept: share of the spikes that a pixel keeps, evenly spaced: the effect of a threshold 1 / kept times as high.
        photon_noise: probability with which each spike is removed, and with which one is added to its pixel at a
            random time: the mean is unchanged, and the variance is proportional to the light.
        hot_pixels: share of the pixels that fire in every frame, the same pixels in all frames of the sample.
        time_shift: spike frames by which exposures are delayed, within the stream.
        entropy: seed, epoch and index of the sample.
    """

    gain: float = 1.0
    kept: float = 1.0
    photon_noise: float = 0.0
    hot_pixels: float = 0.0
    time_shift: int = 0
    entropy: tuple[int, ...] = (0, 0, 0)

    @classmethod
    def draw(
        cls,
        entropy: tuple[int, ...],
        *,
        spike_gain_jitter: float,
        spike_threshold_jitter: float,
        spike_photon_noise: float,
        spike_hot_pixels: float,
        spike_time_jitter: int,
    ) -> "SpikeChange":
        """Draws the changes; arguments are the options. Disabled ones are drawn too, so that no other draw changes."""
        rng = chance(entropy, SPIKE_CHANGE, DRAW)
        gain, threshold, noise, hot = rng.uniform(-1, 1), *rng.random(3)
        shift = int(rng.integers(-spike_time_jitter, spike_time_jitter + 1))
        return cls(
            gain=1 + gain * spike_gain_jitter,
            kept=1 / (1 + threshold * spike_threshold_jitter),
            photon_noise=noise * spike_photon_noise,
            hot_pixels=hot * spike_hot_pixels,
            time_shift=shift,
            entropy=entropy,
        )

    @property
    def changes_spikes(self) -> bool:
        """Whether the spikes themselves change, not only channels or exposures."""
        return self.kept < 1 or self.photon_noise > 0 or self.hot_pixels > 0

    def window(self, window: ExposureWindow, encoding: SpikeEncoding, length: int) -> ExposureWindow:
        """The shifted exposure; the shift is limited so that the stream of `length` frames has all frames needed."""
        shift = min(max(self.time_shift, -window.begin), length - window.end)
        while shift:
            moved = window.shifted(shift)
            try:
                encoding.support(moved, length)
                return moved
            except UserError:  # a representation may read more than the exposure
                shift -= 1 if shift > 0 else -1
        return window


class ChangedStream(SpikeStream):
    """A spike stream that returns changed spikes.

    Random draws depend on the sample and on `name`, and are made for the box that is read: every frame of a sample is
    read with the same box.

    Args:
        change: the changes.
        name: name of clip and file.
        filepath, spike_h, spike_w, flipud: as in `SpikeStream`.
    """

    def __init__(
        self,
        change: SpikeChange,
        name: str,
        filepath: str | Path,
        spike_h: int | None = None,
        spike_w: int | None = None,
        flipud: bool = True,
    ) -> None:
        super().__init__(filepath, spike_h, spike_w, flipud)
        self.change = change
        self.key = zlib.crc32(name.encode())

    def crop(
        self, begin: int, length: int, top: int, left: int, h: int, w: int, flipud: bool | None = None
    ) -> np.ndarray:
        """Like `SpikeStream.crop`, with changed spikes."""
        spikes = super().crop(begin, length, top, left, h, w, flipud)
        change, entropy = self.change, self.change.entropy
        if change.kept < 1:
            thin(spikes, change.kept, chance(entropy, SPIKE_CHANGE, RAISE, self.key))
        if change.photon_noise > 0:
            add_photon_noise(spikes, change.photon_noise, chance(entropy, SPIKE_CHANGE, PHOTONS, self.key))
        if change.hot_pixels > 0:
            spikes[:, chance(entropy, SPIKE_CHANGE, HOT).random((h, w)) < change.hot_pixels] = 1
        return spikes


def thin(spikes: np.ndarray, kept: float, rng: np.random.Generator) -> None:
    """Keeps a share of each pixel's spikes, in place: the n-th one if floor(n * kept + phase) increases with it.

    Args:
        spikes: (T, h, w) uint8 0/1.
        kept: in (0, 1]; the phase of a pixel is drawn from [0, 1).
    """
    phase = rng.random(spikes.shape[1:], np.float32)
    number = np.cumsum(spikes, axis=0, dtype=np.uint16)
    kept_count = np.floor(number * np.float32(kept) + phase)
    before = np.concatenate([np.floor(phase)[None], kept_count[:-1]])
    spikes &= kept_count > before


def add_photon_noise(spikes: np.ndarray, share: float, rng: np.random.Generator) -> None:
    """Removes each spike with probability `share`, and adds as many at random times of the same pixels, in place."""
    flat = spikes.reshape(len(spikes), -1)
    times, pixels = np.nonzero(flat)
    lost = rng.random(len(times)) < share
    doubled = pixels[rng.random(len(pixels)) < share]
    flat[times[lost], pixels[lost]] = 0
    flat[rng.integers(len(spikes), size=len(doubled)), doubled] = 1
