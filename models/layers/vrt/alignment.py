"""Parallel warping: every frame's neighbours aligned to it by deformable convolution (VRT, section 3.3).

An offset is the optical flow plus a learned residual, (10 / scale) * tanh(...); the modulated deformable convolution
(arXiv 1811.11168) is torchvision's or its equal. All frames, neighbours and both directions of time go through one warp
and one deformable convolution. Without gradients it's a few frames at a time where pictures are large, and on a CPU in
strips (`models/layers/backends/cpu/alignment_strips.py`).

Legend: B batch, T frames, C channels, H height, W width, K neighbours per direction (pa_frames / 2).
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.backends.cpu.alignment_strips import align_in_strips
from models.layers.ops.deform_conv import deform_conv3x3
from models.layers.ops.flow_warp import at_least_float32, flow_warp
from models.layers.ops.processor import processor

# Largest learned correction of the flow, in pixels of the full size.
MAX_RESIDUE = 10.0
# Widest tensor of whole pictures without gradients; beyond it pairs of frames go in several calls.
_PAIR_BYTES = 16 << 20
_PAIR_BYTES_ACCELERATOR = 4 << 30


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
        aligned = self._align(neighbours, current, flows.flatten(0, 2))
        aligned = aligned.to(x.dtype).view(2, batch, count - 1, channels, height, width)
        backward, forward = aligned.permute(0, 1, 2, 4, 5, 3)
        nothing = (0, 0, 0, 0, 0, 0)
        return F.pad(backward, (*nothing, 0, 1)), F.pad(forward, (*nothing, 1, 0))

    def parts(self, x: Tensor, flows: Tensor) -> Iterator[tuple[tuple[slice, slice], Tensor, Tensor]]:
        """`forward` without gradients in little memory: a few frames at a time.

        Args:
            x, flows: see `forward`.

        Yields:
            Which clips and which of their frames, and what is aligned to them: of the next frames and of the previous
            ones, (clips, frames, H, W, C) each.
        """
        for clips, times in _parts(x.shape[0], x.shape[1], max(1, self._pairs_at_once(x) // 2)):
            ahead, behind = self._part(x[clips], flows[:, clips], times)
            yield (clips, times), ahead, behind
            # Before the next ones are made.
            del ahead, behind

    def _part(self, x: Tensor, flows: Tensor, times: slice) -> Tensor:
        """What is aligned to some frames of all clips, (2, B, frames, H, W, C)."""
        aligned = x.new_zeros(2, *x[:, times].shape)
        # Frames that have a next one, and frames that have a previous one.
        both = ((0, times.start, min(times.stop, x.shape[1] - 1)), (1, max(times.start, 1), times.stop))
        sides = [side for side in both if side[1] < side[2]]
        for group in [sides] if self._pairs_at_once(x) > 1 else [[side] for side in sides]:
            self._align_sides(x, flows, group, [aligned[d, :, a - times.start : b - times.start] for d, a, b in group])
        return aligned

    def _align_sides(
        self, x: Tensor, flows: Tensor, sides: Sequence[tuple[int, int, int]], out: Sequence[Tensor]
    ) -> None:
        """Aligns neighbours to frames, all in one call.

        Args:
            sides: (direction, start, stop) as `_pairs` takes them.
            out: where the results go, (B, stop - start, H, W, C) for each side.
        """
        gathered = [self._pairs(x, flows, *side) for side in sides]
        images = self._align(*(_joined(tensors) for tensors in zip(*gathered, strict=True))).permute(0, 2, 3, 1)
        for to, part in zip(out, images.split([to.shape[0] * to.shape[1] for to in out]), strict=True):
            to.copy_(part.unflatten(0, to.shape[:2]))

    def _pairs_at_once(self, x: Tensor) -> int:
        """As many pairs of frames as keep what is as large as their pictures small."""
        # On a CPU the widest is what the offset network sees, elsewhere what it gives.
        on_cpu = processor(x) == "cpu"
        channels = x.shape[4] * (1 + self.reach) + 2 * self.reach if on_cpu else 27 * self.deformable_groups
        limit = _PAIR_BYTES if on_cpu else _PAIR_BYTES_ACCELERATOR
        return max(1, limit // (channels * x.shape[2] * x.shape[3] * 4))

    def _pairs(self, x: Tensor, flows: Tensor, direction: int, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        """Arguments of `_align` for frames start..stop-1 of all clips and their next (0) or previous (1) ones."""
        count = stop - start
        neighbours = x.new_empty(x.shape[0], count, self.reach, x.shape[4], *x.shape[2:4])
        for k in range(self.reach):
            other = start + (-k - 1 if direction else k + 1)
            # Of the frames other..other+count-1 those from low to high are there.
            low, high = (min(max(end - other, 0), count) for end in (0, x.shape[1]))
            neighbours[:, :low, k].zero_()
            neighbours[:, high:, k].zero_()
            if low < high:
                neighbours[:, low:high, k] = x[:, other + low : other + high].permute(0, 1, 4, 2, 3)
        flow = flows[direction, :, start - direction : stop - direction]
        return neighbours.flatten(0, 1), x[:, start:stop].flatten(0, 1), flow.flatten(0, 1)

    def _align(self, neighbours: Tensor, current: Tensor, flows: Tensor) -> Tensor:
        """Aligned features (n, C, H, W) of n frames.

        Args:
            neighbours: (n, K, C, H, W).
            current: (n, H, W, C).
            flows: (n, K, 2, H, W).
        """
        if not torch.is_grad_enabled() and processor(current) == "cpu":
            return align_in_strips(self, neighbours, current, flows)
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


def _parts(clips: int, frames: int, at_once: int) -> Iterator[tuple[slice, slice]]:
    """(clips, frames) of all parts of at most so many frames: whole clips, or frames of one."""
    many = max(1, at_once // frames)
    few = min(frames, at_once)
    for i in range(0, clips, many):
        for j in range(0, frames, few):
            yield slice(i, min(i + many, clips)), slice(j, min(j + few, frames))


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat(tuple(tensors)) if len(tensors) > 1 else tensors[0]
