"""Frames between the frames of a video by dense optical flow: a video at the rate of the spike frames.

Between frames 0 and 1, both flows F01 and F10 are estimated (DIS, Kroeger et al. 2016). Each pixel is moved along its
own flow to the time t. If several arrive at one place, those weigh most whose flows agree, x + F01(x) + F10(x + F01(x))
= x: these are in front. The result is the flow at each place at t, and the number of pixels that arrived from each
frame: a place where none arrived is hidden in that frame and takes its colour from the other. The picture at t is a
blend of both frames sampled along the flow; the frames themselves are returned unchanged.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import cv2
import numpy as np

from data.spike.sync import GOPRO_SPIKES_PER_FRAME
from utils.user_error import UserError

FLOW_MIN_SIDE = 32
"""Least height and width of pictures for DIS."""

AGREEMENT_SCALE = 2.0
"""Disagreement of the two flows, in pixels, that reduces a pixel's weight to exp(-1)."""

HIDDEN_WEIGHT = 1e-3
"""Least weight of a pixel, such as one hidden in the other frame: it counts only where no other pixel arrives."""


def _grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of each pixel, (height, width) float32."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return x, y


def _agreement(flow: np.ndarray, back: np.ndarray) -> np.ndarray:
    """(H,W) weight in [HIDDEN_WEIGHT, 1] of each pixel's flow, from its agreement with the flow in the other direction.

    Shapes: `flow`, `back` (H,W,2).
    """
    x, y = _grid(*flow.shape[:2])
    returned = cv2.remap(back, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    miss = np.sum((flow + returned) ** 2, axis=-1)
    # Fast motion may disagree more: by 1 % of its squared length.
    allowed = AGREEMENT_SCALE**2 + 0.01 * (np.sum(flow**2, axis=-1) + np.sum(returned**2, axis=-1))
    result: np.ndarray = np.maximum(np.exp(-miss / allowed), HIDDEN_WEIGHT).astype(np.float32)
    return result


def _carry(flow: np.ndarray, weight: np.ndarray, time: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Moves pixels by `time` times their flow and distributes them to the four nearest places.

    Returns:
        (h,w,2) sum of weight * flow, (h,w) sum of weights, and (h,w) how many pixels arrived.
    """
    height, width = weight.shape
    x, y = _grid(height, width)
    x, y = x + time * flow[..., 0], y + time * flow[..., 1]
    left, top = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    # One column and row more on each side take what leaves the picture.
    columns = width + 2
    place = (np.clip(top, -1, height - 1) + 1) * columns + np.clip(left, -1, width - 1) + 1
    inside = (left >= -1) & (left < width) & (top >= -1) & (top < height)
    total = np.zeros((4, (height + 2) * columns))
    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
        arrived = inside * np.abs(1 - dx - (x - left)) * np.abs(1 - dy - (y - top))
        share = weight * arrived
        at = (place + dy * columns + dx).ravel()
        for channel, value in enumerate((share * flow[..., 0], share * flow[..., 1], share, arrived)):
            total[channel] += np.bincount(at, value.ravel(), total.shape[1])
    total = total.reshape(4, height + 2, columns)[:, 1:-1, 1:-1].astype(np.float32)
    return np.moveaxis(total[:2], 0, -1).copy(), total[2], total[3]


def _fill(weighted: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """weighted / weight, (h,w,2); where the weight is 0, the mean of the smallest neighbourhood with weight."""
    result = weighted / np.maximum(weight, 1e-12)[..., None]
    known = weight > 1e-4
    if known.all():
        found: np.ndarray = result
        return found
    coarse_size = ((weight.shape[1] + 1) // 2, (weight.shape[0] + 1) // 2)
    if max(coarse_size) < 2:
        return np.where(known[..., None], result, 0).astype(np.float32)
    coarse = _fill(
        cv2.resize(weighted, coarse_size, interpolation=cv2.INTER_AREA),
        cv2.resize(weight, coarse_size, interpolation=cv2.INTER_AREA),
    )
    around = cv2.resize(coarse, weight.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.where(known[..., None], result, around).astype(np.float32)


def estimate_flows(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Optical flow from `first` to `second` and back by DIS: (H,W,2) float32 pixels (x, y) each."""
    gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (first, second)]
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    start = np.zeros((*gray[0].shape, 2), np.float32)
    return (estimator.calc(gray[0], gray[1], start.copy()), estimator.calc(gray[1], gray[0], start.copy()))


class FrameInterpolator:
    """Pictures between two pictures.

    Args:
        first, second: (H,W,3) uint8 RGB, H and W at least 32.
        flows: (H,W,2) float32 from first to second and back; None: estimated.
    """

    def __init__(
        self, first: np.ndarray, second: np.ndarray, flows: tuple[np.ndarray, np.ndarray] | None = None
    ) -> None:
        self.first, self.second = first, second
        forward, backward = flows or estimate_flows(first, second)
        # DIS computes at most at half size, so pixels are moved at half size too, four times as fast.
        self.half = ((first.shape[1] + 1) // 2, (first.shape[0] + 1) // 2)
        self.forward, self.forward_weight = self._halve(forward, _agreement(forward, backward))
        self.backward, self.backward_weight = self._halve(backward, _agreement(backward, forward))

    def _halve(self, flow: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scale = np.array([self.half[0] / flow.shape[1], self.half[1] / flow.shape[0]], dtype=np.float32)
        return (
            cv2.resize(flow, self.half, interpolation=cv2.INTER_AREA) * scale,
            cv2.resize(weight, self.half, interpolation=cv2.INTER_AREA),
        )

    def at(self, time: float) -> np.ndarray:
        """The picture at `time` in (0,1): (H,W,3) uint8 RGB."""
        height, width = self.first.shape[:2]
        flow0, weight0, arrived0 = _carry(self.forward, self.forward_weight, time)
        flow1, weight1, arrived1 = _carry(self.backward, self.backward_weight, 1 - time)
        flow = cv2.resize(_fill(flow0 - flow1, weight0 + weight1), (width, height), interpolation=cv2.INTER_LINEAR)
        flow *= np.array([width / self.half[0], height / self.half[1]], dtype=np.float32)
        x, y = _grid(height, width)
        total = np.zeros((height, width, 3), dtype=np.float32)
        total_weight = np.zeros((height, width, 1), dtype=np.float32)
        for frame, shift, arrived in (
            (self.first, -time, (1 - time) * np.minimum(arrived0, 1)),
            (self.second, 1 - time, time * np.minimum(arrived1, 1)),
        ):
            from_x, from_y = x + shift * flow[..., 0], y + shift * flow[..., 1]
            colour = cv2.remap(frame, from_x, from_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
            seen = cv2.resize(arrived, (width, height), interpolation=cv2.INTER_LINEAR)
            seen = seen * ((from_x > -1) & (from_x < width) & (from_y > -1) & (from_y < height)) + 1e-6
            total += colour * seen[..., None]
            total_weight += seen[..., None]
        result: np.ndarray = np.rint(total / total_weight).astype(np.uint8)
        return result


def to_spike_clock(frames: Iterable[np.ndarray], factor: int = GOPRO_SPIKES_PER_FRAME) -> Iterator[np.ndarray]:
    """A video with `factor` times as many frames; its own frames are unchanged, at multiples of `factor`.

    Args:
        frames: (H,W,3) uint8 RGB, all of one size, at least 32x32.

    Yields:
        (H,W,3) uint8 RGB: factor * (frames - 1) + 1 of them.

    Raises:
        UserError: frames too small for optical flow.
    """
    before: np.ndarray | None = None
    for frame in frames:
        if min(frame.shape[:2]) < FLOW_MIN_SIDE:
            raise UserError(
                f"optical flow needs frames of at least {FLOW_MIN_SIDE}x{FLOW_MIN_SIDE}, "
                f"got {frame.shape[0]}x{frame.shape[1]}"
            )
        if before is not None:
            between = FrameInterpolator(before, frame)
            for step in range(1, factor):
                yield between.at(step / factor)
        yield frame
        before = frame


def upsampled_length(frames: int, upsample: int) -> int:
    """Number of sharp frames of a video of `frames` frames, when each but the last becomes `upsample` frames."""
    return (frames - 1) * upsample + 1


def upsampled_clock(
    read: Callable[[int, int], Iterable[np.ndarray]], begin: int, count: int, upsample: int
) -> Iterator[np.ndarray]:
    """Pictures at the spike frames of `count` sharp frames from `begin` on, of a video slowed down `upsample` times.

    Args:
        read: reads frames [begin, end) of the original video.

    Yields:
        (H,W,3) uint8 RGB: GOPRO_SPIKES_PER_FRAME * (count - 1) + 1 of them.
    """
    first, last = begin // upsample, -(-(begin + count - 1) // upsample)
    ticks = to_spike_clock(read(first, last + 1), GOPRO_SPIKES_PER_FRAME * upsample)
    skipped = GOPRO_SPIKES_PER_FRAME * (begin - first * upsample)
    return islice(ticks, skipped, skipped + GOPRO_SPIKES_PER_FRAME * (count - 1) + 1)
