"""Parses option files, JSON with `//` comments or YAML, into nested dictionaries with the line of each key.

Comments start with `//` outside strings only, so that URLs are intact. A leading or trailing comma of a list or section
is accepted, as it remains when the first or last line is commented out. YAML follows version 1.2 (`4e-4` is a number,
`no` is text), so that both formats mean the same.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from utils.user_error import UserError
from utils.utils_cli import may_be_secret, without_secrets
from utils.utils_file import read_text

# Limits far above option files, which have a few thousand characters and five levels.
MOST_CHARACTERS = 300_000  # so that a wrong file, such as data, is refused at once
MOST_LEVELS = 50  # below the recursion limits of json and yaml
MOST_VALUES = 100_000  # YAML's aliases can multiply a short text to billions of values
TOO_DEEP = f"nested deeper than {MOST_LEVELS} levels"  # message of all three readers

Keys = tuple[str | int, ...]
"""Path of a value in an option tree: section names, keys, list indices."""


class OptionError(UserError):
    """An invalid option file; the message lists every fault found.

    Attributes:
        faults: one line for each fault.
    """

    def __init__(self, source: str | Path, faults: Sequence[str]) -> None:
        self.faults = list(faults)
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        super().__init__("\n".join([f"{source}: {count} in the options", *(f"  - {fault}" for fault in self.faults)]))
        self._arguments = (source, self.faults)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments  # picklable, as rank 0 sends its error to the other ranks


@dataclass
class Document:
    """A parsed option file, or the command line's overrides.

    Attributes:
        tree: the options as nested dictionaries.
        places: place ("file:line") of each key, for messages.
        notices: notices for the user that are not faults.
        faults: faults found so far, with their places; checking goes on after a fault.
    """

    tree: dict[str, Any] = field(default_factory=dict)
    places: dict[Keys, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def place(self, keys: Keys) -> str:
        """Place of `keys`, or of the nearest section above it that has one; "" if there is none."""
        while keys and keys not in self.places:
            keys = keys[:-1]
        return self.places.get(keys, "")

    def find(self, keys: Keys) -> Any:
        """The value at `keys`, or None."""
        value: Any = self.tree
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def put(self, keys: Keys, value: Any, because: Keys) -> None:
        """Sets a value that follows from the key `because`, and gives it that key's place."""
        section = self.tree
        for key in keys[:-1]:
            section = section.setdefault(str(key), {})
        section[str(keys[-1])] = value
        self.places[keys] = self.place(because)

    def pop(self, keys: Keys) -> Any:
        """Removes an existing value from its section."""
        return self.find(keys[:-1]).pop(keys[-1])

    def move(self, old: Keys, new: Keys) -> None:
        """Moves a value or section to another key; a fault if that key has another value already."""
        section = self.tree
        for key in new[:-1]:
            section = section.setdefault(str(key), {})
            if not isinstance(section, dict):
                self.faults.append(f"{dotted(old)} ({self.place(old)}) sets {dotted(new)}, but {key} is no section")
                return
        value = self.pop(old)
        if section.get(str(new[-1]), value) != value:
            places = f"{self.place(old)} and {self.place(new)}"
            self.faults.append(
                f"{dotted(old)} and {dotted(new)} are the same option and both given ({places}); keep {dotted(new)}"
            )
            return
        section[str(new[-1])] = value
        for keys in [keys for keys in self.places if keys[: len(old)] == old]:
            self.places[(*new, *keys[len(old) :])] = self.places.pop(keys)

    def check(self, source: str | Path) -> None:
        """Raises the faults, if any.

        Raises:
            OptionError: there are faults.
        """
        if self.faults:
            raise OptionError(source, self.faults)


