"""Spikes and blurred frames from pictures of a scene at each spike frame.

A spike camera's pixel integrates light and fires when the charge reaches a threshold, which is then subtracted
(Zhu et al., "A retina-inspired sampling method", 2019; the set Spk-GoPro was simulated so, with threshold 2):

    charge += light[t];  spike[t] = charge >= threshold;  charge -= threshold * spike[t]

So after any number of frames  0 <= integral(light) + start - threshold * sum(spike) < threshold.
Arithmetic is float64, one addition at a time, so that numpy and torch, CPU and GPU give the same bits. Noise is in
data/spike/simulation/noise.py, simulators of other projects in presets.py, whole videos in video.py.

The blurred frame is the mean of the pictures during an exposure, the sharp frame the picture in its middle. `expose`
computes both from one stream of pictures, with only the exposures in progress in memory.

    python -m scripts.data_preparation.simulate_dataset --help
    python -m scripts.spikes simulate --help
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import cv2
import numpy as np

from data.spike.simulation.noise import PixelNoise
from data.spike.sync import GOPRO_SPIKES_PER_FRAME, ExposureWindow
from utils.user_error import UserError

if TYPE_CHECKING:  # most simulations use only numpy, and importing torch takes seconds
    from torch import Tensor

Light = Literal["srgb", "linear"]
Start = np.random.Generator | np.ndarray | Literal["zero"]
Reset = Literal["subtract", "zero"]
Array = TypeVar("Array", np.ndarray, "Tensor")

LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # linear RGB to luminance, IEC 61966-2-1


def srgb_to_linear(value: np.ndarray) -> np.ndarray:
    """Linear light of sRGB values, both in [0,1] (IEC 61966-2-1); any shape, float64."""
    value = np.asarray(value, dtype=np.float64)
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(value: np.ndarray) -> np.ndarray:
    """sRGB values of linear light, both in [0,1]; the inverse of `srgb_to_linear`; any shape, float64."""
    value = np.asarray(value, dtype=np.float64)
    return np.where(value <= 0.0031308, value * 12.92, 1.055 * np.maximum(value, 0.0) ** (1 / 2.4) - 0.055)


LINEAR_OF_BYTE = srgb_to_linear(np.arange(256) / 255).astype(np.float32)  # a table, faster than powers per pixel


def to_uint8(value: np.ndarray) -> np.ndarray:
    """[0,1] to 0..255, rounded to nearest."""
    result: np.ndarray = np.clip(np.rint(value * 255), 0, 255).astype(np.uint8)
    return result


def sensor_light(frame: np.ndarray, spike_ratio: int = 2, light: Light = "srgb", full_scale: float = 1.0) -> np.ndarray:
    """The light on the spike sensor's pixels from a picture.

    Args:
        frame: (H,W,3) uint8 RGB; H and W multiples of `spike_ratio`.
        spike_ratio: picture pixels per spike pixel and axis; each spike pixel is their mean (INTER_AREA).
        light: "srgb": BT.601 gray of the stored values, as in Spk-GoPro; "linear": luminance of the linear light
            after inverting the sRGB curve.
        full_scale: the value of white; with 255 "srgb" gives the integers of the gray picture.

    Returns:
        (H/ratio, W/ratio) float64 in [0, full_scale].

    Raises:
        UserError: H or W is no multiple of `spike_ratio`.
    """
    height, width = frame.shape[:2]
    if height % spike_ratio or width % spike_ratio:
        raise UserError(
            f"the height and width of a frame of {height}x{width} aren't multiples of --spike_ratio {spike_ratio}: "
            "crop it to multiples first"
        )
    size = (width // spike_ratio, height // spike_ratio)
    if light == "srgb":
        gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        return cv2.resize(gray, size, interpolation=cv2.INTER_AREA) / (255.0 / full_scale)
    luminance = LINEAR_OF_BYTE[frame] @ LUMINANCE
    result: np.ndarray = np.clip(cv2.resize(luminance, size, interpolation=cv2.INTER_AREA), 0.0, 1.0) * full_scale
    return result


class IntegrateAndFire:
    """A sensor of integrating pixels; charge is kept between calls, so a long stream may be given in pieces.

    Args:
        shape: (h, w) of the sensor.
        threshold: charge at which a pixel fires; a pixel in constant light L fires at the rate gain * L / threshold.
        start: charge before the first frame: a generator (drawn from U(0, threshold), so that pixels don't fire
            together), "zero", or a (h, w) array in [0, threshold).
        gain: charge per light and tick.
        reset: what a spike removes: the threshold ("subtract"), or all charge ("zero", which loses the excess).
        ticks: steps of integration per spike frame; a pixel that fires in several of them gives one spike.
        full_scale: the light of white; light is in [0, full_scale].
        noise: the pixels' noise; None: none. Also an attribute.

    Attributes:
        charge: (h, w) float64, the pixels' present charge; numpy or torch, as the last light.

    Raises:
        UserError: threshold, gain, ticks or full scale is not positive, or `start` has another shape or range.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        threshold: float = 2.0,
        start: Start = "zero",
        *,
        gain: float = 1.0,
        reset: Reset = "subtract",
        ticks: int = 1,
        full_scale: float = 1.0,
        noise: PixelNoise | None = None,
    ) -> None:
        if not threshold > 0:
            raise UserError(f"the spike threshold must be positive, got {threshold}")
        if not (gain > 0 and ticks > 0 and full_scale > 0):
            raise UserError(f"gain {gain}, ticks {ticks} and full scale {full_scale} must be positive")
        if reset not in ("subtract", "zero"):
            raise UserError(f"reset is 'subtract' or 'zero', got {reset!r}")
        self.threshold = float(threshold)
        self.gain, self.reset, self.ticks, self.full_scale, self.noise = gain, reset, ticks, full_scale, noise
        self.charge: Any = self._start(tuple(shape), start)

    def _start(self, shape: tuple[int, ...], start: Start) -> np.ndarray:
        if isinstance(start, np.random.Generator):
            return start.random(shape) * self.threshold
        if isinstance(start, np.ndarray):
            if start.shape != shape or start.min() < 0 or start.max() >= self.threshold:
                raise UserError(
                    f"the charge at the start must be {shape} in [0, {self.threshold}), "
                    f"got {start.shape} in [{start.min()}, {start.max()}]"
                )
            return start.astype(np.float64)
        if start != "zero":
            raise ValueError(f"the charge at the start is a generator, an array or 'zero', got {start!r}")
        return np.zeros(shape)

    def step(self, light: Array) -> Array:
        """Integrates further frames.

        Args:
            light: (T, h, w) in [0, full_scale], numpy or torch.

        Returns:
            (T, h, w) uint8 of the same kind, 1 where a pixel fired, at most once per frame: light above the threshold
            saturates, and its excess stays in `charge`.

        Raises:
            ValueError: another shape than the sensor's, or light outside its range (NaN included).
        """
        size = tuple(self.charge.shape)
        if light.ndim != 3 or tuple(light.shape[1:]) != size:
            raise ValueError(f"light must be (T, {size[0]}, {size[1]}), got {tuple(light.shape)}")
        if len(light) and not (light.min() >= 0 and light.max() <= self.full_scale):
            raise ValueError(f"light must lie in [0, {self.full_scale:g}], got [{light.min()}, {light.max()}]")
        self.charge = _float64_like(self.charge, light)
        fires_at = _float64_like(self.threshold * (1.0 if self.noise is None else self.noise.threshold), light)
        if isinstance(light, np.ndarray):
            spikes: Any = np.empty(light.shape, np.uint8)
        else:
            import torch

            spikes = torch.empty(light.shape, dtype=torch.uint8, device=light.device)
        for t, frame in enumerate(light):
            spikes[t] = self._integrate(frame, fires_at)
        result: Array = spikes
        return result

    def _integrate(self, frame: Any, fires_at: Any) -> Any:
        """Integrates one frame (h, w) of light; returns where pixels fired, bool. `fires_at`: their threshold."""
        if self.noise is not None:
            seen = self.noise.light(np.asarray(_float64_like(frame, self.noise.gain)) / self.full_scale)
            frame = _float64_like(seen * self.full_scale, frame)
        increment = self.gain * _float64_like(frame, frame)
        fired = self._fire(increment, fires_at)
        for _ in range(self.ticks - 1):
            fired |= self._fire(increment, fires_at)
        if self.noise is None:
            return fired
        if isinstance(fired, np.ndarray):
            return self.noise.readout(fired)
        import torch

        return torch.from_numpy(self.noise.readout(np.asarray(fired.cpu())))

    def _fire(self, increment: Any, fires_at: Any) -> Any:
        self.charge += increment
        fired = self.charge >= fires_at
        if self.reset == "subtract":
            self.charge -= fired * fires_at
        else:
            self.charge *= ~fired
        return fired


