"""The benchmark of VRT on a tiny recipe: what is counted is exact, what is timed is there, mistakes are named."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from scripts.benchmark import bench_vrt
from scripts.benchmark.flags import bench_vrt_parser
from scripts.benchmark.vrt_counters import count
from tests.models.vrt_cases import small_vrt

TINY = (
    "netG.depths=[2,2,2,2,2,2,2,1]",
    "netG.embed_dims=[8,8,8,8,8,8,8,12]",
    "netG.num_heads=[2,2,2,2,2,2,2,2]",
    "netG.indep_reconsts=[]",
    "netG.deformable_groups=4",
)


def test_counts_of_a_linear_layer() -> None:
    layer = nn.Linear(10, 20, bias=False)
    counts = count(layer, [torch.rand(7, 10)], step=False)
    assert counts.flop == 2 * 7 * 10 * 20
    assert counts.moved == 4 * (7 * 10 + 10 * 20 + 7 * 20)
    assert (counts.operations, counts.largest, counts.peak_alive) == (1, 4 * 7 * 20, 4 * 7 * 20)


def test_back_ends_do_the_same_arithmetic() -> None:
    network, x = small_vrt(), [torch.rand(1, 3, 3, 16, 16)]
    counts = {}
    for name in ("eager", "sdpa"):
        network.compute_backend = name
        counts[name] = count(network, x, step=True)
    assert counts["eager"].kept > counts["sdpa"].kept > 0
    # On a CPU it is recomputed anyway, and with the whole block.
    assert counts["eager"].kept_by_attention > 0 == counts["sdpa"].kept_by_attention


def test_two_back_ends_in_turns(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["--size", "4x16x16", "--compare", "eager,sdpa+graphs", "--repeats", "1", "--json", "--set", *TINY]
    assert bench_vrt.main([*arguments, "--profile", str(tmp_path / "top")]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["variant"] for row in rows] == ["006 eager", "006 sdpa+graphs"]
    for row in rows:
        assert row["seconds"] > 0 and row["processor_seconds"] > 0 and row["peak"] > row["start"] > 0
        assert row["difference"] < 1e-4
        assert 0 < row["roofline"] < 1
    assert rows[0]["seconds_ratio"] == 1
    assert rows[0]["flop"] == rows[1]["flop"] > 0
    assert "aten::" in (tmp_path / "top_006_eager.txt").read_text()


def test_what_would_be_replaced_is_not_measured(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--size", "1x16x16", "--compare", "flex", "--count_only", "--set", *TINY]
    assert bench_vrt.main(arguments) == 2
    assert "006 flex: UserError: it can't run here: FlexAttention" in capsys.readouterr().err


def test_commands_of_the_document(repository: Path) -> None:
    page = (repository / "docs" / "performance.md").read_text(encoding="utf-8")
    commands = re.findall(r"python (scripts/benchmark/bench_vrt\.py) (--.*?)(?:`|$)", page, re.MULTILINE)
    assert len(commands) >= 5
    for script, arguments in commands:
        assert (repository / script).is_file()
        options = bench_vrt_parser("").parse_args(arguments.split())
        compared = {name.removesuffix("+graphs") for name in options.compare.split(",")}
        assert compared <= {"auto", "eager", "sdpa", "native", "flex", "triton", "triton_fused"}
        assert set(options.recipe.split(",")) <= set(bench_vrt.RECIPES)


def test_mistakes_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_vrt.main(["--size", "64"]) == 2
    assert "FRAMESxHEIGHTxWIDTH" in capsys.readouterr().err
    assert bench_vrt.main(["--size", "1x16x16", "--compare", "quick", "--repeats", "1", "--set", *TINY]) == 2
    assert "no compute back end is called 'quick'" in capsys.readouterr().err
    for compared in (["sdpa+graph"], ["sdpa+graphs", "--step"]):
        assert bench_vrt.main(["--size", "1x16x16", "--compare", *compared, "--set", *TINY]) == 2
        assert f"--compare {compared[0]}: BACKEND or, for a forward pass, BACKEND+graphs" in capsys.readouterr().err
