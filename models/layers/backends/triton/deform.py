"""Operators of VRT's alignment on channels-last frames, by Triton kernels (`deform_kernels.py`).

Neighbours are given by index, not copied. Offsets, modulations and samples are never written to memory; the backward
pass recomputes them. The operators are registered with torch, like those of `attention.py`. They compute in the type of
the frames (float32 products: see `torch.set_float32_matmul_precision`) with float32 positions, samples and sums.

Gradients are summed in a fixed order, except the frames', which are scattered: by float32 atomics in varying order or,
with `torch.use_deterministic_algorithms`, as 64-bit integers, which repeats bit for bit.

Measured, and compared with torchvision, by `python scripts/benchmark/bench_alignment.py` on a GPU.

Legend: F frames, n target frames, K neighbours of each, H height, W width, C channels, G groups.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from models.layers.backends.triton.attention import Tiles, interpreted, product_precision

TAPS = 9  # of a 3x3 kernel
# Programs to launch, enough for a large GPU; a constant, so that sums have the same order on every machine.
_WEIGHT_PROGRAMS = 1024
# Bits of a gradient as an integer: 2^27 summands of 36 bits and a sign fit 64 bits.
_FIXED_BITS = 36


def deform_tiles(precision: str, kernel: str) -> Tiles:
    """Pixels and columns (group, channel) of a tile, which fit the registers, as compiling for sm_90 reports.

    Args:
        precision: from `product_precision`.
        kernel: "forward", "backward" or "weight".
    """
    if kernel == "backward":
        return Tiles(32, 16, 8 if precision == "ieee32" else 4, 1)
    return Tiles(64 if precision == "half" else 32, 16, 8, 2)


class _Problem(NamedTuple):
    """Sizes of a deformable convolution, and its tiles."""

    images: int
    height: int
    width: int
    neighbours: int
    groups: int
    channels: int
    outputs: int
    precision: str
    tiles: Tiles

    @property
    def pixels(self) -> int:
        """P."""
        return self.images * self.height * self.width

    @property
    def block_channels(self) -> int:
        """Channels of a group, rounded up to a power of two."""
        return _power_of_two(self.channels, 1)

    @property
    def block_groups(self) -> int:
        """Groups of a tile, which has at least 16 columns, as tensor cores require."""
        return max(1, max(16, self.tiles.columns) // self.block_channels)

    @property
    def packs(self) -> int:
        """Number of tiles for all groups of a neighbour."""
        return -(-self.groups // self.block_groups)

    @property
    def packed(self) -> tuple[int, ...]:
        """Shape of `_pack`'s result."""
        groups, lanes = self.packs * self.block_groups, self.block_channels
        return self.neighbours, TAPS, groups, lanes, _power_of_two(self.outputs, 16)


def _power_of_two(number: int, least: int) -> int:
    return 1 << (max(number, least) - 1).bit_length()


