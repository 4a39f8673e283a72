"""Do spikes and frames show the same thing, the same way up, at the same moment? Measured by correlation.

`orientations` compares edges of the firing rate over the exposure with edges of the frame, as they are and mirrored.
`measure_center` finds the spike frame around which the rate is most like the sharp frame (a Gaussian's mean), or the
shift of the exposure over which it is most like the blurred one.
Test: `python -m pytest tests/data/spike/test_registration.py`.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from data.spike.encoding import build_encoding
from data.spike.orientation import correlation
from data.spike.sync import ExposureWindow
from utils.spike_loader import SpikeStream

SIGMA = 6.0  # of that Gaussian, in spike frames
SIGMAS_PER_EXPOSURE = 8  # at least, so that the Gaussian is whole around the middle of short exposures
FINE_SIGMA = 2.0  # pixels; details finer than this tell moments apart
MEASURED_SIDE = 256  # spike pixels of the middle of the picture that are looked at
COARSE_STEP = 4
NOTICEABLE = 0.005  # gain in correlation below which an offset is none
SURE = 3  # standard errors of a correlation
ORIENTATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as it is": lambda picture: picture,
    "upside down": lambda picture: picture[::-1],
    "mirrored": lambda picture: picture[:, ::-1],
    "turned by 180 degrees": lambda picture: picture[::-1, ::-1],
}


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
        """Standard error of a correlation of `best` over so many pixels."""
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
    return spikes.mean(axis=0, dtype=np.float32)


def orientations(rate: np.ndarray, gray: np.ndarray) -> dict[str, float]:
    """Correlation of the edges of two pictures, the first one as it is, upside down, mirrored and both."""
    edges = _edges(gray)
    return {name: correlation(_edges(turn(rate)), edges) for name, turn in ORIENTATIONS.items()}


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
    wanted = _details(gray[top : top + height, left : left + width])
    moment = {"representation": "gaussian", "sigma": min(SIGMA, len(window) / SIGMAS_PER_EXPOSURE)}
    encoding = build_encoding(moment if sharp else {"representation": "count"}, 1.0)

    def likeness(offset: int) -> float:
        if sharp:
            center = window.center + offset
            moved = ExposureWindow(center, center + 1, center)
        else:
            moved = window.shifted(offset)
        return correlation(_details(encoding.encode_crop(stream, moved, top, left, height, width)[0]), wanted)

    scores = {offset: likeness(offset) for offset in (*range(first, last + 1, COARSE_STEP), last, 0)}
    coarse = max(scores, key=lambda offset: scores[offset])
    for offset in range(max(first, coarse - COARSE_STEP + 1), min(last, coarse + COARSE_STEP - 1) + 1):
        if offset not in scores:
            scores[offset] = likeness(offset)
    best = max(scores, key=lambda offset: (scores[offset], -abs(offset)))
    return CenterEstimate(best, scores[best], scores[0], wanted.size)


def _edges(picture: np.ndarray) -> np.ndarray:
    smooth = cv2.GaussianBlur(np.ascontiguousarray(picture, np.float32), (0, 0), 1.5)
    return np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1))


def _details(picture: np.ndarray) -> np.ndarray:
    """What is left of a picture after smoothing."""
    picture = np.ascontiguousarray(picture, np.float32)
    return picture - cv2.GaussianBlur(picture, (0, 0), FINE_SIGMA)
