"""Builds the schema of sections with a registered part, whose keyword-only parameters are keys of the section.

A constructor `VRT(*, depths: list[int] = [...])` defines the option `netG.depths` of that type and default, so a new
network, data set or representation needs no change here. Parameters of a data set that are filled from other options
(`seed`, `scale`, `n_channels`) are not keys of its section.
"""

import inspect
import json
import types
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin

from pydantic import TypeAdapter, create_model

from utils.options.schema import (
    DatasetOptions,
    LoggerOptions,
    NetworkOptions,
    PartOptions,
    PathOptions,
    RepresentationOptions,
    Section,
    TopOptions,
    TrainOptions,
    ValOptions,
    Whole,
)
from utils.utils_registry import DATASETS, LOSSES, MODELS, NETWORKS, REPRESENTATIONS, Registry

INJECTED = frozenset({"seed", "scale", "n_channels"})
"""Parameters of data sets that `data/select_dataset.py` fills from other sections."""

SectionType = TypeVar("SectionType", bound=Section)


@dataclass(frozen=True)
class Registries:
    """The registries of all parts; tests pass their own."""

    networks: Registry = NETWORKS
    models: Registry = MODELS
    losses: Registry = LOSSES
    datasets: Registry = DATASETS
    representations: Registry = REPRESENTATIONS


def network_model(registries: Registries, net_type: str) -> type[NetworkOptions]:
    """The section `netG` for a network."""
    return _part_model(NetworkOptions, registries.networks, net_type)


def representation_model(registries: Registries, representation: str) -> type[RepresentationOptions]:
    """The section `datasets.*.spike` for a spike representation."""
    return _part_model(RepresentationOptions, registries.representations, representation)


def dataset_model(
    registries: Registries, dataset_type: str, spike: type[RepresentationOptions] = RepresentationOptions
) -> type[DatasetOptions]:
    """The section `datasets.*` for a data set, with `spike` as its section `spike`."""
    return _part_model(DatasetOptions, registries.datasets, dataset_type, spike)


def train_model(registries: Registries, lossfn_type: str) -> type[TrainOptions]:
    """The section `train` with the parameters of a loss."""
    return _part_model(TrainOptions, registries.losses, lossfn_type)


def all_sections(registries: Registries) -> list[tuple[str, str, type[Section]]]:
    """Every section for every registered part: (dotted name, name of the part or "", schema)."""
    datasets, networks = _one_name_each(registries.datasets), _one_name_each(registries.networks)
    representations, losses = _one_name_each(registries.representations), _one_name_each(registries.losses)
    return [
        ("", "", TopOptions),
        ("path", "", PathOptions),
        *(("datasets.*", name, dataset_model(registries, name)) for name in datasets),
        *(("datasets.*.spike", name, representation_model(registries, name)) for name in representations),
        *(("netG", name, network_model(registries, name)) for name in networks),
        ("train", "", TrainOptions),
        *(("train", name, train_model(registries, name)) for name in losses),
        ("val", "", ValOptions),
        ("logger", "", LoggerOptions),
    ]


def _one_name_each(registry: Registry) -> list[str]:
    """One name of every part: its class's name if registered, else the first."""
    names: dict[Any, str] = {}
    for name in registry.names():
        part = registry.get(name)
        names[part] = name if name == part.__name__ else names.get(part, name)
    return sorted(names.values())


@cache  # pydantic's models compare equal only if they have the same class
def _part_model(
    base: type[SectionType], registry: Registry, name: str, spike: type[RepresentationOptions] | None = None
) -> type[SectionType]:
    """`base` with one field for each keyword-only parameter of the part called `name`."""
    fields: dict[str, Any] = {}
    names: list[str] = []
    for key, parameter in registry.parameters(name).items():
        if base is DatasetOptions and key in INJECTED:
            continue
        names.append(key)
        if key in base.model_fields:
            continue
        assert parameter.annotation is not inspect.Parameter.empty, f"{registry.kind} {name}: {key} has no annotation"
        kind, default = option_type(parameter.annotation), parameter.default
        if spike is not None and key == "spike":
            kind = spike | None if type(None) in get_args(parameter.annotation) else spike
        required = default is inspect.Parameter.empty
        fields[key] = (kind, ... if required else _same_as_read(kind, default))
    model = cast(type[SectionType], create_model(f"{base.__name__}_{name}", __base__=base, **fields))
    if issubclass(model, PartOptions):
        model.argument_names = tuple(names)
    return model


def _same_as_read(kind: Any, default: Any) -> Any:
    """The default in the type that a file's value has: a tuple default of a list option becomes a list."""
    return TypeAdapter(kind, config={"strict": True}).validate_json(json.dumps(default))


def option_type(annotation: Any) -> Any:
    """A parameter's annotation in which every int also accepts `3e5`."""
    if annotation is int:
        return Whole
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (None, Literal) or not arguments:
        return annotation
    inner = tuple(argument if argument is Ellipsis else option_type(argument) for argument in arguments)
    if origin in (Union, types.UnionType):
        return Union[inner]  # noqa: UP007  (built from a tuple)
    if origin is Annotated:
        return Annotated[(inner[0], *arguments[1:])]
    return origin[inner]
