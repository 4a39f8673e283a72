"""Parts of the network as problems for back ends, whose results and gradients are compared with exact ones.

The weights are drawn for the problem: in a new network many are zero, which would hide wrong gradients.

Legend: B batch, T frames, H height, W width, C channels, K neighbours per direction.
"""

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.layers.backends.backend import COMPUTE_BACKENDS, Backend
from models.layers.backends.measure import relative_error
from models.layers.vrt.alignment import DeformableAlignment
from models.layers.vrt.blocks import TMSA, BranchFactors, GatedMlp
from models.layers.vrt.stage import Stage
from models.layers.vrt.window_layout import Size3, window_layout

# Factor of the last offset convolution's weights: its offsets stay below a tenth of a pixel.
_SMALL = 0.01
# Largest relative error of a result or gradient. TF32 keeps 10 bits, bfloat16 7, float16 10.
LIMITS = {torch.float32: 1e-3, torch.bfloat16: 2e-2, torch.float16: 5e-3}
# Factor of the plain formula's own error in that type, which is allowed too: gradients of offsets are sums that cancel.
_OWN_ERRORS = 3.0


class Problem(ABC):
    """A module with weights and inputs.

    Args:
        inputs: the tensors that gradients are computed for, beside the parameters.
    """

    def __init__(self, module: nn.Module, inputs: list[Tensor]) -> None:
        self.module = module.requires_grad_(True)
        self.inputs = [x.requires_grad_() for x in inputs]
        self.factor: Tensor | None = None

    @abstractmethod
    def apply(self, backend: Backend) -> Tensor:
        """The result for `inputs`."""

    def run(self, backend: Backend, step: bool, amp_dtype: torch.dtype | None) -> list[Tensor]:
        """The result; with `step` also the gradients of all inputs and parameters, for a fixed random gradient.

        Args:
            amp_dtype: type of autocast, or None.
        """
        leaves = [*self.inputs, *self.module.parameters()]
        device = leaves[0].device
        # Weights are used once, so autocast's cache would only keep their casts in memory, until an outer one ends.
        casts = torch.autocast(device.type, amp_dtype or torch.bfloat16, amp_dtype is not None, cache_enabled=False)
        with torch.set_grad_enabled(step), casts:
            out = self.apply(backend)
        if not step:
            return [out]
        if self.factor is None:
            self.factor = torch.randn(out.shape, generator=torch.Generator(device).manual_seed(1), device=device)
        return [out.detach(), *torch.autograd.grad(out, leaves, self.factor.to(out.dtype))]

    def exact(self, step: bool) -> list[Tensor]:
        """`run` of the plain back end in float64."""
        inputs = self.inputs
        self.module.double()
        self.inputs = [x.detach().double().requires_grad_() for x in inputs]
        try:
            return self.run(COMPUTE_BACKENDS.get("eager")(), step, amp_dtype=None)
        finally:
            self.module.float()
            self.inputs = inputs


class BlockProblem(Problem):
    """A copy of a block, with other weights, on tokens (B*T*H*W, C)."""

    def __init__(self, like: TMSA, batch: int, size: Size3, generator: torch.Generator, device: torch.device) -> None:
        self.block = deepcopy(like)
        self.block.run_as_written()
        draw_weights(self.block, generator)
        self.layout = window_layout(
            batch, size, self.block.window, self.block.shift, pairs=self.block.mutual, device=device
        )
        tokens = drawn(batch * math.prod(size), self.block.norm1.weight.numel(), generator=generator)
        super().__init__(self.block.to(device), [tokens.to(device)])

    def apply(self, backend: Backend) -> Tensor:
        """See `Problem.apply`."""
        (tokens,) = self.inputs
        if torch.is_grad_enabled():
            return backend.run_differentiable(self.block, tokens, self.layout, BranchFactors())  # (B*T*H*W, C)
        return backend.run_chunked(self.block, tokens, self.layout, BranchFactors(), overwrite=False)  # (B*T*H*W, C)


class AlignmentProblem(Problem):
    """Copies of alignment and fusion, with other weights, on frames (B, T, H, W, C) and flows (2, B, T-1, K, 2, H, W).

    Samples are about half way between pixels: at a pixel the derivative of bilinear sampling is discontinuous, so that
    rounding would change it.
    """

    def __init__(
        self, like: DeformableAlignment, fuse: GatedMlp, recompute: bool,
        batch: int, size: Size3, generator: torch.Generator, device: torch.device,
    ) -> None:  # fmt: skip
        self.alignment, self.fuse, self.recompute = deepcopy(like), deepcopy(fuse), recompute
        module = nn.ModuleList([self.alignment, self.fuse])
        draw_weights(module, generator)
        for parameter in self.alignment.conv_offset[-1].parameters():
            parameter.data.mul_(_SMALL)
        frames, height, width = size
        x = drawn(batch, *size, self.alignment.weight.shape[1], generator=generator)
        shape = (2, batch, frames - 1, self.alignment.reach, 2, 1, 1)
        flows = (
            torch.randint(-2, 2, shape, generator=generator, device=generator.device) + 0.5
        )  # the same for all of a frame's pixels
        flows = flows.expand(*shape[:-2], height, width).contiguous()
        super().__init__(module.to(device), [x.to(device), flows.to(device)])

    def apply(self, backend: Backend) -> Tensor:
        """See `Problem.apply`."""
        x, flows = self.inputs
        return backend.align(self.alignment, self.fuse, x, flows, self.recompute)  # (B, T, H, W, C)


