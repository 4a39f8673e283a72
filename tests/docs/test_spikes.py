"""docs/spikes.md: its commands and its Python run, and make the figures and the table that it shows."""

import re
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.spike.simulation.presets import PRESETS
from scripts.benchmark.reconstruction_table import METHODS, by_method, load_samples, measure, table
from scripts.spikes.__main__ import VERBS, main
from utils.spike_loader import write_spikes
from utils.utils_image import imread_rgb

BENCHMARKS = "scripts/benchmark/"


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs" / "spikes.md").read_text(encoding="utf-8")


def commands(page: str) -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", page, flags=re.DOTALL)
    return [shlex.split(line) for line in "".join(blocks).splitlines()]


def test_commands_make_the_figures(
    page: str, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spikes = [words for words in commands(page) if words[:3] == ["python", "-m", "scripts.spikes"]]
    for words in spikes:
        assert main(words[3:]) == 0, words
    assert len(spikes) == 10
    for figure in re.findall(r"\]\((figures/.*?)\)", page):
        (path,) = Path().glob(f"*/{Path(figure).name}")
        made, shown = imread_rgb(path), imread_rgb(repository / "docs" / figure)
        assert np.abs(made.astype(int) - shown).mean() < 1, figure  # other versions of OpenCV interpolate otherwise


def test_benchmarks_of_the_page_are_those_tested(page: str) -> None:
    """They run in tests/scripts/test_reconstruction_benchmarks.py."""
    scripts = [words[1] for words in commands(page) if words[1].startswith(BENCHMARKS)]
    assert scripts == [f"{BENCHMARKS}{name}.py" for name in ("reconstruction_table", "bench_reconstruct")]


def test_table_is_what_the_command_prints(page: str, shared_data: Path) -> None:
    samples = load_samples(shared_data)
    rows = measure(samples, {name: by_method(method) for name, method in METHODS.items()})
    for line in table(rows, samples).splitlines():
        assert line in page


def test_python_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_spikes("000226.dat", np.random.default_rng(0).integers(0, 2, (88, 360, 640), np.uint8))
    writer = cv2.VideoWriter("clip.mp4", cv2.VideoWriter.fourcc(*"mp4v"), 30, (64, 48))
    for _ in range(40):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    names: dict = {}
    for source in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        exec(compile(source, "docs/spikes.md", "exec"), names)
    assert names["video"].shape == (88, 360, 640) and names["pairs"] == 1 and names["spikes"].shape == (32, 48, 64)


def test_tables_name_what_there_is(page: str) -> None:
    verbs, methods, *_, presets = (
        re.findall(r"^\|(?!---)(?! (?:verb|method|preset) )(.*?)\|", part, flags=re.MULTILINE)
        for part in re.split(r"^## ", page, flags=re.MULTILINE)[1:]
        if "|---|" in part
    )
    assert [name.strip(" `") for name in verbs] == list(VERBS)
    assert [name.strip(" `") for name in methods] == [
        "window",
        "interval",
        "k_interval",
        "gaussian",
        "charge",
        "short_term_plasticity",
    ]
    assert re.findall(r"`(\w+)`", " ".join(presets)) == list(PRESETS)
