"""PSNR and SSIM of 8-bit pictures, in RGB and in luma, as KAIR defines them, and tOF of videos.

    PSNR = 20 log10(255 / sqrt(mean((a - b)^2)))                          over all pixels and channels, border 0
    SSIM = mean of (2 ma mb + c1)(2 sab + c2) / ((ma^2 + mb^2 + c1)(saa + sbb + c2))     per channel, then the mean
           local moments by an 11 x 11 Gaussian of sigma 1.5, where it lies inside the picture;
           c1 = (0.01 * 255)^2, c2 = (0.03 * 255)^2
    Y    = 16 + (65.481 R + 128.553 G + 24.966 B) / 255                                   BT.601, not rounded

SSIM: Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural similarity",
2004. Computed in float64; KAIR rounds its luma to float32, which changes PSNR_Y by less than 1e-5 dB (tested).
The paper's deblurring tables use MATLAB's `ssim`, which includes the borders, so they are not reproduced exactly.

    tOF(t) = mean over pixels of | flow(restored[t-1], restored[t]) - flow(sharp[t-1], sharp[t]) |        in pixels

with |.| the length of the difference of the two flow vectors, and flow Farnebäck's on BT.601 gray ("Two-frame motion
estimation based on polynomial expansion", 2003). Introduced by Chu et al. ("Learning temporal coherence via
self-supervision for GAN-based video generation", 2020), whose flow settings and vector length are used. They leave out
the borders and a clip's first and last two frames; here every pixel and every pair of frames counts.
"""

import cv2
import numpy as np

from utils.user_error import UserError

# Pixels and standard deviation of SSIM's Gaussian filter, as in its paper (Wang et al., 2004) and in KAIR.
WINDOW, SIGMA = 11, 1.5
PEAK = 255.0  # largest value of 8-bit pictures
LUMA_WEIGHTS = np.array([65.481, 128.553, 24.966])  # BT.601's, of R, G, B


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 pictures (H,W,3) RGB or (H,W); infinite for equal ones.

    Raises:
        UserError: not uint8, or not of one shape.
    """
    _check_pair(a, b)
    # The sum of squared integers is exact, and many times as fast as a mean of float64 differences.
    return _psnr(cv2.norm(a, b, cv2.NORM_L2SQR) / a.size)


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity, at most 1, of two uint8 pictures (H,W,3) RGB or (H,W); the mean over channels.

    Raises:
        UserError: not uint8, not of one shape, or smaller than the 11 x 11 filter.
    """
    _check_pair(a, b)
    if a.ndim == 2:
        return _ssim(a.astype(np.float64), b.astype(np.float64))
    # One channel at a time, so that the intermediate results stay in the processor's cache.
    channels = [(a[..., c].astype(np.float64), b[..., c].astype(np.float64)) for c in range(a.shape[2])]
    return float(np.mean([_ssim(*pair) for pair in channels]))


def psnr_y(a: np.ndarray, b: np.ndarray) -> float:
    """PSNR in dB of the luma of two uint8 RGB pictures (H,W,3) or gray ones (H,W). Raises the errors of `psnr`."""
    _check_pair(a, b)
    return _psnr(float(np.mean((luma(a) - luma(b)) ** 2)))


def ssim_y(a: np.ndarray, b: np.ndarray) -> float:
    """SSIM of the luma of two uint8 RGB pictures (H,W,3) or gray ones (H,W). Raises the errors of `ssim`."""
    _check_pair(a, b)
    return _ssim(luma(a), luma(b))


def luma(picture: np.ndarray) -> np.ndarray:
    """BT.601 luma in [16, 235], float64 (H,W), not rounded, of uint8 RGB (H,W,3); gray (H,W) keeps its values."""
    if picture.ndim == 2:
        return picture.astype(np.float64)
    result: np.ndarray = picture.astype(np.float64) @ LUMA_WEIGHTS / PEAK + 16.0
    return result


def _check_pair(a: np.ndarray, b: np.ndarray) -> None:
    """Raises UserError unless both are 8-bit pictures of one shape."""
    for picture in (a, b):
        if picture.dtype != np.uint8 or not (picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] == 3)):
            raise UserError(
                f"metrics compare uint8 pictures (H,W,3) RGB or (H,W), not {picture.dtype} {picture.shape}; "
                f"utils_image.tensor2uint converts a network's output"
            )
    if a.shape != b.shape:
        raise UserError(f"metrics compare pictures of one shape, not {a.shape} with {b.shape}")


def _psnr(error: float) -> float:
    """PSNR of a mean squared error."""
    return float("inf") if error == 0 else float(20 * np.log10(PEAK / np.sqrt(error)))


def _ssim(a: np.ndarray, b: np.ndarray) -> float:
    """SSIM of two planes (H,W)."""
    if min(a.shape[:2]) < WINDOW:
        raise UserError(
            f"SSIM needs pictures of at least {WINDOW} x {WINDOW} pixels, not {a.shape[0]} x {a.shape[1]}; "
            f"for smaller ones only PSNR is defined"
        )
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    mean_a, mean_b = _local_mean(a), _local_mean(b)
    product, squares = mean_a * mean_b, mean_a**2 + mean_b**2
    covariance = _local_mean(a * b) - product
    # Filter the sum of squares, as only the sum of the variances is needed: four filters instead of five.
    variances = _local_mean(a**2 + b**2) - squares
    return float(np.mean((2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))))


def _local_mean(plane: np.ndarray) -> np.ndarray:
    """Gaussian mean of float64 (H,W) where the filter lies inside the picture: (H-10,W-10)."""
    window = cv2.getGaussianKernel(WINDOW, SIGMA)
    border = WINDOW // 2
    return cv2.sepFilter2D(plane, -1, window, window)[border:-border, border:-border]


# Farnebäck's arguments in the evaluation of Chu et al.
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
        UserError: not uint8, or not of one shape.
    """
    _check_pair(before, after)
    gray = [p if p.ndim == 2 else cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) for p in (before, after)]
    result: np.ndarray = cv2.calcOpticalFlowFarneback(gray[0], gray[1], None, **FARNEBACK)  # type: ignore[call-overload]
    return result


def tof(flow: np.ndarray, sharp_flow: np.ndarray) -> float:
    """Mean distance in pixels between two flows (H,W,2)."""
    return float(np.linalg.norm(flow.astype(np.float64) - sharp_flow, axis=2).mean())
