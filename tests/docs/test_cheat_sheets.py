"""The cheat sheets: commands are those that the tests of other pages run, and presets load."""

import re
import shlex
from pathlib import Path

import pytest

import data.select_dataset  # noqa: F401
import models.select_network  # noqa: F401  (both register their parts)
from tests.docs.test_readme import commands
from utils.utils_option import load_options

ROOT = Path(__file__).resolve().parents[2]
RUN_BY_TESTS = (
    "README.md",
    "docs/benchmark.md",
    "docs/data.md",
    "docs/evaluation.md",
    "docs/spikes.md",
    "docs/training.md",
)
RECIPE = ROOT / "options/vrt/006_train_vrt_videodeblurring_gopro_rgbspike.json"
WORDS = (  # by which the project's documents call their pages
    "QUICK_START QUICK_REFERENCE QUICK_CONFIG_REFERENCE ARCHITECTURE CONFIG DATA RESUME INFERENCE PERFORMANCE TIMING "
    "TRAINING_ISSUES"
).split()


def quoted(page: str) -> list[str]:
    return re.findall(r"`([^`]+)`", (ROOT / "docs" / page).read_text(encoding="utf-8"))


def test_commands_are_run_by_the_tests_of_other_pages() -> None:
    listed = commands("docs/commands.md")
    assert set(listed) <= {command for page in RUN_BY_TESTS for command in commands(page)} and len(listed) > 12


@pytest.mark.parametrize("name", [name for name in quoted("presets.md") if name.startswith("options/")])
def test_option_files_load(name: str) -> None:
    load_options(ROOT / name)


@pytest.mark.parametrize("options", [text for text in quoted("presets.md") if re.match(r"'?\w+\.\w+(\.\w+)*=", text)])
def test_changes_load(options: str) -> None:
    load_options(RECIPE, shlex.split(options))


def test_pages_of_the_documents_are_found_by_their_names() -> None:
    page = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    for word in WORDS:
        row = re.search(rf"^\|.*\b{word}\b.*\|.*\]\(([^)#]+)", page, flags=re.MULTILINE)
        assert row and (ROOT / "docs" / row[1]).is_file(), word
