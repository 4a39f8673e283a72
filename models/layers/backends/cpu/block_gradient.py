"""Backward pass of a block on a CPU, written out, one chunk of windows at a time.

    y = x + f (mutual Wp' + own Wp)          own = attention(LN x), mutual = mutual attention(LN x + position code)
    out = y + f' (GELU(a) * b) W2            a = LN y W11, b = LN y W12

f and f' are the factors of `draw_factors`; a branch that is dropped for all samples is not computed. The forward pass
keeps x, y and the results of attention with their sums of exponentials, 3 to 4 tensors of x's size. The backward pass
recomputes LN x, queries, keys, values, LN y, a and b, but neither attention nor the last projections. In comparison
with recomputing under autograd, matrix products add up the gradients of weights themselves, and gradients of slices are
written into one tensor.

Measured by `python scripts/benchmark/bench_vrt.py --compare eager,native --step`.
Test: `python -m pytest tests/models/layers/backends/cpu/test_block_gradient.py`.

Legend: B batch, T frames, H height, W width, C channels, N tokens of a window, R = windows * N rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from models.layers.backends.cpu.native_attention import zeros_for_bias
from models.layers.ops import chunks
from models.layers.ops.linear import linear
from models.layers.vrt.blocks import TMSA, BranchFactors, scaled
from models.layers.vrt.window_attention import Biases, joined_heads
from models.layers.vrt.window_layout import WindowLayout, Windows


def run_block(block: TMSA, tokens: Tensor, layout: WindowLayout, factors: BranchFactors) -> Tensor:
    """A block on tokens (B*T*H*W, C) in float32, to the same shape, with first derivatives.

    With `block.checkpoint_attn` x alone is kept.
    """
    return _Block.apply(block, layout, factors, tokens, *block.parameters())  # (B*T*H*W, C)


@dataclass(frozen=True)
class Kept:
    """What consecutive windows keep for the backward pass, in window order.

    Attributes:
        middle: y, (R, C).
        own: results of self attention, (R, C). own_sums: (windows, heads, N). None if the branch was dropped.
        mutual: those of mutual attention, (R, C). mutual_sums: (2 * windows, heads, N/2). None without it.
    """

    middle: Tensor
    own: Tensor | None = None
    own_sums: Tensor | None = None
    mutual: Tensor | None = None
    mutual_sums: Tensor | None = None

    def tensors(self) -> tuple[Tensor | None, ...]:
        """In the constructor's order."""
        return self.middle, self.own, self.own_sums, self.mutual, self.mutual_sums

    def part(self, windows: slice, count: int) -> "Kept":
        """Some of its `count` windows."""
        middle, *others = (
            None if x is None else x.view(count, -1, *x.shape[1:])[windows].flatten(0, 1) for x in self.tensors()
        )
        assert middle is not None
        return Kept(middle, *others)


def _dropped(factor: Tensor | None) -> bool:
    """Whether a branch is dropped for all samples; tensors without data (`models/training/estimate.py`) can't tell."""
    return type(factor) is Tensor and not factor.any()


class _Recorder:
    """`NativeBackend.attend`, keeping results and sums of exponentials of self and of mutual attention."""

    def __init__(self) -> None:
        self._results: dict[int, list[tuple[Tensor, Tensor]]] = {}  # by number of tokens: those of mutual are half

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
        """See `WindowBackend.attend`."""
        out, sums = torch.ops.s_vrt.native_attention(q, k, v, bias, scale, True)
        self._results.setdefault(q.shape[2], []).append((joined_heads(out), sums))
        return out

    def kept(self, middle: Sequence[Tensor]) -> Kept:
        """Everything recorded, with `middle` in parts."""
        results = [self._results[tokens] for tokens in sorted(self._results, reverse=True)]
        return Kept(_joined(middle), *(_joined(parts) for result in results for parts in zip(*result, strict=True)))


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(tuple(parts)) if len(parts) > 1 else parts[0]


