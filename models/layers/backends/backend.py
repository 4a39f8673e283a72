"""Back ends: ways to compute the network's parts, chosen by `netG.compute_backend`.

All give the same numbers to rounding; they differ in time, memory and in where they run. A back end is one file with a
class registered in `COMPUTE_BACKENDS`, imported by `models/network_vrt.py`. It is of one of two kinds:

- `WindowBackend` (`window_backend.py`): softmax(q kT * scale + bias) v on tensors in window order. What goes before and
  after it is the block's own formula, and without gradients a chunk of windows at a time goes through the whole block.
- `TokenBackend` (`token_backend.py`): the attention half of a block on tokens in the grid's own order, so that shift,
  padding and masks need not be copies. A block then takes all tokens at once.

Compared by `python scripts/benchmark/bench_vrt.py --compare eager,sdpa`.

Legend: B batch, T frames, H height, W width, C channels.
"""

import logging
from abc import abstractmethod
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from models.layers.backends.alignment import Aligned, aligned_chunks
from models.layers.ops.chunks import over_rows, recomputing
from models.layers.ops.frame_conv import FrameConv
from models.layers.vrt.alignment import DeformableAlignment
from models.layers.vrt.blocks import TMSA, BranchFactors, GatedMlp
from models.layers.vrt.executor import Executor
from models.layers.vrt.window_layout import WindowLayout
from utils.utils_registry import Registry

logger = logging.getLogger(__name__)

AUTO = "auto"
COMPUTE_BACKENDS = Registry("compute back end", "netG.compute_backend")
# What "auto" takes where nothing is measured (`automatic.py`): the first that runs on the tensors' device.
PREFERENCE = ("native", "sdpa")


class Backend(Executor):
    """What all back ends share: parts that they don't compute in their own way.

    Attributes:
        fallback: name of what takes its place where it can't run.
        automatic: whether "auto" may take it, where it is the fastest.
    """

    fallback = "sdpa"
    automatic = True

    def refusal(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why it can't run on tensors of this device and type (autocast's, where that is on); None where it can."""
        return None

    def alignment_refusal(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why alignment is left to another way where the rest runs; None where it isn't."""
        return None

    def run(self, block: TMSA, tokens: Tensor, layout: WindowLayout, overwrite: bool = False) -> Tensor:
        """See `Executor.run`."""
        factors = block.draw_factors(layout.batch, tokens)
        if not torch.is_grad_enabled():
            return self.run_chunked(block, tokens, layout, factors, overwrite)
        return self.run_differentiable(block, tokens, layout, factors)

    @abstractmethod
    def run_whole(self, block: TMSA, tokens: Tensor, layout: WindowLayout, factors: BranchFactors) -> Tensor:
        """A block on all tokens (B*T*H*W, C) at once; this is what `train.compile` compiles."""

    def run_differentiable(self, block: TMSA, tokens: Tensor, layout: WindowLayout, factors: BranchFactors) -> Tensor:
        """The same with gradients."""
        return block.compiled(_run_whole)(self, block, tokens, layout, factors)

    def run_chunked(
        self, block: TMSA, tokens: Tensor, layout: WindowLayout, factors: BranchFactors, overwrite: bool
    ) -> Tensor:
        """The same without gradients, in chunks where that saves memory; `overwrite` as in `run`."""
        return self.run_whole(block, tokens, layout, factors)

    def align(
        self, alignment: DeformableAlignment, fuse: GatedMlp, x: Tensor, flows: Tensor | None, recompute: bool
    ) -> Tensor:
        """See `Executor.align`."""

        def fused(x: Tensor, ahead: Tensor, behind: Tensor) -> Tensor:
            return self.apply_mlp(fuse, torch.cat((x, ahead, behind), -1))  # (..., 3*C) to (..., C)

        def align_all(x: Tensor, flows: Tensor) -> Tensor:
            return fused(x, *self.align_clip(alignment, x, flows))

        if flows is None:
            zeros = torch.zeros_like(x)
            return fused(x, zeros, zeros)
        if torch.is_grad_enabled() or not self.chunked:
            return recomputing(align_all, recompute)(x, flows)
        out = torch.empty_like(x)
        for chunk, ahead, behind in self.align_chunks(alignment, x, flows):
            out[chunk] = over_rows(fused, x[chunk], ahead, behind, width=3 * x.shape[-1])
            del ahead, behind  # before the next ones are computed
        return out

    def align_clip(self, alignment: DeformableAlignment, x: Tensor, flows: Tensor) -> tuple[Tensor, Tensor]:
        """What `DeformableAlignment.forward` computes."""
        return alignment(x, flows)

    def align_chunks(self, alignment: DeformableAlignment, x: Tensor, flows: Tensor) -> Iterator[Aligned]:
        """The same without gradients, some frames at a time: see `aligned_chunks`."""
        return aligned_chunks(alignment, x, flows)

    def apply_mlp(self, mlp: GatedMlp, x: Tensor) -> Tensor:
        """What `GatedMlp.forward` computes, (..., in) to (..., out)."""
        return mlp(x)

    def convolve(self, conv: FrameConv, frames: Tensor) -> Tensor:
        """See `Executor.convolve`."""
        return conv(frames)


