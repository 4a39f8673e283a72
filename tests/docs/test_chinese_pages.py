"""Each Chinese page says what its English one does: headings, tables, code, links; its punctuation is full-width."""

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README_zh-CN.md", *sorted((ROOT / "docs").glob("*_zh-CN.md"))]
HAN = r"[\u4e00-\u9fff]"  # CJK unified ideographs
WIDE = r"[\u4e00-\u9fff\u3000-\u303f\uff00-\uffef]"  # with full-width punctuation
FENCED = r"(?ms)^```\w*\n(.*?)^```$"
NUMBER = r"\d+(?:[.,]\d+)+|\d{2,}|\de-\d+"  # a single digit may be a word in the other language
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


class Section(NamedTuple):
    """What has to agree in a heading's section. Word order differs, so they are counted, not listed."""

    level: int
    spans: Counter[str]
    numbers: Counter[str]
    links: Counter[str]
    rows: list[list[Counter[str] | str]]
    items: int


def english(page: Path) -> Path:
    return page.with_name(page.name.replace("_zh-CN", ""))


def read(page: Path) -> str:
    return re.sub(r"(?s)<!--.*?-->", "", page.read_text(encoding="utf-8"))


def prose(text: str) -> str:
    """A page without its fenced and its indented blocks of code."""
    return re.sub(r"(?m)^    .*$", "", re.sub(FENCED, "", text))


def spans(text: str) -> Counter[str]:
    return Counter(re.findall(r"`([^`]+)`", text))


def links(text: str) -> list[str]:
    """Targets without their anchors, which are words of the page's language."""
    return [target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", text)]


def cell(text: str) -> Counter[str] | str:
    """Its code spans, or else the text itself where it needs no translation, as numbers."""
    return spans(text) or ("" if re.search(rf"[A-Za-z]|{HAN}", text) else text.strip())


def sections(text: str) -> list[Section]:
    parts = re.split(r"(?m)^(?=#+ )", prose(text))
    return [
        Section(
            level=len(part) - len(part.lstrip("#")),
            spans=spans(part),
            numbers=Counter(re.findall(NUMBER, re.sub(r"`[^`]+`|\]\([^)]*\)", "", part))),
            links=Counter(target.replace("_zh-CN", "") for target in links(part)),
            rows=[[cell(c) for c in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("|")],
            items=len(re.findall(r"(?m)^(?:- |\*\*)", part)),
        )
        for part in parts
    ]


def code(text: str) -> list[str]:
    """The lines of all blocks of code, without comments: behind `#`, or, in a listing, behind two spaces."""
    lines = "".join(re.findall(FENCED, text)).splitlines()
    lines = [re.sub(r"(^|\s+)# .*", "", line) for line in lines]
    listings = [line.split("  ")[0] for line in re.findall(r"(?m)^    (.+)$", re.sub(FENCED, "", text))]
    return [line for line in lines if line] + listings


@pages
def test_sections_agree(page: Path) -> None:
    ours, theirs = sections(read(page)), sections(read(english(page)))
    assert [section.level for section in ours] == [section.level for section in theirs]
    for chinese, original in zip(ours, theirs, strict=True):
        assert chinese == original


@pages
def test_code_agrees(page: Path) -> None:
    assert code(read(page)) == code(read(english(page)))


@pages
def test_both_languages_link_to_each_other(page: Path) -> None:
    assert english(page).name in links(read(page).split("\n## ")[0])
    assert page.name in links(read(english(page)).split("\n## ")[0])
    for target in links(prose(read(page))):
        translated = page.parent / target.replace(".md", "_zh-CN.md")
        assert target == english(page).name or translated not in PAGES, f"{target} has a Chinese page"


def chinese(text: str) -> str:
    """Prose and the comments in code; a code span counts as a Chinese character, a link as its text."""
    comments = re.findall(r"(?m)(?:^|\s)# (.*)", "".join(re.findall(FENCED, text)))
    text = re.sub(r"`[^`]+`", "码", "\n".join([prose(text), *comments]))
    return re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)


@pages
def test_punctuation_is_full_width(page: Path) -> None:
    mark = r"[,;:!?()\"'.]"
    assert not re.findall(rf".*(?:{WIDE} ?{mark}|{mark} ?{WIDE}).*", chinese(read(page)))


@pages
def test_lines_do_not_break_between_characters(page: Path) -> None:
    # Browsers show such a break as a space.
    assert not re.findall(rf".*{WIDE}\n{WIDE}.*", prose(read(page)))
