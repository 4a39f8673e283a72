"""Turns pydantic's errors into sentences: the option's dotted name, the expected and the given value, a suggestion."""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from utils.options.parts import Registries, all_sections
from utils.options.schema import Options, Section
from utils.options.text import Keys, dotted
from utils.spelling import nearest
from utils.utils_cli import may_be_secret

Fault = tuple[Keys, str]
"""An option's keys, and the fault as a sentence."""

# By pydantic's type of error, the expected value; the fields in braces are those of the error's context.
EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "sequence_type": "a list",
    "dict_type": "a section {{...}}",
    "mapping_type": "a section {{...}}",
    "model_type": "a section {{...}}",
    "model_attributes_type": "a section {{...}}",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "a number below {lt}",
    "less_than_equal": "{le} or less",
    "too_short": "at least {min_length} values",
    "too_long": "at most {max_length} values",
    "string_too_short": "text that is not empty",
    "string_too_long": "text of at most {max_length} characters",
    "string_pattern_mismatch": "a name without slashes, which is neither . nor ..",
    "none_required": "null",
}


CHOOSERS = {
    "datasets.*": "dataset_type",
    "datasets.*.spike": "representation",
    "netG": "net_type",
    "train": "G_lossfn_type",
}
"""By section, the key that chooses the part whose parameters the section holds."""


class KnownKeys:
    """All option keys, of which the most similar one is suggested for an unknown key."""

    def __init__(self, registries: Registries) -> None:
        self.registries = registries

    @cached_property
    def homes(self) -> dict[str, list[tuple[str, str]]]:
        """By key, the (section, part) pairs that have it."""
        homes: dict[str, list[tuple[str, str]]] = {}
        for section, part, model in all_sections(self.registries):
            for key in model.model_fields:
                homes.setdefault(key, []).append((section, part))
        return homes

    def explain_unknown(self, keys: Keys, choices: Iterable[str]) -> str:
        """Suggests a replacement for the unknown last one of `keys`, in a section with the keys `choices`."""
        key = str(keys[-1])
        section = ".".join("*" if i == 1 and keys[0] == "datasets" else str(k) for i, k in enumerate(keys[:-1]))
        choices = sorted(choices)
        if key in self.homes:
            homes = self.homes[key]
            parts = [part for home, part in homes if home == section]
            if parts:
                return f"not an option of this {CHOOSERS[section]}, but of {', '.join(parts)}"
            places = dict.fromkeys(f"{home}.{key}" if home else f"{key}, outside all sections" for home, _ in homes)
            return f"unknown here; did you mean {' or '.join(places)}?"
        near = nearest(key, choices)
        if near:
            return f"unknown option; did you mean {near!r}?"
        if len(choices) <= 16:
            return f"unknown option; choices: {', '.join(choices)}"
        return "unknown option; docs/options.md lists all"


def faults_of(error: ValidationError, keys: Keys, model: type[Section], tree: Any, known: KnownKeys) -> list[Fault]:
    """The faults that pydantic found in the section `keys`, whose raw values are `tree`."""
    grouped: dict[Keys, list[ErrorDetails]] = {}
    for detail in error.errors():
        grouped.setdefault(_written_keys(detail, tree), []).append(detail)
    # For a fault in an item of a list, a union also reports its other branch's fault of the list itself; drop that.
    inner = [local for local in grouped if not any(local == other[: len(local)] for other in grouped if other != local)]
    return [((*keys, *local), _sentence((*keys, *local), grouped[local], model, known)) for local in inner]


def _written_keys(detail: ErrorDetails, tree: Any) -> Keys:
    """The error's keys in the file: pydantic's location without the names of union branches."""
    keys: list[str | int] = []
    for part in detail["loc"]:
        inside = part in tree if isinstance(tree, Mapping) else isinstance(part, int) and isinstance(tree, list)
        if inside:
            tree = tree[part]
        if inside or detail["type"] == "missing":
            keys.append(part)
    return tuple(keys)


def _sentence(keys: Keys, details: Sequence[ErrorDetails], model: type[Section], known: KnownKeys) -> str:
    first = details[0]
    if first["type"] == "extra_forbidden":
        fields = Options.model_fields if len(keys) == 1 else _fields_at(model, first["loc"][:-1])
        return known.explain_unknown(keys, fields)
    if first["type"] == "missing":
        return "required, but missing"
    given = first["input"]
    expected = " or ".join(dict.fromkeys(_expectation(detail) for detail in details))
    sentence = f"expected {expected}, got {_shown(keys, given)}"
    if first["type"] == "literal_error" and isinstance(given, str):
        meant = nearest(given, [choice.strip("'") for choice in str(first["ctx"]["expected"]).split(" or ")])
        return sentence + (f"; did you mean {meant!r}?" if meant else "")
    types = {detail["type"] for detail in details}
    return sentence + (_hint(given, types) if isinstance(given, str) and "string_type" not in types else "")


def _fields_at(model: type[Section], location: Sequence[str | int]) -> Iterable[str]:
    """The keys of the section that `location` leads to inside `model`."""
    for part in location:
        field = model.model_fields.get(str(part))
        candidates = getattr(field.annotation, "__args__", (field.annotation,)) if field else ()
        inner = [kind for kind in candidates if isinstance(kind, type) and issubclass(kind, Section)]
        if not inner:
            return ()
        model = inner[0]
    return model.model_fields


def _expectation(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    if detail["type"] == "literal_error":
        return f"one of {context['expected'].replace(' or ', ', ')}"
    if detail["type"] in EXPECTED:
        return EXPECTED[detail["type"]].format(**context)
    return f"something else ({detail['msg']})"


def _shown(keys: Keys, value: Any) -> str:
    """A value as JSON, shortened; a value that may be an account's key is not shown."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    if may_be_secret(dotted(keys), text):
        return "a value that is not shown here, as it may be a secret"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _hint(given: str, types: set[str]) -> str:
    """Suggests how to write a value that was given as text."""
    try:
        json.loads(given)
        return "; write it without quotes"
    except ValueError:
        if "bool_type" in types and given.lower() in ("true", "false"):
            return f"; write {given.lower()}"
        if types & {"list_type", "tuple_type", "sequence_type"} and not given.startswith("["):
            return f"; write {json.dumps([given], ensure_ascii=False)}"
        return "; null has no quotes" if given.lower() in ("none", "null") else ""
