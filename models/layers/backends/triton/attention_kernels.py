"""Triton kernels of window attention on tokens in the order of the grid, (B, T, H, W, 3*C).

Shift, padding and the partition into windows are index arithmetic on a token's place; scores, masks and weights exist
only as tiles on chip (FlashAttention-2, arXiv 2307.08691). The backward pass recomputes the weights from the
log-sum-exp. A program loops over several windows with the same tile of the bias, which stays in the first-level cache
or in registers, and sums its gradient over them in registers: without atomics, so gradients repeat bit for bit.

Scores are in units of log2, as the hardware has an instruction for exp2: scale and bias are multiplied by log2(e).

Test: `python -m pytest tests/models/layers/backends/triton/test_attention.py` (on a CPU, in Triton's interpreter).

Legend: B batch, T frames, H height, W width, C channels, N tokens of a window. A *place* is a token's index in its
window; *rolled* coordinates are those after the cyclic shift, in which window 0 begins at 0; `size` is (T, H, W) and
`padded` the same rounded up to windows. MUTUAL: windows are (1, height, width), a query is that of the other frame of
its pair (rolled frames 2i and 2i+1), and its output is written to the keys' frame.
"""

# Arguments of kernels have no Python types.
# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl

# -100 for pairs that a shift brought together, as in `window_attention.SHIFT_MASK`, times log2(e).
SHIFT_MASK = tl.constexpr(-100.0 * 1.4426950408889634)


@triton.jit
def _dot(a, b, total, PRECISION: tl.constexpr):
    """total + a b in float32. "upcast" is for the interpreter, which would multiply bfloat16's bits as integers."""
    if PRECISION == "upcast":
        return tl.dot(a.to(tl.float32), b.to(tl.float32), total, input_precision="ieee")
    return tl.dot(a, b, total, input_precision=PRECISION)


@triton.jit
def _corner(window, padded, WINDOW: tl.constexpr):
    """Batch entry of a window and rolled coordinates of its first token."""
    columns = padded[2] // WINDOW[2]
    lines = padded[1] // WINDOW[1]
    frames = padded[0] // WINDOW[0]
    left = window % columns * WINDOW[2]
    top = window // columns % lines * WINDOW[1]
    first = window // (columns * lines) % frames * WINDOW[0]
    return window // (columns * lines * frames), first, top, left


@triton.jit
def _wraps(corner, padded, WINDOW: tl.constexpr, SHIFT: tl.constexpr, MUTUAL: tl.constexpr):
    """Whether this window, as the last one of a shifted axis, has tokens from both ends of that axis.

    Mutual attention uses the mask of the first frame only, so wrapping in time doesn't count.
    """
    wraps = (corner[2] + WINDOW[1] == padded[1]) & (SHIFT[1] > 0)
    wraps |= (corner[3] + WINDOW[2] == padded[2]) & (SHIFT[2] > 0)
    if not MUTUAL:
        wraps |= (corner[1] + WINDOW[0] == padded[0]) & (SHIFT[0] > 0)
    return wraps


@triton.jit
def _locate(
    place, corner, size, padded, WINDOW: tl.constexpr, SHIFT: tl.constexpr, PADDED: tl.constexpr,
    MUTUAL: tl.constexpr, FLIP: tl.constexpr,
):  # fmt: skip
    """For places in a window: row in a grid of `size`, whether the token exists, and a label of its region; tokens that
    only the shift brought together have different labels.

    FLIP: for the other frame of the pair.
    """
    frame = corner[1] + place // (WINDOW[1] * WINDOW[2])
    if FLIP:
        frame = frame ^ 1
    line = corner[2] + place // WINDOW[2] % WINDOW[1]
    column = corner[3] + place % WINDOW[2]
    label = (line >= padded[1] - SHIFT[1]).to(tl.int32) * 2 + (column >= padded[2] - SHIFT[2]).to(tl.int32)
    if not MUTUAL:
        label += (frame >= padded[0] - SHIFT[0]).to(tl.int32) * 4
    frame += SHIFT[0]
    line += SHIFT[1]
    column += SHIFT[2]
    frame = tl.where(frame >= padded[0], frame - padded[0], frame)
    line = tl.where(line >= padded[1], line - padded[1], line)
    column = tl.where(column >= padded[2], column - padded[2], column)
    known = place < WINDOW[0] * WINDOW[1] * WINDOW[2]
    if PADDED:
        known &= (frame < size[0]) & (line < size[1]) & (column < size[2])
    row = ((corner[0] * size[0] + frame) * size[1] + line) * size[2] + column
    return row.to(tl.int64), known, label