def _run_whole(backend: Backend, block: TMSA, tokens: Tensor, layout: WindowLayout, factors: BranchFactors) -> Tensor:
    """`Backend.run_whole` as a plain function, whose graphs blocks share."""
    return backend.run_whole(block, tokens, layout, factors)


def backend_fault(name: str) -> str | None:
    """What is wrong with a value of `netG.compute_backend`; None where a back end has that name."""
    unknown = None if name == AUTO else COMPUTE_BACKENDS.name_fault(name)
    return None if unknown is None else f"{unknown.removesuffix('.')}, {AUTO}"


def choose_backend(name: str, device: torch.device, dtype: torch.dtype) -> Backend:
    """The back end for an option's value on tensors of this device and type; for "auto" `preferred`.

    One that can't run there is replaced by its fallback, at last "sdpa", with one warning per process.

    Raises:
        UserError: unknown name, listing the choices.
    """
    if name == AUTO:
        return backend_called(preferred(device, dtype))
    chosen, reasons = name, []
    while (reason := backend_called(chosen).refusal(device, dtype)) is not None:
        reasons.append(reason)
        chosen = backend_called(chosen).fallback
    if reasons:
        _warn_once(name, reasons[0], chosen)
    return backend_called(chosen)


def preferred(device: torch.device, dtype: torch.dtype) -> str:
    """The name of the first of `PREFERENCE` that runs on tensors of this device and type; logged once per process."""
    known = [choice for choice in PREFERENCE if choice in COMPUTE_BACKENDS.names()]
    refusals = {choice: backend_called(choice).refusal(device, dtype) for choice in known}
    name = next(choice for choice, reason in refusals.items() if reason is None)
    _tell_once(name, str(device), dtype, "".join(f"; not {c!r}: {r}" for c, r in refusals.items() if r is not None))
    return name


def compute_dtype(x: Tensor) -> torch.dtype:
    """Type that matrix products of x are computed in: autocast's, where that is on."""
    if torch.is_autocast_enabled(x.device.type):
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


@cache
def backend_called(name: str) -> Backend:
    """The back end of this name; an error as of `Registry.get`."""
    return COMPUTE_BACKENDS.get(name)()


@cache
def _warn_once(name: str, reason: str, chosen: str) -> None:
    logger.warning("netG.compute_backend %r can't run here: %s. %r is used instead.", name, reason, chosen)


@cache
def _tell_once(name: str, device: str, dtype: torch.dtype, refusals: str) -> None:
    kind = str(dtype).removeprefix("torch.")
    logger.info("netG.compute_backend 'auto' is %r on %s in %s%s.", name, device, kind, refusals)
