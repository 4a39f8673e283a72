"""What docs/kernels.md tells one to run, runs; what needs a GPU at least says so, having understood its arguments."""

import re
import shlex
from pathlib import Path

import pytest
import torch

from models.layers.backends.triton.attention import interpreted
from scripts.benchmark import bench_alignment, bench_attention, bench_vrt, triton_resources

PAGE = Path(__file__).resolve().parents[2] / "docs/kernels.md"
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    for line in block.splitlines()
]
MAINS = {
    "bench_alignment.py": bench_alignment.main,
    "bench_attention.py": bench_attention.main,
    "bench_vrt.py": bench_vrt.main,
}


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a machine with a GPU they take minutes")
@pytest.mark.parametrize("command", [command for command in COMMANDS if "--device cuda" in command])
def test_commands_for_a_gpu(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(command)
    assert words[0] == "python"
    assert MAINS[Path(words[1]).name](words[2:]) == 2
    assert "PyTorch sees no GPU here" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(interpreted(), reason="TRITON_INTERPRET=1 leaves nothing to compile")
def test_resources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For one line of each table's cases, in one column for each of the table's."""
    pytest.importorskip("triton", reason="Triton is not installed")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(triton_resources, "CASES", [((1, 8, 8), 20, False)])
    monkeypatch.setattr(triton_resources, "CHANNELS", [96])
    monkeypatch.setattr(triton_resources, "ALIGNMENT_CASES", [(96, 16, 1)])
    (command,) = [command for command in COMMANDS if "triton_resources" in command]
    assert triton_resources.main(shlex.split(command)[2:]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    rows = [line for line in lines if line[0] != "kernel"]
    attention = [[name, "1x8x8", "20"] for name in triton_resources.KERNELS[:2]]
    fused = [[name, "-", "96"] for name in triton_resources.FUSED_KERNELS]
    alignment = [[name, "96,16,1"] for name in triton_resources.ALIGNMENT_KERNELS]
    assert [row[:-4] for row in rows] == attention + fused + alignment
    for row in rows:
        registers, spilled, shared, warps = (float(number) for number in row[-4:])
        assert 32 <= registers <= 255 and 0 <= spilled < 256 and 0 < shared <= 99 and warps >= 4
