"""A blurred frame, its spikes and its sharp instants from a few rendered pictures, in closed form.

    spikes up to frame n = floor((charge at the start + integral of the light) / threshold)

which `IntegrateAndFire` (`data/spike/simulation/simulate.py`) steps through frame by frame: here one cumulative sum
gives all frames. Light above the threshold is cut there: a pixel fires at most once per frame and stores no rest.
Pictures between rendered ones are linear in time: rendered ones are at most `STEP` pixels of motion apart.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from data.spike.simulation.noise import HOT_CURRENT, SensorNoise
from data.spike.simulation.simulate import LINEAR_OF_BYTE, LUMINANCE, linear_to_srgb, to_uint8

STEP = 0.7  # pixels of motion between rendered pictures
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # BT.601, of stored values

Render = Callable[[np.ndarray], np.ndarray]
"""Times (N,) in spike frames to pictures (N,H,W,3) uint8 RGB."""


@dataclass(frozen=True)
class Camera:
    """The two cameras that record a scene: spike camera and frame camera.

    Attributes:
        frames: spike frames in the stream. begin, end: those of the exposure.
        ratio: picture pixels per spike pixel and axis.
        threshold: light at which a spike pixel fires.
        linear: the sensor sees luminance and the frame averages linear light; else both take stored values.
        noise: of the spike sensor. frame_noise: deviation of the blurred frame's, in shares of white.
    """

    frames: int
    begin: int
    end: int
    ratio: int
    threshold: float
    linear: bool
    noise: SensorNoise
    frame_noise: float


class Shot(NamedTuple):
    """(H,W,3) uint8 `blurred`, (T,H,W,3) uint8 `sharp` at the instants, (frames,h,w) uint8 `spikes`."""

    blurred: np.ndarray
    sharp: np.ndarray
    spikes: np.ndarray


def shoot(render: Render, travel: float, instants: np.ndarray, camera: Camera, rng: np.random.Generator) -> Shot:
    """
    Args:
        render: the scene.
        travel: pixels that anything in it travels during the stream.
        instants: spike frames (T,) of the sharp pictures.
        camera: how it is seen.
        rng: draws noise and the charge at the start.
    """
    number = int(np.clip(np.ceil(travel / STEP), 4, camera.frames))
    times = np.unique(np.concatenate([np.linspace(0, camera.frames - 1, number), instants]))
    pictures = render(times)
    sharp = pictures[np.searchsorted(times, instants)]
    weights = interpolation(times, camera.frames)  # (frames,N)
    share = weights[camera.begin : camera.end].mean(0)
    blurred, gray = _average_linear(pictures, share) if camera.linear else _average_stored(pictures, share)
    if camera.frame_noise:
        blurred = blurred + np.float32(camera.frame_noise) * rng.standard_normal(blurred.shape, np.float32)
    sensed = np.stack([_binned(plane, camera.ratio) for plane in gray])  # (N,h,w)
    seen = (weights @ sensed.reshape(len(times), -1)).reshape(-1, *sensed.shape[1:])
    return Shot(to_uint8(blurred), sharp, fire(seen, camera.threshold, camera.noise, rng))


def _average_stored(pictures: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean (H,W,3) of pictures (N,H,W,3) uint8, and their gray (N,H,W); both in [0,1]."""
    return _sum(share, pictures.astype(np.float32)) / 255, (pictures @ LUMA) / 255


def _average_linear(pictures: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same for linear light: the mean in stored values of it, and luminance."""
    light = LINEAR_OF_BYTE[pictures]
    return linear_to_srgb(_sum(share, light)).astype(np.float32), light @ LUMINANCE.astype(np.float32)


def interpolation(times: np.ndarray, frames: int) -> np.ndarray:
    """Weights (frames,N) float32 of pictures at `times` (N,), rising from 0 to frames - 1, in every spike frame."""
    weights = np.zeros((frames, len(times)), np.float32)
    clock = np.arange(frames)
    after = np.clip(np.searchsorted(times, clock), 1, len(times) - 1)
    share = (clock - times[after - 1]) / (times[after] - times[after - 1])
    weights[clock, after - 1], weights[clock, after] = 1 - share, share
    return weights


def fire(
    light: np.ndarray, threshold: float, noise: SensorNoise, rng: np.random.Generator, charged: float = 1.0
) -> np.ndarray:
    """Spikes (T,h,w) uint8 of light (T,h,w) float32 in [0,1].

    The charge at the start is random, up to `charged` of the threshold: after a reset, 0, all pixels begin alike.
    """
    shape = light.shape[1:]
    if noise.dark_current or noise.hot_pixels:
        light = light + np.float32(noise.dark_current)
        hot = rng.random(shape) < noise.hot_pixels
        light[:, hot] += rng.uniform(*HOT_CURRENT, int(hot.sum())).astype(np.float32)
    if noise.photons is not None:
        # Poisson's for the many photons that a spike takes, at a tenth of its cost.
        light = light + np.sqrt(light / np.float32(noise.photons)) * rng.standard_normal(light.shape, np.float32)
    gain = np.full(shape, 1 / threshold, np.float32)
    if noise.gain_spread:
        gain *= _spread(noise.gain_spread, shape, rng)
    if noise.threshold_spread:
        gain /= _spread(noise.threshold_spread, shape, rng)
    charge = np.minimum(light * gain, 1)
    _accumulate(np.add, charge)
    charge += np.float32(charged) * rng.random(shape, np.float32)
    # Shot noise can make the light of a frame negative; a count never falls.
    count = np.floor(charge, out=charge)
    if noise.photons is not None:
        _accumulate(np.maximum, count)
    spikes = np.diff(count, axis=0, prepend=np.float32(0)).astype(bool)
    if noise.spurious:
        spikes |= rng.random(spikes.shape, np.float32) < noise.spurious
    if noise.dead_pixels:
        spikes[:, rng.random(shape) < noise.dead_pixels] = False
    return spikes.view(np.uint8)


def _accumulate(ufunc: np.ufunc, frames: np.ndarray) -> None:
    """`ufunc.accumulate(frames, 0)` in place; frame by frame, which takes a tenth of numpy's time."""
    for last, frame in itertools.pairwise(frames):
        ufunc(frame, last, out=frame)


def _spread(deviation: float, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Factors of the pixels, of mean 1."""
    result: np.ndarray = np.maximum(1 + deviation * rng.standard_normal(shape, np.float32), np.float32(0.05))
    return result


def _sum(weights: np.ndarray, pictures: np.ndarray) -> np.ndarray:
    """Weighted sum over the first axis."""
    result: np.ndarray = (weights @ pictures.reshape(len(pictures), -1)).reshape(pictures.shape[1:])
    return result


def _binned(plane: np.ndarray, ratio: int) -> np.ndarray:
    """(H,W) float32 to (H/ratio,W/ratio): means of squares."""
    size = (plane.shape[1] // ratio, plane.shape[0] // ratio)
    return cv2.resize(plane, size, interpolation=cv2.INTER_AREA) if ratio > 1 else plane
