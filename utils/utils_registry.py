"""Named parts, chosen by an option: networks, models, losses, datasets, spike representations.

A part registers itself by decorator under one or more names; names are compared without regard to case.
The keyword parameters of what is registered are the option keys that choose and configure it: their
annotations and defaults are the schema (`utils/utils_option.py`), so a new part is one new file.

    @NETWORKS.register("vrt")
    class VRT(nn.Module):
        def __init__(self, *, depths: list[int], ...): ...

    NETWORKS.get("vrt")          # the class
"""

import difflib
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

Part = TypeVar("Part", bound=Callable[..., Any])


class Registry:
    """Maps names to classes or functions.

    Args:
        kind: what is registered, for messages ("network").
        option: the dotted option that chooses one ("netG.net_type").
    """

    def __init__(self, kind: str, option: str) -> None:
        self.kind = kind
        self.option = option
        self._parts: dict[str, tuple[str, Callable[..., Any]]] = {}

    def register(self, *names: str) -> Callable[[Part], Part]:
        """Decorator: registers a class or function under `names`; the first is the documented one."""

        def decorate(part: Part) -> Part:
            for name in names:
                known = self._parts.get(name.lower())
                assert known is None or known[1] is part, f"{self.kind} {name!r} is registered twice"
                self._parts[name.lower()] = (name, part)
            return part

        return decorate

    def get(self, name: str) -> Callable[..., Any]:
        """The part called `name`.

        Raises:
            ValueError: nothing has this name; the message lists the choices and the nearest one.
        """
        if name.lower() in self._parts:
            return self._parts[name.lower()][1]
        near = difflib.get_close_matches(name.lower(), self._parts, n=1)
        hint = f" Did you mean {self._parts[near[0]][0]!r}?" if near else ""
        raise ValueError(f"{self.option}: no {self.kind} is called {name!r}.{hint} Choices: {', '.join(self.names())}.")

    def names(self) -> list[str]:
        """All registered names, sorted."""
        return sorted(name for name, _ in self._parts.values())

    def parameters(self, name: str) -> dict[str, inspect.Parameter]:
        """The keyword parameters of the part called `name`, by their names."""
        signature = inspect.signature(self.get(name), eval_str=True)
        return {key: p for key, p in signature.parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}


NETWORKS = Registry("network", "netG.net_type")
MODELS = Registry("model", "model")
LOSSES = Registry("loss", "train.G_lossfn_type")
DATASETS = Registry("dataset", "datasets.*.dataset_type")
REPRESENTATIONS = Registry("spike representation", "datasets.*.spike.representation")
