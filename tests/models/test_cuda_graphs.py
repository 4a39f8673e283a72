"""CUDA graphs: the same numbers as the network, replayed on a GPU and called elsewhere."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from models.cuda_graphs import GraphedNetwork
from models.layers.processor import laid_out_for
from tests.models.vrt_cases import small_vrt


def test_without_a_gpu_the_network_is_called() -> None:
    network = small_vrt()
    x = torch.rand(1, 2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(GraphedNetwork(network)(x), network(x))


class _HostConstants(TorchDispatchMode):
    """Notes tensors made of Python numbers, which a capture can't copy to the GPU, and values that are waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.partition(".")[0]
        if name in ("lift_fresh", "lift_fresh_copy", "_local_scalar_dense", "nonzero"):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("size", [(2, 16, 16), (5, 36, 20)])
def test_a_pass_can_be_captured(size: tuple[int, int, int]) -> None:
    """No value of a tensor is waited for and no constant comes from the host, whole windows or padded ones."""
    network, noted = small_vrt(), _HostConstants()
    x = torch.rand(1, size[0], 3, *size[1:])
    with torch.no_grad(), laid_out_for("cuda"), noted:
        network(x)
    assert not noted.seen


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("half", [False, True])
def test_replays_equal_the_network(half: bool) -> None:
    network = small_vrt().cuda()
    graphed = GraphedNetwork(network, max_graphs=1)

    def clip(height: int) -> Tensor:
        return torch.rand(1, 3, 3, height, 16, device="cuda")

    with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, half):
        for x in (clip(16), clip(16), clip(24)):
            torch.testing.assert_close(graphed(x), network(x), rtol=0, atol=1e-2 if half else 1e-5)