class _Block(torch.autograd.Function):
    """A block; the backward pass is `_Gradients`."""

    @staticmethod
    def forward(ctx, block, layout, factors, tokens, *parameters):  # type: ignore[no-untyped-def]
        out, kept = _forward(block, layout, factors, tokens)
        ctx.block, ctx.layout, ctx.factors = block, layout, factors
        # Save the parameters too: autograd then raises an error if one was changed in place before the backward pass.
        ctx.save_for_backward(tokens, *(() if block.checkpoint_attn else kept.tensors()), *parameters)
        ctx.parameters = parameters
        return out  # (B*T*H*W, C)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        saved = ctx.saved_tensors  # once: non-reentrant checkpoints allow no second look
        tokens, *kept = saved[: len(saved) - len(ctx.parameters)]
        learned = {p for p, need in zip(ctx.parameters, ctx.needs_input_grad[4:], strict=True) if need}
        gradients = _Gradients(ctx.block, ctx.layout, ctx.factors, learned)
        of_tokens = gradients.of_tokens(grad, tokens, Kept(*kept) if kept else None)
        return None, None, None, of_tokens, *(gradients.sums.get(p) for p in ctx.parameters)


def _forward(block: TMSA, layout: WindowLayout, factors: BranchFactors, tokens: Tensor) -> tuple[Tensor, Kept]:
    """The block's output, and what the backward pass takes."""
    biases, out = block.attn.biases(layout.window, layout.kinds, keys_first=True), torch.empty_like(tokens)
    no_attention, no_mlp = _dropped(factors.attention), _dropped(factors.mlp)
    recorder, middle = _Recorder(), []
    for windows in layout.chunks(_windows_per_chunk(layout, tokens, chunks.ROWS)):
        x = windows.take(tokens)  # (R, C)
        y = x if no_attention else block.add_attention(x, windows, biases, recorder.attend, factors.attention)  # (R, C)
        windows.put(y if no_mlp else block.add_mlp(y, _of_windows(factors.mlp, windows)), out)
        middle.append(y)
    return out, recorder.kept(middle)


