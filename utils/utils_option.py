"""Reads, completes, checks and writes the options of a run.

    opt = load_options("options/vrt/006_train_vrt_videodeblurring_gopro.json", ["train.total_iter=100"])
    opt.train.total_iter, opt.netG.arguments(), opt.experiment_dir

`docs/options.md` lists all keys. Import `data.select_dataset` and `models.select_network` first: the parts that they
register define the keys of `datasets.*` and `netG`.
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from utils.options import checks as option_checks
from utils.options import parts as option_parts
from utils.options.faults import Fault, KnownKeys, faults_of
from utils.options.flags import add_option_arguments, is_reporting_rank
from utils.options.foreign import foreign_keys
from utils.options.layers import load_layers
from utils.options.parts import Registries
from utils.options.schema import (
    DatasetOptions,
    DatasetsOptions,
    LoggerOptions,
    NetworkOptions,
    Options,
    PathOptions,
    RepresentationOptions,
    Section,
    TopOptions,
    TrainOptions,
    ValOptions,
)
from utils.options.text import Document, Keys, OptionError, dotted
from utils.user_error import UserError
from utils.utils_file import atomic_write
from utils.utils_registry import Registry

__all__ = [
    "DatasetOptions",
    "DatasetsOptions",
    "LoggerOptions",
    "NetworkOptions",
    "OptionError",
    "Options",
    "PathOptions",
    "Registries",
    "TrainOptions",
    "ValOptions",
    "add_option_arguments",
    "load_options",
    "option_changes",
    "options_to_dict",
    "write_options",
]

logger = logging.getLogger(__name__)

SectionType = TypeVar("SectionType", bound=Section)


def load_options(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    registries: Registries | None = None,
    replaced: Sequence[Keys] = (),
) -> Options:
    """Loads an option file with its bases, applies `--set` overrides, and checks everything.

    Args:
        path: JSON with `//` comments, or YAML (.yml, .yaml).
        overrides: "section.key=value" each; the value is JSON, or else text.
        registries: the registered parts; by default the project's.
        replaced: sections of which only the overrides count, for example ("datasets", "test").

    Raises:
        OptionError: all faults of the file, each with its dotted name, place and remedy.
    """
    path = Path(path)
    checker = _Checker(load_layers(path, overrides, replaced), registries or Registries())
    opt = checker.options()
    if opt is None:
        raise OptionError(path, checker.sentences())
    world_size = os.environ.get("WORLD_SIZE")
    notices = [*checker.notices(), *option_checks.unused(opt, int(world_size) if world_size else None)]
    for notice in notices if is_reporting_rank() else []:
        logger.warning("%s", notice)
    return opt


def options_to_dict(opt: Options) -> dict[str, Any]:
    """All options with their defaults, as plain JSON values; options hold no secrets."""
    return opt.model_dump(mode="json")


def write_options(opt: Options, path: str | Path) -> None:
    """Writes all options as JSON, atomically; `load_options` reads them back equal."""
    with atomic_write(path) as file:
        file.write(json.dumps(options_to_dict(opt), indent=2, ensure_ascii=False) + "\n")


def option_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Differences between two runs' options (from `options_to_dict`), as "train.total_iter: 100, now 200"."""
    old, new = dict(_flat(before, "")), dict(_flat(after, ""))
    absent = "not set"
    return [
        f"{key}: {json.dumps(old[key]) if key in old else absent}, now {json.dumps(new[key]) if key in new else absent}"
        for key in dict.fromkeys([*old, *new])
        if old.get(key, absent) != new.get(key, absent)
    ]


