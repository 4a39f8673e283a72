"""Modulated deformable 3x3 convolution (DCNv2, arXiv 1811.11168): `torchvision.ops.deform_conv2d`, faster on a CPU.

    out(p) = bias + sum over taps k of weight_k * mask_k(p) * x(p + p_k + offset_k(p)),    bilinear, zero outside

On accelerators torchvision's kernel is used. Its CPU kernel runs on one thread, pixel by pixel, so on a CPU the samples
are taken by `grid_sample` and multiplied by the weights in one matrix product per chunk of rows, and the backward pass
samples again instead of keeping the samples: equal up to rounding, and several times faster.

Legend: N images, C channels in, O channels out, H height, W width, G deformable groups; a chunk has n images, P pixels.
"""

from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from models.layers.ops import chunks
from models.layers.ops.chunks import processor, slices

TAPS = 9  # of a 3x3 kernel, row by row


def deform_conv3x3(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Deformable convolution with stride 1 and padding 1.

    Args:
        x: (N, C, H, W).
        offset: (N, G*9*2, H, W), pairs (y, x) in pixels; G divides C.
        mask: (N, G*9, H, W), factors of the samples.
        weight: (O, C / weight groups, 3, 3).
        bias: (O,).

    Returns:
        (N, O, H, W).
    """
    if processor(x) == "cpu":
        return _SampledConvolution.apply(x.contiguous(), offset, mask, weight, bias)
    return torchvision_deform_conv3x3(x, offset, mask, weight, bias)


def torchvision_deform_conv3x3(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`deform_conv3x3` by torchvision's kernel."""
    from torchvision.ops import deform_conv2d  # here only: importing torchvision takes as long as importing PyTorch

    return deform_conv2d(x, offset, weight, bias, padding=1, mask=mask)  # (N, O, H, W)


def _chunks(x: Tensor) -> Iterator[tuple[slice, slice]]:
    """(images, rows) of all chunks: whole images, or rows of one."""
    count, channels, height, width = x.shape
    row_bytes = channels * TAPS * width * x.element_size()
    images, rows = chunks.PAIRS.items(x, row_bytes * height), min(height, chunks.PAIRS.items(x, row_bytes))
    return product(slices(count, images), slices(height, rows))


def taps(rows: slice, width: int, like: Tensor) -> Tensor:
    """Coordinates of the nine taps of each pixel in `rows`, without an offset: (2, 9, rows, W) pixels, x first."""
    tap = torch.arange(TAPS, dtype=like.dtype, device=like.device)
    tap_rows = torch.div(tap, 3, rounding_mode="floor")
    places = torch.arange(rows.start, rows.stop, dtype=like.dtype, device=like.device)
    columns = torch.arange(width, dtype=like.dtype, device=like.device)
    x = (tap - 3 * tap_rows).view(-1, 1, 1) - 1 + columns.view(1, 1, -1)
    y = tap_rows.view(-1, 1, 1) - 1 + places.view(1, -1, 1)
    return torch.stack((x.expand(-1, len(places), -1), y.expand(-1, -1, width)))


def _grid(offset: Tensor, rows: slice, height: int) -> Tensor:
    """Coordinates of a chunk's taps for `grid_sample`: offset (n, G*18, rows, W) to (n*G, 9*rows, W, 2)."""
    width = offset.shape[-1]
    pairs = offset.reshape(-1, TAPS, 2, *offset.shape[-2:])
    base_x, base_y = taps(rows, width, offset)
    y = (pairs[:, :, 0] + base_y).mul_(2 / height).add_(1 / height - 1)
    x = (pairs[:, :, 1] + base_x).mul_(2 / width).add_(1 / width - 1)
    return torch.stack((x, y), dim=-1).flatten(1, 2)


def _by_group(x: Tensor, mask: Tensor) -> Tensor:
    """x (n, C, H, W) as (n*G, C/G, H, W), G from the mask (n, G*9, ...)."""
    groups = mask.shape[1] // TAPS
    return x.reshape(x.shape[0] * groups, -1, *x.shape[2:])


class _SampledConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, offset, mask, weight, bias):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, offset, mask, weight)
        out = x.new_empty(x.shape[0], weight.shape[0], *x.shape[2:])  # (N, O, H, W)
        groups = x.shape[1] // weight.shape[1]
        kernel = weight.reshape(1, groups, -1, weight.shape[1] * TAPS)
        for images, rows in _chunks(x):
            part, factors = x[images], mask[images, :, rows]
            columns = _SampledConvolution._columns(part, offset[images, :, rows], factors, rows)[2]  # (n, G, C/G, 9, P)
            n = columns.shape[0]
            result = torch.matmul(kernel, columns.view(n, groups, kernel.shape[-1], -1))  # (n, groups, O/groups, P)
            out[images, :, rows] = result.view(n, weight.shape[0], -1, x.shape[3])
        return out.add_(bias.view(1, -1, 1, 1))

    @staticmethod
    def _columns(x: Tensor, offset: Tensor, mask: Tensor, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Grid, samples and modulated samples of a chunk, the samples (n, G, C/G, 9, P)."""
        n, groups = x.shape[0], mask.shape[1] // TAPS
        grid = _grid(offset, rows, x.shape[2])  # (n*G, 9*rows, W, 2)
        samples = F.grid_sample(_by_group(x, mask), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        samples = samples.view(n, groups, x.shape[1] // groups, TAPS, -1)
        return grid, samples, samples * mask.reshape(n, groups, 1, TAPS, -1)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        with torch.autocast(grad.device.type, enabled=False):
            return _SampledConvolution._gradients(grad, *ctx.saved_tensors)

    @staticmethod
    def _gradients(grad: Tensor, x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        groups = x.shape[1] // weight.shape[1]
        kernel = weight.reshape(1, groups, -1, weight.shape[1] * TAPS)
        grad_x, grad_weight = torch.zeros_like(x), torch.zeros_like(kernel[0])
        grad_offset, grad_mask = torch.empty_like(offset), torch.empty_like(mask)
        for images, rows in _chunks(x):
            part, factors = x[images], mask[images, :, rows]
            grid, samples, columns = _SampledConvolution._columns(part, offset[images, :, rows], factors, rows)
            n, height = samples.shape[0], rows.stop - rows.start
            grad_out = grad[images, :, rows].reshape(n, groups, kernel.shape[2], -1)
            columns = columns.view(n, groups, kernel.shape[3], -1)
            grad_weight += torch.matmul(grad_out, columns.transpose(-2, -1)).sum(0)
            grad_columns = torch.matmul(kernel.transpose(-2, -1), grad_out).view_as(samples)
            grad_mask[images, :, rows] = (grad_columns * samples).sum(2).view(n, -1, height, x.shape[3])
            grad_columns *= factors.reshape(n, -1, 1, TAPS, samples.shape[-1])
            of_input, of_grid = torch.ops.aten.grid_sampler_2d_backward(
                grad_columns.view(n * samples.shape[1], samples.shape[2], TAPS * height, -1),
                _by_group(part, factors), grid, 0, 0, False, (True, True),
            )  # fmt: skip
            grad_x[images] += of_input.view_as(part)
            of_grid = of_grid.view(-1, TAPS, height, x.shape[3], 2)
            of_pairs = torch.stack((of_grid[..., 1] * (2 / x.shape[2]), of_grid[..., 0] * (2 / x.shape[3])), 2)
            grad_offset[images, :, rows] = of_pairs.view(n, -1, height, x.shape[3])
        return grad_x, grad_offset, grad_mask, grad_weight.view_as(weight), grad.sum((0, 2, 3))
