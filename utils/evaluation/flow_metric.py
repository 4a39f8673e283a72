"""tOF: how far the motion of restored video is from the motion of the sharp video.

    tOF(t) = mean over pixels of | flow(restored[t-1], restored[t]) - flow(sharp[t-1], sharp[t]) |        in pixels

with |.| the length of the difference of the two flow vectors, and flow Farnebäck's on BT.601 gray ("Two-frame motion
estimation based on polynomial expansion", 2003). Chu et al. ("Learning temporal coherence via self-supervision for
GAN-based video generation", 2020) brought it up; flow settings and vector length are those of their evaluation. They
leave out the borders and the clip's first and last two frames; here every pixel and every pair of frames counts.
"""

import cv2
import numpy as np

# Their arguments: pyramid scale, levels, window, iterations, neighbourhood, its sigma.
FARNEBACK = {
    "pyr_scale": 0.5,
    "levels": 3,
    "winsize": 15,
    "iterations": 3,
    "poly_n": 5,
    "poly_sigma": 1.2,
    "flags": 0,
}


def optical_flow(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Optical flow between two uint8 pictures of one shape, (H,W,3) RGB or (H,W): (H,W,2) float32, x and y in pixels.

    Raises:
        ValueError: another type, or two shapes.
    """
    for picture in (before, after):
        if picture.dtype != np.uint8 or not (picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] == 3)):
            raise ValueError(f"flow is between uint8 pictures (H,W,3) or (H,W), not {picture.dtype} {picture.shape}")
    if before.shape != after.shape:
        raise ValueError(f"flow is between pictures of one shape, not {before.shape} and {after.shape}")
    gray = [p if p.ndim == 2 else cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) for p in (before, after)]
    return cv2.calcOpticalFlowFarneback(gray[0], gray[1], None, **FARNEBACK)  # type: ignore[call-overload]


def tof(flow: np.ndarray, sharp_flow: np.ndarray) -> float:
    """Mean distance in pixels between two flows (H,W,2)."""
    return float(np.linalg.norm(flow.astype(np.float64) - sharp_flow, axis=2).mean())
