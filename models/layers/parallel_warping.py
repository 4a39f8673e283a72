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
_OFFSET_BYTES = {"cpu": 16 << 20}
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
        if not torch.is_grad_enabled():
            return self._few_pairs_at_a_time(x, flows)
        batch, count, height, width, channels = x.shape
        neighbours = self._neighbours(x.permute(0, 1, 4, 2, 3).contiguous()).flatten(0, 2)
        current = torch.stack((x[:, :-1], x[:, 1:])).flatten(0, 2)
        aligned = self._align(neighbours, current, flows.flatten(0, 2))
        aligned = aligned.to(x.dtype).view(2, batch, count - 1, channels, height, width)
        backward, forward = aligned.permute(0, 1, 2, 4, 5, 3)
        nothing = (0, 0, 0, 0, 0, 0)
        return F.pad(backward, (*nothing, 0, 1)), F.pad(forward, (*nothing, 1, 0))

    def _few_pairs_at_a_time(self, x: Tensor, flows: Tensor) -> tuple[Tensor, Tensor]:
        """`forward` in little memory: pairs are gathered, aligned and put in their places a few at a time."""
        batch, count = x.shape[:2]
        images = x.flatten(0, 1)
        # Behind the last frame, one of zeros that stands for all missing ones.
        frames = x.new_zeros(batch * count + 1, x.shape[4], *x.shape[2:4])
        frames[:-1] = images.permute(0, 3, 1, 2)
        first = torch.arange(batch, device=x.device).view(1, batch, 1, 1) * count
        time = torch.arange(count - 1, device=x.device).view(1, 1, -1, 1)
        time = torch.cat((time, time + 1))  # (2, 1, T-1, 1): of the frames that are aligned to
        steps = torch.arange(1, self.reach + 1, device=x.device)
        steps = torch.stack((steps, -steps)).view(2, 1, 1, -1)
        others = time + steps
        sources = (first + others).masked_fill((others < 0) | (others >= count), batch * count).flatten(0, 2)
        targets = (first + time).flatten(0, 2).squeeze(1)
        places = targets + batch * count * torch.arange(2, device=x.device).repeat_interleave(batch * (count - 1))
        flows = flows.flatten(0, 2)
        out = x.new_zeros(2 * batch * count, *images.shape[1:])
        step = self._pairs_at_once(x)
        for i in range(0, len(targets), step):
            part = slice(i, i + step)
            neighbours = frames[sources[part]]
            aligned = self._align(neighbours, images[targets[part]], flows[part])
            out.index_copy_(0, places[part], aligned.permute(0, 2, 3, 1).to(x.dtype))
        backward, forward = out.view(2, *x.shape)
        return backward, forward

    def _pairs_at_once(self, x: Tensor) -> int:
        """As many pairs of frames as keep the offsets small."""
        limit = _OFFSET_BYTES.get(x.device.type, _OFFSET_BYTES_ACCELERATOR)
        return max(1, limit // (27 * self.deformable_groups * x.shape[2] * x.shape[3] * 4))

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
        raw = at_least_float32(raw)
        taps = 9 * self.deformable_groups
        offset, mask = raw[:, : 2 * taps].contiguous(), raw[:, 2 * taps :].contiguous()
        grouped = (raw.shape[0], self.reach, -1, 2, *raw.shape[-2:])
        flows = flows.flip(2).to(raw.dtype)[:, :, None]
        if torch.is_grad_enabled():
            offset = (self.max_residue * torch.tanh(offset)).view(grouped) + flows
            return offset.flatten(1, 3), torch.sigmoid(mask)
        return offset.tanh_().mul_(self.max_residue).view(grouped).add_(flows).flatten(1, 3), mask.sigmoid_()
