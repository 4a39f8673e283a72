"""Plane geometry of two cameras: a homography in coordinates that do not depend on the pictures' sizes.

A picture's coordinates are centred and run from -1 to 1 over its width; a pixel x of W has u = (2 x + 1) / W - 1, and
a pixel y of H has v = (2 y + 1 - H) / W. A homography G, with G[2,2] = 1, leads from the frames' to the spikes'.
"""

import math

import numpy as np


def to_pixels(size: tuple[float, float]) -> np.ndarray:
    """(3,3) from coordinates to pixels (x, y, 1) of a picture of (h, w), centres at whole numbers."""
    height, width = size
    return np.array([[width / 2, 0, (width - 1) / 2], [0, width / 2, (height - 1) / 2], [0, 0, 1]])


def in_pixels(homography: np.ndarray, size: tuple[float, float], spike_size: tuple[float, float]) -> np.ndarray:
    """The homography (3,3) from pixels of a frame to pixels of a spike picture."""
    matrix = to_pixels(spike_size) @ homography @ np.linalg.inv(to_pixels(size))
    result: np.ndarray = matrix / matrix[2, 2]
    return result


def from_pixels(homography: np.ndarray, size: tuple[float, float], spike_size: tuple[float, float]) -> np.ndarray:
    """The inverse of `in_pixels`."""
    matrix = np.linalg.inv(to_pixels(spike_size)) @ homography @ to_pixels(size)
    result: np.ndarray = matrix / matrix[2, 2]
    return result


def similarity(scale: float, angle: float, shift: tuple[float, float], mirrored: bool) -> np.ndarray:
    """(3,3); `angle` in radians; `mirrored` exchanges left and right first."""
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    sign = -1 if mirrored else 1
    return np.array([[sign * cos, -sin, shift[0]], [sign * sin, cos, shift[1]], [0, 0, 1]])


def grid(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates u, v of all pixels of (h, w), each (h, w) float64."""
    height, width = size
    u = (2 * np.arange(width) + 1) / width - 1
    v = (2 * np.arange(height) + 1 - height) / width
    return np.meshgrid(u, v)


def project(homography: np.ndarray, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where points land, and the denominator."""
    weight = homography[2, 0] * u + homography[2, 1] * v + homography[2, 2]
    x = (homography[0, 0] * u + homography[0, 1] * v + homography[0, 2]) / weight
    y = (homography[1, 0] * u + homography[1, 1] * v + homography[1, 2]) / weight
    return x, y, weight


def farthest(first: np.ndarray, second: np.ndarray, size: tuple[int, int]) -> float:
    """Distance in spike pixels between where two homographies (3,3), in pixels, send a picture of (h, w): the largest
    at a corner, an edge's middle or the centre."""
    x, y = np.meshgrid(np.array([0, 0.5, 1]) * (size[1] - 1), np.array([0, 0.5, 1]) * (size[0] - 1))
    (right, down, _), (other_right, other_down, _) = project(first, x, y), project(second, x, y)
    return float(np.hypot(right - other_right, down - other_down).max())


def plain_scale(size: tuple[int, int], spike_size: tuple[int, int]) -> np.ndarray:
    """The homography (3,3), in pixels, of cameras that share a lens: both pictures end at the same borders."""
    return in_pixels(np.eye(3), size, spike_size)