def _flat(options: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Dotted names and values."""
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


class _Checker:
    """Checks a merged document section by section, so that one section's fault does not hide another's.

    Attributes:
        faults: all faults found so far.
        ignored: keys without effect, by reason.
    """

    def __init__(self, document: Document, registries: Registries) -> None:
        self.document = document
        self.registries = registries
        self.known = KnownKeys(registries)
        self.faults: list[Fault] = []
        self.ignored: dict[str, list[Keys]] = {}

    def sentences(self) -> list[str]:
        """The faults with their places."""
        named = [(dotted(keys), self.document.place(keys), message) for keys, message in self.faults]
        told = [f"{name} ({place}): {message}" if place else f"{name}: {message}" for name, place, message in named]
        return [*self.document.faults, *told]

    def options(self) -> Options | None:
        """The checked options, or None if there are faults."""
        tree = dict(self.document.tree)
        raw = {name: tree.pop(name, {}) for name in ("path", "datasets", "netG", "train", "val", "logger")}
        top = self._section((), TopOptions, tree)
        path = self._section(("path",), PathOptions, raw["path"])
        val = self._section(("val",), ValOptions, raw["val"])
        log = self._section(("logger",), LoggerOptions, raw["logger"])
        train = self._train(raw["train"])
        datasets = self._datasets(raw["datasets"], top)
        net = self._network(raw["netG"], datasets, top)
        if val is not None:
            self.faults += option_checks.val_faults(val, net)
        if top is not None and self.registries.models.names():
            self.faults += option_checks.name_fault(("model",), top.model, self.registries.models)
        if self.faults or self.document.faults:
            return None
        assert top and path and val and log and train and datasets and net, "a section is missing without a fault"
        return Options(**top.model_dump(), path=path, datasets=datasets, netG=net, train=train, val=val, logger=log)

    def _section(self, keys: Keys, model: type[SectionType], raw: Any) -> SectionType | None:
        """The section as `model`, or None if it has faults."""
        raw = self._own(keys, model, raw)
        try:
            # Validate JSON text: in strict mode, pydantic converts a list to a tuple or a string to a path only then.
            return model.model_validate_json(json.dumps(raw))
        except ValidationError as error:
            self.faults += faults_of(error, keys, model, raw, self.known)
            return None

    def _own(self, keys: Keys, model: type[Section], raw: Any) -> Any:
        """A section without the keys of S-VRT's documents that have no counterpart here."""
        if not isinstance(raw, dict):
            return raw
        found = foreign_keys(keys, model.model_fields, raw)
        for key, foreign in found.items():
            if foreign.asks_for_nothing(raw[key]):
                continue
            if foreign.refused:
                self.faults.append(((*keys, key), foreign.reason))
            else:
                self.ignored.setdefault(foreign.reason, []).append((*keys, key))
        return {key: value for key, value in raw.items() if key not in found}

    def notices(self) -> list[str]:
        """Notices that are not faults; keys without effect are listed together for each reason."""
        ignored = [(reason, ", ".join(map(dotted, places))) for reason, places in self.ignored.items()]
        return [
            *dict.fromkeys(self.document.notices),
            *(f"No effect: {names} ({reason})." for reason, names in ignored),
        ]

    def _train(self, raw: Any) -> TrainOptions | None:
        if not isinstance(raw, dict):
            return self._section(("train",), TrainOptions, raw)
        raw = dict(raw)
        follows = raw.get("G_scheduler_periods") is None
        if follows:
            raw["G_scheduler_periods"] = raw.get("total_iter", TrainOptions.model_fields["total_iter"].default)
        model = self._train_model(raw)
        self._drop_other_losses(raw, model)
        train = self._section(("train",), model, raw)
        if follows:
            self.faults = [fault for fault in self.faults if fault[0][:2] != ("train", "G_scheduler_periods")]
        if train is not None:
            self.faults += option_checks.train_faults(train, self.registries)
        if model is not TrainOptions:
            name = raw.get("G_lossfn_type", TrainOptions.model_fields["G_lossfn_type"].default)
            self._ask_part(("train",), name, self.registries.losses, model, train, raw)
        return train

    def _drop_other_losses(self, raw: dict[str, Any], model: type[TrainOptions]) -> None:
        """Removes the parameters of other losses, which a base file may set, with a notice each."""
        losses = self.registries.losses
        for key in raw.keys() - model.model_fields.keys():
            owners = [name for name in losses.names() if key in losses.parameters(name)]
            if owners:
                del raw[key]
                self.document.notices.append(f"train.{key} has no effect: it belongs to the loss {', '.join(owners)}.")

    def _train_model(self, raw: dict[str, Any]) -> type[TrainOptions]:
        """`train` with the keys of its loss; without them if the loss is unknown, which is reported later."""
        lossfn_type = raw.get("G_lossfn_type", TrainOptions.model_fields["G_lossfn_type"].default)
        known = {name.lower() for name in self.registries.losses.names()}
        if not isinstance(lossfn_type, str) or lossfn_type.lower() not in known:
            return TrainOptions
        return option_parts.train_model(self.registries, lossfn_type)

    def _datasets(self, raw: Any, top: TopOptions | None) -> DatasetsOptions | None:
        if not isinstance(raw, dict):
            return self._section(("datasets",), DatasetsOptions, raw)
        sections: dict[str, DatasetOptions | None] = {}
        for phase in DatasetsOptions.model_fields:
            sections[phase] = None if raw.get(phase) is None else self._dataset(phase, raw[phase])
            section = sections[phase]
            if section is not None:
                self.faults += option_checks.dataset_faults(phase, section, top)
        unknown = {key: value for key, value in raw.items() if key not in sections}
        return DatasetsOptions(**sections) if self._section(("datasets",), DatasetsOptions, unknown) else None

    def _dataset(self, phase: str, raw: Any) -> DatasetOptions | None:
        keys: Keys = ("datasets", phase)
        dataset_type = self._part_name(keys, raw, "dataset_type", self.registries.datasets)
        if dataset_type is None:
            return None
        raw = dict(raw)
        represent: type[RepresentationOptions] | None = RepresentationOptions
        if isinstance(raw.get("spike"), dict) and "spike" in self.registries.datasets.parameters(dataset_type):
            usual = RepresentationOptions.model_fields["representation"].default
            raw["spike"] = {"representation": usual, **raw["spike"]}
            represent = self._representation((*keys, "spike"), raw["spike"])
            # If the representation is unknown, still check the rest of the section.
            raw["spike"] = self._own((*keys, "spike"), represent, raw["spike"]) if represent else {}
        model = option_parts.dataset_model(self.registries, dataset_type, represent or RepresentationOptions)
        section = self._section(keys, model, raw)
        self._ask_part(keys, dataset_type, self.registries.datasets, model, section, raw)
        return section if represent else None

    def _representation(self, keys: Keys, raw: dict[str, Any]) -> type[RepresentationOptions] | None:
        name = self._part_name(keys, raw, "representation", self.registries.representations)
        return None if name is None else option_parts.representation_model(self.registries, name)

    def _channels(self, datasets: DatasetsOptions | None, top: TopOptions | None) -> dict[str, dict[str, int]]:
        """Channels of the data sets' samples, by the network's option and by phase; without invalid sections."""
        channels: dict[str, dict[str, int]] = {"in_chans": {}, "spike_bins": {}}
        for phase, section in datasets or ():
            if section is None or top is None:
                continue
            try:
                channels["in_chans"][phase] = option_checks.input_channels(section, top.n_channels, self.registries)
                bins = option_checks.spike_bins(section, self.registries)
                channels["spike_bins"] |= {} if bins is None else {phase: bins}
            except UserError as error:
                self.faults.append((("datasets", phase, "spike"), str(error)))
        return channels

    def _network(self, raw: Any, datasets: DatasetsOptions | None, top: TopOptions | None) -> NetworkOptions | None:
        channels = self._channels(datasets, top)
        net_type = self._part_name(("netG",), raw, "net_type", self.registries.networks)
        if net_type is None:
            return None
        raw = dict(raw)
        parameters = self.registries.networks.parameters(net_type)
        if "scale" in raw and "scale" not in parameters and "upscale" in parameters:
            raw.setdefault("upscale", raw["scale"])  # its name in S-VRT's documents
        for key in channels.keys() & parameters.keys():
            if raw.get(key) is None:
                raw.pop(key, None)
                raw |= {key: next(iter(channels[key].values()))} if channels[key] else {}
            value = raw.get(key)
            self.faults += option_checks.channel_faults(channels[key], key, value if isinstance(value, int) else None)
        if datasets is not None:
            self.faults += option_checks.packing_faults(datasets, net_type, "spike_bins" in parameters, self.registries)
        model = option_parts.network_model(self.registries, net_type)
        net = self._section(("netG",), model, raw)
        self._ask_part(("netG",), net_type, self.registries.networks, model, net, raw)
        if net is not None:
            self.faults += option_checks.scale_faults(net, top)
        return net

    def _ask_part(
        self, keys: Keys, name: str, registry: Registry, model: type[Section], section: Section | None, raw: Any
    ) -> None:
        """Adds the faults that the registered part `name` finds in its arguments in a section.

        Args:
            section: None if it has faults; the part then checks the arguments without faults.
        """
        wrong = {fault[0][len(keys)] for fault in self.faults if fault[0][: len(keys)] == keys != fault[0]}
        if section is None:
            try:
                section = model.model_validate_json(json.dumps({key: raw[key] for key in raw.keys() - wrong}))
            except ValidationError:  # a required key is at fault
                return
        plain = section.model_dump()
        arguments = {key: plain[key] for key in registry.parameters(name) if key in plain and key not in wrong}
        for argument, fault in registry.faults(name, arguments):
            self.faults.append(((*keys, argument), fault))

    def _part_name(self, keys: Keys, raw: Any, key: str, registry: Any) -> str | None:
        """The name of the registered part that a section chooses, or None if the name is invalid."""
        faults: Iterator[Fault] | list[Fault]
        if not isinstance(raw, dict):
            faults = [(keys, f"expected a section {{...}} with {key}")]
        elif not isinstance(raw.get(key), str):
            faults = [((*keys, key), f"required, one of {', '.join(registry.names())}")]
        else:
            faults = option_checks.name_fault(tuple(str(k) for k in (*keys, key)), raw[key], registry)
        found = list(faults)
        self.faults += found
        return None if found else raw[key]
