"""Resolves aliases, and merges `base` files, the option file and `--set` into one tree.

Precedence: defaults of the schema < base < file < `--set`. Sections merge key by key; lists and plain values replace.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from utils.options.foreign import complete, translate
from utils.options.text import Document, Keys, OptionError, dotted, parse_overrides, read_document

MOST_BASES = 50  # far more than a recipe needs, and below Python's recursion limit
# Names in KAIR's and S-VRT's files, and our keys.
DATASET_ALIASES = {
    "dataroot_GT": "dataroot_gt",
    "dataroot_H": "dataroot_gt",
    "dataroot_LQ": "dataroot_lq",
    "dataroot_L": "dataroot_lq",
    "num_frames": "num_frame",
    "patch_size": "gt_size",
    "batch_size": "dataloader_batch_size",
    "num_worker": "dataloader_num_workers",
    "num_workers": "dataloader_num_workers",
    "use_shuffle": "dataloader_shuffle",
    "cache_root": "spike_cache",
    "spike_channels": "spike.bins",
    "S": "spike.bins",
}
NETWORK_ALIASES = {"attention_backend": "compute_backend"}  # our own earlier name
LOGGER_ALIASES = {
    "use_tensorboard": "tensorboard",
    "use_wandb": "wandb",
    "wandb_project": "wandb_project",
    "wandb_name": "wandb_name",
    "wandb_entity": "wandb_entity",
    "wandb_mode": "wandb_mode",
}
SECRETS = {
    "wandb_api_key": "put it in the environment as WANDB_API_KEY",
    "swanlab_api_key": "SwanLab is not used here",
    "logfire_token": "Logfire is not used here",
}
"""Keys that are never stored, and the remedy for each."""


def load_layers(path: Path, overrides: Sequence[str] = (), replaced: Sequence[Keys] = ()) -> Document:
    """An option file merged with its bases and the command line's overrides, with canonical key names.

    Args:
        replaced: sections of which only the overrides count.

    Raises:
        OptionError: a file is missing or no JSON/YAML, or bases form a circle. Other faults (a key given twice, a key
            and its alias with different values) are in the document's `faults`.
    """
    document = _read_with_bases(path, ())
    for keys in replaced:
        section = document.find(keys[:-1])
        if isinstance(section, dict):
            section.pop(keys[-1], None)
    _merge(document, _canonical(parse_overrides(overrides)))
    complete(document)
    return document


def _read_with_bases(path: Path, readers: tuple[Path, ...]) -> Document:
    """A file merged over its `base`; `readers` are the files whose chain of bases led to it."""
    resolved = Path(os.path.realpath(path))
    if resolved in readers:
        circle = [*readers[readers.index(resolved) :], resolved]
        raise OptionError(path, [f"base goes in a circle: {' -> '.join(p.name for p in circle)}"])
    if len(readers) > MOST_BASES:
        raise OptionError(readers[0], [f"a chain of more than {MOST_BASES} base files"])
    document = _canonical(read_document(path))
    if "base" not in document.tree:
        return document
    base = document.tree.pop("base")
    place = document.places[("base",)]
    if not isinstance(base, str):
        raise OptionError(path, [f"base ({place}): expected the name of an option file, relative to this one"])
    base_path = path.parent / base
    if not base_path.is_file():
        raise OptionError(path, [f"base ({place}): there is no file {base_path}"])
    merged = _read_with_bases(base_path, (*readers, resolved))
    _merge(merged, document)
    return merged


def _merge(under: Document, over: Document) -> None:
    """Merges `over` into `under`, in place; values of `over` take precedence."""
    _merge_sections(under.tree, over.tree)
    under.places.update(over.places)
    under.notices += over.notices
    under.faults += over.faults


def _merge_sections(under: dict[str, Any], over: dict[str, Any]) -> None:
    for key, value in over.items():
        known = under.get(key)
        if isinstance(known, dict) and isinstance(value, dict) and not _chooses_another(known, value):
            _merge_sections(known, value)
        else:
            under[key] = value


def _chooses_another(known: dict[str, Any], value: dict[str, Any]) -> bool:
    """Whether `value` names another spike representation than `known`, whose parameters are then dropped."""
    return "representation" in value and value["representation"] != known.get("representation")


def _canonical(document: Document) -> Document:
    """Renames aliases to the keys of the schema, translates foreign keys and drops secrets, in place."""
    for old, new in list(_renamings(document)):
        document.move(old, new)
    for parents in [(), *((key,) for key in document.tree)]:
        section = document.find(parents)
        for secret, remedy in SECRETS.items():
            if isinstance(section, dict) and section.pop(secret, None) is not None:
                keys = (*parents, secret)
                document.notices.append(
                    f"{dotted(keys)} ({document.place(keys)}) is not used and not stored: take it out of the file "
                    f"({remedy}), and revoke it if others could read the file."
                )
    translate(document)
    return document


def _renamings(document: Document) -> Iterator[tuple[Keys, Keys]]:
    """Pairs (old keys, new keys) for all aliases in use, in the order of moving."""
    if "logging" in document.tree:
        yield ("logging",), ("logger",)
    for parents in [("logging",), ("logger",), ("train",), ()]:
        section = document.find(parents)
        for old, new in LOGGER_ALIASES.items():
            # `logging` was renamed to `logger` above, before its keys are moved.
            here = ("logger",) if parents == ("logging",) else parents
            if isinstance(section, dict) and old in section and (*here, old) != ("logger", new):
                yield (*here, old), ("logger", new)
    network = document.tree.get("netG")
    for old, new in NETWORK_ALIASES.items():
        if isinstance(network, dict) and old in network:
            yield ("netG", old), ("netG", new)
    datasets = document.tree.get("datasets")
    for phase, section in datasets.items() if isinstance(datasets, dict) else []:
        for old, new in DATASET_ALIASES.items():
            if isinstance(section, dict) and old in section:
                yield ("datasets", phase, old), ("datasets", phase, *new.split("."))
