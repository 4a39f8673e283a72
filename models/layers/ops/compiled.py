"""Blocks that `train.compile` compiles: their pass with gradients, as a function of their own."""

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
    """A block whose pass with gradients may be compiled. Without gradients it runs in chunks, in loops, as it is."""

    def __init__(self) -> None:
        super().__init__()
        self._compile: Callable[..., Any] | None = None
        self._compiled: dict[Callable[..., Tensor], Callable[..., Tensor]] = {}

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """From now on the pass with gradients is compiled, when it runs first; arguments as of `torch.compile`."""
        self._compile = partial(torch.compile, *args, **kwargs)

    def run_as_written(self) -> None:
        """Undoes `compile`."""
        self._compile = None

    @property
    def is_compiled(self) -> bool:
        """Whether `compile` was called."""
        return self._compile is not None

    def compiled(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """`function`, compiled if `compile` was called; blocks that are alike share a graph where it is a plain one."""
        if self._compile is None:
            return function
        if function not in self._compiled:
            self._compiled[function] = self._compile(function)
        return self._compiled[function]
