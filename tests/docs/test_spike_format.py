"""docs/spike_format.md: its Python runs, its JSON and YAML parse, its table is the registry."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

import data.spike.encoding
from utils.spike_loader import write_spikes
from utils.utils_registry import REPRESENTATIONS

PARTS = data.spike.encoding.build_encoding  # importing it registers the representations


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs" / "spike_format.md").read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)
    assert found
    return found


def test_python_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spikes = np.random.default_rng(0).integers(0, 2, (88, 360, 640), np.uint8)
    write_spikes("000226.dat", spikes)
    root = tmp_path / "GOPRO_Large_spike_seq"
    write_spikes(root / "train" / "GOPR0884_11_00" / "spike" / "000226.dat", spikes)
    (root / "config.yaml").write_text(blocks(page, "yaml")[0])
    for source in blocks(page, "python"):
        names: dict = {}
        exec(compile(source, "docs/spike_format.md", "exec"), names)
    assert Path("copy.dat").read_bytes() == Path("000226.dat").read_bytes()
    assert names["intensity"].shape == (2, 360, 640)
    stated = json.loads(blocks(page, "json")[0])
    assert json.loads(Path("sync.json").read_text()) == stated


def test_geometry_and_option_examples(page: str) -> None:
    assert {"spike_h", "spike_w"} <= set(yaml.safe_load(blocks(page, "yaml")[0]))
    options = json.loads("{" + blocks(page, "json")[1] + "}")
    assert PARTS(options["spike"], options["spike_threshold"]).channels == 4


def test_table_lists_every_representation_and_parameter(page: str) -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*)$", page, flags=re.MULTILINE))
    assert sorted(rows) == REPRESENTATIONS.names()
    for name, row in rows.items():
        for parameter in REPRESENTATIONS.parameters(name):
            assert f"`{parameter}`" in row
        part = REPRESENTATIONS.get(name)()
        assert row.rstrip().endswith("| yes |") == part.brightness_true
