"""The check of a graphics card, tried on a CPU: every step in its smallest size, and what ends one."""

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.layers.backends.sdpa import SdpaBackend
from scripts import gpu_check
from scripts.benchmark import gpu_kernels, gpu_rows
from scripts.benchmark.gpu_rows import Row, Setting, Step, steps_for
from scripts.gpu_check import BEGIN, END, Result, main, run_step, write_page

KINDS = "versions kernels demo rank speed memory tiles light loader more".split()


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")


@pytest.mark.slow
def test_every_step_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{BEGIN}\n{END}\n\nbehind\n")
    arguments = ["--device", "cpu", "--tiny", "--minutes", "10", "--out", str(tmp_path / "out"), "--docs", str(page)]
    code = main(arguments)
    printed = capsys.readouterr().out
    assert code == 0, printed
    assert printed.splitlines()[-2] == "nothing wrong"
    found = json.loads((tmp_path / "out" / "gpu_check.json").read_text())
    assert [step["step"] for step in found["steps"]] == [step.name for step in steps_for("cpu", tiny=True)]
    assert [step["step"].split()[0] for step in found["steps"]] == KINDS
    assert all(step["state"] == "done" and step["rows"] for step in found["steps"])
    assert all((tmp_path / "out" / f"{step['step'].replace(' ', '_')}.log").is_file() for step in found["steps"])
    rows = [row for step in found["steps"] for row in step["rows"]]
    assert any(row["what"] == "resume" for row in rows)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("behind\n")
    assert sum(line.startswith("| ") for line in text.splitlines()) == len(rows)  # a head, but the card is the title


def step_result(monkeypatch: pytest.MonkeyPatch, folder: Path, work: str, seconds: float = 60, **more: bool) -> Result:
    """What comes of a step whose body is a function of this module."""
    monkeypatch.setattr(gpu_check, "serve", globals()[work])
    result = Result("step")
    setting = Setting("cpu", True, folder, time.monotonic() + seconds)
    monkeypatch.setattr(gpu_check, "GRACE_SECONDS", 1.0)
    run_step(Step("step", 1.0, **more), setting, time.monotonic() + 600, result, lambda: None)
    return result


def fail(name: str, setting: Setting, connection) -> None:  # type: ignore[no-untyped-def]
    connection.send(Row("work", "way"))
    connection.send("RuntimeError: CUDA error: an illegal memory access was encountered")


def die(name: str, setting: Setting, connection) -> None:  # type: ignore[no-untyped-def]
    connection.send(Row("work", "way"))
    os.kill(os.getpid(), signal.SIGKILL)


def hang(name: str, setting: Setting, connection) -> None:  # type: ignore[no-untyped-def]
    connection.send(Row("work", "way"))
    time.sleep(600)


@pytest.mark.parametrize(
    "work, must_end, state, said",
    [
        ("fail", False, "failed", "illegal memory access"),
        ("die", False, "failed", "code -9"),
        ("hang", True, "late", "more than"),
        ("hang", False, "cut", ""),
    ],
)
def test_what_ends_a_step(
    work: str, must_end: bool, state: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What it had found before stays; of a measurement that the time ends nothing is wrong."""
    seconds = 20 if work != "hang" else 2
    result = step_result(monkeypatch, tmp_path, work, seconds, must_end=must_end)
    assert result.rows == [Row("work", "way")] and result.state == state and said in result.reason
    assert bool(result.faults) == (state != "cut")


def test_the_time_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Steps that there is no time for are listed, and what is wrong makes the exit code."""
    ran: list[str] = []

    def run(step: Step, setting: Setting, end: float, result: Result, write) -> None:  # type: ignore[no-untyped-def]
        ran.append(step.name)
        result.state = "done"
        result.rows.append(Row("work", step.name, fault="off by 1" if step.name == "rank" else None))
        write()
        if step.name == "rank":
            monkeypatch.setattr(gpu_check.time, "monotonic", lambda: end + 1)

    monkeypatch.setattr(gpu_check, "run_step", run)
    assert main(["--device", "cpu", "--minutes", "1", "--out", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert ran[-1] == "rank" and "wrong:\n  rank: work, rank: off by 1\nno time left for: speed auto, " in printed
    found = json.loads((tmp_path / "gpu_check.json").read_text())["steps"]
    assert {step["state"] for step in found if step["step"] not in ran} == {"cut"}


def test_other_cards_stay_on_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n\n{BEGIN}\n{END}\n## Next\n")
    for card, milliseconds in (("B", 2.0), ("A", 1.0), ("B", 3.0)):
        rows = [Row("card", card, note="torch 2.11"), Row("work", "way", milliseconds, 1.5, "a|b")]
        write_page(page, [Result("versions", "done", rows=rows), Result("tiles")])
    text = page.read_text()
    assert text.index("### A") < text.index("### B") and text.count("### ") == 2
    assert "| work | way | 3 | 1.50 | a/b |" in text and "| 2 |" not in text
    assert "torch 2.11; " in text and "; not finished: tiles (cut).\n" in text
    assert text.startswith("# Page\n") and text.endswith(f"{END}\n## Next\n")


def test_wrong_kernels_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    setting = Setting("cpu", True, tmp_path)
    assert [row.fault for row in gpu_kernels.kernels(setting, "sdpa")] == [None, None]
    attend = SdpaBackend.attend
    monkeypatch.setattr(SdpaBackend, "attend", lambda *given: 1.01 * attend(*given))
    forward, _ = gpu_kernels.kernels(setting, "sdpa")
    assert forward.fault is not None and "BlockShape" in forward.fault and "relative error" in forward.fault

    def broken(*_: object) -> torch.Tensor:
        raise RuntimeError("PassManager::run failed\nmore")

    monkeypatch.setattr(SdpaBackend, "attend", broken)
    forward, _ = gpu_kernels.kernels(setting, "sdpa")
    assert forward.fault is not None and forward.fault.endswith("RuntimeError: PassManager::run failed")
    (refused,) = gpu_kernels.kernels(setting, "triton")
    assert refused.fault is not None and "its kernels are for CUDA GPUs" in refused.fault


def test_shapes_are_valid() -> None:
    problems = [shape.problem(torch.device("cpu")) for shape in (*gpu_kernels.OWN_SHAPES, *gpu_kernels.CORNERS)]
    assert len(problems) > 15
    assert {name for device in gpu_rows.BACKENDS for name in gpu_rows.BACKENDS[device]} >= {"triton", "sdpa", "native"}


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--minutes", "0"]) == 2
    assert "--minutes 0" in capsys.readouterr().err
    (tmp_path / "page.md").write_text("no marks")
    with pytest.raises(ValueError, match="lacks the lines"):
        write_page(tmp_path / "page.md", [])
    assert main(["--device", "cpu", "--out", str(tmp_path), "--docs", str(tmp_path / "missing.md")]) == 2
    assert replace(Setting("cpu", True, tmp_path), end=0.0).in_time is False
