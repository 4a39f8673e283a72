"""docs/data.md: its code and commands run on the folders it describes, and its names exist."""

import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest

import data.select_dataset  # noqa: F401  registers the data sets
from tests.data.raw_trees import raw_gopro, write_pictures
from tests.data.trees import make_gopro_tree
from tests.tiny import NETWORK, alone
from utils.utils_registry import DATASETS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs/data.md").read_text(encoding="utf-8")
LINES = "\n".join(re.findall(r"```bash\n(.*?)```", DOCUMENT, re.DOTALL)).splitlines()
COMMANDS = [line for line in LINES if line and not line.startswith("#")]


def test_code_runs_and_gives_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_gopro_tree(tmp_path / "trainsets")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    for block in blocks:
        exec(block, {})
        printed = capsys.readouterr().out
        for promise in re.findall(r"#\s+(torch\.Size.*)", block):
            assert promise in printed
    assert len(blocks) == 1


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw data sets where the page expects them, and the recipes."""
    root = tmp_path_factory.mktemp("document")
    raw_gopro(root / "trainsets", size=(96, 128))
    for split, clip in (("train", "002/occ000"), ("val", "Type1/TEST01")):
        names = [f"{k:04d}.png" for k in range(17)]
        write_pictures(root / "trainsets/X4K1000FPS" / split / clip, names, (32, 32))
    (root / "options").symlink_to(ROOT / "options")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(command: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they stand, but for sizes of network and pictures; later ones use what earlier ones made."""
    words = shlex.split(command)
    assert words.pop(0) == "python"
    flags = words[2:] if words[0] == "-m" else words[1:]
    module = words[1] if words[0] == "-m" else words[0].removesuffix(".py").replace("/", ".")
    if module == "scripts.doctor":
        flags += [
            "--no-step",
            "--set",
            "netG.spynet_path=null",
            *(f"netG.{key}={value}" for key, value in SMALL.items()),
        ]
        flags += ["datasets.train.gt_size=32", "datasets.train.num_frame=4"]
    if module == "scripts.data_preparation.spike_statistics":
        flags += ["--set", "datasets.train.gt_size=32", "datasets.train.num_frame=4"]
    if module == "scripts.benchmark.bench_loader":
        flags += ["--size", "96", "128", "--gt_size", "32", "--samples", "1"]
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", [module, *flags])
    with alone():
        assert not importlib.import_module(module).main()


SMALL = {key: value for key, value in NETWORK.items() if key not in ("net_type", "upscale")}


def test_table_names_every_data_set() -> None:
    table = DOCUMENT.split("(`dataset_type`)")[1].split("##")[0]
    named = set(re.findall(r"`(\w*Dataset\w*|vrt_video_rgbspike|VFI_\w+)`", table))
    assert named == set(DATASETS.names())


def test_the_loaders_table_is_the_commands() -> None:
    rows = re.findall(r"(?m)^\| ([\w, ]+?) \| [\d.]+ \| [\d.]+ \|", DOCUMENT)
    source = (ROOT / "scripts/benchmark/bench_loader.py").read_text(encoding="utf-8")
    assert rows[0] == "KAIR" and len(rows) == 7 and all(f'"{rows[k]}"' in source for k in (0, 1, 6))
