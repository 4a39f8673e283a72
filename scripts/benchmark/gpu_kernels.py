"""Kernels right or wrong: a step of `python -m scripts.gpu_check`.

Blocks and alignments of the shapes of the kernels' tests and of the networks, in every precision, forward and backward,
by each back end against `eager` in float64.

Legend: B batch, T frames, H height, W width.
"""

import math
from dataclasses import dataclass
from itertools import product

import torch

import models.network_vrt  # noqa: F401  (registers the back ends)
from models.layers.backends.backend import Backend, backend_called
from models.layers.backends.measure import one_line
from models.layers.backends.problem import AlignmentProblem, BlockProblem, Problem, worst_error
from models.layers.vrt.alignment import DeformableAlignment
from models.layers.vrt.blocks import TMSA, GatedMlp
from models.layers.vrt.window_attention import BlockSettings, WindowCodes
from models.layers.vrt.window_layout import Size3
from scripts.benchmark.gpu_rows import Row, Rows, Setting


@dataclass(frozen=True)
class BlockShape:
    """A block to be checked: grid (B, T, H, W), window, shift, mutual attention, heads and channels of a head."""

    batch: int
    size: Size3
    window: Size3
    shift: Size3
    mutual: bool
    heads: int
    head_dim: int

    def problem(self, device: torch.device) -> Problem:
        """With weights and tokens drawn."""
        dim = self.heads * self.head_dim
        codes = WindowCodes(self.window, dim if self.mutual else 0)
        block = TMSA(BlockSettings(dim, self.heads, ()), codes, shift=self.shift, mutual=self.mutual)
        return BlockProblem(block, self.batch, self.size, torch.Generator().manual_seed(0), device)


@dataclass(frozen=True)
class AlignmentShape:
    """An alignment to be checked: grid, channels, neighbours in both directions together, groups."""

    batch: int
    size: Size3
    dim: int
    pa_frames: int
    groups: int

    def problem(self, device: torch.device) -> Problem:
        """With weights, frames and flows drawn."""
        alignment = DeformableAlignment(self.dim, self.pa_frames, self.groups, 1)
        fuse = GatedMlp(3 * self.dim, 3 * self.dim, self.dim)
        generator = torch.Generator().manual_seed(0)
        return AlignmentProblem(alignment, fuse, False, self.batch, self.size, generator, device)


Shape = BlockShape | AlignmentShape
# The networks' own, which come first, as a compiler takes seconds for each.
OWN_SHAPES: tuple[Shape, ...] = (
    BlockShape(1, (6, 16, 16), (6, 8, 8), (3, 4, 4), False, 6, 16),
    BlockShape(1, (6, 16, 16), (2, 8, 8), (1, 4, 4), True, 6, 16),
    BlockShape(1, (6, 16, 16), (6, 8, 8), (3, 4, 4), False, 6, 20),
    BlockShape(1, (6, 16, 16), (1, 8, 8), (0, 4, 4), False, 6, 20),
    BlockShape(1, (6, 16, 16), (6, 8, 8), (3, 4, 4), False, 6, 30),
    AlignmentShape(1, (6, 16, 16), 96, 2, 16),
    AlignmentShape(1, (4, 12, 20), 120, 6, 24),
)
# Corners: one window, padding on all axes, odd numbers of frames, uneven groups.
CORNERS: tuple[Shape, ...] = (
    BlockShape(2, (3, 8, 4), (3, 4, 4), (1, 2, 2), False, 2, 20),
    BlockShape(1, (3, 3, 6), (2, 4, 4), (1, 2, 2), False, 2, 5),
    BlockShape(1, (3, 8, 8), (2, 8, 8), (1, 0, 0), False, 2, 16),
    BlockShape(1, (1, 8, 12), (1, 8, 8), (0, 0, 4), False, 2, 20),
    BlockShape(1, (2, 8, 16), (2, 8, 8), (1, 0, 4), True, 2, 16),
    BlockShape(1, (3, 6, 4), (2, 4, 4), (1, 2, 2), True, 2, 20),
    BlockShape(1, (1, 3, 5), (2, 3, 5), (0, 0, 0), True, 4, 7),
    AlignmentShape(1, (3, 5, 7), 18, 2, 3),
    AlignmentShape(1, (4, 4, 3), 12, 4, 4),
    AlignmentShape(2, (4, 1, 6), 15, 6, 9),
    AlignmentShape(1, (2, 6, 1), 20, 2, 1),
)


def kernels(setting: Setting, name: str) -> Rows:
    """Whether a back end computes all shapes rightly in every precision, forward and backward."""
    device, backend = torch.device(setting.device), backend_called(name)
    # FlexAttention compiles for tens of seconds for each.
    groups = [OWN_SHAPES[:2]] if name == "flex" else [OWN_SHAPES, CORNERS]
    if setting.tiny:
        groups = [(CORNERS[1], CORNERS[8])]
    for shapes, precision in product(groups, ("bf16", "tf32", "fp32") if setting.device == "cuda" else ("fp32",)):
        amp_dtype = torch.bfloat16 if precision == "bf16" else None
        dtype = amp_dtype or torch.float32
        refusal = backend.refusal(device, dtype) or backend.alignment_refusal(device, dtype)
        if refusal is not None:
            yield Row("kernels", f"{name} {precision}", fault=refusal)
            continue
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        for step in (False, True):
            found = [_error(shape, device, backend, step, amp_dtype) for shape in shapes if setting.in_time]
            if not found:
                return
            yield Row(
                f"kernels, {'backward' if step else 'forward'}",
                f"{name} {precision}",
                note=f"{len(found)} of {len(shapes)} shapes, error {max(share for share, _ in found):.2f} of the limit",
                fault="; ".join(fault for _, fault in found if fault is not None) or None,
            )


def _error(
    shape: BlockShape | AlignmentShape,
    device: torch.device,
    backend: Backend,
    step: bool,
    amp_dtype: torch.dtype | None,
) -> tuple[float, str | None]:
    """The largest error as a share of what is allowed, infinite where there is none, and the fault of one above 1."""
    try:
        error, limit = worst_error(shape.problem(device), backend, step, amp_dtype)
    except Exception as failure:  # of a compiler or a launch; the next shape may do
        return math.inf, f"{shape}: {one_line(failure)}"
    if error <= limit:
        return error / limit, None
    return math.inf, f"{shape}: relative error {error:.1e}, allowed {limit:.1e}"
