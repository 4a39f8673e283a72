"""A random rig: a frame camera and a spike camera that look at one scene from two places, each with a clock of its own.

    rig = random_rig(np.random.default_rng(0), Canvases(384, 0.6))
    rig.frames, rig.spikes, rig.truth        # (N,H,W,3) uint8 RGB, (T,h,w) uint8, what an alignment has to find

The scene is one of `layered_scene.py`. Spike frame t covers the time [t, t + 1); frame k is exposed during
[begin + k period, begin + k period + exposure), which need not be whole spike frames.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from data.spike.simulation.canvas import Canvases
from data.spike.simulation.exposures import LUMA, STEP, fire, interpolation
from data.spike.simulation.layered_scene import LayeredScene
from data.spike.simulation.noise import SensorNoise
from data.spike.simulation.simulate import LINEAR_OF_BYTE, LUMINANCE, linear_to_srgb, to_uint8

SUBPIXELS = 2  # per spike pixel and axis, so that a pixel averages the light on its area
ROOM = 1.6  # of the scene's side over the frames' longer one: what the spike camera sees beside them
BRIGHT, DARKEST = 0.98, 0.02  # quantile of a scene that is near white; a scene's that is hardly lit at all
FRAMES_REACH = 3  # the most RGB frames by which one recording begins before the other


@dataclass(frozen=True)
class RigTruth:
    """What an alignment has to find.

    Attributes:
        begin: spike frame at which frame 0 is exposed; below 0, the stream begins later.
        period: spike frames from one RGB frame to the next.
        exposure: spike frames that a frame is exposed.
        homography: (3,3) from frame pixels to spike pixels, both (x, y, 1) with a pixel's centre at whole numbers.
        threshold: slope of the frames' gray over the firing rate: intensity = rate x threshold.
        linear: the frames store linear light by the sRGB curve; the threshold is that of linear light.
    """

    begin: float
    period: float
    exposure: float
    homography: np.ndarray
    threshold: float
    linear: bool


@dataclass(frozen=True)
class Rig:
    """(N,H,W,3) uint8 RGB `frames`, (T,h,w) uint8 `spikes`, and the `truth` about them."""

    frames: np.ndarray
    spikes: np.ndarray
    truth: RigTruth


@dataclass(frozen=True)
class RigSettings:
    """The ranges that a rig is drawn from; the defaults are those of the benchmark.

    Attributes:
        sizes: heights and widths of the frames, multiples of every ratio.
        ratios: frame pixels per spike pixel at scale 1.
        number: of frames.
        period: spike frames per frame.
        offset: RGB frames by which the stream begins before or after the first exposure, at most.
        exposure: share of the period.
        log_scale: of the spike picture's scale, either way. rotation: degrees, either way.
        perspective: relative change of scale from the picture's middle to its side, at most.
        shift: of the spike picture's middle, in shares of its width, either way.
        travel: pixels that the camera moves in a frame's time, drawn log-uniformly.
        threshold: of the spike camera, log-uniform. gain: bright parts of the frames, in shares of white.
        colour: spread of the frame camera's gains over its channels.
        noise: factor on both cameras' noise.
        linear: share of rigs whose frames average linear light.
    """

    sizes: tuple[tuple[int, int], ...] = ((96, 128), (128, 160), (112, 112))
    ratios: tuple[int, ...] = (1, 2)
    number: tuple[int, int] = (8, 12)
    period: tuple[float, float] = (32.0, 64.0)
    offset: float = float(FRAMES_REACH)
    exposure: tuple[float, float] = (0.3, 1.0)
    log_scale: float = math.log(1.25)
    rotation: float = 3.0
    perspective: float = 0.03
    shift: float = 0.04
    travel: tuple[float, float] = (1.5, 8.0)
    threshold: tuple[float, float] = (1.0, 8.0)
    gain: tuple[float, float] = (0.5, 0.85)
    colour: float = 0.08
    noise: float = 1.0
    linear: float = 0.35


def random_rig(rng: np.random.Generator, canvases: Canvases, settings: RigSettings | None = None) -> Rig:
    """Draws a rig and what it records."""
    drawn = settings or RigSettings()
    height, width = drawn.sizes[int(rng.integers(len(drawn.sizes)))]
    ratio = int(rng.choice(drawn.ratios))
    spike_size = height // ratio, width // ratio
    number = int(rng.integers(drawn.number[0], drawn.number[1] + 1))
    period = rng.uniform(*drawn.period)
    exposure = period * rng.uniform(*drawn.exposure)
    begin = period * rng.uniform(-drawn.offset, drawn.offset)
    length = round((number + rng.uniform(-1, 2)) * period)
    homography = _homography(rng, (height, width), spike_size, drawn)

    lead = max(0, math.ceil(-begin))  # spike frames that the scene's clock runs before the stream
    duration = max(lead + length, math.ceil(lead + begin + (number - 1) * period + exposure) + 1)
    side = 8 * math.ceil(ROOM * max(height, width) / 8)
    speed = math.exp(rng.uniform(*np.log(drawn.travel))) / period
    scene = LayeredScene(canvases, side, duration, speed, rng)
    times = np.linspace(0, duration - 1, int(np.clip(np.ceil(scene.travel / STEP), 4, duration)))
    pictures = scene.render(times)  # (M,side,side,3)
    weights = interpolation(times, duration)  # (duration,M)

    linear = bool(rng.random() < drawn.linear)
    top, left = (side - height) // 2, (side - width) // 2
    shares = _exposed(weights, lead + begin + period * np.arange(number), exposure)  # (N,M)
    exposed = _averaged(pictures[:, top : top + height, left : left + width], shares, linear)  # (N,H,W,3)
    luma = LUMINANCE.astype(np.float32) if linear else LUMA
    # As a photographer does: bright parts of the scene are near white.
    brightness = np.float32(rng.uniform(*drawn.gain) / max(float(np.quantile(exposed @ luma, BRIGHT)), DARKEST))
    gains = np.exp(rng.normal(0, drawn.colour, 3)).astype(np.float32)
    clean = exposed * (brightness * gains)
    stored = (linear_to_srgb(np.clip(clean, 0, 1)) if linear else clean).astype(np.float32)
    deviation = np.float32(drawn.noise * rng.uniform(0, 0.02))
    frames = to_uint8(stored + deviation * rng.standard_normal(stored.shape, np.float32))

    light = _sensed(pictures, homography, (top, left), spike_size, linear) * brightness  # (M,h,w)
    seen = (weights[lead : lead + length] @ light.reshape(len(light), -1)).reshape(length, *spike_size)
    threshold = math.exp(rng.uniform(*np.log(drawn.threshold)))
    spikes = fire(seen, threshold, _noise(rng, drawn.noise), rng)
    sensed, shown = ((part @ luma).ravel().astype(np.float64) for part in (exposed * brightness, clean))
    slope = float(np.polyfit(sensed, shown, 1)[0])  # of the frames' gray over the light, by the channels' gains
    return Rig(frames, spikes, RigTruth(begin, period, exposure, homography, threshold * slope, linear))


def _homography(
    rng: np.random.Generator, size: tuple[int, int], spike_size: tuple[int, int], drawn: RigSettings
) -> np.ndarray:
    """(3,3) from frame pixels to spike pixels."""
    scale = math.exp(rng.uniform(-drawn.log_scale, drawn.log_scale)) * spike_size[1] / size[1]
    angle = math.radians(rng.uniform(-drawn.rotation, drawn.rotation))
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    tilt = rng.uniform(-1, 1, 2) * drawn.perspective / (np.array(size[::-1]) / 2)
    shift = rng.uniform(-1, 1, 2) * drawn.shift * spike_size[1]
    to_middle = np.array([[1, 0, -(size[1] - 1) / 2], [0, 1, -(size[0] - 1) / 2], [0, 0, 1]])
    turned = np.array([[cos, -sin, 0], [sin, cos, 0], [*tilt, 1]])
    middle = (np.array(spike_size[::-1]) - 1) / 2 + shift
    from_middle = np.array([[1, 0, middle[0]], [0, 1, middle[1]], [0, 0, 1]])
    matrix = from_middle @ turned @ to_middle
    result: np.ndarray = matrix / matrix[2, 2]
    return result


def _exposed(weights: np.ndarray, begins: np.ndarray, exposure: float) -> np.ndarray:
    """Weights (N,M) of the pictures in exposures that begin at times `begins` (N,), from those of the spike frames."""
    total = np.concatenate([np.zeros((1, weights.shape[1])), weights.cumsum(0, dtype=np.float64)])
    clock = np.arange(len(total))
    ends = begins + exposure
    columns = [np.interp(ends, clock, column) - np.interp(begins, clock, column) for column in total.T]
    return (np.stack(columns, 1) / exposure).astype(np.float32)


def _averaged(pictures: np.ndarray, shares: np.ndarray, linear: bool) -> np.ndarray:
    """Weighted means (N,H,W,3) in [0,1] of pictures (M,H,W,3) uint8, of their linear light or of stored values."""
    light = LINEAR_OF_BYTE[pictures] if linear else pictures.astype(np.float32) / 255
    result: np.ndarray = (shares @ light.reshape(len(light), -1)).reshape(len(shares), *pictures.shape[1:])
    return result


def _sensed(
    pictures: np.ndarray, homography: np.ndarray, corner: tuple[int, int], size: tuple[int, int], linear: bool
) -> np.ndarray:
    """Light (M,h,w) float32 in [0,1] on the spike camera's pixels, from pictures (M,S,S,3) of the scene.

    Args:
        corner: (top, left) of the frames in the pictures.
    """
    height, width = size
    # From a subpixel of the spike camera to the scene: spike pixel x has subpixels at x - 1/4 and x + 1/4.
    half = (SUBPIXELS - 1) / (2 * SUBPIXELS)
    spread = np.array([[1 / SUBPIXELS, 0, -half], [0, 1 / SUBPIXELS, -half], [0, 0, 1]])
    placed = np.array([[1, 0, corner[1]], [0, 1, corner[0]], [0, 0, 1]])
    matrix = placed @ np.linalg.inv(homography) @ spread
    result = np.empty((len(pictures), height, width), np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for plane, picture in zip(result, pictures, strict=True):
        gray = LINEAR_OF_BYTE[picture] @ LUMINANCE.astype(np.float32) if linear else (picture @ LUMA) / 255
        fine = cv2.warpPerspective(
            gray, matrix, (SUBPIXELS * width, SUBPIXELS * height), flags=flags, borderMode=cv2.BORDER_REFLECT_101
        )
        plane[:] = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)
    return result


def _noise(rng: np.random.Generator, amount: float) -> SensorNoise:
    """A spike camera's faults."""
    return SensorNoise(
        photons=math.exp(rng.uniform(math.log(50), math.log(1000))) / amount if amount else None,
        dark_current=amount * rng.uniform(0, 0.02),
        gain_spread=amount * rng.uniform(0, 0.03),
        threshold_spread=amount * rng.uniform(0, 0.03),
        hot_pixels=amount * rng.uniform(0, 5e-4),
        dead_pixels=amount * rng.uniform(0, 5e-4),
        spurious=amount * rng.uniform(0, 5e-4),
    )
