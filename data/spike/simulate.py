"""Spikes and blurred frames from frames on the spike clock.

A spike camera's pixel adds up light and fires when the sum reaches a threshold, which is then subtracted
(Zhu et al., "A retina-inspired sampling method", 2019; the set Spk-GoPro was made this way with threshold 2):

    charge += light[t];  spike[t] = charge >= threshold;  charge -= threshold * spike[t]

so that after any number of frames  0 <= integral(light) + start - threshold * sum(spike) < threshold.
A camera that opens its shutter for the same frames sees their mean, the blurred frame; the sharp frame is the one
at the middle of the exposure. `expose` makes both from one stream of frames, keeping only the open exposures.

    python -m scripts.data_preparation.simulate_dataset --help
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np

from data.spike.sync import GOPRO_SPIKES_PER_FRAME

Light = Literal["srgb", "linear"]
Start = np.random.Generator | np.ndarray | Literal["zero"]

LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # linear RGB to luminance, IEC 61966-2-1


def srgb_to_linear(value: np.ndarray) -> np.ndarray:
    """Linear light of sRGB values, both in [0,1] (IEC 61966-2-1); any shape, float64."""
    value = np.asarray(value, dtype=np.float64)
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(value: np.ndarray) -> np.ndarray:
    """sRGB values of linear light, both in [0,1]; the inverse of `srgb_to_linear`; any shape, float64."""
    value = np.asarray(value, dtype=np.float64)
    return np.where(value <= 0.0031308, value * 12.92, 1.055 * np.maximum(value, 0.0) ** (1 / 2.4) - 0.055)


LINEAR_OF_BYTE = srgb_to_linear(np.arange(256) / 255).astype(np.float32)


def to_uint8(value: np.ndarray) -> np.ndarray:
    """[0,1] to 0..255, rounded to nearest."""
    return np.clip(np.rint(value * 255), 0, 255).astype(np.uint8)


def sensor_light(frame: np.ndarray, spike_ratio: int = 2, light: Light = "srgb") -> np.ndarray:
    """What the spike sensor sees of a picture.

    Args:
        frame: (H,W,3) uint8 RGB; H and W multiples of `spike_ratio`.
        spike_ratio: picture pixels per spike pixel and axis; each spike pixel is their mean (INTER_AREA).
        light: "srgb" integrates the BT.601 gray of the stored values, as Spk-GoPro does; "linear" integrates
            luminance, after undoing the sRGB curve.

    Returns:
        (H/ratio, W/ratio) float64 in [0,1].

    Raises:
        ValueError: H or W is no multiple of `spike_ratio`.
    """
    height, width = frame.shape[:2]
    if height % spike_ratio or width % spike_ratio:
        raise ValueError(
            f"a frame of {height}x{width} does not divide by --spike_ratio {spike_ratio}: "
            "cut it to multiples of that first"
        )
    size = (width // spike_ratio, height // spike_ratio)
    if light == "srgb":
        gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        return cv2.resize(gray, size, interpolation=cv2.INTER_AREA) / 255.0
    luminance = LINEAR_OF_BYTE[frame] @ LUMINANCE
    return np.clip(cv2.resize(luminance, size, interpolation=cv2.INTER_AREA), 0.0, 1.0)


class IntegrateAndFire:
    """One integrating pixel per place; its charge is kept between calls, so a long stream may come in pieces.

    Args:
        shape: (h, w) of the sensor.
        threshold: charge at which a pixel fires; a pixel in constant light L fires at the rate L / threshold.
        start: charge before the first frame: a generator (drawn from U(0, threshold), so that pixels are out of
            step), "zero", or a (h, w) array in [0, threshold).

    Attributes:
        charge: (h, w) float64, what the pixels hold now.

    Raises:
        ValueError: the threshold is not positive, or `start` has another shape or range.
    """

    def __init__(self, shape: tuple[int, int], threshold: float = 2.0, start: Start = "zero") -> None:
        if not threshold > 0:
            raise ValueError(f"the spike threshold must be positive, got {threshold}")
        self.threshold = float(threshold)
        if isinstance(start, np.random.Generator):
            self.charge = start.random(shape) * self.threshold
        elif isinstance(start, np.ndarray):
            if start.shape != tuple(shape) or start.min() < 0 or start.max() >= threshold:
                raise ValueError(
                    f"the charge at the start must be {tuple(shape)} in [0, {threshold}), "
                    f"got {start.shape} in [{start.min()}, {start.max()}]"
                )
            self.charge = start.astype(np.float64)
        elif start == "zero":
            self.charge = np.zeros(shape)
        else:
            raise ValueError(f"the charge at the start is a generator, an array or 'zero', got {start!r}")

    def step(self, light: np.ndarray) -> np.ndarray:
        """Integrates further frames.

        Args:
            light: (T, h, w) float in [0,1].

        Returns:
            (T, h, w) uint8, 1 where a pixel fired: at most once per frame, so a threshold below the light
            saturates and the rest stays in `charge`.

        Raises:
            ValueError: another shape than the sensor's, or light outside [0,1] (NaN included).
        """
        if light.ndim != 3 or light.shape[1:] != self.charge.shape:
            raise ValueError(f"light must be (T, {self.charge.shape[0]}, {self.charge.shape[1]}), got {light.shape}")
        if light.size and not (light.min() >= 0 and light.max() <= 1):
            raise ValueError(f"light must lie in [0, 1], got [{light.min()}, {light.max()}]")
        spikes = np.empty(light.shape, dtype=np.uint8)
        for t, frame in enumerate(light):
            self.charge += frame
            np.greater_equal(self.charge, self.threshold, out=spikes[t].view(np.bool_))
            self.charge -= self.threshold * spikes[t]
        return spikes


def integrate_and_fire(light: np.ndarray, threshold: float = 2.0, start: Start = "zero") -> np.ndarray:
    """Spikes of a whole stream: `IntegrateAndFire` in one call. (T, h, w) float in [0,1] -> (T, h, w) uint8."""
    if light.ndim != 3:
        raise ValueError(f"light must be (T, h, w), got {light.shape}")
    return IntegrateAndFire(light.shape[1:], threshold, start).step(light)


@dataclass(frozen=True)
class Exposure:
    """When the shutter is open, in sharp frames; the spike clock runs 8 times as fast.

    A block begins every `stride` sharp frames and holds 8 * sharp_frames spike frames. The shutter is open from the
    block's first sharp frame to its last, spike frames [0, 8 (sharp_frames - 1)] of the block, both included; the
    sharp frame is number sharp_frames // 2. With stride = sharp_frames, as in GoPro, blocks follow one another and
    the shutter is closed for the last 7 spike frames of each.
    """

    sharp_frames: int = 7
    stride: int = 7

    def __post_init__(self) -> None:
        if self.sharp_frames < 2:
            raise ValueError(f"an exposure spans at least 2 sharp frames, got {self.sharp_frames}")
        if self.stride < 1:
            raise ValueError(f"the stride between exposures is at least 1 sharp frame, got {self.stride}")

    @property
    def spike_frames(self) -> int:
        """Spike frames per block."""
        return GOPRO_SPIKES_PER_FRAME * self.sharp_frames

    @property
    def end(self) -> int:
        """First spike frame of the block after the shutter has closed."""
        return GOPRO_SPIKES_PER_FRAME * (self.sharp_frames - 1) + 1

    @property
    def center(self) -> int:
        """Spike frame of the block at which the sharp frame was taken."""
        return GOPRO_SPIKES_PER_FRAME * (self.sharp_frames // 2)

    def ticks(self, blocks: int) -> int:
        """Spike frames that `blocks` blocks need."""
        return GOPRO_SPIKES_PER_FRAME * self.stride * (blocks - 1) + self.spike_frames

    def blocks(self, sharp_frames: int) -> int:
        """Blocks that fit in a video of `sharp_frames` frames (its last frame ends the last block's clock)."""
        return max(0, (sharp_frames - 1 - self.sharp_frames) // self.stride + 1)

    def sharp_needed(self, blocks: int) -> int:
        """Frames of video that `blocks` blocks need; inverse of `blocks`."""
        return self.stride * (blocks - 1) + self.sharp_frames + 1


@dataclass(frozen=True)
class ExposedFrame:
    """One block: (H,W,3) uint8 RGB `blurred` and `sharp`, and (8n, h, w) uint8 `spikes`."""

    blurred: np.ndarray
    sharp: np.ndarray
    spikes: np.ndarray


@dataclass
class _OpenBlock:
    """A block whose spike frames are still arriving."""

    begin: int
    total: np.ndarray
    sharp: np.ndarray | None = None
    spikes: list[np.ndarray] = field(default_factory=list)


def expose(
    frames: Iterable[np.ndarray],
    exposure: Exposure,
    *,
    threshold: float = 2.0,
    start: Start = "zero",
    spike_ratio: int = 2,
    light: Light = "srgb",
) -> Iterator[ExposedFrame]:
    """Blurred frames, sharp frames and spikes of a scene seen on the spike clock.

    The sensor integrates without a break from the first frame to the last, also between blocks.

    Args:
        frames: (H,W,3) uint8 RGB, one per spike frame.
        exposure: when the shutter is open.
        threshold, start: of `IntegrateAndFire`.
        spike_ratio, light: of `sensor_light`; "linear" also averages the blurred frame in linear light.

    Yields:
        one `ExposedFrame` per complete block; a block cut off by the end of the frames is not one.
    """
    sensor: IntegrateAndFire | None = None
    blocks: list[_OpenBlock] = []
    period = GOPRO_SPIKES_PER_FRAME * exposure.stride
    for tick, frame in enumerate(frames):
        seen = sensor_light(frame, spike_ratio, light)
        sensor = sensor or IntegrateAndFire(seen.shape, threshold, start)
        spikes = sensor.step(seen[None])[0]
        if tick % period == 0:
            blocks.append(_OpenBlock(tick, np.zeros(frame.shape, np.float64 if light == "linear" else np.uint32)))
        for block in blocks:
            age = tick - block.begin
            if age < exposure.end:
                block.total += LINEAR_OF_BYTE[frame] if light == "linear" else frame
            if age == exposure.center:
                block.sharp = frame.copy()
            block.spikes.append(spikes)
        if blocks and len(blocks[0].spikes) == exposure.spike_frames:
            yield _close(blocks.pop(0), exposure, light)


def _close(block: _OpenBlock, exposure: Exposure, light: Light) -> ExposedFrame:
    mean = block.total / exposure.end
    blurred = to_uint8(linear_to_srgb(mean)) if light == "linear" else to_uint8(mean / 255)
    assert block.sharp is not None
    return ExposedFrame(blurred, block.sharp, np.stack(block.spikes))