def _float64_like(values: Any, like: Any) -> Any:
    """`values` as float64, of the kind (numpy or torch) and on the device of `like`; not copied unless needed."""
    if isinstance(like, np.ndarray):
        return np.asarray(values.cpu() if hasattr(values, "cpu") else values, np.float64)
    import torch

    return torch.as_tensor(values, dtype=torch.float64, device=like.device)


def integrate_and_fire(light: np.ndarray, threshold: float = 2.0, start: Start = "zero") -> np.ndarray:
    """Spikes of a whole stream: `IntegrateAndFire` in one call. (T, h, w) float in [0,1] -> (T, h, w) uint8."""
    if light.ndim != 3:
        raise ValueError(f"light must be (T, h, w), got {light.shape}")
    return IntegrateAndFire(light.shape[1:], threshold, start).step(light)


@dataclass(frozen=True)
class Exposure:
    """When the shutter is open, in sharp frames of 8 spike frames each.

    A block begins every `stride` sharp frames and has 8 * sharp_frames spike frames. The shutter is open from the
    block's first sharp frame to its last, spike frames 0 to 8 (sharp_frames - 1) inclusive; the sharp frame is number
    sharp_frames // 2. With stride = sharp_frames, as in GoPro, blocks are adjacent and the shutter is closed for the
    last 7 spike frames of each.
    """

    sharp_frames: int = 7
    stride: int = 7

    def __post_init__(self) -> None:
        if self.sharp_frames < 2:
            raise UserError(f"an exposure spans at least 2 sharp frames, got {self.sharp_frames}")
        if self.stride < 1:
            raise UserError(f"the stride between exposures is at least 1 sharp frame, got {self.stride}")

    @property
    def period(self) -> int:
        """Spike frames from the beginning of a block to that of the next."""
        return GOPRO_SPIKES_PER_FRAME * self.stride

    @property
    def spike_frames(self) -> int:
        """Spike frames per block."""
        return GOPRO_SPIKES_PER_FRAME * self.sharp_frames

    @property
    def end(self) -> int:
        """First spike frame of the block with the shutter closed."""
        return GOPRO_SPIKES_PER_FRAME * (self.sharp_frames - 1) + 1

    @property
    def center(self) -> int:
        """Spike frame of the block at which the sharp frame was taken."""
        return GOPRO_SPIKES_PER_FRAME * (self.sharp_frames // 2)

    def ticks(self, blocks: int) -> int:
        """Spike frames needed for `blocks` blocks."""
        return GOPRO_SPIKES_PER_FRAME * self.stride * (blocks - 1) + self.spike_frames

    def blocks(self, sharp_frames: int) -> int:
        """Blocks in a video of `sharp_frames` frames (one frame more than those of the blocks, to end the last one)."""
        return max(0, (sharp_frames - 1 - self.sharp_frames) // self.stride + 1)

    def sharp_needed(self, blocks: int) -> int:
        """Frames of video needed for `blocks` blocks; inverse of `blocks`."""
        return self.stride * (blocks - 1) + self.sharp_frames + 1


@dataclass(frozen=True)
class Shutter:
    """A shutter that is open for `exposure` spike frames and closed for `gap`, periodically.

    A block is one exposure and the gap after it; the sharp frame is the middle one of the exposure.
    """

    exposure: int
    gap: int = 0

    def __post_init__(self) -> None:
        if self.exposure < 1 or self.gap < 0:
            raise UserError(
                f"an exposure of {self.exposure} and a gap of {self.gap} spike frames: at least 1 and 0 are needed"
            )

    @property
    def period(self) -> int:
        """Spike frames per block, which is also the distance between the beginnings of blocks."""
        return self.exposure + self.gap

    spike_frames = period

    @property
    def end(self) -> int:
        """First spike frame of the block with the shutter closed."""
        return self.exposure

    @property
    def center(self) -> int:
        """Spike frame of the block at which the sharp frame was taken."""
        return self.exposure // 2


@dataclass(frozen=True)
class ExposedFrame:
    """One block: `blurred` and `sharp` (H,W,3) uint8 RGB, and `spikes` (8n, h, w) uint8.

    `instants` maps spike frames of the block to the sharp pictures at their times.
    """

    blurred: np.ndarray
    sharp: np.ndarray
    spikes: np.ndarray
    instants: dict[int, np.ndarray] = field(default_factory=dict)


@dataclass
class _OpenBlock:
    """A block whose spike frames are not complete."""

    begin: int
    total: np.ndarray
    sharp: np.ndarray | None = None
    spikes: list[np.ndarray] = field(default_factory=list)
    instants: dict[int, np.ndarray] = field(default_factory=dict)


def expose(
    frames: Iterable[np.ndarray],
    exposure: Exposure | Shutter,
    *,
    threshold: float = 2.0,
    start: Start = "zero",
    spike_ratio: int = 2,
    light: Light = "srgb",
    make_sensor: Callable[[tuple[int, int]], IntegrateAndFire] | None = None,
    instants: int = 0,
) -> Iterator[ExposedFrame]:
    """Blurred frames, sharp frames and spikes of a scene, given its picture at each spike frame.

    The sensor integrates from the first frame to the last without interruption, also between blocks.

    Args:
        frames: (H,W,3) uint8 RGB, one per spike frame.
        exposure: when the shutter is open.
        threshold, start: see `IntegrateAndFire`.
        spike_ratio, light: see `sensor_light`; "linear" also averages the blurred frame in linear light.
        make_sensor: makes another sensor of a given (h, w); `threshold` and `start` then have no effect.
        instants: number of sharp pictures per exposure, evenly spaced from its first spike frame to its last.

    Yields:
        one `ExposedFrame` per complete block.
    """
    sensor: IntegrateAndFire | None = None
    kept = instant_centers(exposure, instants)
    blocks: list[_OpenBlock] = []
    for tick, frame in enumerate(frames):
        if sensor is None:
            size = frame.shape[0] // spike_ratio, frame.shape[1] // spike_ratio
            sensor = make_sensor(size) if make_sensor else IntegrateAndFire(size, threshold, start)
        spikes = sensor.step(sensor_light(frame, spike_ratio, light, sensor.full_scale)[None])[0]
        if tick % exposure.period == 0:
            blocks.append(_OpenBlock(tick, np.zeros(frame.shape, np.float64 if light == "linear" else np.uint32)))
        for block in blocks:
            age = tick - block.begin
            if age < exposure.end:
                block.total += LINEAR_OF_BYTE[frame] if light == "linear" else frame
            if age == exposure.center:
                block.sharp = frame.copy()
            if age in kept:
                block.instants[age] = frame.copy()
            block.spikes.append(spikes)
        if blocks and len(blocks[0].spikes) == exposure.spike_frames:
            yield _close(blocks.pop(0), exposure, light)


def _close(block: _OpenBlock, exposure: Exposure | Shutter, light: Light) -> ExposedFrame:
    mean = block.total / exposure.end
    blurred = to_uint8(linear_to_srgb(mean)) if light == "linear" else to_uint8(mean / 255)
    assert block.sharp is not None
    return ExposedFrame(blurred, block.sharp, np.stack(block.spikes), block.instants)


def instant_centers(exposure: Exposure | Shutter, instants: int) -> list[int]:
    """Spike frames of a block for `instants` evenly spaced pictures, the same as those of the test option `--times`."""
    window = ExposureWindow(0, exposure.end, exposure.center)
    times = [0.5] if instants == 1 else [index / (instants - 1) for index in range(instants)]
    return sorted({window.at(time).center for time in times})
