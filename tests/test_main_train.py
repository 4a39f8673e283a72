"""Training by its entry script: files, log lines, freezing, schedules, endings."""

import logging
import re
import shutil
from pathlib import Path

import pytest

from tests.tiny import TinyRun, differing
from utils.utils_option import load_options

pytestmark = pytest.mark.slow

STEP_LINE = re.compile(
    r"^\d\d-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} : "
    r"<epoch:([ \d]{3}), iter:([ \d,]{8}), lr:(\d\.\d{3}e[-+]\d\d)> G_loss: (\d\.\d{3}e[-+]\d\d) .*ETA: \d:\d\d:\d\d",
    re.MULTILINE,
)
CLIP_LINE = re.compile(
    r" : Testing (\S+) +\( ?(\d+)/(\d+)\) - PSNR: [\d.]+ dB; SSIM: [\d.]+; PSNR_Y: [\d.]+ dB; SSIM_Y: [\d.]+$",
    re.MULTILINE,
)
AVERAGE_LINE = re.compile(r" : <epoch:([ \d]{3}), iter:([ \d,]{8}) Average PSNR: ([\d.]+) dB; SSIM: ", re.MULTILINE)


def files(folder: Path) -> set[str]:
    """Names of all files below a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def learning_rates(log: str) -> list[str]:
    """The learning rates of the log's step lines."""
    return [match[3] for match in STEP_LINE.finditer(log)]


def test_a_run_writes_files_log_lines_and_curves(tmp_path: Path) -> None:
    run = TinyRun.make(tmp_path, logger={"tensorboard": True})
    assert run.train("train.total_iter=4", "train.checkpoint_save=2", "train.checkpoint_test=2") == 0

    written = files(run.folder)
    assert {f"models/{step}_{kind}.pth" for step in (2, 4) for kind in ("G", "E", "optimizerG")} <= written
    assert {f"checkpoints/step_0000000{step}/COMPLETE" for step in (2, 4)} <= written
    assert {"train.log", "options/resolved.json"} <= written
    assert not [name for name in written if ".tmp" in name or "unfinished" in name]

    log = run.log()
    steps = list(STEP_LINE.finditer(log))
    assert [match[2] for match in steps] == ["       1", "       2", "       3", "       4"]
    assert [match[1] for match in steps] == ["  0"] * 4
    assert [match.groups() for match in CLIP_LINE.finditer(log)] == [
        ("test_clip_00", "0", "2"),
        ("test_clip_01", "1", "2"),
    ] * 2
    assert [match[2] for match in AVERAGE_LINE.finditer(log)] == ["       2", "       4"]
    # What was logged before the folder was made is in the file too, in its order.
    assert log.index("2 clips, 8 frames") < log.index("parameters") < log.index("<epoch:")

    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    curves = events.EventAccumulator(str(run.folder / "tb_logger")).Reload()
    assert [event.step for event in curves.Scalars("train/G_loss")] == [1, 2, 3, 4]
    assert [event.step for event in curves.Scalars("test/psnr")] == [2, 4]
    assert [event.step for event in curves.Images("test/test_clip_01")] == [2, 4]
    assert curves.Scalars("train/learning_rate")[-1].value == pytest.approx(1e-7)

    resolved = load_options(run.folder / "options" / "resolved.json")
    assert resolved == load_options(
        run.options, ["train.total_iter=4", "train.checkpoint_save=2", "train.checkpoint_test=2"]
    )


def test_the_loss_falls_and_the_rate_ends_at_its_least(tmp_path: Path) -> None:
    run = TinyRun.make(tmp_path)
    settings = ["datasets.train.gt_size=24", "datasets.train.use_hflip=false", "datasets.train.use_rot=false"]
    settings += ["train.total_iter=24", "train.G_optimizer_lr=3e-3", "netG.drop_path_rate=0"]
    assert run.train(*settings) == 0
    losses = [float(match[4]) for match in STEP_LINE.finditer(run.log())]
    assert sum(losses[-3:]) < 0.6 * sum(losses[:3])
    assert learning_rates(run.log())[-1] == "1.000e-07"


def test_a_run_resumes_from_kairs_files_alone(tmp_path: Path) -> None:
    settings = ("train.G_scheduler_periods=4", "train.checkpoint_save=2")
    run = TinyRun.make(tmp_path)
    assert run.train(*settings, "train.total_iter=4") == 0
    whole = {kind: run.weights(4, kind) for kind in ("G", "E", "optimizerG")}
    shutil.rmtree(run.folder / "checkpoints")
    for kind in whole:
        (run.folder / "models" / f"4_{kind}.pth").unlink()
    assert run.train(*settings, "train.total_iter=4") == 0
    assert "Resumed from step 2" in run.log()
    for kind, weights in whole.items():
        assert differing(weights, run.weights(4, kind)) == [], kind


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    run = TinyRun.make(tmp_path)
    assert run.train() == 0
    before = run.weights(2)
    stamps = {name: (run.folder / name).stat().st_mtime_ns for name in files(run.folder) if name.endswith(".pth")}
    assert run.train() == 0
    assert differing(before, run.weights(2)) == []
    assert stamps == {name: (run.folder / name).stat().st_mtime_ns for name in stamps}
    assert run.log().count("Finished already: all 2 steps are taken.") == 1


def test_an_untrained_flow_that_is_meant_and_tests_that_are_not(tmp_path: Path) -> None:
    run = TinyRun.make(tmp_path)
    assert run.train("netG.spynet_path=null", "train.checkpoint_test=null") == 0
    assert "spynet_path" not in run.log() and not AVERAGE_LINE.search(run.log())


