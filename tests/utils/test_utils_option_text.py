"""Option files as text: comments, commas, YAML, duplicate keys, and where errors are."""

import json
from pathlib import Path

import json5
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.options.text import Document, OptionError, parse_json, parse_overrides, parse_yaml, read_document

RECIPES = sorted((Path(__file__).resolve().parents[2] / "options").rglob("*.json"))

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)


def sections(text: st.SearchStrategy[str]) -> st.SearchStrategy[dict]:
    """Any section with keys and texts from `text`."""
    values = st.recursive(plain | text, lambda v: st.lists(v) | st.dictionaries(text, v), max_leaves=10)
    return st.dictionaries(text, values, max_size=4)


@given(sections(st.text()))
def test_json_means_the_same_with_comments(tree: dict) -> None:
    commented = json.dumps(tree, indent=1).replace("\n", ' // "a": {1, \n')
    assert parse_json(commented, "f.json").tree == tree


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_read_as_json5_reads_them(recipe: Path) -> None:
    assert read_document(recipe).tree == json5.loads(recipe.read_text())


def test_comments_start_outside_strings_only() -> None:
    document = parse_json('{"a": "http://x//y", // "b": 1\n "c": "\\"//"}', "f.json")
    assert document.tree == {"a": "http://x//y", "c": '"//'}


@pytest.mark.parametrize("text", ['{"a": 1, "b": [1, 2]}', '{, "a": 1\n , "b": [, 1, 2,],}', '{"a":1,"b":[1,2,]}'])
def test_one_comma_too_many_at_the_ends_is_fine(text: str) -> None:
    assert parse_json(text, "f.json").tree == {"a": 1, "b": [1, 2]}


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ('{"a": 1,\n "b" 2}', "f.json:2:6", "':' after the key \"b\""),
        ('{"a": 1\n "b": 2}', "f.json:2:2", "expected ','"),
        ('{"a": [1,, 2]}', "f.json:1:10", "value is missing"),
        ('{"a": True}', "f.json:1:7", "write true"),
        ('{"a": None}', "f.json:1:7", "write null"),
        ('{"a": NaN}', "f.json:1:7", "neither a number"),
        ("{'a': 1}", "f.json:1:2", "double quotes"),
        ('{"a": fast}', "f.json:1:7", '"fast"'),
        ('{"a": "x}', "f.json:1:7", "no closing"),
        ('{"a": "\\q"}', "f.json:1:7", "backslash"),
        ('{"a": {"b": 1}', "f.json:1:15", "ends too early"),
        ('{"a": 1}}', "f.json:1:9", "nothing may follow"),
        ('{"a": /* no */ 1}', "f.json:1:7", "comments start with //"),
        ("[1]", "f.json:1:1", "starts with '{'"),
        ("", "f.json:1:1", "ends too early"),
    ],
)
def test_json_errors_say_where(text: str, place: str, words: str) -> None:
    with pytest.raises(OptionError) as raised:
        parse_json(text, "f.json")
    assert len(raised.value.faults) == 1
    assert raised.value.faults[0].startswith(f"{place}: ")
    assert words in raised.value.faults[0]


def test_all_duplicate_keys_are_found_with_both_lines() -> None:
    document = parse_json('{"a": 1,\n "b": {"c": 1,\n "c": 2},\n "a": 1}', "f.json")
    assert document.faults == [
        "f.json:3: b.c was given already at f.json:2; keep one of the two",
        "f.json:4: a was given already at f.json:1; keep one of the two",
    ]
    document = parse_yaml("a: 1\nb:\n  c: 1\n  c: 2\n", "f.yml")
    assert document.faults == ["f.yml:4: b.c was given already at f.yml:3; keep one of the two"]
    assert document.tree == {"a": 1, "b": {"c": 1}}


def test_keys_know_their_lines() -> None:
    document = parse_json('{"a": 1,\n "b": {\n  "c": [1,\n 2]}}', "f.json")
    assert document.places == {("a",): "f.json:1", ("b",): "f.json:2", ("b", "c"): "f.json:3"}
    assert document.place(("b", "c", 1)) == "f.json:3"
    assert document.place(("b", "missing")) == "f.json:2"
    assert document.place(("missing",)) == ""


def test_yaml_follows_version_1_2() -> None:
    text = "a: 4e-4\nb: [1, no, ~, .5, 08d, 010, 0x]\nc:\n  d: 'true'\n  e: true\n  f: 2020-01-01\n  g: 1:30\n"
    document = parse_yaml(text, "f.yml")
    expected = {"a": 4e-4, "b": [1, "no", None, 0.5, "08d", 10, "0x"]}
    assert document.tree == {**expected, "c": {"d": "true", "e": True, "f": "2020-01-01", "g": "1:30"}}
    assert document.places[("c", "e")] == "f.yml:5"


@given(sections(st.text(st.characters(min_codepoint=32, max_codepoint=126))))
def test_yaml_reads_json(tree: dict) -> None:
    assert parse_yaml(json.dumps(tree), "f.yml").tree == tree


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: [1\nb: 2\n", "f.yml:2:2: expected ',' or ']', but got ':'"),
        (
            "a: &x [*x]\n",
            "f.yml:1:4: nested deeper than 50 levels; does an alias (*name) stand inside what it refers to?",
        ),
        ("- 1\n", "f.yml:1:1: an option file is a section of 'key: value' lines"),
        ("", "f.yml:1:1: an option file is a section of 'key: value' lines"),
    ],
)
def test_yaml_errors_say_where(text: str, fault: str) -> None:
    with pytest.raises(OptionError) as raised:
        parse_yaml(text, "f.yml")
    assert raised.value.faults == [fault]


def test_yaml_by_suffix(tmp_path: Path) -> None:
    for name in ("a.yml", "b.yaml"):
        (tmp_path / name).write_text("task: x\n")
        assert read_document(tmp_path / name).tree == {"task": "x"}


def test_missing_file_lists_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "there.json").write_text("{}")
    with pytest.raises(OptionError, match=r"no such file.*there\.json"):
        read_document(tmp_path / "their.json")


def test_binary_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(OptionError, match=r"x\.json.*\n.*no text in UTF-8"):
        read_document(tmp_path / "x.json")


def test_overrides_are_json_or_else_text() -> None:
    document = parse_overrides(["a.b=1e-4", "a.c=[2, 2]", "a.d=x=y", "e=null", 'f="1"', "g=true", "h=NaN", "i="])
    expected = {"a": {"b": 1e-4, "c": [2, 2], "d": "x=y"}, "e": None, "f": "1", "g": True, "h": "NaN", "i": ""}
    assert document == Document(expected, dict.fromkeys(document.places, "--set"))


def test_later_overrides_win() -> None:
    assert parse_overrides(["a.b=1", "a.b=2"]).tree == {"a": {"b": 2}}


def test_malformed_overrides_are_all_told() -> None:
    with pytest.raises(OptionError) as raised:
        parse_overrides(["a.b", ".c=1", "d=1", "d.e=2"])
    assert [fault.split(":")[0] for fault in raised.value.faults] == ["a.b", ".c=1", "d.e=2"]


def test_a_key_without_quotes_is_not_echoed(tmp_path: Path) -> None:
    path = tmp_path / "options.json"
    path.write_text('{"logger": {"wandb": a123456789abcdef}}')
    with pytest.raises(OptionError, match="this value needs double quotes") as caught:
        read_document(path)
    assert "a12345" not in str(caught.value)
