"""docs/evaluation.md: its commands run on a small set of the same kind, and write the files that it names."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

import main_train_vrt
from scripts.benchmark import bench_metrics
from scripts.data_preparation import simulate_dataset
from tests.docs.test_readme import SHRINK, commands
from tests.tiny import alone, run_test

pytestmark = pytest.mark.slow
SMALL_SET = ["--train_clips=1", "--train_frames=2", "--test_clips=1", "--test_frames=2", "--size", "48", "64"]


def test_commands(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert simulate_dataset.main(SMALL_SET) == 0
    options = str(repository / "options" / "demo" / "quickstart.json")
    with alone():
        assert main_train_vrt.main(["--opt", options, "--set", *SHRINK, "datasets.test=null"]) == 0
    listed = commands("docs/evaluation.md")
    assert len(listed) == 4
    assert run_test("--opt", options, "--save_result", "--set", *SHRINK) == 0
    for name in ("guided", "demo_guided"):  # what --compare names
        shutil.copytree("results/demo_quickstart", f"results/{name}")
    shutil.rmtree("results/demo_quickstart")
    for command in listed:
        python, *words = shlex.split(command)
        assert python == "python"
        if words[0] == "-m":
            assert words[1] == bench_metrics.__name__
            continue  # tests/scripts/test_bench_metrics.py
        assert words[:3] == ["main_test_vrt.py", "--opt", "options/demo/quickstart.json"]
        assert run_test("--opt", options, *words[3:], "--set", *SHRINK) == 0
    table = capsys.readouterr().out
    assert re.search(r"threshold, PSNR +network +told +training-free\n1 .*\n2 .*\n4 .*\n\ndrop, PSNR", table)
    page = (repository / "docs" / "evaluation.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:about|index|metrics|sweep)\.\w+)`", page))
    assert named == {path.name for path in (tmp_path / "results" / "demo_quickstart").iterdir() if path.suffix}