def worst_error(problem: Problem, backend: Backend, step: bool, amp_dtype: torch.dtype | None) -> tuple[float, float]:
    """The relative error, of result or gradients, greatest relative to its limit, and this limit; NaN if any is.

    Args:
        amp_dtype: type of autocast, or None.
    """
    base = LIMITS[amp_dtype or torch.float32]
    exact = problem.exact(step)
    plain = problem.run(COMPUTE_BACKENDS.get("eager")(), step, amp_dtype)
    worst = (0.0, base)
    for got, own, right in zip(problem.run(backend, step, amp_dtype), plain, exact, strict=True):
        error, limit = relative_error(got, right), max(base, _OWN_ERRORS * relative_error(own, right))
        if not error <= limit:  # a comparison with NaN is never true
            return error, limit
        worst = max(worst, (error, limit), key=lambda pair: pair[0] / pair[1])
    return worst


def drawn(*shape: int, generator: torch.Generator) -> Tensor:
    """Normal random numbers, on the generator's device."""
    return torch.randn(shape, generator=generator, device=generator.device)


@torch.no_grad()
def draw_weights(module: nn.Module, generator: torch.Generator) -> None:
    """Draws all weights, scaled so that layers preserve the magnitude of values."""
    for parameter in module.parameters():
        scale = 0.1 if parameter.dim() == 1 else 1 / math.sqrt(parameter[0].numel())
        parameter.copy_(scale * drawn(*parameter.shape, generator=generator))
    for layer in module.modules():
        if isinstance(layer, nn.LayerNorm):
            layer.weight.add_(1)


class Part(ABC):
    """One kind of the network's parts.

    Attributes:
        count: number of parts of this kind at full resolution in the network.
    """

    count: int

    @abstractmethod
    def problem(self, batch: int, size: Size3, generator: torch.Generator, device: torch.device) -> Problem:
        """A problem on a grid (B, T, H, W), with weights and input drawn."""

    @abstractmethod
    def describe(self) -> list[Any]:
        """The kind as plain values, for the cache's key."""


@dataclass(frozen=True)
class BlockPart(Part):
    """Blocks of the kind of `block`."""

    block: TMSA
    count: int

    def problem(self, batch: int, size: Size3, generator: torch.Generator, device: torch.device) -> Problem:
        """See `Part.problem`."""
        return BlockProblem(self.block, batch, size, generator, device)

    def describe(self) -> list[Any]:
        """See `Part.describe`."""
        return [*_block_kind(self.block), self.count]


@dataclass(frozen=True)
class AlignmentPart(Part):
    """Alignment and fusion of the kind of `stage`'s; for at least two frames."""

    stage: Stage
    count: int

    def problem(self, batch: int, size: Size3, generator: torch.Generator, device: torch.device) -> Problem:
        """See `Part.problem`."""
        stage = self.stage
        return AlignmentProblem(stage.pa_deform, stage.pa_fuse, stage.checkpoint_align, batch, size, generator, device)

    def describe(self) -> list[Any]:
        """See `Part.describe`."""
        return [*_alignment_kind(self.stage), self.count]


def parts_of(modules: Iterable[nn.Module], aligned: bool) -> list[Part]:
    """The kinds of blocks and, with `aligned`, of alignments in modules that run on the full grid."""
    found = [module for top in modules for module in top.modules()]
    blocks = {_block_kind(module): module for module in found if isinstance(module, TMSA)}
    counts = Counter(_block_kind(module) for module in found if isinstance(module, TMSA))
    parts: list[Part] = [BlockPart(block, counts[kind]) for kind, block in blocks.items()]
    aligning = [module for module in found if isinstance(module, Stage) and module.aligns and aligned]
    stages = {_alignment_kind(stage): stage for stage in aligning}
    counted = Counter(map(_alignment_kind, aligning))
    return [*parts, *(AlignmentPart(stage, counted[kind]) for kind, stage in stages.items())]


def _block_kind(block: TMSA) -> tuple[Any, ...]:
    attention = block.attn
    widths = attention.proj.out_features, attention.num_heads, block.mlp.fc11.out_features
    return ("block", block.window, block.shift, block.mutual, *widths, block.checkpoint_attn, block.checkpoint_ffn)


def _alignment_kind(stage: Stage) -> tuple[Any, ...]:
    alignment = stage.pa_deform
    return (
        "alignment",
        *alignment.weight.shape[:1],
        alignment.reach,
        alignment.deformable_groups,
        stage.checkpoint_align,
    )
