"""Tiles of a fixed size through CUDA graphs: a forward pass of thousands of small kernels launched as one.

    network = GraphedNetwork(network)       # then as before: network(tile), network(tile, spikes)

A combination of input shapes is captured when it comes a second time, after warming up, and replayed from then on. On
other devices, with gradients, and for shapes beyond `max_graphs`, the network is called as it is: the same numbers.
A graph reads the network's parameters where they lay at its capture: weights may be changed in place (an optimizer, a
moving average, `load_state_dict`), but the network must not be moved.

Chosen by `val.cuda_graphs`. Test: `python -m pytest tests/models/testing/test_cuda_graphs.py`.
"""

import logging
from typing import Any

import torch
from torch import Tensor, nn

from models.layers.ops.chunks import processor
from utils.utils_memory import give_back_memory

logger = logging.getLogger(__name__)

# PyTorch's documentation of graphs asks for a few: libraries allocate and choose kernels in the first ones.
_WARM_UP_PASSES = 3


class GraphedNetwork:
    """A network in evaluation mode, called without gradients.

    All graphs share one pool of memory, as one runs at a time: together they keep about what a pass of the largest
    shape takes, which other computations can't use. Where capturing fails, or memory runs out while there are graphs,
    they are given up with one warning.

    Args:
        network: its forward pass takes tensors and gives one tensor, and depends on nothing else.
        max_graphs: shapes that are captured.
    """

    def __init__(self, network: nn.Module, max_graphs: int = 4) -> None:
        self.network = network
        self.max_graphs = max_graphs
        self._seen: set[Any] = set()
        self._graphs: dict[Any, _Graph] = {}
        self._pool: Any = None
        self._given_up = False

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The network's output, a tensor of its own."""
        if processor(inputs[0]) != "cuda" or torch.is_grad_enabled() or self.network.training:
            return self.network(*inputs)
        autocast = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
        mode = (inputs[0].device, autocast, torch.is_inference_mode_enabled())
        key = (*mode, *((tensor.shape, tensor.dtype) for tensor in inputs))
        try:
            return self._graphed(key, inputs, autocast)
        except RuntimeError as error:
            if not self._graphs and not self._captures(key):
                raise
            reason = str(error).splitlines()[0]
        logger.warning("val.cuda_graphs: goes on without graphs (%s)", reason)
        self.release()
        self._given_up = True
        give_back_memory(inputs[0].device)
        return self.network(*inputs)

    def release(self) -> None:
        """Frees all graphs and their memory; what comes from now on is captured again."""
        self._seen.clear()
        self._graphs.clear()
        self._pool = None
        self._given_up = False

    def _captures(self, key: Any) -> bool:
        # A shape that comes once, such as that of a clip's last frames, is not worth capturing.
        return key in self._seen and len(self._graphs) < self.max_graphs and not self._given_up

    def _graphed(self, key: Any, inputs: tuple[Tensor, ...], autocast: torch.dtype | None) -> Tensor:
        if key in self._graphs:
            return self._graphs[key].replay(inputs)
        if not self._captures(key):
            self._seen.add(key)
            return self.network(*inputs)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        self._graphs[key] = _Graph(self.network, inputs, autocast, self._pool)
        return self._graphs[key].replay(inputs)


class _Graph:
    """One captured pass with the tensors that it reads and writes."""

    def __init__(self, network: nn.Module, inputs: tuple[Tensor, ...], autocast: torch.dtype | None, pool: Any) -> None:
        self._inputs = [tensor.clone() for tensor in inputs]
        self._graph = torch.cuda.CUDAGraph()
        # Autocast's cache of cast weights would hand tensors of the warm-up, freed since, to the graph.
        casts = torch.autocast("cuda", autocast, enabled=autocast is not None, cache_enabled=False)
        # torch's own context stays on the stream of a capture that failed, this one doesn't.
        with torch.cuda.device(inputs[0].device), torch.cuda.stream(torch.cuda.current_stream()), casts:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(_WARM_UP_PASSES):
                    network(*self._inputs)
            torch.cuda.current_stream().wait_stream(side)
            # Scores may be computed on the same GPU by other threads meanwhile, which "global" would forbid.
            with torch.cuda.graph(self._graph, pool, capture_error_mode="thread_local"):
                self._output = network(*self._inputs)

    def replay(self, inputs: tuple[Tensor, ...]) -> Tensor:
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        return self._output.clone()
