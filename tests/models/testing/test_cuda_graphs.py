"""CUDA graphs: the same numbers as the network, replayed on a GPU and called elsewhere; what a capture forbids."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models.layers.backends.triton.backend import TritonBackend, TritonFusedBackend
from models.layers.ops.chunks import laid_out_for
from models.network_spike_refine import SpikeRefine
from models.network_spikling import SemiUNet
from models.testing import cuda_graphs
from models.testing.cuda_graphs import GraphedNetwork
from tests.models.test_network_vrt_spike import BINS
from tests.models.test_network_vrt_spike import network as spike_vrt
from tests.models.vrt_cases import small_vrt


def test_without_a_gpu_the_network_is_called() -> None:
    network = small_vrt()
    x = torch.rand(1, 2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(GraphedNetwork(network)(x), network(x))


class _Graph:
    """Stands for a captured pass: gives a number that no pass gives."""

    made: ClassVar[list[tuple[int, ...]]] = []
    error: RuntimeError | None = None
    seconds = 0.0

    def __init__(self, network: nn.Module, inputs: tuple[Tensor, ...], *_: Any) -> None:
        if self.error is not None:
            raise self.error
        self.made.append(tuple(inputs[0].shape))

    def replay(self, inputs: tuple[Tensor, ...]) -> Tensor:
        spend(self.seconds)
        return inputs[0] + 100


def spend(seconds: float) -> None:
    """On the processor, whatever else runs."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> type[_Graph]:
    """Where captures go to, in place of a GPU; its tensors lie on the CPU."""
    monkeypatch.setattr(_Graph, "made", [])
    monkeypatch.setattr(cuda_graphs, "_Graph", _Graph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")
    return _Graph


class AddOne(nn.Module):
    most = 100

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return x + 1


def gains(graphed: GraphedNetwork, *sizes: int) -> list[float]:
    """What is added to an input of each size."""
    with torch.inference_mode(), laid_out_for("cuda"):
        return [float(graphed(torch.zeros(size)).max()) for size in sizes]


def test_what_comes_again_is_captured(graphs: type[_Graph]) -> None:
    graphed = GraphedNetwork(AddOne().eval(), max_graphs=2)
    assert gains(graphed, 3, 2, 2, 2, 3, 4, 4, 2) == [1, 1, 100, 100, 100, 1, 1, 100]
    assert graphs.made == [(2,), (3,)]
    graphed.release()
    assert gains(graphed, 4, 4, 2) == [1, 100, 1]
    with torch.no_grad(), laid_out_for("cuda"):
        assert graphed(torch.zeros(4)).max() == 1, "a tensor of the inference mode can't be written outside of it"
    with laid_out_for("cuda"):
        assert graphed(torch.zeros(4)).max() == 1, "with gradients the network is called"


@pytest.mark.parametrize("failed", [True, False])
def test_graphs_are_given_up_where_they_fail(
    failed: bool, graphs: type[_Graph], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At the capture, or as there is no memory for what else is to run."""
    network = AddOne().eval()
    graphed = GraphedNetwork(network)
    if failed:
        monkeypatch.setattr(graphs, "error", RuntimeError("operation not permitted when stream is capturing\nat ..."))
    else:
        assert gains(graphed, 2, 2) == [1, 100]
        network.most = 2
    with caplog.at_level(logging.WARNING):
        if failed:
            assert gains(graphed, 3, 3, 3, 2, 2) == [1] * 5
        else:
            for _ in range(2):
                with pytest.raises(torch.OutOfMemoryError):
                    gains(graphed, 3)
            assert gains(graphed, 2, 2) == [1, 1]
            graphed.release()
            assert gains(graphed, 2, 2) == [1, 100]
    (message,) = caplog.messages
    assert message.startswith("val.cuda_graphs: goes on without graphs (") and "\n" not in message


class AddHundred(nn.Module):
    """Gives what the stand-in of a graph gives, in some time."""

    seconds, gain = 0.0, 100

    def forward(self, x: Tensor) -> Tensor:
        spend(self.seconds)
        return x + self.gain


@pytest.mark.parametrize("seconds, gain, captured", [(0, 100, True), (4e-3, 100, False), (0, 101, False)])
def test_auto_keeps_a_graph_that_is_right_and_pays(
    seconds: float, gain: int, captured: bool, graphs: type[_Graph], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cuda_graphs, "SECONDS", 0.01)
    monkeypatch.setattr(graphs, "seconds", seconds)
    network = AddHundred().eval()
    network.seconds, network.gain = 2e-3, gain
    for _ in range(2):  # the second as another process, from the cache
        graphed = GraphedNetwork(network, measured=True)
        with caplog.at_level(logging.INFO):
            assert gains(graphed, 30000, 30000, 30000) == [gain] * 3
        assert len(graphed._graphs) == captured
    (message,) = caplog.messages
    assert message.startswith(f"val.cuda_graphs 'auto' is '{'graphs' if captured else 'calls'}' for tiles of 30000: ")
    assert ("not 'graphs': wrong" in message) == (gain != 100)
    assert len(graphs.made) == 1 + captured


class _HostTraffic(TorchDispatchMode):
    """Notes what a capture can't do: tensors on the host, and values that are waited for.

    Fake tensors refuse values that decide (`.item()`, `nonzero`) on their own account.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, made)) if isinstance(leaf, Tensor)]
        chosen = args[1] if func.__name__.startswith("index") and isinstance(args[1], (list, tuple)) else ()
        by_mask = any(isinstance(index, Tensor) and index.dtype == torch.bool for index in chosen)
        if by_mask or any(tensor.device.type == "cpu" for tensor in tensors):
            self.seen.append(str(func))
        return made