def dotted(keys: Keys) -> str:
    """`netG.depths[2]` for ("netG", "depths", 2)."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).lstrip(".")


def read_document(path: Path) -> Document:
    """Reads an option file: YAML if its name ends in .yml or .yaml, else JSON.

    Raises:
        OptionError: no such file, not text, or a syntax error (with line and column). A key given twice is a fault of
            the document; its first value is kept.
    """
    if not path.exists():
        near = sorted(p.name for p in path.parent.glob("*") if p.suffix in {".json", ".yml", ".yaml"})
        hint = f"; {path.parent} has {', '.join(near)}" if near else ""
        raise OptionError(path, [f"there is no such file{hint}"])
    try:
        text = read_text(path)
    except UserError as error:
        raise OptionError(path, [str(error)]) from error
    if len(text) > MOST_CHARACTERS:
        raise OptionError(path, [f"{len(text)} characters, more than the {MOST_CHARACTERS} of an option file"])
    return parse_yaml(text, path) if path.suffix in {".yml", ".yaml"} else parse_json(text, path)


def parse_json(text: str, name: str | Path) -> Document:
    """Parses JSON with `//` comments; `name` is the file's name in messages.

    Raises:
        OptionError: a syntax error, with line and column. Keys given twice are faults of the document.
    """
    return _JsonReader(text, name).document()


def parse_overrides(overrides: Sequence[str]) -> Document:
    """Parses `a.b=value` of the command line's `--set`: a value that isn't JSON is text.

    Raises:
        OptionError: no `=`, an empty key, or a section that is also given a plain value.
    """
    document = Document()
    faults = []
    for override in overrides:
        name, equals, text = override.partition("=")
        keys = tuple(name.strip().split("."))
        if not equals or not all(keys):
            faults.append(f"{_short(override)}: write section.key=value, for instance train.total_iter=100")
            continue
        if len(keys) > MOST_LEVELS:
            faults.append(f"{_short(override)}: {TOO_DEEP}")
            continue
        section = document.tree
        for key in keys[:-1]:
            section = section.setdefault(key, {})
            if not isinstance(section, dict):
                faults.append(f"{without_secrets([override])[0]}: {key!r} was given a plain value by another --set")
                break
        else:
            try:
                section[keys[-1]] = _plain_value(text.strip())
            except RecursionError:
                faults.append(f"{_short(override)}: {TOO_DEEP}")
            document.places[keys] = "--set"
    if faults:
        raise OptionError("--set", faults)
    return document


def _short(text: str) -> str:
    """A text, cut for a message."""
    return text if len(text) <= 80 else f"{text[:80]}..."


def _plain_value(text: str) -> Any:
    """The value of `text` as JSON, or the text itself if it is not JSON.

    Raises:
        RecursionError: it is nested deeper than `MOST_LEVELS`.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except ValueError:
        return text
    _check_depth(value, MOST_LEVELS)
    return value


def _check_depth(value: Any, levels: int) -> None:
    """Raises RecursionError if a value is nested deeper than `levels`."""
    if levels == 0:
        raise RecursionError(TOO_DEEP)
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(item, levels - 1)


def _refuse_constant(text: str) -> NoReturn:
    raise UserError(f"{text} is no JSON")


class _JsonReader:
    """Recursive-descent parser that records the line of every key, which Python's json module does not."""

    TOKEN = re.compile(
        r"""(?P<blank>[ \t\r\n]+|//[^\n]*)
        | (?P<mark>[{}\[\]:,])
        | (?P<string>"(?:[^"\\\x00-\x1f]|\\.)*")
        | (?P<word>[^\s{}\[\]:,"/]+)""",
        re.VERBOSE,
    )
    HINTS = {"True": "true", "False": "false", "None": "null", "TRUE": "true", "FALSE": "false", "nan": "null"}  # noqa: RUF012

    def __init__(self, text: str, name: str | Path) -> None:
        self.text = text
        self.name = name
        self.places: dict[Keys, str] = {}
        self.faults: list[str] = []
        self.tokens: list[tuple[str, str, int]] = []
        self.index = 0

    def document(self) -> Document:
        """The whole file, which must be one section."""
        self._split()
        if self.tokens[0][1] != "{":
            self._fail("an option file starts with '{'")
        tree = self._value(())
        if self.tokens[self.index][0] != "end":
            self._fail("nothing may follow the closing '}'")
        return Document(tree, self.places, faults=self.faults)

    def _split(self) -> None:
        position = 0
        while position < len(self.text):
            match = self.TOKEN.match(self.text, position)
            if match is None:
                self.tokens.append(("bad", self.text[position], position))
                break
            if match.lastgroup != "blank":
                self.tokens.append((str(match.lastgroup), match.group(), position))
            position = match.end()
        self.tokens.append(("end", "", len(self.text)))

    def _position(self, position: int) -> str:
        line = self.text.count("\n", 0, position) + 1
        return f"{self.name}:{line}:{position - self.text.rfind(chr(10), 0, position)}"

    def _fail(self, message: str) -> NoReturn:
        """Reports a syntax error at the current token."""
        kind, text, position = self.tokens[self.index]
        if kind == "bad" and text == '"':
            message = 'this text has no closing " on its line (or a backslash that JSON does not know)'
        elif kind == "bad":
            message = "a lone '/'; comments start with //"
        elif kind == "end":
            message = "the file ends too early; a closing '}' or ']' is missing"
        raise OptionError(self.name, [*self.faults, f"{self._position(position)}: {message}"])

    def _accept(self, mark: str) -> bool:
        accepted = self.tokens[self.index][:2] == ("mark", mark)
        self.index += accepted
        return accepted

    def _value(self, keys: Keys) -> Any:
        kind, text, _ = self.tokens[self.index]
        if kind in {"string", "word"}:
            value = self._scalar(kind, text)
            self.index += 1
            return value
        if len(keys) > MOST_LEVELS:
            self._fail(TOO_DEEP)
        if self._accept("{"):
            section: dict[str, Any] = {}
            self._items("}", lambda: self._member(section, keys))
            return section
        if self._accept("["):
            values: list[Any] = []
            self._items("]", lambda: values.append(self._value((*keys, len(values)))))
            return values
        self._fail(f"a value is missing before {text!r}")

    def _scalar(self, kind: str, text: str) -> Any:
        try:
            return json.loads(text, parse_constant=_refuse_constant)
        except ValueError:
            if kind == "string":
                self._fail(f"{_short(text)} has a backslash that JSON does not know; write \\\\ for one")
            line = self.text[: self.tokens[self.index][2]].rpartition("\n")[2]
            if may_be_secret(line, text):
                self._fail('this value needs double quotes: "..."')
            meant = self.HINTS.get(text)
            hint = f"write {meant}" if meant else f'text needs double quotes: "{_short(text.strip(chr(39)))}"'
            self._fail(f"{_short(text)} is neither a number nor true, false or null; {hint}")

    def _items(self, closing: str, read_one: Callable[[], None]) -> None:
        """Comma-separated items up to `closing`; accepts a leading and a trailing comma."""
        self._accept(",")
        while not self._accept(closing):
            read_one()
            if self._accept(closing):
                return
            if not self._accept(","):
                self._fail(f"expected ',' or '{closing}' before {self.tokens[self.index][1]}")

    def _member(self, section: dict[str, Any], parents: Keys) -> None:
        kind, text, position = self.tokens[self.index]
        if kind != "string":
            self._fail(f"expected a key in double quotes, got {_short(text)}")
        key = self._scalar(kind, text)
        self.index += 1
        if not self._accept(":"):
            self._fail(f"expected ':' after the key \"{key}\"")
        keys = (*parents, key)
        place = self._position(position).rpartition(":")[0]
        value = self._value(keys)
        if key in section:
            self.faults.append(_twice(keys, self.places[keys], place))
            return
        section[key] = value
        self.places[keys] = place


