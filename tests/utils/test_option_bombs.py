"""Option files that would take all memory, all time, or the interpreter's stack: refused at once, in one line."""

import time
from pathlib import Path

import pytest

from utils.options.layers import MOST_BASES, load_layers
from utils.options.text import MOST_LEVELS, OptionError, parse_overrides, read_document

BOMB = "\n".join(["a0: &a0 [x, x]", *(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 12))])
DEEP = 100_000


@pytest.mark.parametrize(
    "name, text, told",
    [
        ("bomb.yml", BOMB, "more than 100000 values; aliases"),
        ("circle.yml", "a: &a\n  b: *a\n", "does an alias"),
        ("deep.yml", "a: " + "[" * DEEP + "]" * DEEP, "nested deeper than 50 levels"),
        ("deep.json", '{"a": ' + "[" * DEEP + "]" * DEEP + "}", "nested deeper than 50 levels"),
        ("deep2.json", '{"a": ' * DEEP + "1" + "}" * DEEP, "more than the 300000 of an option file"),
        ("typed.yml", "a: !!int abc\n", "typed.yml:1:4: abc is no int"),
        ("typed2.yml", "a: !!float abc\n", "typed2.yml:1:4: abc is no float"),
        ("long.yml", f"a: {'9' * 5000}\n", "no int"),
        ("long.json", '{"a": ' + "9" * 5000 + "}", "neither a number"),
        ("key.yml", "? [1, 2]\n: 3\n", "no key"),
        ("latin.json", b'{"task": "\xe9"}', "no text in UTF-8"),
        ("null.json", b"\0\0\0", "starts with"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)
def test_one_line_at_once(tmp_path: Path, name: str, text: str | bytes, told: str) -> None:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    begin = time.monotonic()
    with pytest.raises(ValueError, match="(?s)" + told) as raised:
        read_document(path)
    assert time.monotonic() - begin < 5 and len(str(raised.value)) < 500


@pytest.mark.parametrize("levels, closed", [(DEEP, False), (DEEP, True), (MOST_LEVELS + 1, True)])
def test_set_with_a_deep_value(levels: int, closed: bool) -> None:
    value = "[" * levels + "]" * levels * closed
    with pytest.raises(OptionError, match="nested deeper than 50 levels") as raised:
        parse_overrides([f"train.total_iter={value}"])
    assert len(str(raised.value)) < 500


def test_set_with_a_deep_key() -> None:
    with pytest.raises(OptionError, match="nested deeper"):
        parse_overrides([".".join(["a"] * DEEP) + "=1"])


def test_endless_bases(tmp_path: Path) -> None:
    for number in range(1500):
        (tmp_path / f"{number}.json").write_text(f'{{"base": "{number + 1}.json"}}')
    with pytest.raises(OptionError, match=f"a chain of more than {MOST_BASES} base files"):
        load_layers(tmp_path / "0.json")
