"""The back end "triton" of `netG.attention_backend`: window attention by the kernels of `triton_attention.py`.

Legend: B batch, T frames, H height, W width, C channels, N tokens of a window.
"""

import importlib.util
import os
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from models.layers.attention_backend import ATTENTION_BACKENDS, TokenBackend
from models.layers.triton_attention import window_attention
from models.layers.window_layout import Size3, WindowLayout

if TYPE_CHECKING:
    from models.layers.window_attention import WindowAttention

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@ATTENTION_BACKENDS.register("triton")
class TritonBackend(TokenBackend):
    """Attention that reads queries, keys and values where the projection left them, and writes where the next reads."""

    def refusal(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """See `AttentionBackend`; with TRITON_INTERPRET=1 it also runs on a CPU, slowly."""
        if importlib.util.find_spec("triton") is None:
            return "Triton is not installed (pip install triton; it comes with PyTorch for CUDA on Linux)"
        if dtype not in _DTYPES:
            return f"its kernels compute in {', '.join(str(known) for known in _DTYPES)}, not in {dtype}"
        if os.environ.get("TRITON_INTERPRET") == "1":
            return None
        if device.type != "cuda":
            return f"its kernels are for CUDA GPUs, not for {device.type!r}"
        if torch.cuda.get_device_capability(device) < (8, 0):
            return f"its kernels need a GPU of compute capability 8.0 or higher; {torch.cuda.get_device_name(device)}"
        return None

    def attend_tokens(self, attention: "WindowAttention", x: Tensor, layout: WindowLayout) -> Tensor:
        """See `TokenBackend`."""
        grid, heads, scale = (layout.batch, *layout.size), attention.num_heads, attention.scale
        bias = relative_bias(attention.relative_position_bias_table, attention.codes.window, layout.window)
        qkv = attention.qkv_self(x).view(*grid, -1)
        fill = attention.qkv_self.bias
        out, _ = window_attention(qkv, bias, fill, None, layout.window, layout.shift, heads, scale, False)
        if attention.mutual:
            project = attention.qkv_mut
            qkv = project(x).view(*grid, -1)
            # The projection of (token + position code) is that of the token + a constant per place of a window.
            code = F.linear(attention.codes.position_code((1, *layout.window[1:]))[0], project.weight)
            pairs, _ = window_attention(
                qkv, None, project.bias, code, layout.window, layout.shift, heads, scale, True
            )
            out = torch.cat((pairs, out), -1)
        return attention.proj(out.flatten(0, 3))


def relative_bias(table: Tensor, full: Size3, window: Size3) -> Tensor:
    """(heads, N, N): what `WindowCodes.relative_bias` gives, as sliding windows over the table (rows, heads).

    Their gradient is a sum in a fixed order, where that of indexing adds up in any order on a GPU.
    """
    bias = table.t().reshape(-1, *(2 * length - 1 for length in full))
    for axis, (most, length) in enumerate(zip(full, window, strict=True), 1):
        bias = bias.narrow(axis, most - length, 2 * length - 1).unfold(axis, length, 1)
    return bias.flip(-3, -2, -1).reshape(-1, *[window[0] * window[1] * window[2]] * 2)
