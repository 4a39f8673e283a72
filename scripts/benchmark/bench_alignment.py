"""VRT's alignment of neighbouring frames by each back end: right, how fast, how much memory.

    python scripts/benchmark/bench_alignment.py --device cuda --precision bf16 --step
    python scripts/benchmark/bench_alignment.py --device cuda --step --compare triton --tiles 64x16x8x2,32x16x4x1
    python scripts/benchmark/bench_alignment.py --size 3x16x16 --compare eager,sdpa
    TRITON_INTERPRET=1 python scripts/benchmark/bench_alignment.py --size 2x2x3 --compare sdpa,triton --repeats 1

Warping, offset convolutions and deformable convolution are part of it, at one size for all. `sdpa` and `eager` have
torchvision's deformable convolution on a GPU. Options, columns and exit code are those of `bench_attention.py`, but
that an error is the norm of the difference as a share of the norm. The derivative of a bilinear sample jumps at every
pixel and at the border: where rounding takes a place to its other side, a gradient differs, whatever computes it. So
frames and flows are smooth, as pictures are, and the limits of gradients are wide. `--tiles` are those of the
deformable convolution's kernels: pixels, columns (group, channel), warps, stages.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.benchmark.flags import bench_alignment_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(bench_alignment_parser(__doc__ or ""))

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.backends.backend import Backend
from models.layers.backends.triton import alignment as triton_alignment
from models.layers.backends.triton import deform as triton_deform
from models.layers.backends.triton.backend import TritonBackend
from models.layers.vrt.alignment import DeformableAlignment
from models.layers.vrt.window_layout import Size3
from scripts.benchmark.bench_attention import Subject, TiledProblem, exit_code
from utils.user_error import UserError


@dataclass(frozen=True)
class Case:
    """A network's alignment: channels, neighbours in both directions together, groups, and the features' scale."""

    name: str
    dim: int
    pa_frames: int
    groups: int
    scale: int


CASES = (
    Case("006, stages 1 and 7", 96, 2, 16, 1),
    Case("006, stage 4", 96, 2, 16, 8),
    Case("001, stages 1 and 7", 120, 2, 12, 1),
    Case("002, stages 1 and 7", 120, 6, 24, 1),
)


def smooth(*shape: int) -> Tensor:
    """Noise (..., H, W) without detail below eight pixels."""
    *lead, height, width = shape
    coarse = torch.randn(1, int(torch.Size(lead).numel()), height // 8 + 2, width // 8 + 2)
    return F.interpolate(coarse, (height, width), mode="bicubic").view(shape)


class AlignmentProblem(TiledProblem):
    """A case with its weights and input."""

    gradient_limits: ClassVar = {"fp32": 2e-2, "tf32": 1e-1, "bf16": 2e-1}

    def __init__(self, case: Case, size: Size3, batch: int, device: torch.device) -> None:
        torch.manual_seed(0)
        frames, height, width = size
        self.alignment = DeformableAlignment(case.dim, case.pa_frames, case.groups, case.scale).to(device)
        last = self.alignment.conv_offset[-1]
        assert isinstance(last, nn.Conv2d)
        nn.init.normal_(last.weight, std=0.05)
        x = smooth(batch, frames, case.dim, height, width).permute(0, 1, 3, 4, 2).contiguous()
        flows = smooth(2, batch, frames - 1, case.pa_frames // 2, 2, height, width) * 4
        tiles = f"{triton_deform.__name__}.deform_tiles"
        super().__init__(self.alignment, [x.to(device), flows.to(device)], tiles)

    def apply(self, backend: Backend) -> Tensor:
        """See `Problem.apply`. Triton's kernels run or fail: nothing stands in for them."""
        x, flows = self.inputs
        if isinstance(backend, TritonBackend):
            return torch.stack(triton_alignment.align(self.alignment, x, flows))
        if torch.is_grad_enabled() or not backend.chunked:
            return torch.stack(backend.align_clip(self.alignment, x, flows))
        out = x.new_empty(2, *x.shape)
        for chunk, *directions in backend.align_chunks(self.alignment, x, flows):
            for to, direction in zip(out, directions, strict=True):
                to[chunk] = direction
        return out

    def error(self, got: Tensor, exact: Tensor) -> float:
        """The norm of the difference as a share of the norm."""
        return float((got.double() - exact).norm() / exact.norm().clamp(min=1e-30))


def alignment_problems(size: Size3, batch: int, device: torch.device) -> Iterator[tuple[str, TiledProblem]]:
    """All cases, by name.

    Raises:
        UserError: a single frame.
    """
    if size[0] < 2:
        raise UserError(f"--size: alignment needs two frames at least, got {size[0]}")
    for case in CASES:
        yield case.name, AlignmentProblem(case, size, batch, device)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    arguments = bench_alignment_parser(__doc__ or "").parse_args(argv)
    return exit_code(arguments, Subject("alignment", alignment_problems))


if __name__ == "__main__":
    sys.exit(main())
