"""Tiles of a fixed size through CUDA graphs: a forward pass of thousands of small kernels launched as one.

    network = GraphedNetwork(network)       # then as before: network(tile), network(tile, spikes)

A combination of input shapes is captured when it comes a second time, after warming up, and replayed from then on. On
other devices, with gradients, and for shapes beyond `max_graphs`, the network is called as it is: the same numbers.
A graph reads the network's parameters where they lay at its capture: weights may be changed in place (an optimizer, a
moving average, `load_state_dict`), but the network must not be moved.

With `measured`, a shape's graph is kept only where its replay gives the network's numbers and is faster than the call;
the choice is kept in the user's cache (`models/layers/backends/choices.py`).

Chosen by `val.cuda_graphs`: true, or "auto" for `measured`.
Test: `python -m pytest tests/models/testing/test_cuda_graphs.py`.
"""

import hashlib
import json
import logging
from typing import Any

import torch
from torch import Tensor, nn

from models.layers.backends.choices import Choice, environment
from models.layers.backends.measure import NOISE, Candidate, compare, relative_error
from models.layers.backends.problem import LIMITS
from models.layers.ops.chunks import processor
from utils.utils_memory import give_back_memory

logger = logging.getLogger(__name__)

# PyTorch's documentation of graphs asks for a few: libraries allocate and choose kernels in the first ones.
_WARM_UP_PASSES = 3
# Of timed passes in "auto": a graph's gain is seen in some.
SECONDS = 1.0
CALLS, GRAPHS = "calls", "graphs"


class GraphedNetwork:
    """A network in evaluation mode, called without gradients.

    All graphs share one pool of memory, as one runs at a time: together they keep about what a pass of the largest
    shape takes, which other computations can't use. Where capturing fails, or memory runs out while there are graphs,
    they are given up with one warning.

    Args:
        network: its forward pass takes tensors and gives one tensor, and depends on nothing else.
        max_graphs: shapes that are captured.
        measured: keep a graph only where it is right and pays.
    """

    def __init__(self, network: nn.Module, max_graphs: int = 4, measured: bool = False) -> None:
        self.network = network
        self.max_graphs = max_graphs
        self.measured = measured
        self._called: set[Any] = set()  # shapes for which the call is faster
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
        self._called.clear()
        self._graphs.clear()
        self._pool = None
        self._given_up = False

    def _captures(self, key: Any) -> bool:
        # A shape that comes once, such as that of a clip's last frames, is not worth capturing.
        return key in self._seen - self._called and len(self._graphs) < self.max_graphs and not self._given_up

    def _graphed(self, key: Any, inputs: tuple[Tensor, ...], autocast: torch.dtype | None) -> Tensor:
        if key in self._graphs:
            return self._graphs[key].replay(inputs)
        if not self._captures(key):
            self._seen.add(key)
            return self.network(*inputs)
        kept = Choice.read(self._key(inputs, autocast)) if self.measured else None
        if kept is None or kept.name == GRAPHS:
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            graph = _Graph(self.network, inputs, autocast, self._pool)
            if not self.measured or (kept or self._measure(graph, inputs, autocast)).name == GRAPHS:
                self._graphs[key] = graph
                return graph.replay(inputs)
        self._called.add(key)
        return self.network(*inputs)

    def _measure(self, graph: "_Graph", inputs: tuple[Tensor, ...], autocast: torch.dtype | None) -> Choice:
        """Whether a graph gives the network's numbers and is faster."""
        limit = LIMITS[autocast or torch.float32]

        def error() -> tuple[float, float]:
            # Not the inputs of the capture: its results are still in memory and would hide a graph that does nothing.
            flipped = tuple(tensor.flip(-1) for tensor in inputs)
            return relative_error(graph.replay(flipped), self.network(*flipped)), limit

        candidates = [
            Candidate(CALLS, lambda: (0.0, limit), [(1, lambda: [self.network(*inputs)])]),
            Candidate(GRAPHS, error, [(1, lambda: [graph.replay(inputs)])]),
        ]
        calls, graphs = compare(candidates, inputs[0].device, SECONDS)
        figures = f"{calls}; {graphs}"
        if calls.failure is not None:  # there is no memory for both: a graph, too, would leave too little
            logger.warning("val.cuda_graphs 'auto' is 'calls' for tiles of %s: %s", _shapes(inputs), figures)
            return Choice({}, CALLS, figures)
        # As fast is not enough: a graph keeps the memory of a pass.
        pays = graphs.failure is None and graphs.median < (1 - NOISE) * calls.median
        choice = Choice(self._key(inputs, autocast), GRAPHS if pays else CALLS, figures)
        logger.info("val.cuda_graphs 'auto' is %r for tiles of %s: %s", choice.name, _shapes(inputs), figures)
        choice.write()
        return choice

    def _key(self, inputs: tuple[Tensor, ...], autocast: torch.dtype | None) -> dict[str, Any]:
        """What the choice depends on; the names and shapes of the parameters are the network."""
        parameters = [[name, *parameter.shape] for name, parameter in self.network.named_parameters()]
        backends = {module.compute_backend for module in self.network.modules() if hasattr(module, "compute_backend")}
        return {
            **environment(inputs[0].device),
            "type": str(autocast),
            "inputs": _shapes(inputs),
            "backends": sorted(map(str, backends)),
            "network": hashlib.sha256(json.dumps(parameters).encode()).hexdigest(),
        }


def _shapes(inputs: tuple[Tensor, ...]) -> str:
    return ", ".join("x".join(map(str, tensor.shape)) for tensor in inputs)


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
