"""Registries of named parts, chosen by an option: networks, models, losses, datasets, fusions, spike representations.

A decorator registers a class or function under one or more names, which are compared without regard to case. Its
keyword parameters are its option keys: their annotations and defaults are the schema (`utils/utils_option.py`), so a
new part is one new file.

    @NETWORKS.register("vrt")
    class VRT(nn.Module):
        def __init__(self, *, depths: list[int], ...): ...

    NETWORKS.get("vrt")          # the class

A function that combines several parts takes their options by `takes_options_of`.

A part checks its own arguments: `faults(arguments)` yields (argument, fault). Its constructor raises all of them as one
error (`raise_faults`). The option loader calls it before anything is built, so that all faults of a file are reported
at once.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from utils.spelling import nearest
from utils.user_error import UserError

Part = TypeVar("Part", bound=Callable[..., Any])
Faults = Iterator[tuple[str, str]]
"""Pairs (argument, fault) of a part."""


class Registry:
    """Maps names to classes or functions.

    Args:
        kind: kind of the registered parts, for messages ("network").
        option: dotted option that chooses a part ("netG.net_type").
    """

    def __init__(self, kind: str, option: str) -> None:
        self.kind = kind
        self.option = option
        self._parts: dict[str, tuple[str, Callable[..., Any]]] = {}
        self._faults: dict[Callable[..., Any], Callable[[Mapping[str, Any]], Faults]] = {}

    def register(
        self, *names: str, faults: Callable[[Mapping[str, Any]], Faults] | None = None
    ) -> Callable[[Part], Part]:
        """Decorator: registers a class or function under `names`; the first is the documented one.

        Args:
            faults: yields the faults of keyword arguments; by default the static method `faults` of a class.
        """

        def decorate(part: Part) -> Part:
            for name in names:
                known = self._parts.get(name.lower())
                assert known is None or known[1] is part, f"{self.kind} {name!r} is registered twice"
                self._parts[name.lower()] = (name, part)
            found = faults or getattr(part, "faults", None)
            if found is not None:
                self._faults[part] = found
            return part

        return decorate

    def get(self, name: str) -> Callable[..., Any]:
        """The part called `name`.

        Raises:
            UserError: no part has this name; the message gives the choices and the most similar one.
        """
        if name.lower() in self._parts:
            return self._parts[name.lower()][1]
        near = nearest(name, self.names())
        hint = f" Did you mean {near!r}?" if near else ""
        raise UserError(f"{self.option}: no {self.kind} is called {name!r}.{hint} Choices: {', '.join(self.names())}.")

    def name_fault(self, name: str) -> str | None:
        """The fault of a name that is not registered; None for a registered one."""
        try:
            self.get(name)
        except UserError as error:
            return str(error).removeprefix(f"{self.option}: ")
        return None

    def faults(self, name: str, arguments: Mapping[str, Any]) -> Faults:
        """Faults that the part called `name` finds in its keyword arguments; absent arguments are not checked."""
        find = self._faults.get(self.get(name))
        if find is not None:
            yield from find(arguments)

    def names(self) -> list[str]:
        """All registered names, sorted."""
        return sorted(name for name, _ in self._parts.values())

    def parameters(self, name: str) -> dict[str, inspect.Parameter]:
        """The keyword parameters of the part called `name`, by their names."""
        return keyword_parameters(self.get(name))


def check_rules(rules: Iterable[Callable[..., Faults]], arguments: Mapping[str, Any]) -> Faults:
    """Faults found by the rules. A rule is called only if all arguments that its parameters name are given."""
    for rule in rules:
        names = inspect.signature(rule).parameters
        if names.keys() <= arguments.keys():
            yield from rule(**{name: arguments[name] for name in names})


def least_faults(arguments: Mapping[str, Any], least: float, *names: str) -> Faults:
    """Faults of the arguments called `names` that are given and below `least`."""
    for name in names:
        if arguments.get(name, least) < least:
            yield name, f"{least} or more; got {arguments[name]}"


def range_faults(arguments: Mapping[str, Any], *names: str, positive: bool) -> Faults:
    """Faults of the arguments called `names` that are given and no ranges [least, greatest].

    Args:
        positive: their numbers must be above 0, as logarithms are drawn; otherwise 0 or more.
    """
    for name in names:
        values = arguments.get(name, (1, 1))
        if len(values) != 2 or not 0 <= values[0] <= values[1] or (positive and values[0] == 0):
            limit = "above 0" if positive else "0 or more"
            yield name, f"a range is [least, greatest], {limit}; got {list(values)}"


def raise_faults(option: str, faults: Faults) -> None:
    """Raises one `UserError` with all faults, each under `option` + argument; does nothing without faults."""
    found = [f"{option}{argument}: {fault}" for argument, fault in faults]
    if found:
        raise UserError("Arguments that are not valid or do not fit together:\n- " + "\n- ".join(found) + ".")


def keyword_parameters(part: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a class or function, by their names."""
    signature = inspect.signature(part, eval_str=True)
    return {key: p for key, p in signature.parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}


def takes_options_of(*prefixed: tuple[str, Callable[..., Any]]) -> Callable[[Part], Part]:
    """Decorator of a function (*, own: ..., **options) that adds the keyword parameters of parts to its signature.

    The function is called with all parameters; those not given have their defaults.

    Args:
        prefixed: prefix and part; with the prefix "fuse_", a part's `heads` becomes `fuse_heads`. Two parts may share
            a parameter with the same annotation and default.
    """

    def decorate(function: Part) -> Part:
        parameters = keyword_parameters(function)
        for prefix, part in prefixed:
            for key, parameter in keyword_parameters(part).items():
                renamed = parameter.replace(name=prefix + key)
                known = parameters.setdefault(renamed.name, renamed)
                assert known == renamed, f"{renamed.name}: {known} and {renamed}"
        signature = inspect.Signature(list(parameters.values()))

        @functools.wraps(function)
        def complete(**options: Any) -> Any:
            bound = signature.bind(**options)
            bound.apply_defaults()
            return function(**bound.arguments)

        complete.__signature__ = signature  # type: ignore[attr-defined]
        return complete  # type: ignore[return-value]

    return decorate


def options_of(prefix: str, part: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a part, with the prefix removed from their names."""
    names = keyword_parameters(part)
    return {key: options[prefix + key] for key in names if prefix + key in options}


# One registry per kind of part; modules fill them when they are imported.
NETWORKS = Registry("network", "netG.net_type")
MODELS = Registry("model", "model")
LOSSES = Registry("loss", "train.G_lossfn_type")
DATASETS = Registry("dataset", "datasets.*.dataset_type")
FUSIONS = Registry("fusion", "netG.fuse_type")
REPRESENTATIONS = Registry("spike representation", "datasets.*.spike.representation")
