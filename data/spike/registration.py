"""Measures by correlation whether spikes and frames show the same scene, in the same orientation, at the same time.

    rows = orientation_scores(stream, gray, range(20, 61, 4))    # all orientations of a file, best first
    scores = orientations(exposure_rate(stream, window), gray)   # a clip's spikes as read, and flipped
    scores = center_scores(stream, gray, range(88))              # highest at the picture's spike frame
    estimate = measure_center(stream, window, gray, sharp=True)  # the same for a clip's frames, with its certainty

Orientations are compared by edges (`edges`): the wrong order of bits only permutes pixels within groups of 8, and still
gives a correlation of 0.92 in brightness. `measure_center` finds the spike frame around which the rate (a Gaussian's
mean) is most similar to the sharp frame, or the shift of the exposure whose mean is most similar to the blurred one.
Test: `python -m pytest tests/data/spike/test_registration.py`.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from data.spike.encoding import build_encoding
from data.spike.reconstruction.methods import GaussianRate
from data.spike.reconstruction.reconstruct import reconstruct_frames
from data.spike.stream_report import reversed_bits
from data.spike.sync import ExposureWindow
from utils.spike_loader import SpikeStream
from utils.user_error import UserError

SIGMA = 6.0  # of that Gaussian, in spike frames: little noise, and short against motion
SIGMAS_PER_EXPOSURE = 8  # limits the sigma, so that the Gaussian lies inside short exposures
FINE_SIGMA = 2.0  # pixels; finer details move noticeably between moments
MEASURED_SIDE = 256  # side in spike pixels of the centre crop that is compared
COARSE_STEP = 4  # spike frames; the correlation is smooth over an exposure's tens of frames
NOTICEABLE = 0.005  # gain in correlation below which an offset is ignored
SURE = 3  # standard errors of a correlation by which a gain is significant
EDGE_SIGMA = 1.5  # pixels; smooths the noise of single spikes, but not the permuted pixels of wrong bits
# The four orientations of a picture.
FLIPS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": lambda picture: picture,
    "up-down": lambda picture: picture[::-1],
    "left-right": lambda picture: picture[:, ::-1],
    "both": lambda picture: picture[::-1, ::-1],
}
RATE = GaussianRate(SIGMA)  # the reconstruction that is compared with pictures


@dataclass(frozen=True)
class Orientation:
    """An orientation of a file, and its correlation with a picture.

    Attributes:
        bit_order: "little" (least significant bit first, as in every known camera and data set) or "big".
        flip: "none" (rows stored top-down), "up-down" (bottom-up), "left-right" or "both".
        correlation: correlation of brightness.
        edge_correlation: correlation of edges.
    """

    bit_order: str
    flip: str
    correlation: float
    edge_correlation: float


@dataclass(frozen=True)
class CenterEstimate:
    """The time at which the spikes are most similar to a frame.

    Attributes:
        offset: best spike frame minus that of the exposure's centre.
        best, stated: correlation at the best spike frame, and at the exposure's centre.
        pixels: number of pixels compared.
    """

    offset: int
    best: float
    stated: float
    pixels: int

    @property
    def noise(self) -> float:
        """Standard error of a correlation of `best` over `pixels` pixels."""
        return (1 - self.best**2) / math.sqrt(self.pixels)


def is_off(estimates: Sequence[CenterEstimate], tolerance: int) -> bool:
    """Whether the median offset of a clip's frames exceeds `tolerance`, with a significant gain in correlation."""
    offset = statistics.median(estimate.offset for estimate in estimates)
    gain = statistics.mean(estimate.best - estimate.stated for estimate in estimates)
    noise = statistics.mean(estimate.noise for estimate in estimates)
    return abs(offset) > tolerance and gain > max(NOTICEABLE, SURE * noise)


def exposure_rate(stream: SpikeStream, window: ExposureWindow) -> np.ndarray:
    """Firing rate over the exposure, (h, w) float32."""
    spikes = stream.crop(window.begin, len(window), 0, 0, stream.spike_h, stream.spike_w)
    result: np.ndarray = spikes.mean(axis=0, dtype=np.float32)
    return result


def gray_at_size(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture, (H,W,3) RGB or (H,W) uint8, as gray (h, w) in [0,1]; each pixel is the mean over its area."""
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) if picture.ndim == 3 else picture
    return cv2.resize(gray, size[::-1], interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def gray_of_stream(path: Path, picture: np.ndarray, stream: SpikeStream) -> np.ndarray:
    """`gray_at_size` of a stream's sharp picture (H,W,3) RGB, whose file is `path`.

    Raises:
        UserError: picture and stream differ in aspect ratio: the picture is of another stream or cropped, or the stream
            is read with a wrong geometry.
    """
    height, width = picture.shape[:2]
    if height * stream.spike_w != width * stream.spike_h:
        raise UserError(
            f"{path}: the aspect ratio of {height}x{width} pixels differs from the spikes' "
            f"{stream.spike_h}x{stream.spike_w}: give this stream's picture, not cropped, or the correct --spike_h and "
            "--spike_w"
        )
    return gray_at_size(picture, (stream.spike_h, stream.spike_w))


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's correlation of two pictures; 0 if one is constant."""
    first, second = (plane.astype(np.float64) - plane.mean(dtype=np.float64) for plane in (first, second))
    scale = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / scale) if scale > 0 else 0.0


