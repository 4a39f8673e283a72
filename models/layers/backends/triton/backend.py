"""The back ends "triton" and "triton_fused" of `netG.compute_backend`: window attention by the kernels of
`attention.py` and alignment by those of `deform.py`; "triton_fused" also uses those of `norm_linear.py` and `mlp.py`,
for the LayerNorms, the projections and the MLP.

Measurements: docs/kernels.md.

Legend: B batch, T frames, H height, W width, C channels, N tokens of a window.
"""

import importlib.util
import logging
from collections.abc import Callable, Iterator
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import _disable_current_modes

from models.layers.backends.alignment import Aligned
from models.layers.backends.backend import COMPUTE_BACKENDS, compute_dtype
from models.layers.backends.token_backend import TokenBackend
from models.layers.backends.triton.alignment import align, alignment_difference
from models.layers.backends.triton.attention import interpreted, window_attention
from models.layers.backends.triton.mlp import add_gated_mlp
from models.layers.backends.triton.norm_linear import norm_linear
from models.layers.vrt.alignment import DeformableAlignment
from models.layers.vrt.blocks import TMSA
from models.layers.vrt.window_attention import WindowAttention
from models.layers.vrt.window_layout import Size3, WindowLayout

logger = logging.getLogger(__name__)

# Largest difference from the plain formula that a trial accepts, for results of about 1: above the rounding of each
# type (in float32, TF32's) and below the effect of a wrong kernel.
_TOLERANCES = {torch.float32: 1e-2, torch.bfloat16: 6e-2, torch.float16: 1e-2}


