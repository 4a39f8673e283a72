"""The light network: restores each blurred frame from ratios of firing rates, which a U-Net mixes and corrects.

    B        blurred frame                                   t   instant of the exposure that is restored
    Q_c(t)   ratios of rates around t to the exposure's      (`models/layers/spike/ratios.py`)
    output   B * sum_c w_c Q_c + residual                    w = softmax per pixel over the candidates c

At the start the residual is zero and the mixture the ratio of one width, a restoration without parameters. Every frame
is restored by itself: streams may be of any length. No layer looks at a whole picture, so tiles are exact.

    python main_train_vrt.py --opt options/svrt/train_guided_s.json

Legend: B batch, T frames, N = B*T, K spike channels, S widths, C features.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.ops.chunks import ROWS, in_chunks
from models.layers.spike.naf import NAFUNet, block_faults
from models.layers.spike.ratios import candidates, spike_features
from utils.utils_registry import NETWORKS, Faults, check_rules, raise_faults

MULTIPLE = 8  # the trunk works at half the frame's size and halves that twice
HALF = 2  # the trunk has a quarter of the frame's pixels, which is the resolution of GoPro's spikes
START = 4.0  # logit of the first mixture's width: e^4 to 10 others is a share of 0.85


@NETWORKS.register("guided")
class Guided(nn.Module):
    """Restores (B,T,3,H,W) with spike channels (B,T,K,h,w) of representation "guided".

    Args:
        spike_bins: K; follows from the data set.
        widths: S, how many of the channels are rates around t.
        start: what the first mixture is made of: 0 to S - 1 the ratio of a width, 2 S the blurred frame.
        channels: C at half the frame's size; doubled at a quarter and again at an eighth.
        blocks: NAF blocks at these three sizes.
        noise_channel: whether the expected noise of the mean rate is an input; False shows what it is worth.

    Raises:
        UserError: arguments that are not valid or do not fit together.
    """

    tile_multiple = (1, MULTIPLE, MULTIPLE)
    takes_instants = True  # its spike channels say where in the exposure t is

    def __init__(
        self,
        *,
        spike_bins: int = 23,
        widths: int = 5,
        start: int = 2,
        channels: int = 32,
        blocks: Sequence[int] = (2, 2, 6),
        noise_channel: bool = True,
    ) -> None:
        raise_faults("netG.", self.faults(locals()))
        super().__init__()
        self.widths, self.start, self.noise_channel = widths, start, noise_channel
        self.mixed = 2 * widths + 1
        inputs = HALF**2 * (3 + widths) + spike_bins
        self.conv_first = nn.Conv2d(inputs, channels, 3, padding=1)
        self.unet = NAFUNet(channels, blocks)
        self.conv_last = nn.Conv2d(channels, HALF**2 * (self.mixed + 3), 3, padding=1)
        nn.init.zeros_(self.conv_last.weight)
        bias = torch.zeros(self.mixed + 3, HALF**2)
        bias[start] = START
        self.conv_last.bias = nn.Parameter(bias.flatten())

    @staticmethod
    def faults(arguments: Mapping[str, Any]) -> Faults:
        """Faults of constructor arguments, as (argument, sentence); absent arguments are not checked."""
        return check_rules((_widths, _start, _channels, block_faults), arguments)

    def forward(self, L: Tensor, L_spike: Tensor) -> Tensor:
        """(B,T,3,H,W) RGB in [0,1] and (B,T,K,h,w) to (B,T,3,H,W); any sizes, h x w showing the same as H x W."""
        restored = self.restore(L.flatten(0, 1), L_spike.flatten(0, 1))  # (N,3,H,W)
        return restored.unflatten(0, L.shape[:2])  # (B,T,3,H,W)

    def restore(self, blurred: Tensor, spikes: Tensor) -> Tensor:
        """(N,3,H,W) and (N,K,h,w) to (N,3,H,W)."""
        height, width = blurred.shape[-2:]
        border = (0, -width % MULTIPLE, 0, -height % MULTIPLE)
        log_ratios, features = spike_features(spikes, self.widths, self.noise_channel)  # (N,S,h,w), (N,K,h,w)
        log_ratios = F.pad(resized(log_ratios, (height, width)), border, mode="replicate")  # (N,S,H,W)
        padded = F.pad(blurred, border, mode="replicate")  # (N,3,H,W)
        features = at_half(features, (height, width), border)  # (N,K,H/2,W/2)
        fine = F.pixel_unshuffle(torch.cat([padded, log_ratios], 1), HALF)  # (N,4*(3+S),H/2,W/2)
        trunk = torch.cat([fine, features], 1)  # (N,4*(3+S)+K,H/2,W/2)
        last = self.conv_last(self.unet(self.conv_first(trunk)))  # (N,4*(2S+4),H/2,W/2)

        def mix(rows: slice) -> Tensor:
            """Some rows, an even number, of the result: (N,3,rows,W)."""
            half = last[:, :, rows.start // HALF : rows.stop // HALF]  # (N,4*(2S+4),rows/2,W/2)
            mixture = F.pixel_shuffle(half, HALF).float()  # (N,2S+4,rows,W)
            shares, residual = mixture.split([self.mixed, 3], 1)  # (N,2S+1,rows,W), (N,3,rows,W)
            ratios = candidates(log_ratios[:, :, rows])  # (N,2S+1,rows,W)
            ratio = (shares.softmax(1) * ratios).sum(1, keepdim=True)  # (N,1,rows,W)
            return padded[:, :, rows] * ratio + residual  # (N,3,rows,W)

        pair_bytes = HALF * self.mixed * padded[:, 0, 0].numel() * padded.element_size()
        step = HALF * ROWS.items(padded, pair_bytes)
        return in_chunks(mix, padded.shape[2], step, dim=2)[..., :height, :width]  # (N,3,H,W)


def at_half(features: Tensor, size: tuple[int, int], border: tuple[int, ...]) -> Tensor:
    """(N,C,h,w) at half the size of a frame of `size`, after `border` is added to the frame at its right and bottom."""
    half = ((size[0] + 1) // HALF, (size[1] + 1) // HALF)
    if features.shape[-2] > half[0]:
        return F.avg_pool2d(F.pad(resized(features, size), border, mode="replicate"), HALF)
    beside = ((size[1] + border[1]) // HALF - half[1], (size[0] + border[3]) // HALF - half[0])
    return F.pad(resized(features, half), (0, beside[0], 0, beside[1]), mode="replicate")


def resized(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """(N,C,h,w) to another size: bilinear where that is larger, averaged where it is smaller."""
    if planes.shape[-2:] == size:
        return planes
    if size[0] < planes.shape[-2]:
        return F.interpolate(planes, size, mode="area")
    return F.interpolate(planes, size, mode="bilinear", align_corners=False)


def _widths(widths: int, spike_bins: int) -> Faults:
    if not 1 <= widths < spike_bins - 3:
        yield "widths", f"{widths} of {spike_bins} spike channels; from 1 to {spike_bins - 4}"


def _start(start: int, widths: int) -> Faults:
    if not (0 <= start < widths or start == 2 * widths):
        yield "start", f"{start}; a ratio from 0 to widths - 1 = {widths - 1}, or the blurred frame, {2 * widths}"


def _channels(channels: int) -> Faults:
    if channels < 1:
        yield "channels", f"at least 1; got {channels}"