def _problem(flows: Tensor, frames: Tensor, groups: int, kernel: str) -> _Problem:
    count, neighbours, _, height, width = flows.shape
    precision = product_precision(frames.dtype)
    channels, outputs = frames.shape[3] * neighbours // groups, frames.shape[3] // neighbours
    sizes = (count, height, width, neighbours, groups // neighbours, channels, outputs)
    return _Problem(*sizes, precision, deform_tiles(precision, kernel))


def _launch(kernel: Any, problem: _Problem, grid: tuple[int, ...], *tensors: Any, **constants: object) -> None:
    """Runs a deformable convolution's kernel on `grid` programs; `tensors` are its arguments before the constants."""
    precision = "tf32" if problem.precision == "tf32" else "ieee"
    kernel[grid](
        *tensors,
        NEIGHBOURS=problem.neighbours,
        GROUPS=problem.groups,
        CHANNELS=problem.channels,
        OUTPUTS=problem.outputs,
        BLOCK_M=problem.tiles.rows,
        BLOCK_G=problem.block_groups,
        BLOCK_C=problem.block_channels,
        BLOCK_O=problem.packed[4],
        PRECISION="upcast" if interpreted() else precision,
        num_warps=problem.tiles.warps,
        num_stages=problem.tiles.stages,
        **constants,
    )


def _pack(weight: Tensor, problem: _Problem, dtype: torch.dtype) -> Tensor:
    """Weight (C, C, 3, 3) in the kernels' layout, (K, 9, groups, channels, outputs), padded with zeros."""
    cut = weight.reshape(problem.neighbours, problem.outputs, problem.groups, problem.channels, TAPS)
    cut = cut.permute(0, 4, 2, 3, 1).to(dtype)
    missing = [filled - length for filled, length in zip(problem.packed, cut.shape, strict=True)]
    return F.pad(cut, (0, missing[4], 0, missing[3], 0, missing[2])).contiguous()


def _unpack(packed: Tensor, problem: _Problem) -> Tensor:
    """Inverse of `_pack`: (C, C, 3, 3)."""
    cut = packed[:, :, : problem.groups, : problem.channels, : problem.outputs].permute(0, 4, 2, 3, 1)
    return cut.reshape(problem.neighbours * problem.outputs, problem.groups * problem.channels, 3, 3)


class _FrameGradient:
    """Sum of the gradients scattered to the frames.

    Args:
        bound: upper bound of a summand's magnitude.
    """

    def __init__(self, frames: Tensor, bound: Tensor) -> None:
        self.fixed = torch.are_deterministic_algorithms_enabled()
        dtype = torch.int64 if self.fixed else torch.float32
        self.sums = torch.zeros(frames.shape, dtype=dtype, device=frames.device)
        smallest = torch.finfo(torch.float32).tiny
        self.scale = torch.exp2(torch.floor(_FIXED_BITS - torch.log2(bound.float().clamp(min=smallest))))

    def total(self, dtype: torch.dtype) -> Tensor:
        """The sum, (F, H, W, C)."""
        return ((self.sums.double() / self.scale) if self.fixed else self.sums).to(dtype)


@torch.library.custom_op("s_vrt::alignment_features", mutates_args=())
def alignment_features(frames: Tensor, targets: Tensor, sources: Tensor, flows: Tensor) -> Tensor:
    """Input of the offset network: the neighbours warped along their flows, the target frame, the flows.

    Args:
        frames: (F, H, W, C).
        targets: (n,), int32, indices of the target frames.
        sources: (n, K), int32, indices of the neighbours; -1 is a frame of zeros.
        flows: (n, K, 2, H, W), float32, to the neighbours, (x, y) in pixels.

    Returns:
        (n, H, W, K*C + C + 2*K).
    """
    from models.layers.backends.triton import deform_kernels as kernels

    count, neighbours, _, height, width = flows.shape
    out = frames.new_empty(count, height, width, (neighbours + 1) * frames.shape[3] + 2 * neighbours)
    tensors = (frames.contiguous(), targets, sources, flows.contiguous(), out)
    _launch_features(kernels.features_forward, frames, tensors, neighbours)
    return out


@torch.library.custom_op("s_vrt::alignment_features_backward", mutates_args=())
def alignment_features_backward(
    grad: Tensor, frames: Tensor, targets: Tensor, sources: Tensor, flows: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of frames and flows of `alignment_features`, given that of its output."""
    from models.layers.backends.triton import deform_kernels as kernels

    of_frames = _FrameGradient(frames, grad.abs().amax())
    grad_flows = torch.empty_like(flows, memory_format=torch.contiguous_format)
    inputs = (frames.contiguous(), targets, sources, flows.contiguous(), grad.contiguous())
    tensors = (*inputs, grad_flows, of_frames.sums, of_frames.scale)
    _launch_features(kernels.features_backward, frames, tensors, flows.shape[1], FIXED=of_frames.fixed)
    return of_frames.total(frames.dtype), grad_flows


def _launch_features(
    kernel: Any, frames: Tensor, tensors: tuple[Tensor, ...], neighbours: int, **constants: object
) -> None:
    height, width, channels = frames.shape[1:]
    pixels, rows = tensors[1].shape[0] * height * width, 32
    kernel[(-(-pixels // rows), neighbours + 1)](
        *(*tensors, pixels, height, width),
        NEIGHBOURS=neighbours,
        C=channels,
        BLOCK_C=_power_of_two(channels, 1),
        BLOCK_M=rows,
        num_warps=8,
        num_stages=1,
        **constants,
    )


@torch.library.custom_op("s_vrt::deformable_alignment", mutates_args=())
def deformable_alignment(
    raw: Tensor, flows: Tensor, frames: Tensor, sources: Tensor, weight: Tensor, bias: Tensor, residue: float
) -> Tensor:
    """Modulated deformable 3x3 convolution of the neighbours, by offsets residue * tanh(raw) + flow.

    Args:
        raw: (n, H, W, 27*G), channels in the order (neighbour, tap, y or x or modulation, group of the neighbour).
        flows: (n, K, 2, H, W), float32, (x, y) in pixels.
        frames: (F, H, W, C).
        sources: (n, K), int32, indices of the neighbours; -1 is a frame of zeros.
        weight: (C, C, 3, 3); the first C/K outputs are computed from the first neighbour, and so on.
        bias: (C,).
        residue: largest difference of an offset from its flow, in pixels.

    Returns:
        (n, H, W, C), in the frames' type.
    """
    from models.layers.backends.triton import deform_kernels as kernels

    problem = _problem(flows, frames, raw.shape[3] // 27, "forward")
    out = frames.new_empty(*raw.shape[:3], frames.shape[3])
    _launch(
        *(kernels.deform_forward, problem, (-(-problem.pixels // problem.tiles.rows), problem.neighbours)),
        *(*_inputs(problem, raw, flows, frames, sources, weight), residue, bias, out),
    )
    return out


def _inputs(
    problem: _Problem, raw: Tensor, flows: Tensor, frames: Tensor, sources: Tensor, weight: Tensor
) -> tuple[Tensor | int, ...]:
    """Arguments of all kernels of the deformable convolution."""
    tensors = (raw.contiguous(), flows.contiguous(), frames.contiguous(), sources)
    return *tensors, _pack(weight, problem, frames.dtype), problem.pixels, problem.height, problem.width


@torch.library.custom_op("s_vrt::deformable_alignment_backward", mutates_args=())
def deformable_alignment_backward(
    grad: Tensor, raw: Tensor, flows: Tensor, frames: Tensor, sources: Tensor, weight: Tensor, residue: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of raw, flows, frames and weight of `deformable_alignment`, given that of its output."""
    from models.layers.backends.triton import deform_kernels as kernels

    problem = _problem(flows, frames, raw.shape[3] // 27, "backward")
    grad = grad.contiguous()
    inputs = (*_inputs(problem, raw, flows, frames, sources, weight), residue, grad)
    largest = weight.float().abs().unflatten(0, (problem.neighbours, -1)).sum(1).amax()
    of_frames = _FrameGradient(frames, grad.abs().amax().float() * largest)
    grad_raw = torch.empty_like(raw, memory_format=torch.contiguous_format)
    grad_flows = torch.empty_like(flows, memory_format=torch.contiguous_format)
    tiles = -(-problem.pixels // problem.tiles.rows)
    _launch(
        *(kernels.deform_backward, problem, (tiles, problem.neighbours)),
        *(*inputs, grad_raw, grad_flows, of_frames.sums, of_frames.scale),
        FIXED=of_frames.fixed,
    )
    problem = problem._replace(tiles=deform_tiles(problem.precision, "weight"))
    tiles = -(-problem.pixels // problem.tiles.rows)
    per_program = max(1, tiles * problem.neighbours * TAPS * problem.packs // _WEIGHT_PROGRAMS)
    chunks = -(-tiles // per_program)
    sums = torch.empty(chunks, *problem.packed, dtype=torch.float32, device=grad.device)
    _launch(
        *(kernels.deform_backward_weight, problem, (chunks, problem.neighbours, TAPS * problem.packs)),
        *(*inputs, sums, per_program),
    )
    return grad_raw, grad_flows, of_frames.total(frames.dtype), _unpack(sums.sum(0), problem).to(weight.dtype)


@alignment_features.register_fake
def _(frames, targets, sources, flows):  # type: ignore[no-untyped-def]
    count, neighbours, _, height, width = flows.shape
    return frames.new_empty(count, height, width, (neighbours + 1) * frames.shape[3] + 2 * neighbours)


@alignment_features_backward.register_fake
def _(grad, frames, targets, sources, flows):  # type: ignore[no-untyped-def]
    return frames.new_empty(frames.shape), flows.new_empty(flows.shape)


@deformable_alignment.register_fake
def _(raw, flows, frames, sources, weight, bias, residue):  # type: ignore[no-untyped-def]
    return frames.new_empty(*raw.shape[:3], frames.shape[3])


@deformable_alignment_backward.register_fake
def _(grad, raw, flows, frames, sources, weight, residue):  # type: ignore[no-untyped-def]
    return tuple(x.new_empty(x.shape) for x in (raw, flows, frames, weight))


def _keep_features(ctx, inputs, output):  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs)


def _features_gradients(ctx, grad):  # type: ignore[no-untyped-def]
    grad_frames, grad_flows = alignment_features_backward(grad, *ctx.saved_tensors)
    return grad_frames, None, None, grad_flows


def _keep(ctx, inputs, output):  # type: ignore[no-untyped-def]
    *tensors, bias, ctx.residue = inputs
    ctx.bias_dtype = bias.dtype
    ctx.save_for_backward(*tensors)


def _gradients(ctx, grad):  # type: ignore[no-untyped-def]
    of_raw, of_flows, of_frames, of_weight = deformable_alignment_backward(grad, *ctx.saved_tensors, ctx.residue)
    of_bias = grad.sum((0, 1, 2), dtype=torch.float32).to(ctx.bias_dtype)
    return of_raw, of_flows, of_frames, None, of_weight, of_bias, None


alignment_features.register_autograd(_features_gradients, setup_context=_keep_features)
deformable_alignment.register_autograd(_gradients, setup_context=_keep)


@register_flop_formula(torch.ops.s_vrt.deformable_alignment)
def _flop(raw, flows, frames, sources, weight, bias, residue, **_kwargs):  # type: ignore[no-untyped-def]
    """Operations of the product of samples and weights."""
    return 2 * raw[0] * raw[1] * raw[2] * weight[0] * weight[1] * TAPS


@register_flop_formula(torch.ops.s_vrt.deformable_alignment_backward)
def _backward_flop(grad, raw, flows, frames, sources, weight, residue, **_kwargs):  # type: ignore[no-untyped-def]
    """Two products of that size."""
    return 2 * _flop(raw, flows, frames, sources, weight, None, residue)
