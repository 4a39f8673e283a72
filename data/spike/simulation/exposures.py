"""A blurred frame, its spikes and its sharp pictures at several instants, in closed form from a few rendered pictures.

    spikes up to frame n = floor((charge at the start + integral of the light) / threshold)

`IntegrateAndFire` (`data/spike/simulation/simulate.py`) computes this frame by frame, here one cumulative sum gives all
frames. Light is clipped at the threshold: a pixel fires at most once per frame and excess charge is lost. Pictures are
rendered at most `STEP` pixels of motion apart and interpolated linearly in time.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from data.spike.simulation.noise import HOT_CURRENT, SensorNoise
from data.spike.simulation.simulate import LINEAR_OF_BYTE, LUMINANCE, linear_to_srgb, to_uint8

STEP = 0.7  # most pixels of motion between rendered pictures: below a pixel, so that a blurred edge has no steps
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # BT.601: weights of stored RGB values, as cv2's gray

Render = Callable[[np.ndarray], np.ndarray]
"""Maps times (N,) in spike frames to pictures (N,H,W,3) uint8 RGB."""


@dataclass(frozen=True)
class Camera:
    """The spike camera and the frame camera that record a scene.

    Attributes:
        frames: spike frames in the stream.
        begin, end: the exposure's spike frames [begin, end).
        ratio: picture pixels per spike pixel and axis.
        threshold: charge at which a spike pixel fires.
        linear: the spike sensor integrates luminance and the blurred frame linear light; else both stored values.
        noise: the spike sensor's.
        frame_noise: standard deviation of the blurred frame's noise, as a share of white.
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
    """`blurred` (H,W,3) uint8, `sharp` (T,H,W,3) uint8 at the instants, `spikes` (frames,h,w) uint8."""

    blurred: np.ndarray
    sharp: np.ndarray
    spikes: np.ndarray


def shoot(render: Render, travel: float, instants: np.ndarray, camera: Camera, rng: np.random.Generator) -> Shot:
    """
    Args:
        render: renders the scene.
        travel: greatest motion in the scene during the stream, in pixels.
        instants: spike frames (T,) of the sharp pictures.
        camera: the cameras.
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
    """The mean (H,W,3) of linear light, as stored values, and the luminance (N,H,W); both in [0,1]."""
    light = LINEAR_OF_BYTE[pictures]
    return linear_to_srgb(_sum(share, light)).astype(np.float32), light @ LUMINANCE.astype(np.float32)


def interpolation(times: np.ndarray, frames: int) -> np.ndarray:
    """Weights (frames,N) float32 of the pictures at `times` (N,), ascending from 0 to frames - 1, in each frame."""
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

    The initial charge is random, up to `charged` times the threshold; with 0, as after a reset, all pixels begin alike.
    """
    shape = light.shape[1:]
    if noise.dark_current or noise.hot_pixels:
        light = light + np.float32(noise.dark_current)
        hot = rng.random(shape) < noise.hot_pixels
        light[:, hot] += rng.uniform(*HOT_CURRENT, int(hot.sum())).astype(np.float32)
    if noise.photons is not None:
        # A normal distribution: close to Poisson's for the many photons of a spike, in a tenth of the time.
        light = light + np.sqrt(light / np.float32(noise.photons)) * rng.standard_normal(light.shape, np.float32)
    gain = np.full(shape, 1 / threshold, np.float32)
    if noise.gain_spread:
        gain *= _spread(noise.gain_spread, shape, rng)
    if noise.threshold_spread:
        gain /= _spread(noise.threshold_spread, shape, rng)
    charge = np.minimum(light * gain, 1)
    _accumulate(np.add, charge)
    charge += np.float32(charged) * rng.random(shape, np.float32)
    # Shot noise can make the light of a frame negative, but the number of spikes can't decrease.
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
    """`ufunc.accumulate(frames, 0)` in place, frame by frame, in a tenth of numpy's time."""
    for last, frame in itertools.pairwise(frames):
        ufunc(frame, last, out=frame)


def _spread(deviation: float, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Random factors of the pixels with mean 1."""
    result: np.ndarray = np.maximum(1 + deviation * rng.standard_normal(shape, np.float32), np.float32(0.05))
    return result


def _sum(weights: np.ndarray, pictures: np.ndarray) -> np.ndarray:
    """Weighted sum over the first axis."""
    result: np.ndarray = (weights @ pictures.reshape(len(pictures), -1)).reshape(pictures.shape[1:])
    return result


def _binned(plane: np.ndarray, ratio: int) -> np.ndarray:
    """(H,W) float32 to (H/ratio,W/ratio): means of ratio x ratio pixels."""
    size = (plane.shape[1] // ratio, plane.shape[0] // ratio)
    return cv2.resize(plane, size, interpolation=cv2.INTER_AREA) if ratio > 1 else plane