def traffic(network: nn.Module, *sizes: tuple[int, ...]) -> list[str]:
    """What a pass of the network does on the host, as fake tensors of a GPU tell; there need be none."""
    with FakeTensorMode():
        parts = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        state = {name: torch.empty(part.shape, dtype=part.dtype, device="cuda") for name, part in parts.items()}
        inputs = tuple(torch.empty(size, device="cuda") for size in sizes)
        with torch.inference_mode(), _HostTraffic() as noted:
            torch.func.functional_call(network, state, inputs)
    return noted.seen


NETWORKS: dict[str, tuple[Callable[[], nn.Module], list[tuple[int, ...]]]] = {
    "whole windows": (small_vrt, [(1, 2, 3, 16, 16)]),
    "padded": (lambda: small_vrt(pa_frames=4), [(2, 5, 3, 37, 20)]),
    "eager": (lambda: small_vrt(compute_backend="eager"), [(1, 3, 3, 12, 16)]),
    "triton": (lambda: small_vrt(compute_backend="triton"), [(1, 3, 3, 12, 16)]),
    "triton_fused": (lambda: small_vrt(compute_backend="triton_fused"), [(1, 2, 3, 16, 16)]),
    "super-resolution": (lambda: small_vrt(upscale=4), [(1, 1, 3, 16, 16)]),
    "interpolation": (lambda: small_vrt(pa_frames=0), [(1, 6, 3, 16, 16)]),
    "spikes": (lambda: spike_vrt(fuse_window=3), [(1, 3, 3, 36, 20), (1, 3, BINS, 18, 10)]),
    "resized spikes": (spike_vrt, [(1, 2, 3, 16, 16), (1, 2, BINS, 11, 7)]),
    "spikling": (lambda: SemiUNet().eval(), [(1, 2, 32, 10, 12)]),
    "refine": (lambda: SpikeRefine(in_chans=61, channels=4, blocks=[0, 0, 0]).eval(), [(1, 2, 61, 10, 12)]),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_pass_can_be_captured(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything lies on the GPU, no constant comes from the host, and no value is waited for."""
    for backend in (TritonBackend, TritonFusedBackend):
        monkeypatch.setattr(backend, "refusal", lambda *_: None)
    make, sizes = NETWORKS[name]
    assert traffic(make(), *sizes) == []


@pytest.mark.parametrize(
    "step",
    [
        lambda x: x + torch.tensor([1.0], device="cuda"),
        lambda x: x[x > 0],
        lambda x: x * x.max().item(),
        lambda x: x + torch.ones(1).to(x.device),
        lambda x: x.cpu(),
    ],
)
def test_what_can_not_be_captured_is_found(step: Callable[[Tensor], Tensor]) -> None:
    class Step(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return step(x)

    try:
        seen = traffic(Step(), (4,))
    except RuntimeError as error:  # of the fake tensors
        seen = [str(error)]
    assert seen


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("half", [False, True])
def test_replays_equal_the_network(half: bool) -> None:
    network = small_vrt().cuda()
    graphed = GraphedNetwork(network, max_graphs=2)

    def clip(height: int) -> Tensor:
        return torch.rand(1, 3, 3, height, 16, device="cuda")

    with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, half):
        for height in (16, 16, 16, 24, 24, 24, 16, 32, 32):
            x = clip(height)
            torch.testing.assert_close(graphed(x), network(x), rtol=0, atol=1e-2 if half else 1e-5)
    assert len(graphed._graphs) == 2
