"""Parallel warping: every frame's neighbours aligned to it by deformable convolution (VRT, section 3.3).

    offset = flow + (10 / scale) * tanh(o)                       o, m = conv_offset([warped neighbours, frame, flows])
    aligned(p) = bias + sum over taps k of weight_k * sigmoid(m_k(p)) * neighbours(p + p_k + offset_k(p))

The second line is a modulated deformable convolution (arXiv 1811.11168). One warp and one deformable convolution align
all frames and neighbours in both directions of time; `models/layers/backends/alignment.py` runs them in chunks.

Legend: B batch, T frames, C channels, H height, W width, K neighbours per direction (pa_frames / 2), G deformable
groups, n pairs of a frame and a direction in time.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.ops.deform_conv import deform_conv3x3
from models.layers.ops.flow_warp import at_least_float32, flow_warp

# Largest learned correction of the flow, in pixels of the full size: 10, with which the published weights were trained.
MAX_RESIDUE = 10.0


class DeformableAlignment(nn.Module):
    """Aligns the K previous and the K next frames to every frame.

    Args:
        dim: channels C.
        pa_frames: 2*K.
        deformable_groups: groups with separate offsets, a multiple of K; divided evenly among the neighbours.
        scale: 1, 2, 4 or 8; the features have 1/scale of the full size.
    """

    def __init__(self, dim: int, pa_frames: int, deformable_groups: int, scale: int) -> None:
        super().__init__()
        self.reach = pa_frames // 2
        self.deformable_groups = deformable_groups
        self.max_residue = MAX_RESIDUE / scale
        bound = 1 / math.sqrt(dim * 9)
        self.weight = nn.Parameter(torch.empty(dim, dim, 3, 3).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.conv_offset = nn.Sequential(
            nn.Conv2d(dim * (1 + self.reach) + pa_frames, dim, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(dim, dim, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(dim, dim, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(dim, 27 * deformable_groups, 3, padding=1),
        )
        nn.init.zeros_(self.conv_offset[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.conv_offset[-1].bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, flows: Tensor) -> tuple[Tensor, Tensor]:
        """Aligned features.

        Args:
            x: (B, T, H, W, C), T >= 2.
            flows: (2, B, T-1, K, 2, H, W) from `neighbour_flows`.

        Returns:
            Next frames and previous frames, aligned to every frame, (B, T, H, W, C) each. Zeros where there is no
            neighbour: at the last frame of the first and at the first frame of the second.
        """
        batch, count = x.shape[:2]
        neighbours = self._neighbours(x.permute(0, 1, 4, 2, 3).contiguous())  # (2, B, T-1, K, C, H, W)
        current = torch.stack((x[:, :-1], x[:, 1:]))  # (2, B, T-1, H, W, C)
        aligned = self.align(neighbours.flatten(0, 2), current.flatten(0, 2), flows.flatten(0, 2))  # (n, C, H, W)
        aligned = aligned.to(x.dtype).unflatten(0, (2, batch, count - 1))  # (2, B, T-1, C, H, W)
        backward, forward = aligned.permute(0, 1, 2, 4, 5, 3)  # (B, T-1, H, W, C) each
        frame = (0, 0, 0, 0, 0, 0)
        return F.pad(backward, (*frame, 0, 1)), F.pad(forward, (*frame, 1, 0))  # (B, T, H, W, C) each

    def align(self, neighbours: Tensor, current: Tensor, flows: Tensor) -> Tensor:
        """Neighbours aligned to n frames, (n, C, H, W).

        Args:
            neighbours: (n, K, C, H, W).
            current: (n, H, W, C).
            flows: (n, K, 2, H, W), (x, y) in pixels.
        """
        warped = flow_warp(neighbours.flatten(0, 1), flows.flatten(0, 1)).view_as(neighbours)  # (n, K, C, H, W)
        warped = warped.flatten(1, 2).permute(0, 2, 3, 1)  # (n, H, W, K*C)
        # Channels-last in memory, with which convolutions run fastest on all devices.
        # (n, H, W, (K+1)*C + 2*K)
        seen = torch.cat((warped, current, flows.flatten(1, 2).permute(0, 2, 3, 1).to(current.dtype)), -1)
        raw = self.conv_offset(seen.permute(0, 3, 1, 2))  # (n, 27*G, H, W)
        offset, mask = self.offsets(raw, flows)  # (n, 18*G, H, W), (n, 9*G, H, W)
        with torch.autocast(current.device.type, enabled=False):
            sources = neighbours.flatten(1, 2).to(offset.dtype)  # (n, K*C, H, W)
            return deform_conv3x3(sources, offset, mask, self.weight.to(offset.dtype), self.bias.to(offset.dtype))

    def _neighbours(self, frames: Tensor) -> Tensor:
        """Frames (B, T, C, H, W) to neighbours (2, B, T-1, K, C, H, W), nearest first.

        [0, :, t] holds frames t+1..t+K, next to frame t; [1, :, t] holds frames t..t+1-K, before frame t+1. Zeros where
        there is no such frame.
        """
        pairs, reach = frames.shape[1] - 1, self.reach
        if reach > 1:
            frames = F.pad(frames, (0, 0, 0, 0, 0, 0, reach - 1, reach - 1))
        # K of (B, T-1, C, H, W) each
        ahead = [frames[:, reach - 1 + k : reach - 1 + k + pairs] for k in range(1, reach + 1)]
        behind = [frames[:, reach - k : reach - k + pairs] for k in range(1, reach + 1)]
        return torch.stack((torch.stack(ahead, 2), torch.stack(behind, 2)))  # (2, B, T-1, K, C, H, W)

    def offsets(self, raw: Tensor, flows: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets (n, 18*groups, H, W), pairs (y, x) in pixels, and modulation (n, 9*groups, H, W).

        Both are at least float32, also under autocast.

        Args:
            raw: (n, 27*groups, H, W), the offset network's output: 18 offsets and 9 modulations per group.
            flows: (n, K, 2, H, W), (x, y).
        """
        raw = at_least_float32(raw)
        taps = 9 * self.deformable_groups
        offset, mask = raw[:, : 2 * taps].contiguous(), raw[:, 2 * taps :].contiguous()
        grouped = (raw.shape[0], self.reach, -1, 2, *raw.shape[-2:])
        flows = flows.flip(2).to(raw.dtype)[:, :, None]  # (n, K, 1, 2, H, W), (y, x)
        if torch.is_grad_enabled():
            offset = (self.max_residue * torch.tanh(offset)).view(grouped) + flows
            return offset.flatten(1, 3), torch.sigmoid(mask)
        return offset.tanh_().mul_(self.max_residue).view(grouped).add_(flows).flatten(1, 3), mask.sigmoid_()