@COMPUTE_BACKENDS.register("triton")
class TritonBackend(TokenBackend):
    """Kernels that read queries, keys and values in the projection's output, without shifted or padded copies."""

    automatic = not interpreted()  # the interpreter takes minutes for what "auto" measures

    def refusal(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """See `Backend.refusal`. With TRITON_INTERPRET=1 the back end runs on a CPU, slowly."""
        if importlib.util.find_spec("triton") is None:
            return "Triton is not installed (it comes with PyTorch for CUDA on Linux)"
        if dtype not in _TOLERANCES:
            return f"its kernels compute in float32, bfloat16 or float16, not in {dtype}"
        if not interpreted():
            if device.type != "cuda":
                return f"its kernels are for CUDA GPUs, not for {device.type!r}"
            if torch.cuda.get_device_capability(device) < (8, 0):
                return f"its kernels need compute capability 8.0; this is a {torch.cuda.get_device_name(device)}"
        return _trial(_attention_difference, device, dtype)

    def alignment_refusal(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """See `Backend.alignment_refusal`."""
        return _trial(alignment_difference, device, dtype)

    def _aligns(self, x: Tensor) -> bool:
        """Whether the alignment kernels can be used for features like x; if not, warns once, with the reason."""
        reason = self.alignment_refusal(x.device, compute_dtype(x))
        if reason is not None:
            _warn_once(reason)
        return reason is None

    def align_clip(self, alignment: DeformableAlignment, x: Tensor, flows: Tensor) -> tuple[Tensor, Tensor]:
        """See `Backend.align_clip`."""
        return align(alignment, x, flows) if self._aligns(x) else super().align_clip(alignment, x, flows)

    def align_chunks(self, alignment: DeformableAlignment, x: Tensor, flows: Tensor) -> Iterator[Aligned]:
        """See `Backend.align_chunks`. One chunk of all frames: `align` itself divides the pairs into chunks."""
        if not self._aligns(x):
            yield from super().align_chunks(alignment, x, flows)
            return
        yield (slice(None), slice(None)), *align(alignment, x, flows)

    def attend_tokens(self, attention: WindowAttention, x: Tensor, layout: WindowLayout) -> Tensor:
        """See `TokenBackend.attend_tokens`."""
        return self._attend(attention, layout, lambda layer: layer(x))

    @staticmethod
    def _attend(attention: WindowAttention, layout: WindowLayout, project: Callable[[nn.Linear], Tensor]) -> Tensor:
        """`attend_tokens`; `project` applies a projection's layer to the normalised tokens: (B*T*H*W, 3*C)."""
        grid, heads, scale = (layout.batch, *layout.size), attention.num_heads, attention.scale
        # (heads, N, N)
        bias = relative_bias(attention.relative_position_bias_table, attention.codes.window, layout.window)
        qkv = project(attention.qkv_self).view(*grid, -1)  # (B, T, H, W, 3*C)
        fill = attention.qkv_self.bias  # the projection of padded places, which are zero tokens
        out, _ = window_attention(qkv, bias, fill, None, layout.window, layout.shift, heads, scale, False)
        if attention.mutual:
            layer = attention.qkv_mut
            qkv = project(layer).view(*grid, -1)  # (B, T, H, W, 3*C)
            # The projection of token + position code is the token's projection + a constant per place of a window.
            code = F.linear(attention.codes.position_code((1, *layout.window[1:]))[0], layer.weight)  # (places, 3*C)
            pairs, _ = window_attention(qkv, None, layer.bias, code, layout.window, layout.shift, heads, scale, True)
            out = torch.cat((pairs, out), -1)  # (B, T, H, W, 2*C)
        return attention.proj(out.flatten(0, 3))  # (B*T*H*W, C)


@COMPUTE_BACKENDS.register("triton_fused")
class TritonFusedBackend(TritonBackend):
    """The back end "triton", with normalised tokens and the MLP's hidden channels kept on chip.

    A separate back end, so that a benchmark can compare it with "triton".
    """

    fallback = "triton"

    def refusal(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """See `Backend.refusal`."""
        return super().refusal(device, dtype) or _trial(_fused_difference, device, dtype)

    def attend_half(
        self, norm: nn.LayerNorm, attention: WindowAttention, tokens: Tensor, layout: WindowLayout
    ) -> Tensor:
        """See `TokenBackend.attend_half`."""

        def project(layer: nn.Linear) -> Tensor:
            weight = layer.weight.to(compute_dtype(tokens))
            return norm_linear(tokens, norm.weight, norm.bias, weight, layer.bias, norm.eps)

        return self._attend(attention, layout, project)

    def add_mlp(self, block: TMSA, tokens: Tensor, factor: Tensor | None) -> Tensor:
        """See `TokenBackend.add_mlp`; the backward pass keeps `tokens` only."""
        norm, mlp = block.norm2, block.mlp
        weights = [layer.weight.to(compute_dtype(tokens)) for layer in (mlp.fc11, mlp.fc12, mlp.fc2)]
        return add_gated_mlp(
            *(tokens, norm.weight, norm.bias, weights[0], mlp.fc11.bias, weights[1], mlp.fc12.bias),
            *(weights[2], mlp.fc2.bias, factor, norm.eps),
        )


def relative_bias(table: Tensor, full: Size3, window: Size3) -> Tensor:
    """(heads, N, N): `WindowCodes.relative_bias`, as sliding slices of the table (rows, heads).

    Their gradient is summed in a fixed order, whereas that of indexing is summed in varying order on a GPU.
    """
    bias = table.t().reshape(-1, *(2 * length - 1 for length in full))
    for axis, (most, length) in enumerate(zip(full, window, strict=True), 1):
        bias = bias.narrow(axis, most - length, 2 * length - 1).unfold(axis, length, 1)
    return bias.flip(-3, -2, -1).reshape(-1, *[window[0] * window[1] * window[2]] * 2)


@cache
def _trial(
    difference: Callable[[torch.device, torch.dtype], float], device: torch.device, dtype: torch.dtype
) -> str | None:
    """Why kernels fail on a small case on this device: an error, or a result other than the plain formula's."""
    plain = torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False)
    with _disable_current_modes(), plain[0], plain[1], plain[2]:
        try:
            found = difference(device, dtype)
        except Exception as error:  # any error of compiler, driver or launch: another back end still works
            return f"a trial of its kernels raised {type(error).__name__}: {error}"
    # `not <=` instead of `>`, so that NaN counts as a failure.
    if not found <= _TOLERANCES[dtype]:
        return f"a trial of its kernels gave {found:.2g} beside the plain formula's result"
    return None


@cache
def _warn_once(reason: str) -> None:
    logger.warning("netG.compute_backend: Triton leaves alignment to torchvision: %s.", reason)


def _attention_difference(device: torch.device, dtype: torch.dtype) -> float:
    """Largest difference from the plain formula, in result and gradients, for one window."""
    window, width = (2, 3, 4), 8
    generator = torch.Generator().manual_seed(0)
    shapes = ((1, *window, 3 * width), (1, 24, 24), (24, width))
    qkv, bias, grad = (torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes)
    leaves = [qkv.requires_grad_(), bias.requires_grad_()]
    q, k, v = qkv.float().view(-1, 3, width).unbind(1)
    expected = (q @ k.T * 0.3 + bias[0].float()).softmax(-1) @ v
    expected_results = [expected, *torch.autograd.grad(expected, leaves, grad.float())]
    out = window_attention(qkv, bias, None, None, window, (0, 0, 0), 1, 0.3, False)[0].view(-1, width)
    return _largest([out, *torch.autograd.grad(out, leaves, grad)], expected_results)


def _fused_difference(device: torch.device, dtype: torch.dtype) -> float:
    """Largest difference from the plain formula, in result and gradients, for a few tokens."""
    width = 24
    generator = torch.Generator().manual_seed(0)
    shapes = ((40, width), (width,), (width,), *((2 * width, width), (2 * width,)) * 2, (width, 2 * width), (width,))
    leaves = [0.3 * torch.randn(shape, generator=generator) for shape in shapes]
    x, *parameters = (leaf.to(device, dtype).requires_grad_() for leaf in leaves)
    scale, shift, *weights = (parameter.float() for parameter in parameters)
    y = F.layer_norm(x.float(), [width], scale, shift)
    hidden = F.gelu(F.linear(y, *weights[:2])) * F.linear(y, *weights[2:4])
    expected = x.float() + F.linear(hidden, *weights[4:]) + F.linear(y, weights[0])[:, :width]
    grad = torch.ones_like(x)
    expected_results = [expected, *torch.autograd.grad(expected, [x, *parameters], grad.float())]
    projected = norm_linear(x, *parameters[:3], None, 1e-5)[:, :width]
    out = add_gated_mlp(x, *parameters, None, 1e-5) + projected
    return _largest([out, *torch.autograd.grad(out, [x, *parameters], grad)], expected_results)


def _largest(results: list[Tensor], expected: list[Tensor]) -> float:
    """Largest difference, relative to the largest value if that is above 1."""
    pairs = ((a.detach().float(), b.detach().float()) for a, b in zip(results, expected, strict=True))
    # torch's `max` returns NaN if there is one; Python's may not.
    return float(torch.stack([(a - b).abs().max() / b.abs().max().clamp(min=1) for a, b in pairs]).max())
