"""docs/data.md: its code runs on the folders it describes, and its names exist."""

import re
from pathlib import Path

import pytest

import data.select_dataset  # noqa: F401  registers the data sets
from tests.data.trees import make_gopro_tree
from utils.utils_registry import DATASETS


def test_code_runs_and_gives_what_it_says(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_gopro_tree(tmp_path / "trainsets")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (repository / "docs/data.md").read_text(), re.DOTALL)
    for block in blocks:
        exec(block, {})
        printed = capsys.readouterr().out
        for promise in re.findall(r"#\s+(torch\.Size.*)", block):
            assert promise in printed
    assert len(blocks) == 1


def test_table_names_every_data_set(repository: Path) -> None:
    table = (repository / "docs/data.md").read_text().split("(`dataset_type`)")[1].split("##")[0]
    named = set(re.findall(r"`(\w*Dataset\w*|vrt_video_rgbspike|VFI_\w+)`", table))
    assert named == set(DATASETS.names())
