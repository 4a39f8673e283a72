"""How attention within windows is computed: the back ends that `netG.attention_backend` chooses from.

All give the same numbers to rounding; they differ in time, memory and in where they run. A back end is one file with a
class registered in `ATTENTION_BACKENDS`, imported by `models/network_vrt.py`. It is one of two kinds:

- `WindowBackend`: softmax(q kT * scale + bias) v on tensors in window order. What goes before and after it (gather,
  QKV, projection) is `WindowAttention`'s, and without gradients a block takes a few windows at a time through all.
- `TokenBackend`: the attention half of a block on tokens in the grid's own order, so that shift, padding and masks need
  not be copies. A block then takes all tokens at once.

Compared by `python scripts/benchmark/bench_vrt.py --compare eager,sdpa`.

Legend: B batch, T frames, H height, W width, C channels, N tokens of a window.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from models.layers.vrt.window_layout import WindowLayout
from utils.utils_registry import Registry

if TYPE_CHECKING:
    from models.layers.vrt.alignment import DeformableAlignment
    from models.layers.vrt.blocks import GatedMlp
    from models.layers.vrt.window_attention import WindowAttention

logger = logging.getLogger(__name__)

ATTENTION_BACKENDS = Registry("attention back end", "netG.attention_backend")
# What "auto" takes: the first that runs on the tensors' device. "triton" belongs here once it was measured on a GPU.
PREFERENCE = ("native", "sdpa")
# Which clips and frames, and what is aligned to them: see `DeformableAlignment.parts`.
Aligned = tuple[tuple[slice, slice], Tensor, Tensor]
WHOLE = (slice(None), slice(None))


class AttentionBackend:
    """A way to compute attention within windows, and alignment along with it; it has no state and no parameters.

    Attributes:
        plain: the rest of the network is to take its plain path as well (`models/layers/backends/eager.py`).
        fallback: name of what takes its place where it can't run.
    """

    plain = False
    fallback = "sdpa"

    def refusal(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why it can't run on tensors of this device and type (autocast's, where that is on); None where it can."""
        return None

    def align(self, alignment: "DeformableAlignment", x: Tensor, flows: Tensor) -> Iterator[Aligned]:
        """What `DeformableAlignment.forward` computes, as `DeformableAlignment.parts` hands it out; all at once with
        gradients, and where `plain`."""
        if torch.is_grad_enabled():
            yield WHOLE, *alignment(x, flows)
        else:
            yield from alignment.parts(x, flows)


class WindowBackend(AttentionBackend, ABC):
    """Attention on tensors in window order.

    Attributes:
        keys_first: `attend` takes the bias transposed, keys before queries.
    """

    keys_first = False

    @abstractmethod
    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
        """softmax(q kT * scale + bias) v, differentiable in all four tensors.

        Args:
            q, k, v: (windows, heads, N, head_dim), any strides.
            bias: (1, 1 or heads, N, N), the same for every window; see `keys_first`.
            scale: factor of q kT.

        Returns:
            (windows, heads, N, head_dim).
        """


class TokenBackend(AttentionBackend, ABC):
    """The attention half of a block, on tokens in the grid's order."""

    @abstractmethod
    def attend_tokens(self, attention: "WindowAttention", x: Tensor, layout: WindowLayout) -> Tensor:
        """What `WindowAttention` computes, from the block's normalised tokens to the projection's result.

        Differentiable in `x` and in the parameters of `attention`: `qkv_self`, `relative_position_bias_table`, `proj`
        and, where `attention.mutual`, `qkv_mut`. Constants of the window: `attention.codes`.

        Args:
            x: (B*T*H*W, C) in the order of (B, T, H, W), after the block's LayerNorm. Padded places hold zeros behind
                the LayerNorm: their queries, keys and values are those of a zero token, and they are not masked.
            layout: `size`, `window`, `shift` and `batch` for index arithmetic; `index` and `inverse` for gathers.

        Returns:
            (B*T*H*W, C), which the block adds to its input.
        """

    def attend_half(
        self, norm: nn.LayerNorm, attention: "WindowAttention", tokens: Tensor, layout: WindowLayout
    ) -> Tensor:
        """`attend_tokens` of normalised tokens, for back ends that normalise in a way of their own."""
        return self.attend_tokens(attention, norm(tokens), layout)

    def add_mlp(self, norm: nn.LayerNorm, mlp: "GatedMlp", tokens: Tensor, keep: Tensor | None) -> Tensor | None:
        """tokens + keep * mlp(norm(tokens)) in a way of its own, which keeps `tokens` alone for the backward pass.

        Args:
            tokens: (B*T*H*W, C).
            keep: (B,) factors of the samples' branches, or None.

        Returns:
            (B*T*H*W, C), or None: the block is to compute it.
        """
        return None


def choose_backend(name: str, device: torch.device, dtype: torch.dtype) -> AttentionBackend:
    """The back end for an option's value on tensors of this device and type.

    One that can't run there is replaced by its fallback, at last "sdpa", with one warning per process. "auto" is the
    first of `PREFERENCE` that can, and never warns: the choice is logged once.

    Raises:
        UserError: unknown name, listing the choices.
    """
    if name == "auto":
        known = [choice for choice in PREFERENCE if choice in ATTENTION_BACKENDS.names()]
        refusals = {choice: _backend(choice).refusal(device, dtype) for choice in known}
        name = next(choice for choice, reason in refusals.items() if reason is None)
        _tell_once(name, str(device), dtype, "".join(f"; not {c!r}: {r}" for c, r in refusals.items() if r is not None))
    chosen, reasons = name, []
    while (reason := _backend(chosen).refusal(device, dtype)) is not None:
        reasons.append(reason)
        chosen = _backend(chosen).fallback
    if reasons:
        _warn_once(name, reasons[0], chosen)
    return _backend(chosen)


def compute_dtype(x: Tensor) -> torch.dtype:
    """Type that matrix products of x are computed in: autocast's, where that is on."""
    if torch.is_autocast_enabled(x.device.type):
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


@cache
def _backend(name: str) -> AttentionBackend:
    return ATTENTION_BACKENDS.get(name)()


@cache
def _warn_once(name: str, reason: str, chosen: str) -> None:
    logger.warning("netG.attention_backend %r can't run here: %s. %r is used instead.", name, reason, chosen)


@cache
def _tell_once(name: str, device: str, dtype: torch.dtype, refusals: str) -> None:
    kind = str(dtype).removeprefix("torch.")
    logger.info("netG.attention_backend 'auto' is %r on %s in %s%s.", name, device, kind, refusals)
