"""`spike_refine`: the picture at the middle of a run of spike frames, for every threshold and firing rate.

    planes     rates around the middle, from sharp to low noise, and intervals    (`models/layers/spike/rates.py`);
               Gaussians are of the rates between spikes (`utils/charge.py`), which have less noise than the spikes
    motion     of each pixel before and after the middle, by Lucas and Kanade (`models/layers/spike/warp.py`), weighted
               and corrected by a small U-Net
    aligned    bins of a few frames, warped along the motion and averaged: little noise without motion blur
    output     sum_c w_c candidate_c + noise * residual     w = softmax per pixel over planes and aligned rates

A second U-Net computes the shares w and the residual, whose unit is the expected noise

    noise = sqrt(threshold * rate / frames),

the standard deviation of a rate from counted spikes, so that one network suits few and many spikes. Initially the
residual is zero, and the picture is a mixture of rates. No layer depends on the whole picture, so tiles are exact.

    python main_train_vrt.py --opt options/spikling/train_spike_refine.json

Legend: B batch, T pictures, N = B*T, W spike frames, H height, W' width, P planes, K bins, C features.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.spike.naf import NAFUNet, block_faults
from models.layers.spike.rates import (
    gaussian_weights,
    interpolated_light,
    interval_rates,
    present_frames,
    weighted_rates,
)
from models.layers.spike.warp import tracked, warped
from models.network_spikling import check_window
from utils.utils_registry import NETWORKS, Faults, check_rules, raise_faults

MULTIPLE = 8  # both U-Nets begin at half the picture's size and halve it twice
HALF = 2  # pixels per pixel of the U-Nets' first scale

SIGMAS = (1.5, 3.0, 6.0, 12.0, 24.0, 48.0)  # frames; each twice the one before, as noise varies slowly with the width
START = 2  # index in SIGMAS: the best single one on the GoPro and REDS samples
ORDERS = (1, 2)  # k of the intervals: TFI, and the best single one for whole streams

BINS = (-51.0, -39.0, -30.0, -23.0, -17.0, -12.0, -8.0, -4.0, 0.0, 4.0, 8.0, 12.0, 17.0, 23.0, 30.0, 39.0, 51.0)
"""Centres of the bins in frames from the middle; outer bins are wider, as their motion is less certain."""
# Standard deviations of the bins in frames, about half of the distance between centres.
BIN_SIGMAS = (6.0, 5.0, 4.0, 3.2, 2.7, 2.2, 2.0, 2.0, 2.0, 2.0, 2.0, 2.2, 2.7, 3.2, 4.0, 5.0, 6.0)
MIDDLE = len(BINS) // 2
MOTION = 4  # x, y before the middle and x, y after it
LEAST = 1e-3  # added to a bin's share of frames, so that the mean of missing bins is that of their replacements

ALIGNED = (6.0, 12.0, 24.0)  # frames: Gaussians over the warped bins
ONE_SIDED = 12.0  # frames: Gaussian of the aligned rates from one side of the middle, for pixels hidden on the other

NOISE_PLANE = 3  # index in SIGMAS of the rate for the expected noise
NOISE_FRAMES = 2 * math.sqrt(math.pi) * SIGMAS[NOISE_PLANE]  # length of a box filter with the same noise
FEWEST_SPIKES = 0.5  # added to the spikes, so that the noise of a dark pixel isn't zero

HERE = 0.2  # share of a bin's frames below which the bin is missing
SHORTEST, LONGEST = 41, 509  # spike frames: nearly all bins; an interval's spikes are counted in bytes
FLOW_UNIT = 0.2  # pixels per frame of an output of 1, a usual speed
# Weights of the bins at 4, 8, 12, 17 frames on either side, whose motion is tracked, and of those at -4, 0, 4, the
# middle that it is tracked to: the bins' widths, 0 at 4 frames, which the middle includes.
TRACKED = (0.0, 2.0, 2.2, 2.7)
TRACKED_MIDDLE = (2.0, 2.0, 2.0)
LEVELS = (8, 4, 2)  # side of a pixel of each level of the pyramid, in pixels
DETAIL = 16  # features at full size, for details finer than two pixels
START_TRUST = 1.0  # initial logit of the factor on the tracked motion
START_LOGIT = 2.0  # initial logit of two candidates: a weight of e^2 against 1 for the others


@NETWORKS.register("spike_refine")
class SpikeRefine(nn.Module):
    """(B,T,W,H,W') spikes times their threshold to (B,T,1,H,W').

    Frames outside the stream have the value MISSING (`utils/spike_windows.py`). The weights do not depend on W: a
    trained network can be used with 41 to 509 spike frames.

    Args:
        in_chans: W, spike frames per picture.
        channels: C of the second U-Net at half size; doubled at a quarter and again at an eighth.
        blocks: the second U-Net's NAF blocks at these three sizes.
        flow_channels: C of the first U-Net.
        flow_blocks: the first U-Net's blocks.

    Raises:
        UserError: arguments that are not valid.
    """

    partial_windows = True
    """Whether frames at the ends of the input may be missing."""

    tile_multiple = (1, MULTIPLE, MULTIPLE)
    """Frames, rows, columns: tiles that begin at multiples of these are halved at the same places as the picture."""

    centered: Tensor
    beside: Tensor
    times: Tensor
    aligning: Tensor
    tracking: Tensor

    def __init__(
        self,
        *,
        in_chans: int = 241,
        channels: int = 32,
        blocks: Sequence[int] = (2, 2, 4),
        flow_channels: int = 16,
        flow_blocks: Sequence[int] = (1, 1, 2),
    ) -> None:
        raise_faults("netG.", self.faults(locals()))
        super().__init__()
        self.in_chans = in_chans
        constants = {
            "centered": gaussian_weights(in_chans, SIGMAS, [0.0] * len(SIGMAS)),
            "beside": bin_weights(in_chans),
            "times": torch.tensor(BINS),
            "aligning": aligning_weights(),
            "tracking": tracking_weights(),
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)
        planes, bins, aligned = len(SIGMAS) + len(ORDERS), len(BINS), len(self.aligning)
        self.flow_first = nn.Conv2d(planes + bins + 1 + MOTION, flow_channels, 3, padding=1)
        self.flow_unet = NAFUNet(flow_channels, flow_blocks)
        self.flow_last = nn.Conv2d(flow_channels, 2 * MOTION, 3, padding=1)
        self.mixed = planes + aligned
        self.conv_first = nn.Conv2d(HALF**2 * (self.mixed + 1 + bins), channels, 3, padding=1)
        self.unet = NAFUNet(channels, blocks)
        self.conv_last = nn.Conv2d(channels, HALF**2 * (self.mixed + 1), 3, padding=1)
        self.detail_first = nn.Conv2d(2 * (self.mixed + 1), DETAIL, 3, padding=1)
        self.detail_last = nn.Conv2d(DETAIL, self.mixed + 1, 3, padding=1)
        nn.init.zeros_(self.detail_last.bias)  # type: ignore[arg-type]
        for last in (self.flow_last, self.conv_last, self.detail_last):
            nn.init.zeros_(last.weight)
        trusted = torch.tensor([START_TRUST] * MOTION + [0.0] * MOTION)
        self.flow_last.bias = nn.Parameter(trusted)
        bias = torch.zeros(self.mixed + 1, HALF**2)
        bias[[START, planes + 1]] = START_LOGIT
        self.conv_last.bias = nn.Parameter(bias.flatten())

    @staticmethod
    def faults(arguments: Mapping[str, Any]) -> Faults:
        """Faults of constructor arguments, as (argument, sentence); absent arguments are not checked."""
        return check_rules((_window, _channels, block_faults, _flow_blocks), arguments)

    def forward(self, L: Tensor) -> Tensor:
        """(B,T,W,H,W') spikes worth their threshold -> (B,T,1,H,W') about in [0,1]; any height and width.

        Raises:
            UserError: another number of spike frames.
        """
        check_window(L, self.in_chans)
        height, width = L.shape[-2:]
        border = (0, -width % MULTIPLE, 0, -height % MULTIPLE)
        with torch.autocast(L.device.type, enabled=False):
            # In half precision, sums over frames would have only 8 bits, less than the picture.
            light = L.float().flatten(0, 1)  # (N,W,H,W')
            planes, bins, shares, noise = self.rates(light)  # (N,P,H,W'), (N,K,H,W'), (N,K), (N,1,H,W')
            planes, bins, noise = (F.pad(part, border, mode="replicate") for part in (planes, bins, noise))
            found = self.tracked(bins, shares, noise)  # (N,4,H/2,W'/2)
        motion = self.motion(planes, bins, noise, found)  # (N,4,H,W')
        with torch.autocast(L.device.type, enabled=False):
            bins = warped(bins, motion, self.times)  # (N,K,H,W')
            candidates = torch.cat([planes, self.aligned(bins, shares)], 1)  # (N,mixed,H,W')
        fine = F.pixel_unshuffle(torch.cat([candidates, noise, bins], 1), HALF)  # (N,4*(mixed+1+K),H/2,W'/2)
        features = self.unet(self.conv_first(fine))  # (N,C,H/2,W'/2)
        mixture = F.pixel_shuffle(self.conv_last(features), HALF)  # (N,mixed+1,H,W')
        detail = self.detail_first(torch.cat([mixture, candidates, noise], 1))  # (N,DETAIL,H,W')
        mixture = (mixture + self.detail_last(F.gelu(detail))).float()  # (N,mixed+1,H,W')
        logits, residual = mixture.split([self.mixed, 1], 1)  # (N,mixed,H,W'), (N,1,H,W')
        picture = (logits.softmax(1) * candidates).sum(1, keepdim=True) + noise * residual  # (N,1,H,W')
        return picture[..., :height, :width].unflatten(0, L.shape[:2])  # (B,T,1,H,W')

    def rates(self, light: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(N,W,H,W') to planes (N,P,H,W'), bins (N,K,H,W') and their present shares (N,K), noise (N,1,H,W')."""
        present = present_frames(light)  # (N,W)
        weights = torch.cat([self.centered, self.beside])  # (S+K,W)
        rates, shares = weighted_rates(interpolated_light(light, present), weights, present)  # (N,S+K,H,W'), (N,S+K)
        centered, bins = rates.split([len(SIGMAS), len(BINS)], 1)  # (N,S,H,W'), (N,K,H,W')
        shares = shares[:, len(SIGMAS) :]  # (N,K)
        here = shares[:, :, None, None] > HERE  # (N,K,1,1)
        bins = torch.where(here, bins, centered[:, NOISE_PLANE : NOISE_PLANE + 1])  # (N,K,H,W')
        intervals = interval_rates(light, ORDERS, present)  # (N,2,H,W')
        threshold = light.amax(dim=(1, 2, 3), keepdim=True)  # (N,1,1,1)
        counted = centered[:, NOISE_PLANE : NOISE_PLANE + 1] + FEWEST_SPIKES * threshold / NOISE_FRAMES  # (N,1,H,W')
        noise = (threshold * counted / NOISE_FRAMES).sqrt()  # (N,1,H,W')
        return torch.cat([centered, intervals], 1), bins, shares, noise

    @torch.no_grad()
    def tracked(self, bins: Tensor, shares: Tensor, noise: Tensor) -> Tensor:
        """(N,4,H/2,W'/2) pixels per frame, of the bins near the middle."""
        weights = self.tracking * (shares + LEAST)[:, None]  # (N,3,K)
        weights = weights / weights.sum(2, keepdim=True)
        before, middle, after = torch.einsum("nak,nkhw->nahw", weights, bins).split(1, 1)  # (N,1,H,W') each
        times = (weights @ self.times)[:, ::2].T.flatten()  # (2N,), before and after
        pair = tracked(torch.cat([before, after]), middle.repeat(2, 1, 1, 1), times, noise.repeat(2, 1, 1, 1), LEVELS)
        return torch.cat(pair.chunk(2), 1)

    def motion(self, planes: Tensor, bins: Tensor, noise: Tensor, found: Tensor) -> Tensor:
        """(N,4,H,W') pixels per frame: x, y before the middle and x, y after it."""
        seen = F.avg_pool2d(torch.cat([planes, bins, noise], 1), HALF)  # (N,P+K+1,H/2,W'/2)
        seen = torch.cat([seen, found / FLOW_UNIT], 1)  # (N,P+K+5,H/2,W'/2)
        flow = self.flow_last(self.flow_unet(self.flow_first(seen))).float()  # (N,8,H/2,W'/2)
        trust, correction = flow.chunk(2, 1)  # (N,4,H/2,W'/2) each
        motion = trust.sigmoid() * found + FLOW_UNIT * correction  # (N,4,H/2,W'/2)
        return F.interpolate(motion, scale_factor=HALF, mode="bilinear", align_corners=False)

    def aligned(self, bins: Tensor, shares: Tensor) -> Tensor:
        """Means (N,A,H,W') of shifted bins (N,K,H,W') by `aligning`, of those that the stream has."""
        weights = self.aligning * (shares * (shares > HERE))[:, None]  # (N,A,K)
        # The sum is never zero: at the stream's ends half of the middle bin is present, which every mean includes.
        weights = weights / weights.sum(2, keepdim=True)
        return torch.einsum("nak,nkhw->nahw", weights, bins)


