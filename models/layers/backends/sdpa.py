"""The back end "sdpa": softmax(q kT * scale + bias) v without keeping the N x N weights for the backward pass.

`scaled_dot_product_attention` has fused kernels (FlashAttention, arXiv 2205.14135) for a bias without gradient. For a
bias that requires a gradient it falls back to the math kernel, which keeps every N x N matrix. `attend` then computes
the forward pass with the fused kernel, and the backward pass recomputes the weights, one chunk of windows at a time.

Legend: N tokens of a window, shapes (windows, heads, N, head_dim).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from models.layers.backends.backend import COMPUTE_BACKENDS
from models.layers.backends.window_backend import WindowBackend
from models.layers.ops import chunks
from models.layers.ops.chunks import slices


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """Attention within windows.

    Args:
        q, k, v: (windows, heads, N, head_dim).
        bias: added to the scaled scores, (1, 1 or heads, N, N), the same for every window.
        scale: factor of q kT.

    Returns:
        (windows, heads, N, head_dim).
    """
    if bias is not None:
        bias = bias.to(q.dtype)
        if bias.requires_grad and torch.is_grad_enabled():
            return _BiasedAttention.apply(q, k, v, bias, scale)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)


@COMPUTE_BACKENDS.register("sdpa")
class SdpaBackend(WindowBackend):
    """`attend`; runs everywhere."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
        """See `WindowBackend.attend`."""
        return attend(q, k, v, bias, scale)


class _BiasedAttention(torch.autograd.Function):
    """Fused forward pass; the backward pass recomputes the weights, one chunk of windows at a time.

    With P = softmax(S) and dP = dO vT: dS = P * (dP - sum(dO * O)), and the bias' gradient is dS summed over windows.
    """

    @staticmethod
    def forward(ctx, q, k, v, bias, scale):  # type: ignore[no-untyped-def]
        # SDPA falls back to the math kernel when attn_mask requires grad, so detach it.
        # (windows, heads, N, head_dim)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.detach(), scale=scale)
        ctx.save_for_backward(q, k, v, bias, out)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        with torch.autocast(grad.device.type, enabled=False):
            q, k, v, bias, out = ctx.saved_tensors
            return *_gradients(grad, q, k, v, bias, out, ctx.scale), None


def _gradients(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, out: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and bias, given that of the output."""
    # Compute in at least float32: scores rounded to bfloat16's 8 bits would give weights that don't match the output.
    exact = torch.promote_types(q.dtype, torch.float32)
    windows, heads, tokens, _ = q.shape
    step = chunks.SCORES.items(q, heads * tokens * tokens * exact.itemsize)
    grads: list[list[Tensor]] = [[], [], []]
    bias_exact = bias.to(exact)
    grad_bias = torch.zeros((1, heads, tokens, tokens), dtype=exact, device=q.device)
    for chunk in slices(windows, step):
        qs, ks, vs, outs, gs = (tensor[chunk].to(exact) for tensor in (q, k, v, out, grad))
        weights = torch.softmax(torch.matmul(qs * scale, ks.transpose(-2, -1)).add_(bias_exact), -1)
        grads[2].append(torch.matmul(weights.transpose(-2, -1), gs))
        scores = torch.matmul(gs, vs.transpose(-2, -1))
        scores = scores.sub_((gs * outs).sum(-1, keepdim=True)).mul_(weights)
        grad_bias += scores.sum(0, keepdim=True)
        grads[0].append(torch.matmul(scores, ks).mul_(scale))
        grads[1].append(torch.matmul(scores.transpose(-2, -1), qs).mul_(scale))
    grad_q, grad_k, grad_v = (torch.cat(results).to(q.dtype) for results in grads)
    return grad_q, grad_k, grad_v, grad_bias.sum_to_size(bias.shape).to(bias.dtype)
