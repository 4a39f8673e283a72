"""Do spikes and frames show the same thing, the same way up, at the same moment? Measured by correlation.

    rows = orientation_scores(stream, gray, range(20, 61, 4))    # all ways to read a file, best first
    scores = orientations(exposure_rate(stream, window), gray)   # a clip's spikes as they are read, and mirrored
    scores = center_scores(stream, gray, range(88))              # highest at the picture's spike frame
    estimate = measure_center(stream, window, gray, sharp=True)  # the same for a clip's frames, with its certainty

Orientations are told apart by edges (`edges`): the wrong order of bits only shuffles pixels within groups of 8, and
still has a correlation of 0.92 in brightness. `measure_center` finds the spike frame around which the rate is most like
the sharp frame (a Gaussian's mean), or the shift of the exposure over which it is most like the blurred one.
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

SIGMA = 6.0  # of that Gaussian, in spike frames
SIGMAS_PER_EXPOSURE = 8  # at least, so that the Gaussian is whole around the middle of short exposures
FINE_SIGMA = 2.0  # pixels; details finer than this tell moments apart
MEASURED_SIDE = 256  # spike pixels of the middle of the picture that are looked at
COARSE_STEP = 4  # spike frames; the correlation is smooth over an exposure's tens of frames
NOTICEABLE = 0.005  # gain in correlation below which an offset is none
SURE = 3  # standard errors of a correlation
EDGE_SIGMA = 1.5  # pixels; smooths the noise of single spikes, and keeps the shuffled pixels of wrong bits apart
FLIPS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": lambda picture: picture,
    "up-down": lambda picture: picture[::-1],
    "left-right": lambda picture: picture[:, ::-1],
    "both": lambda picture: picture[::-1, ::-1],
}
RATE = GaussianRate(SIGMA)


@dataclass(frozen=True)
class Orientation:
    """One way to read a file, and how well it agrees with a picture.

    Attributes:
        bit_order: "little" (least significant bit first, as in every known camera and data set) or "big".
        flip: "none" (rows stored top-down), "up-down" (bottom-up), "left-right" or "both".
        correlation: of brightness.
        edge_correlation: of edges.
    """

    bit_order: str
    flip: str
    correlation: float
    edge_correlation: float


@dataclass(frozen=True)
class CenterEstimate:
    """Where the spikes are most like a frame.

    Attributes:
        offset: best spike frame minus the one that sync says.
        best, stated: correlation there, and where sync says.
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
    """Whether a clip's frames agree on another moment than sync, and the spikes there are noticeably more like them."""
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
    """A picture, (H,W,3) RGB or (H,W) uint8, as gray in [0,1] of (h, w), each pixel the mean of what it covers."""
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) if picture.ndim == 3 else picture
    return cv2.resize(gray, size[::-1], interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def gray_of_stream(path: Path, picture: np.ndarray, stream: SpikeStream) -> np.ndarray:
    """`gray_at_size` of a stream's sharp picture (H,W,3) RGB, whose file is `path`.

    Raises:
        UserError: the picture's sides have another ratio than the stream's: it shows something else, or the stream is
            read with a wrong geometry.
    """
    height, width = picture.shape[:2]
    if height * stream.spike_w != width * stream.spike_h:
        raise UserError(
            f"{path}: {height}x{width} pixels have another shape than the spikes' {stream.spike_h}x{stream.spike_w}: "
            f"give the picture of this stream, not cropped, or the stream's true --spike_h and --spike_w"
        )
    return gray_at_size(picture, (stream.spike_h, stream.spike_w))


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's correlation of two pictures; 0 where one is constant."""
    first, second = (plane.astype(np.float64) - plane.mean(dtype=np.float64) for plane in (first, second))
    scale = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / scale) if scale > 0 else 0.0


def edges(picture: np.ndarray) -> np.ndarray:
    """Laplacian of the Gaussian (Marr and Hildreth, 1980) of a picture (h, w), float32."""
    smooth = cv2.GaussianBlur(np.ascontiguousarray(picture, np.float32), (0, 0), EDGE_SIGMA)
    return cv2.Laplacian(smooth, cv2.CV_32F)


def orientations(picture: np.ndarray, gray: np.ndarray) -> dict[str, float]:
    """Correlation of the edges of two pictures (h, w), the first one flipped as each of `FLIPS`."""
    expected = edges(gray)
    return {flip: correlation(edges(turn(picture)), expected) for flip, turn in FLIPS.items()}


def orientation_scores(
    stream: SpikeStream, gray: np.ndarray, times: Sequence[int], *, inverted: bool = False
) -> list[Orientation]:
    """All eight ways to read the file, compared with a picture; the best by edges first.

    Where frames are no whole bytes, bits cannot be reversed and only four are left.

    Args:
        gray: (h, w) float32, the scene at about one of the spike frames `times`; the best of them counts.
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
    first = {(row.bit_order, row.flip): row for row in reversed(rows)}  # the best moment of each way
    return [row for row in rows if first[row.bit_order, row.flip] is row]


def center_scores(stream: SpikeStream, gray: np.ndarray, times: Sequence[int]) -> np.ndarray:
    """Edge correlation of the scene at each of `times` with a picture (h, w) float32; float64."""
    expected = edges(gray)
    return np.array([correlation(edges(picture), expected) for picture in reconstruct_frames(stream, RATE, times)])


def measure_center(
    stream: SpikeStream, window: ExposureWindow, gray: np.ndarray, *, sharp: bool, reach: int | None = None
) -> CenterEstimate:
    """Compares the spikes of different moments with a frame.

    Args:
        stream, window: the spikes of the frame and its exposure.
        gray: the frame, of `gray_at_size`.
        sharp: the frame is the sharp one, else the blurred one.
        reach: offsets looked at, in spike frames; None: half an exposure. The stream's ends limit them further.
    """
    reach = len(window) // 2 if reach is None else reach
    first, last = -min(reach, window.begin), min(reach, len(stream) - window.end)
    if sharp:  # a moment has no ends that could leave the stream
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
