"""Pixel losses for training, chosen by `train.G_lossfn_type`.

Each takes the restored and the sharp clip, both (B,T,3,H,W) float32 in [0,1], and returns a scalar. Its keyword
parameters are option keys of `train`, with KAIR's names.

Charbonnier's eps is inside the root, as in KAIR: mean(sqrt(d^2 + eps)). The VRT paper's epsilon of 1e-3 is
`G_charbonnier_eps: 1e-6` here.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.utils_registry import LOSSES, Faults

PixelLoss = Callable[[Tensor, Tensor], Tensor]


def loss_faults(arguments: Mapping[str, Any]) -> Faults:
    """Faults of the keyword arguments of `charbonnier` and `guided`."""
    for key in ("G_fft_weight", "G_reblur_weight"):
        if arguments.get(key, 0) < 0:
            yield key, f"0 or more; got {arguments[key]}"
    eps = arguments.get("G_charbonnier_eps", 1.0)
    if not 0 < eps <= 1:  # the root's derivative is not defined at 0; above 1 the loss is all but constant
        yield "G_charbonnier_eps", f"above 0 and up to 1, the square of a difference of pixels in [0, 1]; got {eps}"


@LOSSES.register("charbonnier", faults=loss_faults)
def charbonnier(restored: Tensor, sharp: Tensor, *, G_charbonnier_eps: float = 1e-9) -> Tensor:
    """mean(sqrt(d^2 + eps)), a smooth L1 (Charbonnier et al., 1994; Lai et al., LapSRN)."""
    return (restored - sharp).square().add(G_charbonnier_eps).sqrt().mean()


@LOSSES.register("guided", faults=loss_faults)
def guided(
    restored: Tensor,
    sharp: Tensor,
    *,
    G_charbonnier_eps: float = 1e-9,
    G_fft_weight: float = 0.1,
    G_reblur_weight: float = 0.1,
) -> Tensor:
    """Charbonnier, plus weighted distances of spectra and of the clips' means over time.

    The distance of spectra (`fft_distance`) counters the averaging of detail by a pixel loss. If the frames of a clip
    are instants of one exposure (`GuidedSyntheticDataset`), the mean over time is the clip blurred again.
    """
    loss = charbonnier(restored, sharp, G_charbonnier_eps=G_charbonnier_eps)
    if G_fft_weight:
        loss = loss + G_fft_weight * fft_distance(restored, sharp)
    if G_reblur_weight:
        means = restored.mean(1), sharp.mean(1)
        loss = loss + G_reblur_weight * charbonnier(*means, G_charbonnier_eps=G_charbonnier_eps)
    return loss


def fft_distance(restored: Tensor, sharp: Tensor) -> Tensor:
    """Mean of |Re| and |Im| of the difference's orthonormal 2-D spectrum (Cho et al., MIMO-UNet, 2021)."""
    return torch.view_as_real(torch.fft.rfft2(restored - sharp, norm="ortho")).abs().mean()


@LOSSES.register("log_charbonnier", faults=loss_faults)
def log_charbonnier(restored: Tensor, sharp: Tensor, *, G_charbonnier_eps: float = 1e-9) -> Tensor:
    """Mean over pictures of log(mean(sqrt(d^2 + eps))), which follows their mean PSNR.

    A percent less error counts alike in a noisy picture and in a clean one. eps limits the weight of clean pictures.
    """
    errors = (restored - sharp).square().add(G_charbonnier_eps).sqrt()  # (B,T,C,H,W)
    return errors.mean((-3, -2, -1)).log().mean()


@LOSSES.register("l1")
def l1(restored: Tensor, sharp: Tensor) -> Tensor:
    """mean(|d|)."""
    return F.l1_loss(restored, sharp)


@LOSSES.register("l2")
def l2(restored: Tensor, sharp: Tensor) -> Tensor:
    """mean(d^2)."""
    return F.mse_loss(restored, sharp)


@LOSSES.register("l2sum")
def l2sum(restored: Tensor, sharp: Tensor) -> Tensor:
    """sum(d^2)."""
    return F.mse_loss(restored, sharp, reduction="sum")


@LOSSES.register("ssim")
def ssim(restored: Tensor, sharp: Tensor) -> Tensor:
    """1 - SSIM with an 11x11 Gaussian filter of sigma 1.5 and zeros beyond the border (Wang et al., 2004)."""
    offsets = torch.arange(11, dtype=restored.dtype, device=restored.device) - 5
    window = torch.softmax(-offsets.square() / (2 * 1.5**2), dim=0)
    channels = restored.shape[-3]
    vertical = window.view(1, 1, 11, 1).expand(channels, 1, 11, 1)

    def blur(images: Tensor) -> Tensor:
        rows = F.conv2d(images.flatten(0, -4), vertical, padding=(5, 0), groups=channels)
        return F.conv2d(rows, vertical.transpose(2, 3), padding=(0, 5), groups=channels)

    mean_x, mean_y = blur(restored), blur(sharp)
    var_x = blur(restored.square()) - mean_x.square()
    var_y = blur(sharp.square()) - mean_y.square()
    covariance = blur(restored * sharp) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + 1e-4) / (mean_x.square() + mean_y.square() + 1e-4)
    structure = (2 * covariance + 9e-4) / (var_x + var_y + 9e-4)
    return 1 - (luminance * structure).mean()


def define_loss(lossfn_type: str, options: Any) -> PixelLoss:
    """The loss called `lossfn_type`, its keyword parameters taken from the attributes of `options` (`opt.train`)."""
    return partial(LOSSES.get(lossfn_type), **{key: getattr(options, key) for key in LOSSES.parameters(lossfn_type)})
