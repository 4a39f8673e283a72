"""ColorVideoVDP: visible difference of two videos in just-objectionable differences (JOD); 10: none, lower: worse.

    CVVDP(device).of_clip(restored, sharp)        # (T,H,W,3) uint8 RGB each

Mantiuk, Hanji, Ashraf, Asano and Chapiro, "ColorVideoVDP: a visual difference predictor for image, video and display
distortions", 2024. It models contrast sensitivity in space, time and colour, without network and weights. Its package
`cvvdp` (MIT) is optional: `pip install cvvdp`.
"""

import importlib
from typing import Any

import numpy as np
import torch

from utils.user_error import UserError

FRAMES_PER_SECOND = 30.0  # of playback, not of recording: slow motion is judged as watched
DISPLAY = "standard_4k"  # the package's default: 30 inches, distance 75 cm, 200 cd/m2, sRGB


class CVVDP:
    """The metric.

    Args:
        device: where to compute.

    Raises:
        UserError: the package is not installed.
    """

    def __init__(self, device: torch.device) -> None:
        try:
            package: Any = importlib.import_module("pycvvdp")
        except ImportError as error:
            raise UserError(f"--cvvdp: {error}; pip install cvvdp") from error
        self._metric = package.cvvdp(display_name=DISPLAY, quiet=True, device=device)

    def of_clip(self, restored: np.ndarray, sharp: np.ndarray) -> float:
        """JOD of a clip (T,H,W,3) uint8 RGB against its sharp frames."""
        with torch.inference_mode():
            jod, _ = self._metric.predict(restored, sharp, dim_order="FHWC", frames_per_second=FRAMES_PER_SECOND)
        return float(jod)