def _windows_per_chunk(layout: WindowLayout, tokens: Tensor, budget: chunks.Budget) -> int:
    """The widest intermediate results of a chunk are queries, keys and values, 3*C channels."""
    return max(1, budget.items(tokens, 3 * tokens.shape[1] * tokens.element_size()) // layout.tokens_per_window)


def _of_windows(factor: Tensor | None, windows: Windows) -> Tensor | None:
    return None if factor is None else factor[windows.samples]


class _Linear:
    """A linear layer of one backward pass: its weight in both memory orders, and the sums of its gradients."""

    def __init__(self, layer: nn.Linear, sums: Mapping[Tensor, Tensor]) -> None:
        self.weight, self.bias = layer.weight.detach(), layer.bias
        self._transposed = self.weight.t().contiguous()  # (in, out)
        self._of_weight = sums.get(layer.weight)
        self._of_bias = None if layer.bias is None else sums.get(layer.bias)

    def backward(self, grad: Tensor, *inputs: Tensor, plus: Tensor | None = None) -> Tensor:
        """Gradient of the input, (R, in), plus `plus`; adds those of weight and bias to their sums.

        Args:
            grad: (R, out), of the layer's output.
            inputs: the layer's input in parts along the channels, (R, any) each.
        """
        if self._of_weight is not None:
            for part, x in zip(self._of_weight.split([x.shape[1] for x in inputs], 1), inputs, strict=True):
                part.addmm_(grad.t(), x)
        if self._of_bias is not None:
            self._of_bias += grad.sum(0)
        return linear(grad, self._transposed, None, plus=plus)

    def forward(self, x: Tensor) -> Tensor:
        """(R, in) to (R, out)."""
        return linear(x, self.weight, self.bias)


class _Norm:
    """LayerNorm of one backward pass."""

    def __init__(self, norm: nn.LayerNorm, sums: Mapping[Tensor, Tensor]) -> None:
        self._norm = norm
        self._sums = [sums.get(norm.weight), sums.get(norm.bias)]
        self._saved: tuple[Tensor, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        """(R, C) to the same shape; keeps x, mean and deviation for `backward`."""
        shape = self._norm.normalized_shape
        out, *statistics = torch.native_layer_norm(x, shape, self._norm.weight, self._norm.bias, self._norm.eps)
        self._saved = (x, *statistics)
        return out

    def backward(self, grad: Tensor) -> Tensor:
        """Gradient of the input of the last `forward`, (R, C); adds those of weight and bias to their sums."""
        x, mean, inverse = self._saved
        of_x, *others = torch.ops.aten.native_layer_norm_backward(
            grad, x, self._norm.normalized_shape, mean, inverse, self._norm.weight, self._norm.bias,
            [True, *(total is not None for total in self._sums)],
        )  # fmt: skip
        for total, one in zip(self._sums, others, strict=True):
            if total is not None:
                total += one
        return of_x


class _Gradients:
    """Gradients of one block, chunk by chunk.

    Attributes:
        sums: of the parameters that learn.
    """

    def __init__(self, block: TMSA, layout: WindowLayout, factors: BranchFactors, learned: set[Tensor]) -> None:
        attention, mlp = block.attn, block.mlp
        self.block, self.layout, self.factors = block, layout, factors
        self.sums = {parameter: torch.zeros_like(parameter) for parameter in learned}
        self.norm1, self.norm2 = _Norm(block.norm1, self.sums), _Norm(block.norm2, self.sums)
        self.qkv, self.proj = _Linear(attention.qkv_self, self.sums), _Linear(attention.proj, self.sums)
        self.mutual_qkv = _Linear(attention.qkv_mut, self.sums) if attention.mutual else None
        self.fc11, self.fc12, self.fc2 = (_Linear(layer, self.sums) for layer in (mlp.fc11, mlp.fc12, mlp.fc2))
        self.no_mlp = _dropped(factors.mlp)
        self.biases: Biases = {}
        self.of_biases: dict[int, Tensor] = {}

    def of_tokens(self, grad: Tensor, tokens: Tensor, kept: Kept | None) -> Tensor:
        """Gradient of the tokens, (B*T*H*W, C), given that of the output; fills `sums`."""
        attention, layout = self.block.attn, self.layout
        with torch.enable_grad():
            biases = attention.biases(layout.window, layout.kinds, keys_first=True)
        self.biases = {kind: (own.detach(), other) for kind, (own, other) in biases.items()}
        self.of_biases, out, first = {}, torch.empty_like(tokens), 0
        count = layout.samples.numel()
        for windows in layout.chunks(_windows_per_chunk(layout, tokens, chunks.BACKWARD)):
            stop = first + windows.samples.numel()
            x = windows.take(tokens)  # (R, C)
            part = self._recomputed(x, windows) if kept is None else kept.part(slice(first, stop), count)
            of_middle = self._of_middle(windows.take_gradient(grad), part.middle, windows)
            windows.put(self._of_input(of_middle, x, part, windows), out)
            first = stop
        table = attention.relative_position_bias_table
        if self.of_biases:
            own = [biases[kind][0] for kind in self.of_biases]
            per_window = layout.tokens_per_window
            summed = [total.sum(0, keepdim=True)[..., :per_window] for total in self.of_biases.values()]
            (self.sums[table],) = torch.autograd.grad(own, table, summed)
        return out

    def _recomputed(self, x: Tensor, windows: Windows) -> Kept:
        recorder = _Recorder()
        if _dropped(self.factors.attention):
            return Kept(x)
        y = self.block.add_attention(x, windows, self.biases, recorder.attend, self.factors.attention)
        return recorder.kept([y])

    def _of_middle(self, grad: Tensor, middle: Tensor, windows: Windows) -> Tensor:
        """Gradient of y, (R, C), given that of the output."""
        if self.no_mlp:
            return grad
        normed = self.norm2.forward(middle)  # (R, C)
        a, b = self.fc11.forward(normed), self.fc12.forward(normed)  # (R, hidden) each
        gate = F.gelu(a)
        branch = scaled(grad, _of_windows(self.factors.mlp, windows))  # (R, C)
        of_hidden = self.fc2.backward(branch, gate * b)  # (R, hidden)
        of_gate = torch.ops.aten.gelu_backward(b.mul_(of_hidden), a)  # (R, hidden)
        of_normed = self.fc11.backward(of_gate, normed)  # (R, C)
        of_normed = self.fc12.backward(of_hidden.mul_(gate), normed, plus=of_normed)
        return self.norm2.backward(of_normed).add_(grad)  # (R, C)

    def _of_input(self, grad: Tensor, x: Tensor, kept: Kept, windows: Windows) -> Tensor:
        """Gradient of x, (R, C), given that of y."""
        if kept.own is None:
            return grad
        normed = windows.zero_padding(self.norm1.forward(x))  # (R, C)
        branch = scaled(grad, _of_windows(self.factors.attention, windows))  # (R, C)
        if self.mutual_qkv is None:
            of_normed = self._of_attention(self.qkv, self.proj.backward(branch, kept.own), normed, kept, windows)
        else:
            assert kept.mutual is not None
            of_mutual, of_own = self.proj.backward(branch, kept.mutual, kept.own).split(x.shape[1], 1)  # (R, C) each
            code = self.block.attn.codes.position_code(windows.window)  # (1, N, C)
            coded = (normed.view(-1, *code.shape[1:]) + code).view(x.shape)  # (R, C)
            of_normed = self._of_attention(self.qkv, of_own, normed, kept, windows)
            of_normed.add_(self._of_attention(self.mutual_qkv, of_mutual, coded, kept, windows))
        return self.norm1.backward(windows.zero_padding(of_normed)).add_(grad)  # (R, C)

    def _of_attention(self, projection: _Linear, grad: Tensor, x: Tensor, kept: Kept, windows: Windows) -> Tensor:
        """Gradient of a projection's input x, (R, C), given that of the result of the attention that it is for."""
        mutual = projection is self.mutual_qkv
        results, sums = (kept.mutual, kept.mutual_sums) if mutual else (kept.own, kept.own_sums)
        assert results is not None and sums is not None
        qkv = projection.forward(x)  # (R, 3*C)
        of_qkv = torch.empty_like(qkv)
        frames = 2 if mutual else 1  # of a window, each with queries of its own
        heads, tokens = self.block.attn.num_heads, windows.tokens_per_window // frames
        (q, k, v), (of_q, of_k, of_v), [of_out], [out] = (
            # (parts, frames, windows, heads, tokens, head_dim)
            y.view(-1, frames, tokens, y.shape[1] // x.shape[1], heads, x.shape[1] // heads).permute(3, 1, 0, 4, 2, 5)
            for y in (qkv, of_qkv, grad, results)
        )
        sums, start = sums.view(-1, frames, heads, tokens), 0
        for kind, count in windows.segments:
            part, (own_bias, mutual_bias) = slice(start, start + count), self.biases[kind]
            for frame in range(frames):
                other = frames - 1 - frame  # queries of frame 2 attend to frame 1; the results are at frame 1's places
                torch.ops.s_vrt.native_attention_gradients(
                    of_out[frame, part], q[other, part], k[frame, part], v[frame, part],
                    mutual_bias if mutual else own_bias, out[frame, part], sums[part, frame], self.block.attn.scale,
                    of_q[other, part], of_k[frame, part], of_v[frame, part],
                    None if mutual else self._of_bias(kind, q[0]),
                )  # fmt: skip
            start += count
        return projection.backward(of_qkv, x)  # (R, C)

    def _of_bias(self, kind: int, q: Tensor) -> Tensor | None:
        """Sums for the gradient of the self attention's bias of this kind; None if the table does not learn.

        Args:
            q: (windows, heads, N, head_dim), of the first chunk, which is not smaller than others.
        """
        if self.block.attn.relative_position_bias_table not in self.sums:
            return None
        if kind not in self.of_biases:
            self.of_biases[kind] = zeros_for_bias(q, q.shape[0])
        return self.of_biases[kind]
