"""Tiles of a fixed size through CUDA graphs: a forward pass of thousands of small kernels launched as one.

    network = GraphedNetwork(network)       # then as before: network(tile), network(tile, spikes)

Each combination of input shapes is captured when it is first seen, after warming up, and replayed from then on. On
other devices, with gradients, and for shapes beyond `max_graphs`, the network is called as it is: the same numbers.
A graph reads the network's parameters where they lay at its capture: weights may be changed in place (an optimizer, a
moving average, `load_state_dict`), but the network must not be moved.
"""

from typing import Any

import torch
from torch import Tensor, nn

_WARM_UP_PASSES = 3


class GraphedNetwork:
    """A network in evaluation mode, called without gradients.

    Args:
        network: its forward pass takes tensors and gives one tensor, and depends on nothing else.
        max_graphs: shapes that are captured; each keeps the memory of one pass.
    """

    def __init__(self, network: nn.Module, max_graphs: int = 4) -> None:
        self.network = network
        self.max_graphs = max_graphs
        self._graphs: dict[Any, _Graph] = {}

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The network's output, a tensor of its own."""
        device = inputs[0].device
        if device.type != "cuda" or torch.is_grad_enabled() or self.network.training:
            return self.network(*inputs)
        autocast = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
        key = (device, autocast, *((tensor.shape, tensor.dtype) for tensor in inputs))
        if key not in self._graphs:
            if len(self._graphs) >= self.max_graphs:
                return self.network(*inputs)
            self._graphs[key] = _Graph(self.network, inputs, autocast)
        return self._graphs[key].replay(inputs)


class _Graph:
    """One captured pass with the tensors that it reads and writes."""

    def __init__(self, network: nn.Module, inputs: tuple[Tensor, ...], autocast: torch.dtype | None) -> None:
        self._inputs = [tensor.clone() for tensor in inputs]
        self._graph = torch.cuda.CUDAGraph()
        # Autocast's cache of cast weights would hand tensors of the warm-up, freed since, to the graph.
        casts = torch.autocast("cuda", autocast, enabled=autocast is not None, cache_enabled=False)
        with torch.cuda.device(inputs[0].device), casts:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(_WARM_UP_PASSES):
                    network(*self._inputs)
            torch.cuda.current_stream().wait_stream(side)
            with torch.cuda.graph(self._graph):
                self._output = network(*self._inputs)

    def replay(self, inputs: tuple[Tensor, ...]) -> Tensor:
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        return self._output.clone()
