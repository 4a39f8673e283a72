"""docs/testing.md and docs/tiling.md: their commands run on a small set, and their tables are of what is printed."""

import json
import re
import shlex
from pathlib import Path

import pytest

import main_train_vrt
from scripts.benchmark import bench_tiling
from scripts.data_preparation import simulate_dataset
from tests.docs.test_readme import SHRINK
from tests.tiny import NETWORK, alone, run_test

pytestmark = pytest.mark.slow
SMALL_SET = ["--train_clips=1", "--train_frames=2", "--test_clips=1", "--test_frames=2", "--size", "64", "128"]


@pytest.fixture(scope="module")
def place(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small set and an experiment on it, by the demo's name."""
    folder = tmp_path_factory.mktemp("testing")
    with pytest.MonkeyPatch.context() as patch, alone():
        patch.chdir(folder)
        (folder / "options").symlink_to(repository / "options")
        assert simulate_dataset.main(SMALL_SET) == 0
        options = ["--opt", "options/demo/quickstart.json", "--set", *SHRINK, "datasets.test=null"]
        assert main_train_vrt.main(options) == 0
    return folder


def commands(page: Path) -> list[list[str]]:
    """The words of a page's commands, behind `python`."""
    return [shlex.split(line) for line in re.findall(r"(?m)^    python (.+)$", page.read_text(encoding="utf-8"))]


def test_commands_of_testing(repository: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    page = repository / "docs" / "testing.md"
    listed = commands(page)
    assert len(listed) == 2
    for program, *words in listed:
        assert program == "main_test_vrt.py"
        small = [setting for setting in SHRINK if not ("--tile" in words and setting.startswith("val.tile"))]
        assert run_test(*words, "--set", *small) == 0
    saved, video = sorted(
        (place / "results").glob("demo_quickstart*"), reverse=True
    )  # the second moved the first aside
    assert len(list(saved.glob("*/0*.png"))) == 2
    assert sorted(path.name for path in video.glob("*.mp4")) == ["demo01_07_00.mp4", "demo01_07_00_restored.mp4"]


def test_flags_of_testing(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (repository / "docs" / "testing.md").read_text(encoding="utf-8")
    with pytest.raises(SystemExit):
        run_test("--help")
    known = set(re.findall(r"--\w+", capsys.readouterr().out))
    named = set(re.findall(r"--\w+", page))
    assert len(named) > 12 and named <= known


def test_tables_of_tiling(
    repository: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where tiles lie, and how much is computed, is the page's; the decibels here are of another network."""
    monkeypatch.chdir(place)
    text = (repository / "docs" / "tiling.md").read_text(encoding="utf-8")
    tree = {"base": "options/demo/quickstart.json", "netG": {**NETWORK, "init_type": "default"}}
    (place / "small.json").write_text(json.dumps(tree))
    listed = commands(repository / "docs" / "tiling.md")
    assert [words[:2] for words in listed] == [["-m", bench_tiling.__name__]] * 2
    monkeypatch.setattr(bench_tiling, "SCORED_SIDE", 40)
    monkeypatch.setattr(bench_tiling, "SCORED_TILES", (4, 32, 32))
    monkeypatch.setattr(bench_tiling, "LAST_SIDE", 16)
    capsys.readouterr()
    for words in listed:
        assert bench_tiling.main([*words[2:], "--opt", "small.json"]) == 0
    printed = capsys.readouterr().out
    placed = r"(?m)^\| (columns|frames) \| ([^|]+) \| (\d+) \| (\d+) \|"
    assert len(re.findall(placed, text)) == 14 and re.findall(placed, text) == re.findall(placed, printed)
    shares = re.findall(r"KAIR ([\d.]+), here ([\d.]+)", printed)[:2]
    assert f"of a frame {shares[0][1]} times its own (KAIR {shares[0][0]})" in text
    assert f"of the clip {shares[1][1]} times (KAIR {shares[1][0]})" in text
    assert len(re.findall(r"val\.tiling even [\d.]+, official [\d.]+", printed)) == 2
