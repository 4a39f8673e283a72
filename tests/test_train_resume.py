"""A resumed training is the uninterrupted one, bit for bit, wherever it was interrupted."""

import logging
import shutil
from pathlib import Path

import pytest

from tests.tiny import TinyRun, differing

pytestmark = pytest.mark.slow

# An epoch is 4 steps of 2 samples; what fix_keys name learns from step 4 on.
STEPS = (
    "train.total_iter=8",
    "train.G_scheduler_periods=8",
    "train.checkpoint_save=1",
    "train.checkpoint_keep=8",
    "train.fix_iter=4",
    'train.fix_keys=["spynet", "deform"]',
    "train.fix_lr_mul=0.25",
    "datasets.train.dataloader_batch_size=2",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """Eight steps without an interruption, in one process without workers, all of its checkpoints kept."""
    run = TinyRun.make(tmp_path_factory.mktemp("whole"))
    assert run.train(*STEPS) == 0
    return run


def check_equal(run: TinyRun, other: TinyRun, step: int) -> None:
    """The same weights, average, optimizer, counters: every bit of a checkpoint but the options."""
    assert differing({**run.state(step), "options": None}, {**other.state(step), "options": None}) == []
    for kind in ("G", "E", "optimizerG"):
        assert differing(run.weights(step, kind), other.weights(step, kind)) == [], kind


@pytest.mark.parametrize("workers", [0, 2, 4])
def test_half_and_half_is_the_whole(whole: TinyRun, tmp_path: Path, workers: int) -> None:
    """Stopped at an epoch's end after the first step in which everything learns; stopped again amid the next epoch."""
    run = TinyRun.make(tmp_path)
    settings = [*STEPS, f"datasets.train.dataloader_num_workers={workers}", "train.checkpoint_save=1000"]
    for total in (4, 8) if workers else (4, 6, 8):
        assert run.train(*settings, f"train.total_iter={total}") == 0
        check_equal(whole, run, total)
    log = run.log()
    assert f"Resumed from step 4 of {run.folder}" in log
    assert "WARNING: Changed since then: train.total_iter: 4, now" in log


@pytest.mark.parametrize("begin, end", [(1, 2), (2, 4), (3, 5)], ids=["amid an epoch", "before", "at the switch"])
def test_going_on_from_any_step(whole: TinyRun, tmp_path: Path, begin: int, end: int) -> None:
    """As after a crash: the folder as it was at `begin`. From 3 on, the next step is the first in which all learn."""
    run = TinyRun.make(tmp_path)
    name = f"step_{begin:08d}"
    shutil.copytree(whole.folder / "checkpoints" / name, run.folder / "checkpoints" / name)
    assert run.train(*STEPS, f"train.total_iter={end}", "datasets.train.dataloader_num_workers=1") == 0
    check_equal(whole, run, end)
    # What a crash between a checkpoint and KAIR's files left out is made up for.
    assert differing(whole.weights(begin), run.weights(begin)) == []
    assert differing(whole.weights(begin, "E"), whole.weights(end, "E")) != []


def test_a_damaged_checkpoint_costs_its_steps_only(
    whole: TinyRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = TinyRun.make(tmp_path)
    for step in (5, 6):
        name = f"step_{step:08d}"
        shutil.copytree(whole.folder / "checkpoints" / name, run.folder / "checkpoints" / name)
    state = run.folder / "checkpoints" / "step_00000006" / "state.pth"
    state.write_bytes(state.read_bytes()[:-1000])
    with caplog.at_level(logging.WARNING):
        assert run.train(*STEPS, "train.total_iter=7") == 0
    assert "state.pth: damaged" in caplog.text and "The one before it is taken" in caplog.text
    check_equal(whole, run, 7)


def test_another_batch_size_goes_on_where_the_samples_end(whole: TinyRun, tmp_path: Path) -> None:
    """One counter of samples: three steps of 2 samples, then one of 1, are 7 samples and the first epoch still."""
    run = TinyRun.make(tmp_path)
    name = "step_00000003"
    shutil.copytree(whole.folder / "checkpoints" / name, run.folder / "checkpoints" / name)
    assert run.train(*STEPS, "train.total_iter=4", "datasets.train.dataloader_batch_size=1") == 0
    assert run.state(4)["samples"] == 7 and whole.state(4)["samples"] == 8


def test_a_folder_of_kair_goes_on_in_one_line(whole: TinyRun, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Only models/<n>_*.pth: no options to compare with, and flow is in the weights, whatever spynet_path says."""
    run = TinyRun.make(tmp_path)
    (run.folder / "models").mkdir(parents=True)
    for kind in ("G", "E", "optimizerG"):
        shutil.copy(whole.folder / "models" / f"3_{kind}.pth", run.folder / "models")
    with caplog.at_level(logging.WARNING):
        assert run.train(*STEPS, "train.total_iter=4", "netG.spynet_path=nowhere/spynet.pth") == 0
    check_equal(whole, run, 4)
    warnings = [record.getMessage() for record in caplog.records]
    (line,) = [text for text in warnings if "options" in text]
    assert line.startswith("KAIR's files hold neither options nor a count of samples: the run goes on with")
    assert not [text for text in warnings if "flow" in text or "Changed since then" in text]