def test_losses_are_means_since_the_last_line(tmp_path: Path) -> None:
    single, pairs = (TinyRun.make(tmp_path / name) for name in ("single", "pairs"))
    assert single.train("train.total_iter=4") == 0
    assert pairs.train("train.total_iter=4", "train.checkpoint_print=2") == 0
    losses = [[float(match[4]) for match in STEP_LINE.finditer(run.log())] for run in (single, pairs)]
    means = [sum(losses[0][begin : begin + 2]) / 2 for begin in (0, 2)]
    assert losses[1] == pytest.approx(means, rel=2e-3)  # lines have four digits


def test_fixed_parameters_move_from_fix_iter_on(tmp_path: Path) -> None:
    """KAIR's rule: frozen in steps 1 and 2 where fix_iter is 3, learning in step 3."""
    run = TinyRun.make(tmp_path)
    settings = ["train.fix_iter=3", 'train.fix_keys=["spynet", "deform"]', "train.checkpoint_save=1"]
    assert run.train(*settings, "train.total_iter=3", "train.checkpoint_keep=3") == 0
    first, second, third = (run.weights(step) for step in (1, 2, 3))
    fixed = {name for name in first if "spynet" in name or "deform" in name}
    assert any("spynet" in name for name in fixed) and any("deform" in name for name in fixed)
    moved = {name.lstrip(".") for name in differing(first, second)}
    assert moved and not moved & fixed
    released = {name.lstrip(".") for name in differing(second, third)} & fixed
    assert any("spynet" in name for name in released) and any("deform" in name for name in released)
    assert "Step 3: the parameters of fix_keys ['spynet', 'deform'] are trained from here on." in run.log()


def test_a_loss_that_is_no_number_ends_the_run_with_its_samples(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = TinyRun.make(tmp_path)
    with caplog.at_level(logging.INFO):
        assert run.train("train.G_lossfn_weight=1e39", "train.max_bad_steps=2", "train.total_iter=4") == 1
    log = run.log()
    assert "Step 1 skipped: loss or gradient is not finite (1 in a row)." in log
    assert re.search(r"Training stopped: 2 steps in a row .* \['train_clip_0\d/00000\d'\]", log)
    assert not (run.folder / "checkpoints").exists()


def test_adamw_and_multistep(tmp_path: Path) -> None:
    run = TinyRun.make(tmp_path)
    schedule = ["train.G_scheduler_type=MultiStepLR", "train.G_scheduler_milestones=[2, 3]"]
    optimizer = ["train.G_optimizer_type=adamw", "train.G_optimizer_wd=0.1"]
    assert run.train(*schedule, *optimizer, "train.total_iter=3") == 0
    assert learning_rates(run.log()) == ["1.000e-03", "1.000e-04", "1.000e-05"]
    assert run.weights(3, "optimizerG")["param_groups"][0]["weight_decay"] == 0.1


def test_pretrained_weights_are_the_start(tmp_path: Path) -> None:
    run, next_run = TinyRun.make(tmp_path / "a"), TinyRun.make(tmp_path / "b")
    assert run.train("train.total_iter=1", "train.E_decay=0.9") == 0
    files_given = [f"path.pretrained_net{kind}={run.folder / 'models' / f'1_{kind}.pth'}" for kind in ("G", "E")]
    # A rate of nearly nothing leaves the weights where they started.
    assert next_run.train(*files_given, "train.G_optimizer_lr=1e-30", "train.G_scheduler_eta_min=0") == 0
    assert differing(run.weights(1), next_run.weights(2)) == []
    assert differing(run.weights(1, "G"), run.weights(1, "E")) != []


def test_the_best_checkpoint_is_kept(tmp_path: Path) -> None:
    run = TinyRun.make(tmp_path)
    settings = ["train.checkpoint_keep=1", "train.checkpoint_save=1", "train.checkpoint_test=1"]
    assert run.train(*settings, "train.total_iter=3", "train.E_decay=0") == 0
    scores = {int(match[2]): float(match[3]) for match in AVERAGE_LINE.finditer(run.log())}
    best = max(scores, key=lambda step: scores[step])
    kept = {path.name for path in (run.folder / "checkpoints").glob("step_*")}
    assert kept == {f"step_{step:08d}" for step in {best, 3}}
    assert not (run.folder / "models" / "1_E.pth").exists()


def test_a_dry_run_without_data_tells_memory_and_what_is_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    run = TinyRun.make(tmp_path)
    shutil.rmtree(run.train_data.gt)
    with caplog.at_level(logging.INFO):
        assert run.train("netG.spynet_path=no.pth", flags=("--dry-run",)) == 2
    assert "memory per GPU, estimated for CUDA and 1 clips at a time" in caplog.text
    told = capsys.readouterr().err
    assert all(f"{path} does not exist" in told for path in (run.train_data.gt, "no.pth"))
    assert not run.folder.parent.exists()


def test_a_dry_run_tells_and_writes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = TinyRun.make(tmp_path)
    with caplog.at_level(logging.INFO):
        assert run.train("datasets.train.dataloader_batch_size=2", flags=("--dry-run",)) == 0
    assert not run.folder.parent.exists()
    for told in (
        '"total_iter": 2',
        "training samples: 8; test clips: 2",
        "1,513,867 parameters",
        "L: (2, 2, 4, 16, 16)",
        "H: (2, 2, 3, 16, 16)",
        "first step:",
    ):
        assert told in caplog.text
