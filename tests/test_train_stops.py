"""Ends of a training and what the next start makes of them: signals, kills at any moment, a full disk."""

import json
import os
import resource
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from scripts.local_ranks import LocalRanks
from tests.tiny import TinyRun, differing, start_ranks

pytestmark = pytest.mark.slow

STEPS = (
    "train.total_iter=6",
    "train.G_scheduler_periods=6",
    "datasets.train.dataloader_batch_size=2",
    "datasets.train.dataloader_num_workers=2",
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """Six steps of two ranks that nothing disturbs."""
    run = TinyRun.make(tmp_path_factory.mktemp("whole"))
    with start_ranks(run, 2, *STEPS) as ranks:
        assert ranks.wait(120) == [0, 0], ranks.text()
    return run


def leftovers(folder: Path) -> list[str]:
    """Names of files that only a write in progress has."""
    return [path.name for path in folder.rglob("*") if path.name.startswith(".")]


def signal_in_step(rank: int, *, step: int, ranks: tuple[int, ...], number: int) -> None:
    """Sends a signal to this process in the middle of a step."""
    import models.model_vrt

    compute = models.model_vrt.ModelVRT.compute_losses
    steps = 0

    def compute_losses(self, batch):
        nonlocal steps
        steps += 1
        if steps == step and rank in ranks:
            os.kill(os.getpid(), number)
        return compute(self, batch)

    models.model_vrt.ModelVRT.compute_losses = compute_losses


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1], ids=lambda number: number.name)
def test_a_signal_to_one_rank_ends_all_with_a_checkpoint_and_a_marker(
    undisturbed: TinyRun, tmp_path: Path, number: signal.Signals
) -> None:
    run = TinyRun.make(tmp_path)
    begin = time.monotonic()
    with start_ranks(run, 2, *STEPS, setup=partial(signal_in_step, step=3, ranks=(1,), number=number)) as ranks:
        assert ranks.wait(60) == [0, 0], ranks.text()
    assert time.monotonic() - begin < 30
    assert json.loads((run.folder / "PREEMPTED").read_text()) == {"step": 3, "signal": number.name}
    assert (run.folder / "checkpoints" / "step_00000003" / "COMPLETE").exists() and leftovers(run.folder) == []
    for log in ("train.log", "train_rank1.log"):
        assert f"Told to stop by {number.name}: the same command goes on after step 3" in (run.folder / log).read_text()
    if number == signal.SIGTERM:
        with start_ranks(run, 2, *STEPS) as ranks:
            assert ranks.wait(60) == [0, 0], ranks.text()
        assert not (run.folder / "PREEMPTED").exists()
        for kind in ("G", "E", "optimizerG"):
            assert differing(undisturbed.weights(6, kind), run.weights(6, kind)) == []
