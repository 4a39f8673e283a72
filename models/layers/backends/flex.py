"""The back end "flex" of `netG.compute_backend`: FlexAttention (arXiv 2412.05496), on CUDA GPUs.

Legend: N tokens of a window, shapes (windows, heads, N, head_dim).
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from models.layers.backends.backend import COMPUTE_BACKENDS
from models.layers.backends.window_backend import WindowBackend
from models.layers.ops.compiled import allow_graphs


@COMPUTE_BACKENDS.register("flex")
class FlexBackend(WindowBackend):
    """FlexAttention, whose compiled kernel reads the bias element by element.

    The gradient of the bias is summed by atomic additions, so its rounding varies from run to run.
    """

    def refusal(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """See `Backend.refusal`."""
        if device.type != "cuda":
            return f"FlexAttention has its backward pass on CUDA GPUs only, and the tensors are on {device.type}"
        return None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
        """See `WindowBackend.attend`."""

        def biased(score: Tensor, window: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
            assert bias is not None
            return score + bias[0, head if bias.shape[1] > 1 else 0, i, j]

        attention = _flex_attention(compiled=q.is_cuda)
        return attention(q, k, v, score_mod=None if bias is None else biased, scale=scale)


@cache
def _flex_attention(compiled: bool) -> Any:
    from torch.nn.attention.flex_attention import flex_attention  # slow to import, and few runs use it

    if not compiled:
        return flex_attention
    allow_graphs()  # behind the limit FlexAttention would compute every score in memory
    return torch.compile(flex_attention, dynamic=False)
