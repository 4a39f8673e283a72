"""Estimates a training step's memory per GPU, without a GPU, in seconds, at any size.

    estimate = estimate_memory(model, batch)          # a ModelBase and one micro-batch
    python -m scripts.estimate_memory options/vrt/006_train_vrt_videodeblurring_gopro_rgbspike.json

Forward and backward pass run on PyTorch's fake tensors, which have shapes but no data, along the code paths of a CUDA
GPU. Every storage counts from its allocation to its release, so that recomputation (checkpointing) and autocast have
their effect. Not included: the CUDA context, cuDNN's workspaces, and the allocator's fragmentation.
"""

import weakref
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models.layers.ops.chunks import laid_out_for
from models.model_base import Batch, ModelBase
from utils.utils_dist import Dist

GB = 1e9  # decimal, as `UNITS` in utils/utils_memory.py reads "GB"
# torchvision's CUDA kernel samples up to 32 images at once (kMaxParallelImgs in deform_conv2d_kernel.cu).
_DEFORM_IMAGES = 32


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one device.

    Attributes:
        weights: the network's parameters and buffers. gradients: one for each parameter.
        optimizer: both moments of Adam. average: the moving average of the weights. losses: networks in the loss.
        activations: peak of all storages of a micro-batch's forward and backward pass, its input included.
        amp_dtype: type of autocast that was assumed, None without.
    """

    weights: int
    gradients: int
    optimizer: int
    average: int
    losses: int
    activations: int
    amp_dtype: torch.dtype | None

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return sum(self.parts().values())

    def parts(self) -> dict[str, int]:
        """The parts by name."""
        names = ("weights", "gradients", "optimizer", "average", "losses", "activations")
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {size / GB:.2f}" for name, size in self.parts().items())
        precision = "float32" if self.amp_dtype is None else f"autocast to {str(self.amp_dtype).removeprefix('torch.')}"
        return f"{self.total / GB:.2f} GB ({parts}; {precision})"


def estimate_memory(model: ModelBase, batch: Batch, device_type: str = "cuda") -> MemoryEstimate:
    """Memory of a step in which all parameters are trained; the model is not changed.

    Args:
        model: on any device; not yet trained.
        batch: one micro-batch; only its names, shapes and types are used.
        device_type: "cuda", or "cpu" for a step on a CPU. With "cuda", autocast "auto" is bf16.
    """
    mode = FakeTensorMode()
    with FakeCopyMode(mode):
        twin = deepcopy(model)
    device = model.dist.device
    twin.dist = Dist(rank=0, world_size=1, local_rank=0, device=device)
    twin.train_options = model.train_options.model_copy(update={"compile": False})
    if device_type == "cuda" and model.train_options.amp_dtype == "auto":
        twin.amp_dtype = torch.bfloat16
    with mode, laid_out_for(device_type):
        twin.prepare(max(model.train_options.fix_iter or 0, 1))
        for parameter in twin.netG.parameters():
            parameter.grad = torch.empty_like(parameter)
        kept = [*_tensors(_modules(twin)), *(p.grad for p in twin.netG.parameters() if p.grad is not None)]
        fake = {
            key: torch.empty(value.shape, dtype=value.dtype, device=device) if isinstance(value, Tensor) else value
            for key, value in batch.items()
        }
        with StorageCount(kept, deform_samples=device_type == "cuda") as count:
            for value in fake.values():
                count.add(value)
            torch.stack(list(twin.compute_losses(fake).values())).sum().backward()
    parameters = _bytes(model.netG.parameters())
    losses = [module for module in _modules(model) if module not in (model.netG, model.netE)]
    return MemoryEstimate(
        weights=_bytes(_tensors([model.netG])),
        gradients=parameters,
        optimizer=2 * parameters,
        average=_bytes(_tensors([model.netE])) if model.netE is not None else 0,
        losses=_bytes(_tensors(losses)),
        activations=count.peak,
        amp_dtype=twin.amp_dtype,
    )


class StorageCount(TorchDispatchMode):
    """Counts the bytes of storages that operations allocate, until their release.

    Attributes:
        current: bytes alive now. peak: most bytes alive at a time. largest: bytes of the largest storage.

    Args:
        kept: tensors allocated before; their storages, also through views, are not counted.
        deform_samples: also count the buffers that torchvision's CUDA kernel allocates in a deformable convolution.
    """

    def __init__(self, kept: Iterable[Tensor], deform_samples: bool) -> None:
        super().__init__()
        self.current = self.peak = self.largest = 0
        self.deform_samples = deform_samples
        self._kept = list(kept)
        self._known = {tensor.untyped_storage()._cdata for tensor in self._kept}

    def add(self, value: Any) -> None:
        """Counts a tensor's storage until it is released; ignores values of other types."""
        if not isinstance(value, Tensor):
            return
        storage = value.untyped_storage()
        key = storage._cdata
        if key not in self._known:
            self._known.add(key)
            self.current += storage.nbytes()
            self.peak = max(self.peak, self.current)
            self.largest = max(self.largest, storage.nbytes())
            weakref.finalize(storage, self._release, key, storage.nbytes())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            self.add(leaf)
        if self.deform_samples and func.namespace == "torchvision" and "deform_conv2d" in func.__name__:
            x, weight = args[1:3] if "backward" in func.__name__ else args[:2]
            self.peak = max(self.peak, self.current + _inside_deform_conv(x, weight))
        return result

    def _release(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.current -= size


def _inside_deform_conv(x: Tensor, weight: Tensor) -> int:
    """Bytes of the samples and of the reordered output in torchvision's kernel."""
    count, _, height, width = x.shape
    at_once = max(n for n in range(1, min(count, _DEFORM_IMAGES) + 1) if count % n == 0)
    samples = x.shape[1] * weight.shape[2] * weight.shape[3] * at_once
    return (samples + count * weight.shape[0]) * height * width * x.element_size()


def _modules(model: ModelBase) -> list[nn.Module]:
    """The networks among a model's attributes, each once."""
    return list(dict.fromkeys(value for value in vars(model).values() if isinstance(value, nn.Module)))


def _tensors(modules: Iterable[nn.Module]) -> list[Tensor]:
    return [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
