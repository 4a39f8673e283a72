"""The benchmark of training runs on data and on random numbers, and its parts add up."""

import json
from pathlib import Path

import pytest

from scripts.benchmark.bench_train import main
from tests.tiny import TinyRun, alone


@pytest.mark.parametrize("flags", [[], ["--synthetic"]], ids=["data", "random numbers"])
def test_the_parts_of_a_step_add_up(tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str]) -> None:
    run = TinyRun.make(tmp_path)
    with alone():
        assert main([str(run.options), *flags, "--steps", "3", "--warmup", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    engine, bare = found["engine"], found["bare"]
    for times in (engine, bare):
        assert all(times[part] > 0 for part in ("forward", "backward", "step"))
    parts = sum(engine[part] for part in ("data", "forward", "backward", "step"))
    assert 0 < found["own"]["seconds"] < engine["step_total"] and parts < 1.5 * engine["step_total"]
    assert found["samples_per_second"] == pytest.approx(1 / engine["step_total"])
    assert bare["data"] == 0 and (engine["data"] > 1e-3) == (not flags)


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = TinyRun.make(tmp_path)
    with alone():
        assert main([str(run.options), "--synthetic", "--steps", "1", "--warmup", "0"]) == 0
    told = capsys.readouterr().out
    assert "tiny on cpu: medians of 1 steps of 1 samples" in told and "target < 2%" in told
