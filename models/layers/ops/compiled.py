"""Base class of the blocks that `train.compile` compiles."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

# Blocks that differ in size, window or shift are a graph each; torch gives up after 8 by default.
MAX_GRAPHS = 128


def allow_graphs() -> None:
    """Lets torch compile `MAX_GRAPHS` graphs of a function, in the whole process.

    By the configuration: `torch.compile` has had an argument for it only since 2.14.
    """
    torch._dynamo.config.recompile_limit = max(MAX_GRAPHS, torch._dynamo.config.recompile_limit)


class CompiledBlock(nn.Module):
    """A block whose pass with gradients may be compiled. The pass without gradients loops over chunks, uncompiled."""

    def __init__(self) -> None:
        super().__init__()
        self._compile: Callable[..., Any] | None = None
        self._compiled: dict[Callable[..., Tensor], Callable[..., Tensor]] = {}

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Makes the next pass with gradients compile itself; arguments as of `torch.compile`."""
        self._compile = partial(torch.compile, *args, **kwargs)

    def run_as_written(self) -> None:
        """Undoes `compile`."""
        self._compile = None

    @property
    def is_compiled(self) -> bool:
        """Whether `compile` was called."""
        return self._compile is not None

    def compiled(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """`function`, compiled if `compile` was called. Equal blocks share a graph if it is a module-level function."""
        if self._compile is None:
            return function
        if function not in self._compiled:
            self._compiled[function] = self._compile(function)
        return self._compiled[function]
