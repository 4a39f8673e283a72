"""From spike channels to the ratios that sharpen a blurred frame (design after SDM; Chen et al., SpikeReveal, 2024).

    ratio  Q_s = (Y_s + a) / (Ybar + a)       Y_s rate around t, Ybar rate over the exposure, a one spike per exposure
    sharp  P_s = B * Q_s                      stored values, or any values in which the exposure was averaged
           P_s = B * Q_s ** (1 / 2.2)         light averaged linearly, B stored by the sRGB curve (close to gamma 2.2)

Ybar is known to within one spike, so a pixel too dark to fire has ratio 1 and keeps its blurred value. The camera's
threshold cancels in every ratio. The channels are those of `data/spike/guidance.py`.

Legend: N pictures, S widths, K spike channels, h, w of the sensor.
"""

from typing import NamedTuple

import torch
from torch import Tensor

GAMMA = 2.2  # of the power law that stands for the sRGB curve
CONSTANTS = 3  # one spike, place, length


class SpikeFeatures(NamedTuple):
    """What the network sees of the spikes, both (N,*,h,w), free of the camera's threshold but for `intensity`.

    Attributes:
        log_ratios: (N,S,h,w) natural logarithms of Q_s.
        features: (N,K,h,w) log-ratios of all rates, noise of the mean, its intensity, place and length.
    """

    log_ratios: Tensor
    features: Tensor


def spike_features(channels: Tensor, widths: int) -> SpikeFeatures:
    """
    Args:
        channels: (N,K,h,w): S rates, mean, further rates, one spike, place, length.
        widths: S.
    """
    rates, mean, further = channels[:, :widths], channels[:, widths : widths + 1], channels[:, widths + 1 : -CONSTANTS]
    one_spike, constants = channels[:, -CONSTANTS : 1 - CONSTANTS], channels[:, 1 - CONSTANTS :]
    floor = mean + one_spike  # (N,1,h,w)
    log_ratios = ((rates + one_spike) / floor).log()
    further = ((further + one_spike) / floor).log()
    # A count of n = mean / one_spike has a logarithm that is uncertain by at most about 1 / sqrt(n).
    noise = (one_spike / floor).sqrt()
    return SpikeFeatures(log_ratios, torch.cat([log_ratios, further, noise, mean, constants], 1))


def candidates(log_ratios: Tensor) -> Tensor:
    """Ratios that the output is mixed of, (N,S,H,W) to (N,2S+1,H,W): Q_s, Q_s ** (1/2.2), and 1 for B itself."""
    one = torch.ones_like(log_ratios[:, :1])
    return torch.cat([log_ratios.exp(), (log_ratios / GAMMA).exp(), one], 1)
