"""docs/benchmark.md: its example is a competitor, its commands run, on tiny clips; it names what the list has."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from scripts import benchmark_restoration
from scripts.benchmark import benchmark_clips
from scripts.flags import BENCHMARK_LIST
from tests.docs.test_readme import ROOT, commands
from tests.scripts.test_benchmark_restoration import PROTOCOL

PAGE = ROOT / "docs" / "benchmark.md"


def test_example_and_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (source,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len([line for line in source.splitlines() if line.strip()]) <= 10
    (tmp_path / "competitor.py").write_text(source)
    demo = benchmark_clips.DemoSet(
        n=2, stride=2, threshold=2.0, spike_ratio=2, light="srgb", size=(16, 16), test_frames=1
    )
    monkeypatch.setattr(benchmark_clips, "PHOTOGRAPHS", demo)
    small = {**PROTOCOL, "exposures": [2], "lights": {"full": 1}, "scenes": 1, "frames": 1, "side": 16}
    (tmp_path / "protocol.json").write_text(json.dumps({"protocol": small}))
    assert benchmark_restoration.main(["--list", "protocol.json", "--freeze", "list.json"]) == 0
    listed = commands("docs/benchmark.md")
    assert len(listed) == 2
    for command in listed:
        python, m, module, *words = shlex.split(command)
        assert [python, m, module] == ["python", "-m", "scripts.benchmark_restoration"]
        assert benchmark_restoration.main([*words, "--list", "list.json"]) == 0
    sys.modules.pop("competitor")
    found = json.loads((tmp_path / "results" / "benchmark" / "restoration.json").read_text())
    assert list(found["competitors"]) == ["blurred", "training-free", "training-free, charge", "guided", "mine"]
    assert found["competitors"]["mine"]["spike"] == "{'representation': 'tfp', 'bins': 9}"
    assert "| mine |" in capsys.readouterr().out


def test_keys_and_flags_of_the_page_exist() -> None:
    text = PAGE.read_text(encoding="utf-8")
    protocol, _ = benchmark_clips.read_list(BENCHMARK_LIST)
    assert "eight generated scenes of three frames, 192x192" in text
    assert (protocol.scenes, protocol.frames, protocol.side) == (8, 3, 192)
    for key in ("blur", "exposures", "thresholds", "lights", "photons", "border", "first_frames", "last_frames"):
        assert f"`{key}`" in text and hasattr(protocol, key)
    assert (protocol.border, protocol.first_frames, protocol.last_frames) == (0, 0, 0)
