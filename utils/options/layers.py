"""Layers of options: aliases resolved, `base` files and `--set` merged into one tree.

Precedence: defaults of the schema < base < file < `--set`. Sections merge key by key; lists and plain values replace.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from utils.options.text import Document, Keys, OptionError, dotted, parse_overrides, read_document

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
    "spike_channels": "spike.bins",
}
LOGGER_ALIASES = {
    "use_tensorboard": "tensorboard",
    "use_wandb": "wandb",
    "wandb_project": "wandb_project",
    "wandb_name": "wandb_name",
    "wandb_entity": "wandb_entity",
    "wandb_mode": "wandb_mode",
}
SECRETS = ("wandb_api_key",)


def load_layers(path: Path, overrides: Sequence[str] = ()) -> Document:
    """The tree of an option file over its bases and under the command line's overrides, with canonical key names.

    Raises:
        OptionError: a file that is missing or no JSON/YAML, bases that go in circles, a key and its alias both given.
    """
    document = _read_with_bases(path, ())
    _merge(document, _canonical(parse_overrides(overrides), "--set"))
    return document


def _read_with_bases(path: Path, readers: tuple[Path, ...]) -> Document:
    """A file merged over its `base`; `readers` are the files that led here."""
    resolved = path.resolve()
    if resolved in readers:
        circle = [*readers[readers.index(resolved) :], resolved]
        raise OptionError(path, [f"base goes in a circle: {' -> '.join(p.name for p in circle)}"])
    document = _canonical(read_document(path), path)
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
    """Puts `over` on top of `under`, in place."""
    _merge_sections(under.tree, over.tree)
    under.places.update(over.places)
    under.notices += over.notices


def _merge_sections(under: dict[str, Any], over: dict[str, Any]) -> None:
    for key, value in over.items():
        known = under.get(key)
        if isinstance(known, dict) and isinstance(value, dict) and not _chooses_another(known, value):
            _merge_sections(known, value)
        else:
            under[key] = value


def _chooses_another(known: dict[str, Any], value: dict[str, Any]) -> bool:
    """Whether `value` names another spike representation: the parameters of the one below don't belong to it."""
    return "representation" in value and value["representation"] != known.get("representation")


def _canonical(document: Document, source: str | Path) -> Document:
    """Renames aliases to the keys of the schema and drops secrets, in place."""
    faults: list[str] = []
    for old, new in list(_renamings(document.tree)):
        fault = _move(document, old, new)
        faults += [fault] if fault else []
    if faults:
        raise OptionError(source, faults)
    for parents in [(), *((key,) for key in document.tree)]:
        section = _find(document.tree, parents)
        for secret in SECRETS:
            if isinstance(section, dict) and section.pop(secret, None) is not None:
                keys = (*parents, secret)
                document.notices.append(
                    f"{dotted(keys)} ({document.place(keys)}) is not used and not stored: take it out of the file, put "
                    "it in the environment as WANDB_API_KEY, and revoke it if others could read the file."
                )
    return document


def _renamings(tree: dict[str, Any]) -> Iterable[tuple[Keys, Keys]]:
    """Pairs of (where a key is, where it belongs) for all aliases in use, in the order in which to move them."""
    if "logging" in tree:
        yield ("logging",), ("logger",)
    for parents in [("logging",), ("logger",), ("train",), ()]:
        section = _find(tree, parents)
        for old, new in LOGGER_ALIASES.items():
            # Keys of a `logging` section are in `logger` by the time they are moved.
            here = ("logger",) if parents == ("logging",) else parents
            if isinstance(section, dict) and old in section and (*here, old) != ("logger", new):
                yield (*here, old), ("logger", new)
    datasets = tree.get("datasets")
    for phase, section in datasets.items() if isinstance(datasets, dict) else []:
        for old, new in DATASET_ALIASES.items():
            if isinstance(section, dict) and old in section:
                yield ("datasets", phase, old), ("datasets", phase, *new.split("."))


def _find(tree: Any, keys: Keys) -> Any:
    """The value at `keys`, or None."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _move(document: Document, old: Keys, new: Keys) -> str | None:
    """Moves a value (with what is under it) to another key; a fault where that is taken already."""
    section = document.tree
    for key in new[:-1]:
        section = section.setdefault(str(key), {})
        if not isinstance(section, dict):
            return f"{dotted(old)} ({document.place(old)}) sets {dotted(new)}, but {key} is no section"
    if new[-1] in section:
        places = f"{document.place(old)} and {document.place(new)}"
        return f"{dotted(old)} and {dotted(new)} are the same option and both given ({places}); keep {dotted(new)}"
    section[str(new[-1])] = _find(document.tree, old[:-1]).pop(old[-1])
    for keys in [keys for keys in document.places if keys[: len(old)] == old]:
        document.places[(*new, *keys[len(old) :])] = document.places.pop(keys)
    return None