@triton.jit
def _load(
    rows_of, row, known, place, column, stride, fill, code, N: tl.constexpr, HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr, CHANNELS: tl.constexpr, FILLED: tl.constexpr, CODED: tl.constexpr,
):  # fmt: skip
    """(places, BLOCK_D) values of one head, zero beyond HEAD_DIM and for places beyond N.

    FILLED: padded places have the value `fill` (3*CHANNELS,). CODED: `code` (N, 3*CHANNELS) of the place is added.
    """
    lane = tl.arange(0, BLOCK_D)
    lanes = lane[None, :] < HEAD_DIM
    x = tl.load(rows_of + row[:, None] * stride + column + lane[None, :], mask=known[:, None] & lanes, other=0.0)
    real = (place < N)[:, None] & lanes
    if FILLED:
        absent = tl.load(fill + column + lane, mask=lane < HEAD_DIM, other=0.0).to(x.dtype)
        x = tl.where(real & (known[:, None] == 0), absent[None, :], x)
    if CODED:
        added = tl.load(code + place[:, None] * (3 * CHANNELS) + column + lane[None, :], mask=real, other=0.0)
        x = (x.to(tl.float32) + added.to(tl.float32)).to(x.dtype)
    return x


@triton.jit
def _bias_tile(bias, head, queries, keys, N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    place = bias + (head * N + queries[:, None]) * N + keys[None, :]
    if N % BLOCK_M == 0 and N % BLOCK_N == 0:
        return tl.load(place).to(tl.float32)
    inside = (queries < N)[:, None] & (keys < N)[None, :]
    return tl.load(place, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _scores(
    q, k, tile, label_q, label_k, wraps, keys, scale, N: tl.constexpr, BLOCK_N: tl.constexpr, BIASED: tl.constexpr,
    SHIFTED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """q kT * scale + bias + mask; minus infinity for keys beyond N."""
    scores = _dot(q, tl.trans(k), None, PRECISION) * scale
    if BIASED:
        scores += tile
    if SHIFTED:
        if wraps:
            scores += tl.where(label_q[:, None] != label_k[None, :], SHIFT_MASK, 0.0)
    if N % BLOCK_N:
        scores = tl.where((keys < N)[None, :], scores, float("-inf"))
    return scores


@triton.jit
def attention_forward(
    qkv, bias, fill, code, out, lse, size, padded, windows, per_program, stride, scale,
    WINDOW: tl.constexpr, SHIFT: tl.constexpr, HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, MUTUAL: tl.constexpr, BIASED: tl.constexpr, PADDED: tl.constexpr,
    FILLED: tl.constexpr, CODED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Output rows (B*T*H*W, C) and the log2-sum-exp2 of the scores (windows, HEADS, N).

    A program computes BLOCK_M queries of one head in `per_program` windows: grid (groups of windows, tiles, HEADS).
    """
    N: tl.constexpr = WINDOW[0] * WINDOW[1] * WINDOW[2]
    C: tl.constexpr = HEADS * HEAD_DIM
    SHIFTED: tl.constexpr = SHIFT[0] + SHIFT[1] + SHIFT[2] > 0
    head = tl.program_id(2)
    queries = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    lane = tl.arange(0, BLOCK_D)
    column = head * HEAD_DIM
    first = tl.program_id(0) * per_program
    for window in range(first, tl.minimum(first + per_program, windows)):
        corner = _corner(window, padded, WINDOW)
        wraps = _wraps(corner, padded, WINDOW, SHIFT, MUTUAL)
        row_q, known_q, label = _locate(queries, corner, size, padded, WINDOW, SHIFT, PADDED, MUTUAL, MUTUAL)
        q = _load(
            qkv, row_q, known_q, queries, column, stride, fill, code, N, HEAD_DIM, BLOCK_D, C, FILLED, CODED
        )  # fmt: skip
        highest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
        total = tl.zeros((BLOCK_M,), tl.float32)
        result = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
        for start in range(0, N, BLOCK_N):
            keys = start + tl.arange(0, BLOCK_N)
            row_k, known_k, label_k = _locate(keys, corner, size, padded, WINDOW, SHIFT, PADDED, MUTUAL, False)
            k = _load(
                qkv, row_k, known_k, keys, column + C, stride, fill, code, N, HEAD_DIM, BLOCK_D, C, FILLED, CODED
            )  # fmt: skip
            tile = 0.0
            if BIASED:
                tile = _bias_tile(bias, head, queries, keys, N, BLOCK_M, BLOCK_N)
            scores = _scores(q, k, tile, label, label_k, wraps, keys, scale, N, BLOCK_N, BIASED, SHIFTED, PRECISION)
            higher = tl.maximum(highest, tl.max(scores, 1))
            weights = tl.exp2(scores - higher[:, None])
            decay = tl.exp2(highest - higher)
            total = total * decay + tl.sum(weights, 1)
            v = _load(
                qkv, row_k, known_k, keys, column + 2 * C, stride, fill, code, N, HEAD_DIM, BLOCK_D, C, FILLED, CODED
            )  # fmt: skip
            result = _dot(weights.to(v.dtype), v, result * decay[:, None], PRECISION)
            highest = higher
        result = result / total[:, None]
        row_out, known_out, _label_out = _locate(queries, corner, size, padded, WINDOW, SHIFT, PADDED, MUTUAL, False)
        place = out + row_out[:, None] * C + column + lane[None, :]
        tl.store(place, result.to(out.dtype.element_ty), mask=known_out[:, None] & (lane[None, :] < HEAD_DIM))
        tl.store(lse + (window * HEADS + head) * N + queries, highest + tl.log2(total), mask=queries < N)


@triton.jit
def _score_gradients(
    q, k, v, tile, grad, out, lse, row, known, label_q, label_k, wraps, window, head, queries, keys, scale, stride,
    N: tl.constexpr, HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_N: tl.constexpr,
    BIASED: tl.constexpr, SHIFTED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradient of the output for these queries, their weights P and dS = P * (dO vT - sum(dO * O))."""
    lane = tl.arange(0, BLOCK_D)
    here = known[:, None] & (lane[None, :] < HEAD_DIM)
    column = head * HEAD_DIM + lane[None, :]
    grad_out = tl.load(grad + row[:, None] * stride + column, mask=here, other=0.0)
    result = tl.load(out + row[:, None] * (HEADS * HEAD_DIM) + column, mask=here, other=0.0)
    delta = tl.sum(grad_out.to(tl.float32) * result.to(tl.float32), 1)
    # Queries beyond N get an infinite log-sum-exp, so that their weights are zero.
    total = tl.load(lse + (window * HEADS + head) * N + queries, mask=queries < N, other=float("inf"))
    scores = _scores(q, k, tile, label_q, label_k, wraps, keys, scale, N, BLOCK_N, BIASED, SHIFTED, PRECISION)
    weights = tl.exp2(scores - total[:, None])
    grad_weights = _dot(grad_out, tl.trans(v), None, PRECISION)
    return grad_out, weights, weights * (grad_weights - delta[:, None])


@triton.jit
def attention_backward(
    qkv, bias, fill, code, out, lse, size, padded, windows, per_program, stride, scale, grad, grad_stride,
    grad_bias, grad_qkv, grad_q, grad_q_stride, grad_q_tile, factor,
    WINDOW: tl.constexpr, SHIFT: tl.constexpr, HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, MUTUAL: tl.constexpr, BIASED: tl.constexpr, PADDED: tl.constexpr,
    FILLED: tl.constexpr, CODED: tl.constexpr, PRECISION: tl.constexpr, SUM_BIAS: tl.constexpr,
):  # fmt: skip
    """Gradients of queries, keys and values on the padded grid, in `grad_qkv` (rows, 3*C).

    A program computes BLOCK_N keys of one head in `per_program` windows: grid (groups of windows, tiles, HEADS). Each
    tile of keys writes its share of the queries' gradient; the shares are `grad_q_tile` elements apart.
    `factor` is that of q kT, in natural units. SUM_BIAS, if all queries are in one tile: writes the bias' gradient,
    summed over the group's windows, to `grad_bias` (groups, HEADS, N, N).
    """
    N: tl.constexpr = WINDOW[0] * WINDOW[1] * WINDOW[2]
    C: tl.constexpr = HEADS * HEAD_DIM
    SHIFTED: tl.constexpr = SHIFT[0] + SHIFT[1] + SHIFT[2] > 0
    head = tl.program_id(2)
    keys = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    lane = tl.arange(0, BLOCK_D)
    column = head * HEAD_DIM
    share = grad_q + tl.program_id(1).to(tl.int64) * grad_q_tile + column + lane[None, :]
    first = tl.program_id(0) * per_program
    bias_sum = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for window in range(first, tl.minimum(first + per_program, windows)):
        corner = _corner(window, padded, WINDOW)
        wraps = _wraps(corner, padded, WINDOW, SHIFT, MUTUAL)
        row_k, known_k, label_k = _locate(keys, corner, size, padded, WINDOW, SHIFT, PADDED, MUTUAL, False)
        k = _load(
            qkv, row_k, known_k, keys, column + C, stride, fill, code, N, HEAD_DIM, BLOCK_D, C, FILLED, CODED
        )  # fmt: skip
        v = _load(
            qkv, row_k, known_k, keys, column + 2 * C, stride, fill, code, N, HEAD_DIM, BLOCK_D, C, FILLED, CODED
        )  # fmt: skip
        grad_k = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
        grad_v = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
        for start in range(0, N, BLOCK_M):
            queries = start + tl.arange(0, BLOCK_M)
            row_q, known_q, label = _locate(queries, corner, size, padded, WINDOW, SHIFT, PADDED, MUTUAL, MUTUAL)
            q = _load(
                qkv, row_q, known_q, queries, column, stride, fill, code, N, HEAD_DIM, BLOCK_D, C, FILLED, CODED
            )  # fmt: skip
            tile = 0.0
            if BIASED:
                tile = _bias_tile(bias, head, queries, keys, N, BLOCK_M, BLOCK_N)
            row_out, known_out, _label_out = _locate(
                queries, corner, size, padded, WINDOW, SHIFT, PADDED, MUTUAL, False
            )  # fmt: skip
            grad_out, weights, grad_scores = _score_gradients(
                q, k, v, tile, grad, out, lse, row_out, known_out, label, label_k, wraps, window, head, queries, keys,
                scale, grad_stride, N, HEADS, HEAD_DIM, BLOCK_D, BLOCK_N, BIASED, SHIFTED, PRECISION,
            )  # fmt: skip
            grad_v = _dot(tl.trans(weights.to(v.dtype)), grad_out, grad_v, PRECISION)
            if SUM_BIAS:
                bias_sum += grad_scores
            grad_scores = grad_scores.to(q.dtype)
            grad_k = _dot(tl.trans(grad_scores), q, grad_k, PRECISION)
            part = _dot(grad_scores, k, None, PRECISION) * factor
            to_q, inside_q, _label_q = _locate(queries, corner, padded, padded, WINDOW, SHIFT, False, MUTUAL, MUTUAL)
            here = inside_q[:, None] & (lane[None, :] < HEAD_DIM)
            tl.store(share + to_q[:, None] * grad_q_stride, part.to(grad_q.dtype.element_ty), mask=here)
        to_k, inside_k, _label_k = _locate(keys, corner, padded, padded, WINDOW, SHIFT, False, MUTUAL, False)
        here = inside_k[:, None] & (lane[None, :] < HEAD_DIM)
        place = grad_qkv + to_k[:, None] * (3 * C) + column + lane[None, :]
        tl.store(place + C, (grad_k * factor).to(grad_qkv.dtype.element_ty), mask=here)
        tl.store(place + 2 * C, grad_v.to(grad_qkv.dtype.element_ty), mask=here)
    if SUM_BIAS:
        queries = tl.arange(0, BLOCK_M)
        place = grad_bias + ((tl.program_id(0) * HEADS + head) * N + queries[:, None]) * N + keys[None, :]
        tl.store(place, bias_sum, mask=(queries < N)[:, None] & (keys < N)[None, :])


@triton.jit
def attention_backward_bias(
    qkv, bias, fill, code, out, lse, size, padded, windows, per_program, stride, scale, grad, grad_stride, grad_bias,
    WINDOW: tl.constexpr, SHIFT: tl.constexpr, HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, MUTUAL: tl.constexpr, BIASED: tl.constexpr, PADDED: tl.constexpr,
    FILLED: tl.constexpr, CODED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The bias' gradient, summed over a group's windows: (groups, HEADS, N, N).

    A program computes one tile of the bias of one head: grid (groups of windows, tiles, HEADS).
    """
    N: tl.constexpr = WINDOW[0] * WINDOW[1] * WINDOW[2]
    C: tl.constexpr = HEADS * HEAD_DIM
    SHIFTED: tl.constexpr = SHIFT[0] + SHIFT[1] + SHIFT[2] > 0
    COLUMNS: tl.constexpr = (N + BLOCK_N - 1) // BLOCK_N
    head = tl.program_id(2)
    queries = tl.program_id(1) // COLUMNS * BLOCK_M + tl.arange(0, BLOCK_M)
    keys = tl.program_id(1) % COLUMNS * BLOCK_N + tl.arange(0, BLOCK_N)
    tile = _bias_tile(bias, head, queries, keys, N, BLOCK_M, BLOCK_N)
    column = head * HEAD_DIM
    bias_sum = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    first = tl.program_id(0) * per_program
    for window in range(first, tl.minimum(first + per_program, windows)):
        corner = _corner(window, padded, WINDOW)
        wraps = _wraps(corner, padded, WINDOW, SHIFT, MUTUAL)
        row_k, known_k, label_k = _locate(keys, corner, size, padded, WINDOW, SHIFT, PADDED, MUTUAL, False)
        k = _load(
            qkv, row_k, known_k, keys, column + C, stride, fill, code, N, HEAD_DIM, BLOCK_D, C, FILLED, CODED
        )  # fmt: skip
        v = _load(
            qkv, row_k, known_k, keys, column + 2 * C, stride, fill, code, N, HEAD_DIM, BLOCK_D, C, FILLED, CODED
        )  # fmt: skip
        row_q, known_q, label = _locate(queries, corner, size, padded, WINDOW, SHIFT, PADDED, MUTUAL, MUTUAL)
        q = _load(
            qkv, row_q, known_q, queries, column, stride, fill, code, N, HEAD_DIM, BLOCK_D, C, FILLED, CODED
        )  # fmt: skip
        row_out, known_out, _label_out = _locate(queries, corner, size, padded, WINDOW, SHIFT, PADDED, MUTUAL, False)
        _grad_out, _weights, grad_scores = _score_gradients(
            q, k, v, tile, grad, out, lse, row_out, known_out, label, label_k, wraps, window, head, queries, keys,
            scale, grad_stride, N, HEADS, HEAD_DIM, BLOCK_D, BLOCK_N, BIASED, SHIFTED, PRECISION,
        )  # fmt: skip
        bias_sum += grad_scores
    place = grad_bias + ((tl.program_id(0) * HEADS + head) * N + queries[:, None]) * N + keys[None, :]
    tl.store(place, bias_sum, mask=(queries < N)[:, None] & (keys < N)[None, :])
