"""Triton kernels of VRT's alignment on channels-last frames: samples along flow, and the deformable 3x3 convolution.

    features(p) = [x_k(p + flow_k(p)) for all neighbours k, x(p), flow_k(p) for all k]
    out(p) = bias + sum over k, taps, groups of weight * sigmoid(m) * x_k(p + p_tap + residue * tanh(o) + flow_k(p))

Samples are bilinear with zeros outside, like those of `torchvision.ops.deform_conv2d`. Offsets o, modulations m and the
samples of a tile of pixels exist on chip only, and the backward pass recomputes them. Gradients of frames are summed by
atomics, as several samples may use one pixel: in float32, or as 64-bit integers, whose sum is independent of the order
(FIXED).

Test: `python -m pytest tests/models/layers/backends/triton/test_deform.py` (on a CPU, in Triton's interpreter).

Legend: F frames, n target frames, K neighbours of each, H height, W width, C channels, P = n*H*W pixels; G groups of
channels per neighbour with separate offsets, C/K outputs per neighbour. A *place* is a tuple: row in (F*H*W, C) of the
pixel above and to the left, distances down and right from it, and whether the rows above and below and the columns left
and right are inside.
"""

# Arguments of kernels have no Python types.
# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl

from models.layers.backends.triton.attention_kernels import _dot


@triton.jit
def _pixel(tile, pixels, height, width, BLOCK_M: tl.constexpr):
    """For a tile's pixels: index, whether it exists, frame, row and column."""
    pixel = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    return pixel, pixel < pixels, pixel // (height * width), pixel // width % height, pixel % width


@triton.jit
def _flow(flows, sources, frame, line, column, known, neighbour, height, width, NEIGHBOURS: tl.constexpr):
    """Index of each pixel's neighbour frame (-1 for none), offset of its flow in `flows`, and the flow (x, y)."""
    number = frame * NEIGHBOURS + neighbour
    source = tl.load(sources + number, mask=known, other=-1)
    at = (number.to(tl.int64) * 2 * height + line) * width + column
    flow_x = tl.load(flows + at, mask=known, other=0.0)
    return source, at, flow_x, tl.load(flows + at + height * width, mask=known, other=0.0)


@triton.jit
def _place(y, x, source, height, width):
    """See the legend."""
    top, left = tl.floor(y), tl.floor(x)
    above = (source >= 0) & (top >= 0) & (top < height)
    below = (source >= 0) & (top >= -1) & (top < height - 1)
    before = (left >= 0) & (left < width)
    behind = (left >= -1) & (left < width - 1)
    # Far outside the picture a coordinate may be too large for an integer.
    line = tl.where(above | below, top, 0.0).to(tl.int32)
    column = tl.where(before | behind, left, 0.0).to(tl.int32)
    row = (source.to(tl.int64) * height + line) * width + column
    return row, y - top, x - left, above, below, before, behind


@triton.jit
def _of_channels(place, RANK: tl.constexpr):
    """A place's parts with an axis for channels after their RANK axes."""
    return (
        tl.expand_dims(place[0], RANK), tl.expand_dims(place[1], RANK), tl.expand_dims(place[2], RANK),
        tl.expand_dims(place[3], RANK), tl.expand_dims(place[4], RANK), tl.expand_dims(place[5], RANK),
        tl.expand_dims(place[6], RANK),
    )  # fmt: skip


@triton.jit
def _sample(frames, place, channel, lanes, width, C: tl.constexpr):
    """Samples of the channels `channel`, and their derivatives downwards and to the right."""
    row, down, right, above, below, before, behind = place
    at = frames + (row * C + channel)
    a = tl.load(at, mask=lanes & above & before, other=0.0).to(tl.float32)
    b = tl.load(at + C, mask=lanes & above & behind, other=0.0).to(tl.float32)
    c = tl.load(at + width * C, mask=lanes & below & before, other=0.0).to(tl.float32)
    d = tl.load(at + (width + 1) * C, mask=lanes & below & behind, other=0.0).to(tl.float32)
    upper, lower = a + right * (b - a), c + right * (d - c)
    return upper + down * (lower - upper), lower - upper, (b - a) + down * ((d - c) - (b - a))


