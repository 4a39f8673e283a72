"""For which processor a computation is laid out: some layers take another path on a CPU than on an accelerator.

That follows from a tensor's device, except where tensors without data stand for those of a GPU
(`models/training/estimate.py`).
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

_stand_in: str | None = None


def processor(x: Tensor) -> str:
    """Type of the device that computes with x: "cpu", "cuda", ..."""
    return _stand_in or x.device.type


@contextmanager
def laid_out_for(device_type: str) -> Iterator[None]:
    """Inside, all tensors count as those of such a device."""
    global _stand_in
    before, _stand_in = _stand_in, device_type
    try:
        yield
    finally:
        _stand_in = before
