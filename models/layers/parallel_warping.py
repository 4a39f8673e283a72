"""Parallel warping: every frame's neighbours aligned to it by deformable convolution (VRT, section 3.3).

An offset is the optical flow plus a learned residual, (10 / scale) * tanh(...); the modulated deformable convolution
(arXiv 1811.11168) is torchvision's or its equal. All frames, neighbours and both directions of time go through one warp
and one deformable convolution (several where large pictures would need too much memory, without gradients).

Legend: B batch, T frames, C channels, H height, W width, K neighbours per direction (pa_frames / 2).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.deform_conv import deform_conv3x3
from models.layers.flow_warp import at_least_float32, flow_warp

# Largest learned correction of the flow, in pixels of the full size.
MAX_RESIDUE = 10.0
# Offsets and modulations held at once without gradients; beyond it a clip's pairs of frames go in several calls.
_OFFSET_BYTES = {"cpu": 128 << 20}
_OFFSET_BYTES_ACCELERATOR = 4 << 30


class DeformableAlignment(nn.Module):
    """Aligns the K previous and the K next frames to every frame.

    Args:
        dim: channels C.
        pa_frames: 2*K.
        deformable_groups: groups with offsets of their own, a multiple of K; they are split evenly over the neighbours.
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
            Next frames and previous frames aligned to every frame, (B, T, H, W, C) each; zeros for the last frame of
            the first and the first frame of the second, which have no neighbour there.
        """
        batch, count, height, width, channels = x.shape
        neighbours = self._neighbours(x.permute(0, 1, 4, 2, 3).contiguous()).flatten(0, 2)
        current = torch.stack((x[:, :-1], x[:, 1:])).flatten(0, 2)
        flows = flows.flatten(0, 2)
        step = self._pairs_at_once(x)
        parts = [
            self._align(neighbours[i : i + step], current[i : i + step], flows[i : i + step])
            for i in range(0, len(current), step)
        ]
        aligned = parts[0] if len(parts) == 1 else torch.cat(parts)
        aligned = aligned.to(x.dtype).view(2, batch, count - 1, channels, height, width)
        backward, forward = aligned.permute(0, 1, 2, 4, 5, 3)
        nothing = (0, 0, 0, 0, 0, 0)
        return F.pad(backward, (*nothing, 0, 1)), F.pad(forward, (*nothing, 1, 0))

    def _pairs_at_once(self, x: Tensor) -> int:
        """All pairs of frames, both directions together; without gradients as many as keep the offsets small."""
        pairs = 2 * x.shape[0] * (x.shape[1] - 1)
        if torch.is_grad_enabled():
            return pairs
        limit = _OFFSET_BYTES.get(x.device.type, _OFFSET_BYTES_ACCELERATOR)
        return min(pairs, max(1, limit // (27 * self.deformable_groups * x.shape[2] * x.shape[3] * 4)))

    def _align(self, neighbours: Tensor, current: Tensor, flows: Tensor) -> Tensor:
        """Aligned features (n, C, H, W) of n frames.

        Args:
            neighbours: (n, K, C, H, W).
            current: (n, H, W, C).
            flows: (n, K, 2, H, W).
        """
        warped = flow_warp(neighbours.flatten(0, 1), flows.flatten(0, 1)).view_as(neighbours).flatten(1, 2)
        parts = (warped.permute(0, 2, 3, 1), current, flows.flatten(1, 2).permute(0, 2, 3, 1).to(current.dtype))
        # Channels-last in memory, which the convolutions of all devices run fastest on.
        raw = self.conv_offset(torch.cat(parts, -1).permute(0, 3, 1, 2))
        offset, mask = self._offsets(raw, flows)
        with torch.autocast(current.device.type, enabled=False):
            sources = neighbours.flatten(1, 2).to(offset.dtype)
            return deform_conv3x3(sources, offset, mask, self.weight.to(offset.dtype), self.bias.to(offset.dtype))

    def _neighbours(self, frames: Tensor) -> Tensor:
        """Frames (B, T, C, H, W) to (2, B, T-1, K, C, H, W): of frame t the next ones t+1..t+K, nearest first, and of
        frame t+1 the previous ones t..t+1-K; zeros where there is none."""
        pairs, reach = frames.shape[1] - 1, self.reach
        if reach > 1:
            frames = F.pad(frames, (0, 0, 0, 0, 0, 0, reach - 1, reach - 1))
        ahead = [frames[:, reach - 1 + k : reach - 1 + k + pairs] for k in range(1, reach + 1)]
        behind = [frames[:, reach - k : reach - k + pairs] for k in range(1, reach + 1)]
        return torch.stack((torch.stack(ahead, 2), torch.stack(behind, 2)))

    def _offsets(self, raw: Tensor, flows: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets (n, 18*groups, H, W), pairs (y, x) in pixels, and modulation (n, 9*groups, H, W).

        Neither is ever in half precision.

        Args:
            raw: (n, 27*groups, H, W), the offset network's output: 18 offsets and 9 modulations per group.
            flows: (n, K, 2, H, W), (x, y).
        """
        raw = at_least_float32(raw).contiguous()
        taps = 9 * self.deformable_groups
        offset = self.max_residue * torch.tanh(raw[:, : 2 * taps])
        per_neighbour = offset.view(raw.shape[0], self.reach, -1, 2, *raw.shape[-2:])
        offset = (per_neighbour + flows.flip(2).to(raw.dtype)[:, :, None]).flatten(1, 3)
        return offset, torch.sigmoid(raw[:, 2 * taps :])
