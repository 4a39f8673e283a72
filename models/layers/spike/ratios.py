"""Ratios that sharpen a blurred frame, from spike channels (design after SDM; Chen et al., SpikeReveal, 2024).

    ratio  Q_s = (Y_s + a) / (Ybar + a)       Y_s rate around t, Ybar rate over the exposure, a one spike per exposure
    sharp  P_s = B * Q_s                      if the exposure is a mean of stored values
           P_s = B * Q_s ** (1 / 2.2)         if it is a mean of linear light, stored by the sRGB curve (gamma 2.2)

One spike, a, is the uncertainty of Ybar; a pixel that never fires has ratio 1 and keeps its blurred value. The camera's
threshold cancels in every ratio. The channels are those of `data/spike/guidance.py`.

Legend: N pictures, S widths, K spike channels, h, w of the sensor.
"""

from typing import NamedTuple

import torch
from torch import Tensor

GAMMA = 2.2  # of the power law that approximates the sRGB curve
CONSTANTS = 3  # last channels of `data/spike/guidance.py`: one spike, place, length


class SpikeFeatures(NamedTuple):
    """The network's input from spikes, independent of the camera's threshold except for the intensity.

    Attributes:
        log_ratios: (N,S,h,w) natural logarithms of Q_s.
        features: (N,K,h,w) log-ratios of all rates, noise of the mean rate, its intensity, place and length.
    """

    log_ratios: Tensor
    features: Tensor


def spike_features(channels: Tensor, widths: int, noise_channel: bool = True) -> SpikeFeatures:
    """Log-ratios and further features from spike channels.

    Args:
        channels: (N,K,h,w): S rates, mean, further rates, one spike, place, length.
        widths: S.
        noise_channel: False puts zeros where the noise of the mean is.
    """
    rates, mean, further = channels[:, :widths], channels[:, widths : widths + 1], channels[:, widths + 1 : -CONSTANTS]
    one_spike, constants = channels[:, -CONSTANTS : 1 - CONSTANTS], channels[:, 1 - CONSTANTS :]
    floor = mean + one_spike  # (N,1,h,w)
    log_ratios = ((rates + one_spike) / floor).log()
    further = ((further + one_spike) / floor).log()
    # The logarithm of a count of n = mean / one_spike has a standard deviation of at most about 1 / sqrt(n).
    noise = (one_spike / floor).sqrt() if noise_channel else torch.zeros_like(floor)
    return SpikeFeatures(log_ratios, torch.cat([log_ratios, further, noise, mean, constants], 1))


def candidates(log_ratios: Tensor) -> Tensor:
    """Ratios whose mixture is the output's, (N,S,H,W) to (N,2S+1,H,W): Q_s, Q_s ** (1/2.2), and 1 for B itself."""
    one = torch.ones_like(log_ratios[:, :1])
    return torch.cat([log_ratios.exp(), (log_ratios / GAMMA).exp(), one], 1)
