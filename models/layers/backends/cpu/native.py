"""The back end "native" of `netG.compute_backend`: blocks on a CPU, by a kernel for window attention of our own.

Where the kernel can't be compiled, the back end is refused and "sdpa" is used instead.
Measured by `python scripts/benchmark/bench_vrt.py --compare eager,sdpa,native`.
Test: `python -m pytest tests/models/layers/backends/cpu`.
"""

import torch
from torch import Tensor

from models.layers.backends.backend import COMPUTE_BACKENDS
from models.layers.backends.cpu.block_gradient import run_block
from models.layers.backends.cpu.native_attention import attend, trial
from models.layers.backends.window_backend import WindowBackend
from models.layers.ops.chunks import processor
from models.layers.vrt.blocks import TMSA, BranchFactors
from models.layers.vrt.window_layout import WindowLayout


@COMPUTE_BACKENDS.register("native")
class NativeBackend(WindowBackend):
    """Attention of windows by a kernel of our own, and a backward pass that is written out, on CPUs."""

    keys_first = True

    def refusal(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """See `Backend.refusal`."""
        if device.type != "cpu":
            return f"its kernel is for CPUs, and the tensors are on {device.type}"
        if dtype != torch.float32:
            return f"its kernel computes in float32, not in {dtype}"
        return trial()

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
        """See `WindowBackend.attend`."""
        return attend(q, k, v, bias, scale)

    def run_differentiable(self, block: TMSA, tokens: Tensor, layout: WindowLayout, factors: BranchFactors) -> Tensor:
        """See `Backend.run_differentiable`."""
        if block.is_compiled or processor(tokens) != "cpu":
            return super().run_differentiable(block, tokens, layout, factors)
        return run_block(block, tokens, layout, factors)