def edges(picture: np.ndarray) -> np.ndarray:
    """Laplacian of the Gaussian (Marr and Hildreth, 1980) of a picture (h, w), float32."""
    smooth = cv2.GaussianBlur(np.ascontiguousarray(picture, np.float32), (0, 0), EDGE_SIGMA)
    return cv2.Laplacian(smooth, cv2.CV_32F)


def orientations(picture: np.ndarray, gray: np.ndarray) -> dict[str, float]:
    """Correlation of the edges of two pictures (h, w), for each flip of the first one."""
    expected = edges(gray)
    return {flip: correlation(edges(turn(picture)), expected) for flip, turn in FLIPS.items()}


def orientation_scores(
    stream: SpikeStream, gray: np.ndarray, times: Sequence[int], *, inverted: bool = False
) -> list[Orientation]:
    """All eight orientations of a file, sorted by the correlation of edges with a picture, best first.

    If frames are not whole bytes, bits can't be reversed, and there are four orientations.

    Args:
        gray: (h, w) float32, the scene at about one of the spike frames `times`; the best of them is used.
        inverted: exchange zeros and ones.
    """
    begin, end = RATE.support(min(times), len(stream))[0], RATE.support(max(times), len(stream))[1]
    stored = stream.get_block_spikes(begin, end - begin, flipud=False)
    if inverted:
        stored = 1 - stored
    rows: list[Orientation] = []
    for bit_order in ("little",) if stored[0].size % 8 else ("little", "big"):
        spikes = stored if bit_order == "little" else reversed_bits(stored)
        for upright in reconstruct_frames(spikes, RATE, [time - begin for time in times]):
            for flip, likeness in orientations(upright, gray).items():
                rows.append(Orientation(bit_order, flip, correlation(FLIPS[flip](upright), gray), likeness))
    rows.sort(key=lambda row: -row.edge_correlation)
    first = {(row.bit_order, row.flip): row for row in reversed(rows)}  # the best time of each orientation
    return [row for row in rows if first[row.bit_order, row.flip] is row]


def center_scores(stream: SpikeStream, gray: np.ndarray, times: Sequence[int]) -> np.ndarray:
    """Correlation of edges of a picture (h, w) float32 with the scene at each of `times`, (len(times),) float64."""
    expected = edges(gray)
    return np.array([correlation(edges(picture), expected) for picture in reconstruct_frames(stream, RATE, times)])


def measure_center(
    stream: SpikeStream, window: ExposureWindow, gray: np.ndarray, *, sharp: bool, reach: int | None = None
) -> CenterEstimate:
    """Compares the spikes at different times with a frame.

    Args:
        stream, window: the frame's stream and exposure.
        gray: the frame, from `gray_at_size`.
        sharp: the frame is the sharp one; False: the blurred one.
        reach: largest offset in spike frames, further limited by the stream's ends; None: half an exposure.
    """
    reach = len(window) // 2 if reach is None else reach
    first, last = -min(reach, window.begin), min(reach, len(stream) - window.end)
    if sharp:  # only the centre must be inside the stream, not a whole exposure
        first, last = -min(reach, window.center), min(reach, len(stream) - 1 - window.center)
    height, width = min(MEASURED_SIDE, stream.spike_h), min(MEASURED_SIDE, stream.spike_w)
    top, left = (stream.spike_h - height) // 2, (stream.spike_w - width) // 2
    frame_details = _details(gray[top : top + height, left : left + width])
    moment = {"representation": "gaussian", "sigma": min(SIGMA, len(window) / SIGMAS_PER_EXPOSURE)}
    encoding = build_encoding(moment if sharp else {"representation": "count"}, 1.0)

    def likeness(offset: int) -> float:
        if sharp:
            center = window.center + offset
            moved = ExposureWindow(center, center + 1, center)
        else:
            moved = window.shifted(offset)
        return correlation(_details(encoding.encode_crop(stream, moved, top, left, height, width)[0]), frame_details)

    scores = {offset: likeness(offset) for offset in (*range(first, last + 1, COARSE_STEP), last, 0)}
    coarse = max(scores, key=lambda offset: scores[offset])
    for offset in range(max(first, coarse - COARSE_STEP + 1), min(last, coarse + COARSE_STEP - 1) + 1):
        if offset not in scores:
            scores[offset] = likeness(offset)
    best = max(scores, key=lambda offset: (scores[offset], -abs(offset)))
    return CenterEstimate(best, scores[best], scores[0], frame_details.size)


def _details(picture: np.ndarray) -> np.ndarray:
    """A picture minus its smoothed version."""
    picture = np.ascontiguousarray(picture, np.float32)
    return picture - cv2.GaussianBlur(picture, (0, 0), FINE_SIGMA)