def _twice(keys: Keys, first: str, second: str) -> str:
    return f"{second}: {dotted(keys)} was given already at {first}; keep one of the two"


class _CoreLoader(yaml.SafeLoader):
    """Reads plain scalars by YAML 1.2's core schema; by 1.1, `4e-4` would be text and `no` false."""

    yaml_implicit_resolvers = {}  # noqa: RUF012

    def fetch_flow_collection_start(self, TokenClass: type) -> None:
        """Limits the levels, as the scanner's time grows with their square."""
        if self.flow_level > MOST_LEVELS:
            raise yaml.YAMLError(TOO_DEEP)
        super().fetch_flow_collection_start(TokenClass)


# The core schema of YAML 1.2 (section 10.3.2), without octal and hexadecimal numbers, which JSON lacks too.
_CORE = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]+",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}
for _tag, _pattern in _CORE.items():
    _CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), None)


def parse_yaml(text: str, name: str | Path) -> Document:
    """Parses YAML; `name` is the file's name in messages.

    Raises:
        OptionError: a syntax error, with line and column. Keys given twice are faults of the document.
    """
    try:
        root = yaml.compose(text, Loader=_CoreLoader)
    except RecursionError:
        raise OptionError(name, [f"{name}: {TOO_DEEP}"]) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else f"{name}"
        raise OptionError(name, [f"{where}: {getattr(error, 'problem', None) or error}"]) from error
    if not isinstance(root, yaml.MappingNode):
        raise OptionError(name, [f"{name}:1:1: an option file is a section of 'key: value' lines"])
    return _YamlReader(f"{name}").document(root)


class _YamlReader:
    """Converts YAML's nodes to plain values and records the lines of keys; expands aliases, up to `MOST_VALUES`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.result = Document()
        self.count = 0

    def document(self, root: yaml.MappingNode) -> Document:
        """The whole file."""
        self.result.tree = self._value(root, ())
        return self.result

    def _value(self, node: yaml.Node, keys: Keys) -> Any:
        self.count += 1
        if len(keys) > MOST_LEVELS:
            self._fail(node, f"{TOO_DEEP}; does an alias (*name) stand inside what it refers to?")
        if self.count > MOST_VALUES:
            self._fail(node, f"more than {MOST_VALUES} values; aliases (*name) multiply")
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*keys, i)) for i, item in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            return self._scalar(node)
        section, places = {}, self.result.places
        for key_node, value_node in node.value:
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else self._fail(key_node, "no key")
            inner, place = (*keys, key), f"{self.name}:{key_node.start_mark.line + 1}"
            if inner in places:
                self.result.faults.append(_twice(inner, places[inner], place))
                continue
            places[inner] = place
            section[key] = self._value(value_node, inner)
        return section

    def _scalar(self, node: yaml.Node) -> Any:
        text, kind = node.value, node.tag.rpartition(":")[2]
        try:
            if kind == "int":
                return int(text)
            if kind == "float":
                return float(re.sub(r"\.(?=[iInN])", "", text))
        except ValueError:
            self._fail(node, f"{_short(text)} is no {kind}")
        if kind == "bool":
            return text.lower() == "true"
        return None if kind == "null" else text

    def _fail(self, node: yaml.Node, message: str) -> NoReturn:
        mark = node.start_mark
        raise OptionError(self.name, [f"{self.name}:{mark.line + 1}:{mark.column + 1}: {message}"])
