"""What a pass of a network does, counted and not timed: operations, arithmetic, bytes read and written, bytes kept.

    counts = count(network, inputs, step=True)

The pass runs on PyTorch's fake tensors, which have shapes but no data, so any size is counted in seconds. An operation
reads each of its inputs and writes each of its outputs once (an expanded tensor counts with what it holds): this is
what moves where nothing stays in a cache. A multiplication with its addition is two FLOP.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop, sdpa_flop

from models.layers.vrt.blocks import TMSA
from models.training.estimate import StorageCount

# These only look at memory in another way, or make what is not looked at.
_FREE = (
    "empty",
    "new_empty",
    "empty_like",
    "empty_strided",
    "new_empty_strided",
    "detach",
    "_unsafe_view",
    "lift_fresh",
)


@dataclass
class Counts:
    """Of one pass.

    Attributes:
        operations: ATen operations that touch data. flop: of matrix products, convolutions and attention. moved: bytes
            read and written. kept: bytes that the forward pass keeps for the backward pass, weights not counted.
        peak_alive: bytes that are alive at most, network and inputs not counted. largest: of one tensor.
        kept_by_attention: the part of `kept` that is not kept if attention is recomputed; 0 where it always is.
    """

    operations: int = 0
    flop: int = 0
    moved: int = 0
    peak_alive: int = 0
    largest: int = 0
    kept: int = 0
    kept_by_attention: int = 0

    def as_dict(self) -> dict[str, int]:
        """The attributes by name."""
        return asdict(self)


def count(network: nn.Module, inputs: Sequence[Tensor], step: bool) -> Counts:
    """Counts of a forward pass without gradients, or of forward and backward pass (`step`)."""
    counts = _count(network, inputs, step)
    if step:
        recomputing = _count(network, inputs, step, recompute_attention=True)
        counts.kept_by_attention = counts.kept - recomputing.kept
    return counts


def _count(network: nn.Module, inputs: Sequence[Tensor], step: bool, recompute_attention: bool = False) -> Counts:
    mode = FakeTensorMode()
    with FakeCopyMode(mode):
        twin, fakes = deepcopy(network), deepcopy(list(inputs))
    if recompute_attention:
        for block in twin.modules():
            if isinstance(block, TMSA):
                block.checkpoint_attn = True
    counter = _Counter()
    storages = StorageCount([*twin.parameters(), *twin.buffers(), *fakes], deform_samples=False)
    weights = {tensor.untyped_storage()._cdata for tensor in (*twin.parameters(), *twin.buffers())}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in weights:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with mode, storages, counter, torch.set_grad_enabled(step):
        if step:
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                loss = twin(*fakes).square().mean()
            counter.counts.kept = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
            kept.clear()
            loss.backward()
        else:
            twin(*fakes)
    counter.counts.peak_alive, counter.counts.largest = storages.peak, storages.largest
    return counter.counts


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts = Counts()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        packet = func._overloadpacket
        if packet in flop_registry:
            self.counts.flop += flop_registry[packet](*args, **kwargs, out_val=result)
        else:
            self.counts.flop += _other_flop(func.__name__.partition(".")[0], args)
        results = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        sources = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if results and not func.is_view and func.__name__.partition(".")[0] not in _FREE:
            self.counts.operations += 1
            self.counts.moved += _moved(func.__name__.partition(".")[0], sources, results)
        return result


def _other_flop(name: str, args: Any) -> int:
    """FLOP of what PyTorch's own counter does not know."""
    if name == "_scaled_dot_product_flash_attention_for_cpu":
        return sdpa_flop(*(tensor.shape for tensor in args[:3]))
    if name == "_scaled_dot_product_flash_attention_for_cpu_backward":
        return sdpa_backward_flop(*(tensor.shape for tensor in args[:4]))
    if name == "_linear_pointwise":
        tensors = [value for value in args if isinstance(value, Tensor) and value.dim() > 1]
        return 2 * prod(tensors[0].shape[:-1]) * prod(tensors[-1].shape)
    if name in ("deform_conv2d", "_deform_conv2d_backward"):
        x, weight = args[:2] if name == "deform_conv2d" else args[1:3]
        once = 2 * x.shape[0] * prod(weight.shape) * prod(x.shape[2:])
        return once if name == "deform_conv2d" else 2 * once
    return 0


def _moved(name: str, sources: list[Tensor], results: list[Tensor]) -> int:
    """Bytes that an operation reads and writes."""
    if name in ("index_select", "index", "gather"):  # only what is picked is read
        return sum(map(_bytes, sources[1:])) + 2 * sum(map(_bytes, results))
    if name == "index_copy_":  # only what is replaced is written
        return _bytes(sources[1]) + 2 * _bytes(sources[2])
    return sum(map(_bytes, sources)) + sum(map(_bytes, results))


def _bytes(tensor: Tensor) -> int:
    elements = prod(length for length, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
    return elements * tensor.element_size()