@triton.jit
def _add(at, value, here, scale, FIXED: tl.constexpr):
    if FIXED:
        tl.atomic_add(at, (value * scale).to(tl.int64), mask=here, sem="relaxed")
    else:
        tl.atomic_add(at, value, mask=here, sem="relaxed")


@triton.jit
def _scatter(grads, place, channel, lanes, width, grad, scale, C: tl.constexpr, FIXED: tl.constexpr):
    """Adds the gradient of samples to the gradients of the four pixels that each was interpolated from."""
    row, down, right, above, below, before, behind = place
    at = grads + (row * C + channel)
    upper, lower = grad * (1 - down), grad * down
    _add(at, upper * (1 - right), lanes & above & before, scale, FIXED)
    _add(at + C, upper * right, lanes & above & behind, scale, FIXED)
    _add(at + width * C, lower * (1 - right), lanes & below & before, scale, FIXED)
    _add(at + (width + 1) * C, lower * right, lanes & below & behind, scale, FIXED)


@triton.jit
def features_forward(
    frames, targets, sources, flows, out, pixels, height, width,
    NEIGHBOURS: tl.constexpr, C: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """(P, K*C + C + 2*K): the neighbours warped along their flows, the target frame, the flows.

    Grid (tiles of pixels, K + 1): the last program writes the target frame.
    """
    WIDTH: tl.constexpr = (NEIGHBOURS + 1) * C + 2 * NEIGHBOURS
    neighbour = tl.program_id(1)
    pixel, known, frame, line, column = _pixel(tl.program_id(0), pixels, height, width, BLOCK_M)
    channel = tl.arange(0, BLOCK_C)[None, :]
    here = known[:, None] & (channel < C)
    to = out + pixel.to(tl.int64) * WIDTH
    if neighbour < NEIGHBOURS:
        source, _at, flow_x, flow_y = _flow(
            flows, sources, frame, line, column, known, neighbour, height, width, NEIGHBOURS
        )  # fmt: skip
        place = _of_channels(_place(line + flow_y, column + flow_x, source, height, width), 1)
        value, _down, _right = _sample(frames, place, channel, here, width, C)
        tl.store(to[:, None] + neighbour * C + channel, value.to(out.dtype.element_ty), mask=here)
        to += (NEIGHBOURS + 1) * C + 2 * neighbour
        tl.store(to, flow_x.to(out.dtype.element_ty), mask=known)
        tl.store(to + 1, flow_y.to(out.dtype.element_ty), mask=known)
    else:
        row = (tl.load(targets + frame, mask=known, other=0).to(tl.int64) * height + line) * width + column
        itself = tl.load(frames + row[:, None] * C + channel, mask=here, other=0.0)
        tl.store(to[:, None] + NEIGHBOURS * C + channel, itself, mask=here)


@triton.jit
def features_backward(
    frames, targets, sources, flows, grad, grad_flows, grad_frames, scale, pixels, height, width,
    NEIGHBOURS: tl.constexpr, C: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_M: tl.constexpr, FIXED: tl.constexpr,
):  # fmt: skip
    """Gradients of the flows, and of the frames, which are added to `grad_frames` (times `scale` if FIXED).

    Grid as in `features_forward`.
    """
    WIDTH: tl.constexpr = (NEIGHBOURS + 1) * C + 2 * NEIGHBOURS
    neighbour = tl.program_id(1)
    pixel, known, frame, line, column = _pixel(tl.program_id(0), pixels, height, width, BLOCK_M)
    channel = tl.arange(0, BLOCK_C)[None, :]
    here = known[:, None] & (channel < C)
    of = grad + pixel.to(tl.int64) * WIDTH
    value = tl.load(of[:, None] + neighbour * C + channel, mask=here, other=0.0).to(tl.float32)
    factor = 1.0
    if FIXED:
        factor = tl.load(scale)
    if neighbour < NEIGHBOURS:
        source, at, flow_x, flow_y = _flow(
            flows, sources, frame, line, column, known, neighbour, height, width, NEIGHBOURS
        )  # fmt: skip
        place = _of_channels(_place(line + flow_y, column + flow_x, source, height, width), 1)
        _value, down, right = _sample(frames, place, channel, here, width, C)
        _scatter(grad_frames, place, channel, here, width, value, factor, C, FIXED)
        of += (NEIGHBOURS + 1) * C + 2 * neighbour
        grad_x = tl.load(of, mask=known, other=0.0).to(tl.float32) + tl.sum(value * right, 1)
        grad_y = tl.load(of + 1, mask=known, other=0.0).to(tl.float32) + tl.sum(value * down, 1)
        to = grad_flows + at
        tl.store(to, grad_x, mask=known)
        tl.store(to + height * width, grad_y, mask=known)
    else:
        row = (tl.load(targets + frame, mask=known, other=0).to(tl.int64) * height + line) * width + column
        _add(grad_frames + row[:, None] * C + channel, value, here, factor, FIXED)


@triton.jit
def _tanh(x):
    return 1 - 2 / (1 + tl.exp(2 * x))


@triton.jit
def _look(
    raw, pixel, known, neighbour, tap, group, line, column, flow_x, flow_y, residue,
    NEIGHBOURS: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    """Sampling coordinates of one tap, for each pixel and group: offsets of its values in `raw` and their mask, y and
    x, the tanh in each, and the modulation."""
    channel = (neighbour * 9 + tap) * (3 * GROUPS) + group
    at = pixel.to(tl.int64)[:, None] * (27 * NEIGHBOURS * GROUPS) + channel[None, :]
    here = known[:, None] & (group < GROUPS)[None, :]
    tanh_y = _tanh(tl.load(raw + at, mask=here, other=0.0).to(tl.float32))
    tanh_x = _tanh(tl.load(raw + at + GROUPS, mask=here, other=0.0).to(tl.float32))
    modulation = 1 / (1 + tl.exp(-tl.load(raw + at + 2 * GROUPS, mask=here, other=0.0).to(tl.float32)))
    y = (line + tap // 3 - 1)[:, None] + (residue * tanh_y + flow_y[:, None])
    x = (column + tap % 3 - 1)[:, None] + (residue * tanh_x + flow_x[:, None])
    return at, here, y, x, tanh_y, tanh_x, modulation


@triton.jit
def _look_and_sample(
    raw, frames, pixel, known, neighbour, tap, group, line, column, source, flow_x, flow_y, residue, height, width,
    NEIGHBOURS: tl.constexpr, GROUPS: tl.constexpr, CHANNELS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """The result of `_look` without y and x; places, channels and mask of the samples; the result of `_sample`."""
    at, here, y, x, tanh_y, tanh_x, modulation = _look(
        raw, pixel, known, neighbour, tap, group, line, column, flow_x, flow_y, residue, NEIGHBOURS, GROUPS
    )  # fmt: skip
    place = _of_channels(_place(y, x, source[:, None], height, width), 2)
    lane = tl.arange(0, BLOCK_C)[None, None, :]
    channel = group[None, :, None] * CHANNELS + lane
    lanes = here[:, :, None] & (lane < CHANNELS)
    samples = _sample(frames, place, channel, lanes, width, GROUPS * CHANNELS)
    return (at, here, tanh_y, tanh_x, modulation), (place, channel, lanes), samples


@triton.jit
def _weights(weight, neighbour, tap, pack, PACKS: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_O: tl.constexpr):
    """(BLOCK_K, BLOCK_O) of the packed weight (K, 9, PACKS*BLOCK_K, BLOCK_O)."""
    row = ((neighbour * 9 + tap) * PACKS + pack) * BLOCK_K + tl.arange(0, BLOCK_K)
    return tl.load(weight + row[:, None] * BLOCK_O + tl.arange(0, BLOCK_O)[None, :])


@triton.jit
def deform_forward(
    raw, flows, frames, sources, weight, pixels, height, width, residue, bias, out,
    NEIGHBOURS: tl.constexpr, GROUPS: tl.constexpr, CHANNELS: tl.constexpr, OUTPUTS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_O: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Output rows (P, NEIGHBOURS*OUTPUTS).

    A program computes BLOCK_M pixels and the outputs of one neighbour: grid (tiles, NEIGHBOURS). Each step processes
    one tap of BLOCK_G groups of CHANNELS (padded to BLOCK_C).
    """
    PACKS: tl.constexpr = (GROUPS + BLOCK_G - 1) // BLOCK_G
    neighbour = tl.program_id(1)
    pixel, known, frame, line, column = _pixel(tl.program_id(0), pixels, height, width, BLOCK_M)
    source, _at, flow_x, flow_y = _flow(
        flows, sources, frame, line, column, known, neighbour, height, width, NEIGHBOURS
    )  # fmt: skip
    total = tl.zeros((BLOCK_M, BLOCK_O), tl.float32)
    for step in range(9 * PACKS):
        pack, tap = step // 9, step % 9
        group = pack * BLOCK_G + tl.arange(0, BLOCK_G)
        looked, _where, samples = _look_and_sample(
            raw, frames, pixel, known, neighbour, tap, group, line, column, source, flow_x, flow_y, residue, height,
            width, NEIGHBOURS, GROUPS, CHANNELS, BLOCK_C,
        )  # fmt: skip
        columns = tl.reshape(samples[0] * looked[4][:, :, None], (BLOCK_M, BLOCK_G * BLOCK_C))
        part = _weights(weight, neighbour, tap, pack, PACKS, BLOCK_G * BLOCK_C, BLOCK_O)
        total = _dot(columns.to(part.dtype), part, total, PRECISION)
    output = tl.arange(0, BLOCK_O)
    total += tl.load(bias + neighbour * OUTPUTS + output, mask=output < OUTPUTS, other=0.0).to(tl.float32)[None, :]
    to = out + pixel.to(tl.int64)[:, None] * (NEIGHBOURS * OUTPUTS) + neighbour * OUTPUTS + output[None, :]
    tl.store(to, total.to(out.dtype.element_ty), mask=known[:, None] & (output < OUTPUTS)[None, :])


@triton.jit
def deform_backward(
    raw, flows, frames, sources, weight, pixels, height, width, residue, grad, grad_raw, grad_flows, grad_frames, scale,
    NEIGHBOURS: tl.constexpr, GROUPS: tl.constexpr, CHANNELS: tl.constexpr, OUTPUTS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_O: tl.constexpr,
    PRECISION: tl.constexpr, FIXED: tl.constexpr,
):  # fmt: skip
    """Gradients of `raw` and of the flows, and of the frames, which are added to `grad_frames` (times `scale` if
    FIXED). Grid as in `deform_forward`."""
    PACKS: tl.constexpr = (GROUPS + BLOCK_G - 1) // BLOCK_G
    C: tl.constexpr = GROUPS * CHANNELS
    neighbour = tl.program_id(1)
    pixel, known, frame, line, column = _pixel(tl.program_id(0), pixels, height, width, BLOCK_M)
    source, at, flow_x, flow_y = _flow(
        flows, sources, frame, line, column, known, neighbour, height, width, NEIGHBOURS
    )  # fmt: skip
    factor = 1.0
    if FIXED:
        factor = tl.load(scale)
    output = tl.arange(0, BLOCK_O)
    of = grad + pixel.to(tl.int64)[:, None] * (NEIGHBOURS * OUTPUTS) + neighbour * OUTPUTS + output[None, :]
    grad_out = tl.load(of, mask=known[:, None] & (output < OUTPUTS)[None, :], other=0.0)
    sum_y = tl.zeros((BLOCK_M,), tl.float32)
    sum_x = tl.zeros((BLOCK_M,), tl.float32)
    for step in range(9 * PACKS):
        pack, tap = step // 9, step % 9
        group = pack * BLOCK_G + tl.arange(0, BLOCK_G)
        looked, where, samples = _look_and_sample(
            raw, frames, pixel, known, neighbour, tap, group, line, column, source, flow_x, flow_y, residue, height,
            width, NEIGHBOURS, GROUPS, CHANNELS, BLOCK_C,
        )  # fmt: skip
        to, here, tanh_y, tanh_x, modulation = looked
        place, channel, lanes = where
        value, down, right = samples
        part = _weights(weight, neighbour, tap, pack, PACKS, BLOCK_G * BLOCK_C, BLOCK_O)
        grad_columns = _dot(grad_out, tl.trans(part), None, PRECISION)
        grad_columns = tl.reshape(grad_columns, (BLOCK_M, BLOCK_G, BLOCK_C))
        grad_modulation = tl.sum(grad_columns * value, 2)
        grad_columns *= modulation[:, :, None]
        grad_y, grad_x = tl.sum(grad_columns * down, 2), tl.sum(grad_columns * right, 2)
        sum_y += tl.sum(grad_y, 1)
        sum_x += tl.sum(grad_x, 1)
        _scatter(grad_frames, place, channel, lanes, width, grad_columns, factor, C, FIXED)
        grad_y *= residue * (1 - tanh_y * tanh_y)
        grad_x *= residue * (1 - tanh_x * tanh_x)
        grad_modulation *= modulation * (1 - modulation)
        tl.store(grad_raw + to, grad_y.to(grad_raw.dtype.element_ty), mask=here)
        tl.store(grad_raw + to + GROUPS, grad_x.to(grad_raw.dtype.element_ty), mask=here)
        tl.store(grad_raw + to + 2 * GROUPS, grad_modulation.to(grad_raw.dtype.element_ty), mask=here)
    to_flow = grad_flows + at
    tl.store(to_flow, sum_x, mask=known)
    tl.store(to_flow + height * width, sum_y, mask=known)


@triton.jit
def deform_backward_weight(
    raw, flows, frames, sources, weight, pixels, height, width, residue, grad, sums, per_program,
    NEIGHBOURS: tl.constexpr, GROUPS: tl.constexpr, CHANNELS: tl.constexpr, OUTPUTS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_O: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradient of the packed weight summed over `per_program` tiles of pixels: (chunks, *packed shape).

    A program computes one tap and pack of one neighbour: grid (chunks, NEIGHBOURS, 9*packs).
    """
    PACKS: tl.constexpr = (GROUPS + BLOCK_G - 1) // BLOCK_G
    BLOCK_K: tl.constexpr = BLOCK_G * BLOCK_C
    neighbour = tl.program_id(1)
    tap, pack = tl.program_id(2) // PACKS, tl.program_id(2) % PACKS
    group = pack * BLOCK_G + tl.arange(0, BLOCK_G)
    output = tl.arange(0, BLOCK_O)
    total = tl.zeros((BLOCK_K, BLOCK_O), tl.float32)
    first = tl.program_id(0) * per_program
    for tile in range(first, tl.minimum(first + per_program, tl.cdiv(pixels, BLOCK_M))):
        pixel, known, frame, line, column = _pixel(tile, pixels, height, width, BLOCK_M)
        source, _at, flow_x, flow_y = _flow(
            flows, sources, frame, line, column, known, neighbour, height, width, NEIGHBOURS
        )  # fmt: skip
        looked, _where, samples = _look_and_sample(
            raw, frames, pixel, known, neighbour, tap, group, line, column, source, flow_x, flow_y, residue, height,
            width, NEIGHBOURS, GROUPS, CHANNELS, BLOCK_C,
        )  # fmt: skip
        columns = tl.reshape(samples[0] * looked[4][:, :, None], (BLOCK_M, BLOCK_K))
        of = grad + pixel.to(tl.int64)[:, None] * (NEIGHBOURS * OUTPUTS) + neighbour * OUTPUTS + output[None, :]
        grad_out = tl.load(of, mask=known[:, None] & (output < OUTPUTS)[None, :], other=0.0)
        total = _dot(tl.trans(columns.to(grad_out.dtype)), grad_out, total, PRECISION)
    row = (((tl.program_id(0) * NEIGHBOURS + neighbour) * 9 + tap) * PACKS + pack) * BLOCK_K + tl.arange(0, BLOCK_K)
    tl.store(sums + row[:, None] * BLOCK_O + output[None, :], total)