def bin_weights(frames: int) -> Tensor:
    """(K,W) weights of the bins' rates; rows of bins that extend beyond the W frames sum to less than one."""
    longest = 2 * math.ceil(BINS[-1] + 4 * BIN_SIGMAS[-1]) + 1  # a Gaussian is nearly zero beyond four sigmas
    beside = max(0, longest // 2 - frames // 2)
    return gaussian_weights(frames + 2 * beside, BIN_SIGMAS, BINS)[:, beside : beside + frames]


def tracking_weights() -> Tensor:
    """(3,K) weights of bins: before, at and after the middle."""
    weights = torch.zeros(3, len(BINS))
    for distance, weight in enumerate(TRACKED, 1):
        weights[0, MIDDLE - distance] = weights[2, MIDDLE + distance] = weight
    weights[1, MIDDLE - 1 : MIDDLE + 2] = torch.tensor(TRACKED_MIDDLE)
    return weights


def aligning_weights() -> Tensor:
    """(A,K) weights of bins: Gaussians ALIGNED, and ONE_SIDED before and after the middle, times the bins' widths."""
    times, widths = torch.tensor(BINS), torch.tensor(BIN_SIGMAS)
    rows = [torch.exp(-(times**2) / (2 * sigma**2)) for sigma in (*ALIGNED, ONE_SIDED, ONE_SIDED)]
    weights = torch.stack(rows) * widths
    weights[-2, MIDDLE + 1 :] = 0
    weights[-1, :MIDDLE] = 0
    return weights / weights.sum(1, keepdim=True)


def _window(in_chans: int) -> Faults:
    if not SHORTEST <= in_chans <= LONGEST:
        allowed = f"from {SHORTEST} to {LONGEST}"
        yield "in_chans", f"spike frames per picture (datasets.*.window), {allowed}; got {in_chans}"


def _channels(channels: int, flow_channels: int) -> Faults:
    for name, value in (("channels", channels), ("flow_channels", flow_channels)):
        if not isinstance(value, int) or value < 1:
            yield name, f"features at half size, an integer of at least 1; got {value}"


def _flow_blocks(flow_blocks: Sequence[int]) -> Faults:
    for _, sentence in block_faults(flow_blocks):
        yield "flow_blocks", sentence
