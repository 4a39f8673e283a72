"""Restorations without training, from one blurred frame and its spikes: baselines for a network.

    sdm        sharp = blurred * (rate(moment) + a) / (rate(exposure) + a)                               colour
    charge     the same with the rates between spikes (`utils/charge.py`) in place of counts             colour
    gaussian   firing rate x threshold, averaged by a Gaussian at the exposure's centre, as a picture    gray
    interval   the same from the time between spikes, second order (`data/spike/frame_sums.py`)         gray

sdm is the spike-guided deblurring model (Chen et al., SpikeReveal, 2024): blurred over sharp is the exposure's mean
rate over the rate at the sharp frame's instant. rate(moment) is the Gaussian's mean; a is one spike per exposure, the
uncertainty of an integrating pixel's count. A pixel too dark to fire has the quotient 1 and keeps the blurred colour,
and a has little effect on brighter pixels. The quotient does not depend on the camera's threshold. Spike pictures and
quotients are resized bilinearly to the frame.

    python main_test_vrt.py --opt options/demo/quickstart.json       # its second table has these rows
"""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from utils.user_error import UserError

SIGMA = 5.0
"""The Gaussian's, in spike frames. Wider ones have less noise and more blur: 6 is best on the GoPro sample, 4 on the
demo set, whose scenes move faster for their size; 5 is near both."""

CHARGE_SIGMA = 4.0
"""The Gaussian's of charge, chosen likewise: 4 is best on the GoPro sample, and 0.2 dB below 3, the best, on the demo
set, where 3 is 1 dB below on the GoPro sample. Narrower than SIGMA, as the rates between spikes have less noise."""

# The `spike` options of the rates.
MOMENT: dict[str, Any] = {"representation": "gaussian", "sigma": SIGMA}
EXPOSURE: dict[str, Any] = {"representation": "count"}
CHARGE_MOMENT: dict[str, Any] = {"representation": "charge", "sigma": CHARGE_SIGMA}
CHARGE_EXPOSURE: dict[str, Any] = {"representation": "charge_count"}
INTERVAL: dict[str, Any] = {"representation": "interval", "orders": [2]}  # the sharpest on the GoPro and REDS samples


def training_free(
    blurred: np.ndarray, intensity: Callable[[dict[str, Any]], np.ndarray], floor: float
) -> dict[str, np.ndarray]:
    """The results of all methods for one frame.

    Args:
        blurred: (H,W,3) uint8 RGB.
        intensity: maps `spike` options to that representation of the frame's spikes, (h,w) rate x threshold.
        floor: a x threshold, the intensity of one spike in the exposure.

    Returns:
        By name, uint8: "sdm" and "charge" (H,W,3), "gaussian" (H,W), "interval" (H,W).
    """
    size = blurred.shape[:2]
    moment = intensity(MOMENT)
    return {
        "sdm": spike_guided(blurred, moment, intensity(EXPOSURE), floor),
        "charge": spike_guided(blurred, intensity(CHARGE_MOMENT), intensity(CHARGE_EXPOSURE), floor),
        "gaussian": as_picture(moment, size),
        "interval": as_picture(intensity(INTERVAL), size),
    }


def spike_guided(blurred: np.ndarray, moment: np.ndarray, exposure: np.ndarray, floor: float) -> np.ndarray:
    """blurred (H,W,3) uint8 times (moment + floor) / (exposure + floor), both (h,w) float32; uint8, clipped at 255.

    Raises:
        UserError: the floor is not above 0; a pixel without spikes would be 0 / 0.
    """
    if not floor > 0:
        raise UserError(f"spike_guided: floor is {floor}; an intensity above 0 is needed.")
    quotient = _enlarged((moment + np.float32(floor)) / (exposure + np.float32(floor)), blurred.shape[:2])
    return _as_uint8(blurred * quotient[..., None])


def as_picture(intensity: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Intensities (h,w), about [0,1], as a gray picture (H,W) uint8 of the given size."""
    return _as_uint8(_enlarged(intensity, size) * np.float32(255))


def _enlarged(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h,w) float32 to (H,W): bilinear to enlarge, by area to shrink."""
    shrinks = size[0] < plane.shape[0]
    return cv2.resize(plane, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _as_uint8(values: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return result
