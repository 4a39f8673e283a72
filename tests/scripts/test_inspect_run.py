"""What inspect_run says of a run that was resumed, warned, skipped steps and lost a checkpoint."""

import json
import re
from pathlib import Path

import cv2
import pytest

from scripts.inspect_run import Log, main
from tests.tiny import TinyRun
from utils.evaluation.chart import SIZE


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """Four steps, tested after each second one, and one more."""
    run = TinyRun.make(tmp_path_factory.mktemp("inspected"))
    settings = ("train.checkpoint_test=2", "train.checkpoint_save=2", "train.G_scheduler_periods=5")
    assert run.train(*settings, "train.total_iter=4") == 0
    assert run.train(*settings, "train.total_iter=5") == 0
    return run


def test_a_run_is_told(run: TinyRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run.folder)]) == 0
    told = capsys.readouterr().out
    assert re.search(r"^tiny: step 5 of 5 \(100%\), epoch 0, finished; last line \d\d-", told)
    psnr = {step: score for step, (score, _) in Log.read(run.folder / "train.log").tests.items()}
    assert list(psnr) == [2, 4, 5]
    assert f"test PSNR: newest {psnr[5]:.2f} dB (step 5), best {max(psnr.values()):.2f} dB" in told
    assert re.search(r"loss: G_loss \d\.\d+e-\d+, G_pixel .*; learning rate 1\.000e-07; gradient norm \d", told)
    assert re.search(r"throughput: [\d.]+ samples/s; waits for data \d+% of the time; ETA 0:00:00", told)
    assert "resumed 1 times, last from step 4" in told and "bad steps: 0" in told
    assert "Changed since then: train.total_iter: 4, now 5" in told
    assert "checkpoints: 2, 4, 5; best" in told
    assert re.search(r"newest checkpoint: intact, \d+ MB, 5 samples seen, 0 bad steps in a row", told)
    assert re.search(r"  netE: 1,51\d,\d+ numbers, norm [\d.]+, 0 tensors not finite", told)
    picture = cv2.imread(str(run.folder / "inspect.png"))
    assert picture.shape == (3 * SIZE[0], SIZE[1], 3)


def test_an_option_file_names_its_run_and_scripts_ask_for_the_marker(
    run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [str(run.options), "--preempted"]
    assert main(asked) == 3
    (run.folder / "PREEMPTED").write_text("{}")
    assert main(asked) == 0 and capsys.readouterr().out == ""
    assert main([*asked, "--set", f"path.root={tmp_path}"]) == 3
    (run.folder / "PREEMPTED").unlink()


def test_troubles_are_told(run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = (run.folder / "train.log").read_text()
    (tmp_path / "train.log").write_text(log)
    entry = {"step": 3, "in_a_row": 1, "grad_norm": "nan", "ranks": [{"rank": 0, "loss": "nan", "keys": ["a/000001"]}]}
    (tmp_path / "bad_steps.jsonl").write_text(json.dumps(entry) + "\n")
    folder = tmp_path / "checkpoints" / "step_00000005"
    folder.mkdir(parents=True)
    (folder / "COMPLETE").touch()
    assert main([str(tmp_path), "--output", str(tmp_path / "picture.png")]) == 0
    told = capsys.readouterr().out
    assert "bad steps: 1" in told and "step 3: gradient norm nan; rank 0 loss nan ['a/000001']" in told
    assert "newest checkpoint: DAMAGED" in told and (tmp_path / "picture.png").exists()
    assert main([str(tmp_path / "checkpoints")]) == 2
    assert "no train.log" in capsys.readouterr().err


def test_steps_taken_twice_count_once(run: TinyRun, tmp_path: Path) -> None:
    """A run that crashed after step 3 and went on from step 2."""
    line = "26-01-01 00:00:0{0}.000 : <epoch:  0, iter:       {0}, lr:1.000e-03> G_loss: {1}e-01 ETA: 0:00:01"
    lines = [line.format(step, step) for step in (1, 2, 3)]
    lines += ["26-01-01 00:00:04.000 : Resumed from step 2 of experiments/x", line.format(3, 9)]
    (tmp_path / "train.log").write_text("\n".join(lines))
    log = Log.read(tmp_path / "train.log")
    assert log.curve("G_loss") == ([1, 2, 3], [0.1, 0.2, 0.9]) and log.starts == [2]
