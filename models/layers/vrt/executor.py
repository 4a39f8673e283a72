"""Interface between the network and the back ends that compute its parts (`models/layers/backends`)."""

from abc import ABC, abstractmethod

from torch import Tensor

from models.layers.ops.frame_conv import FrameConv
from models.layers.vrt.alignment import DeformableAlignment
from models.layers.vrt.blocks import TMSA, GatedMlp
from models.layers.vrt.window_layout import WindowLayout


class Executor(ABC):
    """Runs the network's parts; results equal the parts' own formulas up to rounding. No state, no parameters.

    Attributes:
        chunked: without gradients, large tensors are processed in chunks (`models/layers/ops/chunks.py`).
    """

    chunked = True

    @abstractmethod
    def run(self, block: TMSA, tokens: Tensor, layout: WindowLayout, overwrite: bool = False) -> Tensor:
        """A block on all tokens (B*T*H*W, C) of a grid, to the same shape.

        Args:
            layout: the block's windows.
            overwrite: without gradients the result may be written into `tokens`.
        """

    @abstractmethod
    def align(
        self, alignment: DeformableAlignment, fuse: GatedMlp, x: Tensor, flows: Tensor | None, recompute: bool
    ) -> Tensor:
        """fuse([x, next frames aligned, previous frames aligned]), (B, T, H, W, C) to the same shape.

        Args:
            flows: as `DeformableAlignment.forward` takes them; None for a single frame, whose neighbours are zeros.
            recompute: recompute intermediate results in the backward pass instead of keeping them.
        """

    @abstractmethod
    def convolve(self, conv: FrameConv, frames: Tensor) -> Tensor:
        """A convolution of frames, (n, in, H, W) to (n, out, H, W)."""
