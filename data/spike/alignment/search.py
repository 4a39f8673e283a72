"""A first guess of how two cameras go together, among all that is likely, by correlation of thumbnails.

For every scale, angle and mirroring, each frame's thumbnail is correlated with those of the spikes at many times, over
all shifts at once (by the Fourier transform). A clock (begin, period) picks one time for each frame; frames agree on
one shift only under the right clock and scale. Two correlations are added: that of the pictures, which knows the place,
and that of their departures from the mean over the frames, which knows the time.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from scipy import fft

from data.spike.alignment.charge import Charge
from data.spike.alignment.frames_view import View
from data.spike.alignment.geometry import in_pixels, similarity

FFT_SIDE = 64  # of the padded thumbnails
THUMB = 40  # pixels of the spikes' thumbnails' longer side
SHIFT = 10  # thumbnail pixels by which the pictures may be shifted: a quarter of their width
BAND = (0.7, 3.0)  # pixels; a difference of Gaussians keeps edges and drops brightness
TYPICAL_EXPOSURE = 0.6  # of the period; only a first guess
SCALES = tuple(1.08**power for power in range(-4, 5))  # 0.73 to 1.36
ANGLES = (-2.5, 0.0, 2.5)  # degrees
FRAMES_BEFORE = 3.6  # frames by which either recording may begin first
SCEPTICISM = 1.5  # frames; a clock that puts only some frames into the stream agrees with them more easily
LEAST_FRAMES = 3  # that the stream covers, or fewer where the clip has fewer


@dataclass(frozen=True)
class Guess:
    """A possible alignment.

    Attributes:
        score: mean of the two correlations.
        begin, period, exposure: in spike frames, of frame 0.
        homography: (3,3) in the coordinates of `geometry.py`.
    """

    score: float
    begin: float
    period: float
    exposure: float
    homography: np.ndarray


@dataclass(frozen=True)
class Clocks:
    """Clocks that are tried: `begins` and `periods` (C,) each, and the thumbnail's number for each frame, (C,K) int,
    -1 where the stream does not cover the exposure."""

    begins: np.ndarray
    periods: np.ndarray
    thumbnail: np.ndarray


class Search:
    """
    Args:
        charge: of the stream, any size.
        view: of the first frames.
        periods: the shortest and the longest period that is likely, in spike frames.
        reach: RGB frames by which either recording may begin first.
    """

    def __init__(self, charge: Charge, view: View, periods: tuple[float, float], reach: float = FRAMES_BEFORE) -> None:
        self.view, self.periods, self.reach = view, periods, reach
        small = charge.shrunk(max(1, round(max(charge.size) / THUMB)))
        self.size, self.end = small.size, charge.end
        typical = math.sqrt(periods[0] * periods[1])
        self.exposure = max(2.0, min(TYPICAL_EXPOSURE * typical, self.end / 2))
        self.step = typical / 6
        self.times = np.arange(0, self.end - self.exposure + 1e-6, self.step)  # of exposures' beginnings
        pictures = np.stack([_band(small.mean(time, time + self.exposure)) for time in self.times])
        pictures -= pictures.mean((1, 2), keepdims=True)
        self.spectra = fft.rfft2(pictures, (FFT_SIDE, FFT_SIDE))
        self.energy = (pictures**2).sum((1, 2))

    def best(self, count: int) -> list[Guess]:
        """The most likely alignments, of different clocks, the best one first."""
        coarse = self._clocks(period_step=0.1, begin_step=1 / 3)
        firsts = [
            (self._guesses(coarse, scale, 0.0, turned, mirrored, 1)[0], turned, mirrored)
            for mirrored in (False, True)
            for turned in (False, True)
            for scale in SCALES[::2]
        ]
        firsts.sort(key=lambda first: -first[0].score)
        fine = self._clocks(period_step=0.03, begin_step=1 / 6)
        found: list[Guess] = []
        for guess, turned, mirrored in firsts[:2]:
            scale = float(np.hypot(*guess.homography[:2, 1]))
            for factor in (1 / 1.06, 1.0, 1.06):
                for angle in ANGLES:
                    found += self._guesses(fine, scale * factor, angle, turned, mirrored, 3)
        found.sort(key=lambda guess: -guess.score)
        return list(_distinct(found, count))

    def _clocks(self, period_step: float, begin_step: float) -> Clocks:
        """All clocks with steps in shares of a period."""
        low, high = self.periods
        steps = max(1, math.ceil(math.log(high / low) / math.log1p(period_step)))
        indices = self.view.indices
        needed = min(LEAST_FRAMES, len(indices))
        begins, periods, rows = [], [], []
        for period in np.geomspace(low, high, steps + 1) if high > low else [low]:
            for begin in np.arange(-self.reach, self.reach + 1e-6, begin_step) * period:
                # The exposure's middle is what matters: thumbnails are exposed for the typical time.
                number = np.rint((begin + indices * period) / self.step).astype(int)
                number[(number < 0) | (number >= len(self.times))] = -1
                if (number >= 0).sum() >= needed:
                    begins.append(begin)
                    periods.append(period)
                    rows.append(number)
        return Clocks(np.array(begins), np.array(periods), np.array(rows))

    def _guesses(
        self, clocks: Clocks, scale: float, angle: float, turned: bool, mirrored: bool, count: int
    ) -> list[Guess]:
        """The best clocks under a similarity whose shift is free."""
        homography = similarity(scale, math.radians(angle) + math.pi * turned, (0.0, 0.0), mirrored)
        matrix = np.linalg.inv(in_pixels(homography, self.view.size, self.size))
        frames = np.stack([_seen(gray, matrix, self.size) for gray in self.view.gray])
        moving = frames - frames.mean(0)
        scores = self._correlations(clocks, frames) + self._correlations(clocks, moving)  # (C,2S+1,2S+1)
        side = 2 * SHIFT + 1
        best = scores.reshape(len(scores), -1).argmax(1)
        values = scores.reshape(len(scores), -1)[np.arange(len(scores)), best] / 2
        covered = (clocks.thumbnail >= 0).sum(1)
        values *= covered / (covered + SCEPTICISM)
        guesses = []
        for number in np.argsort(-values)[:count]:
            down, right = best[number] // side - SHIFT, best[number] % side - SHIFT
            moved = homography.copy()
            moved[:2, 2] = 2 * right / self.size[1], 2 * down / self.size[1]
            guesses.append(
                Guess(float(values[number]), clocks.begins[number], clocks.periods[number], self.exposure, moved)
            )
        return guesses

    def _correlations(self, clocks: Clocks, frames: np.ndarray) -> np.ndarray:
        """Correlation of the frames (K,h,w) with the spikes of each clock at each shift: (C,2S+1,2S+1) float32."""
        spectra = fft.rfft2(frames, (FFT_SIDE, FFT_SIDE)).conj()
        window = np.r_[-SHIFT : SHIFT + 1]
        table = np.empty((len(frames), len(self.times), 2 * SHIFT + 1, 2 * SHIFT + 1), np.float32)
        for row, spectrum in zip(table, spectra, strict=True):
            product = fft.ifft(self.spectra * spectrum, axis=1)[:, window]
            row[:] = fft.irfft(product, FFT_SIDE, axis=2)[:, :, window]
        covered = clocks.thumbnail >= 0
        energy = (covered * (frames**2).sum((1, 2))).sum(1) * (covered * self.energy[clocks.thumbnail]).sum(1)
        total = np.zeros((len(clocks.begins), *table.shape[2:]), np.float32)
        for frame, number in enumerate(clocks.thumbnail.T):
            inside = number >= 0
            total[inside] += table[frame, number[inside]]
        result: np.ndarray = total / np.sqrt(energy + 1e-12)[:, None, None].astype(np.float32)
        return result


def _band(picture: np.ndarray) -> np.ndarray:
    """Difference of two Gaussians of a picture."""
    fine, coarse = (cv2.GaussianBlur(picture, (0, 0), sigma) for sigma in BAND)
    return fine - coarse


def _seen(gray: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The band of a frame as the spike camera's thumbnails show it; zero where the frame does not reach."""
    warped = cv2.warpPerspective(
        gray,
        matrix,
        size[::-1],
        flags=cv2.INTER_AREA | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    inside = cv2.warpPerspective(np.ones_like(gray), matrix, size[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    band = _band(warped) * (inside > 0.99)
    result: np.ndarray = band - band.mean()
    return result


def _distinct(guesses: Sequence[Guess], count: int) -> Iterator[Guess]:
    """The first `count` guesses whose clocks differ by more than a third of a period."""
    kept: list[Guess] = []
    for guess in guesses:
        if len(kept) == count:
            return
        same = any(
            abs(guess.begin - other.begin) < other.period / 3
            and abs(guess.period - other.period) < 0.04 * other.period
            and np.abs(guess.homography - other.homography).max() < 0.2
            for other in kept
        )
        if not same:
            kept.append(replace(guess))
            yield guess
