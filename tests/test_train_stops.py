"""Ends of a training and what the next start makes of them: signals, kills at any moment, a full disk."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import main_train_vrt
from scripts.local_ranks import free_port
from scripts.stress_resume import Stress
from tests.tiny import TinyRun, differing, environment, interpreter, one_thread, start_ranks

pytestmark = pytest.mark.slow

# Seconds; what should end would otherwise not end at all.
TIMEOUT = 300
STEPS = (
    "train.total_iter=6",
    "train.G_scheduler_periods=6",
    "datasets.train.dataloader_batch_size=2",
    "datasets.train.dataloader_num_workers=2",
    "train.checkpoint_save=2",
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """Six steps of two ranks that nothing disturbs."""
    run = TinyRun.make(tmp_path_factory.mktemp("whole"))
    with start_ranks(run, 2, *STEPS) as ranks:
        assert ranks.wait(TIMEOUT) == [0, 0], ranks.text()
    return run


def leftovers(folder: Path) -> list[str]:
    """Names of files that only a write in progress has."""
    return [path.name for path in folder.rglob("*") if path.name.startswith(".")]


def signal_in_step(rank: int, *, step: int) -> None:
    """SIGTERM to rank 1 in the middle of a step."""
    import models.model_vrt

    compute = models.model_vrt.ModelVRT.compute_losses
    steps = 0

    def compute_losses(self, batch):
        nonlocal steps
        steps += 1
        if steps == step and rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return compute(self, batch)

    models.model_vrt.ModelVRT.compute_losses = compute_losses


def test_a_signal_to_one_rank_ends_all_with_a_checkpoint_and_a_marker(undisturbed: TinyRun, tmp_path: Path) -> None:
    run = TinyRun.make(tmp_path)
    with start_ranks(run, 2, *STEPS, setup=partial(signal_in_step, step=3)) as ranks:
        assert ranks.wait(TIMEOUT) == [0, 0], ranks.text()
    assert json.loads((run.folder / "PREEMPTED").read_text()) == {"step": 3, "signal": "SIGTERM"}
    assert (run.folder / "checkpoints" / "step_00000003" / "COMPLETE").exists() and leftovers(run.folder) == []
    for log in ("train.log", "train_rank1.log"):
        assert "Told to stop by SIGTERM: the same command goes on after step 3" in (run.folder / log).read_text()
    with start_ranks(run, 2, *STEPS) as ranks:
        assert ranks.wait(TIMEOUT) == [0, 0], ranks.text()
    assert not (run.folder / "PREEMPTED").exists()
    for kind in ("G", "E", "optimizerG"):
        assert differing(undisturbed.weights(6, kind), run.weights(6, kind)) == []


def signal_in_test(rank: int, *, clip: int) -> None:
    """SIGTERM to rank 1 while it restores a clip."""
    import models.testing.evaluate

    restore, restored = models.testing.evaluate.restore_clip, 0

    def restore_clip(*arguments):
        nonlocal restored
        restored += 1
        if rank == 1 and restored == clip:
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("the signal was to end the test at once")
        return restore(*arguments)

    models.testing.evaluate.restore_clip = restore_clip


def test_a_signal_in_a_test_ends_it_and_the_next_start_makes_up_for_it(undisturbed: TinyRun, tmp_path: Path) -> None:
    """In the very last test: the run has all its weights, but no score."""
    run = TinyRun.make(tmp_path)
    with start_ranks(run, 2, *STEPS, setup=partial(signal_in_test, clip=1)) as ranks:
        assert ranks.wait(TIMEOUT) == [0, 0], ranks.text()
    assert json.loads((run.folder / "PREEMPTED").read_text()) == {"step": 6, "signal": "SIGTERM"}
    assert "Average PSNR" not in run.log() and not (run.folder / "checkpoints" / "best.json").exists()
    assert run.train(*STEPS) == 0
    assert not (run.folder / "PREEMPTED").exists()
    average = [line.partition(" : ")[2] for line in run.log().splitlines() if "Average PSNR" in line]
    assert len(average) == 1 and average[0] in undisturbed.log()
    best = [(r.folder / "checkpoints" / "best.json").read_text() for r in (run, undisturbed)]
    assert best[0] == best[1]
    assert differing(undisturbed.weights(6), run.weights(6)) == []


def limit_files(rank: int, *, size: int) -> None:
    """As a disk with room for `size` bytes of each file."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_full_disk_is_told_and_costs_no_checkpoint(undisturbed: TinyRun, tmp_path: Path) -> None:
    run = TinyRun.make(tmp_path)
    with start_ranks(run, 2, *STEPS, "train.total_iter=2") as ranks:
        assert ranks.wait(TIMEOUT) == [0, 0], ranks.text()
    kept = run.state(2)
    with start_ranks(run, 2, *STEPS, "train.checkpoint_save=3", setup=partial(limit_files, size=5_000_000)) as ranks:
        assert ranks.wait(TIMEOUT) == [1, 1], ranks.text()
    for log in (run.log(), (run.folder / "train_rank1.log").read_text()):
        assert "Training stopped:" in log and "the checkpoint of step 3 could not be written" in log
        assert "free some space, or lower train.checkpoint_keep" in log and "earlier ones are intact" in log
    assert "Traceback" not in ranks.text()
    assert leftovers(run.folder) == [] and differing(kept, run.state(2)) == []
    with start_ranks(run, 2, *STEPS) as ranks:
        assert ranks.wait(TIMEOUT) == [0, 0], ranks.text()
    assert "Resumed from step 2" in run.log()
    for kind in ("G", "E", "optimizerG"):
        assert differing(undisturbed.weights(6, kind), run.weights(6, kind)) == []


def spoil_in_step(rank: int, *, step: int, picture: Path) -> None:
    """Rank 1 finds a picture gone when it reads the batch after `step` steps."""
    from data.loader import Batches

    read, batches = Batches.__next__, 0

    def counted(self):
        nonlocal batches
        batches += 1
        if rank == 1 and batches > step:
            picture.open()
        return read(self)

    Batches.__next__ = counted


def test_a_picture_that_vanishes_costs_no_step(undisturbed: TinyRun, tmp_path: Path) -> None:
    """Rank 1 meets it; both save, it alone speaks, and the same command goes on to the same end."""
    run, gone = TinyRun.make(tmp_path), tmp_path / "clip" / "000003.png"
    spoil = partial(spoil_in_step, step=3, picture=gone)
    with start_ranks(run, 2, *STEPS, "train.checkpoint_save=1000", setup=spoil) as ranks:
        assert ranks.wait(TIMEOUT) == [2, 2], ranks.text()
    errors = [line for line in ranks.text().splitlines() if "Error" in line or "Traceback" in line]
    assert errors == [f"[rank 1] Error: {gone}: No such file or directory; check the path and its permissions"]
    assert (run.folder / "checkpoints" / "step_00000003" / "COMPLETE").exists()
    with start_ranks(run, 2, *STEPS) as ranks:
        assert ranks.wait(TIMEOUT) == [0, 0], ranks.text()
    for kind in ("G", "E", "optimizerG"):
        assert differing(undisturbed.weights(6, kind), run.weights(6, kind)) == []


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 0), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_signal_to_the_launcher_ends_its_ranks(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """They save; a killed launcher can't tell them, so that they look after it."""
    run = TinyRun.make(tmp_path)
    script = Path(main_train_vrt.__file__).with_name("launch_train.sh")
    command = [str(script), "2", str(run.options), "--", "--set", *STEPS, "train.total_iter=100000"]
    output = open(tmp_path / "output.txt", "w")
    launcher = subprocess.Popen(
        command, env=environment(PYTHON=interpreter(tmp_path)), stdout=output, stderr=subprocess.STDOUT
    )
    ranks: list[int] = []
    try:
        saved = run.folder / "checkpoints/step_00000002/COMPLETE"
        wait_for(lambda: saved.exists() or launcher.poll() is not None, "step 2")
        ranks = children(launcher)
        launcher.send_signal(number)
        assert launcher.wait(TIMEOUT) == code, (tmp_path / "output.txt").read_text()
        wait_for(lambda: not any(Path(f"/proc/{rank}").exists() for rank in ranks), "the ranks' end", 60)
    finally:
        for process in [launcher.pid, *ranks]:
            if Path(f"/proc/{process}").exists():
                os.kill(process, signal.SIGKILL)
        launcher.wait(TIMEOUT)
    stopped = json.loads((run.folder / "PREEMPTED").read_text())
    assert stopped["signal"] == "SIGTERM" and len(ranks) == 2
    assert (run.folder / f"checkpoints/step_{stopped['step']:08d}/COMPLETE").exists()


def test_kills_at_any_moment_lose_nothing(tmp_path: Path) -> None:
    """`python -m scripts.stress_resume` on two ranks, with six kills, half of them amid a save."""
    run = TinyRun.make(tmp_path)
    settings = ["train.total_iter=6", "train.G_scheduler_periods=6", "datasets.train.dataloader_batch_size=2"]
    stress = Stress(str(run.options), settings, 2, tmp_path, random.Random(0), partial(one_thread, None))
    assert stress.run(kills=6) == []
    assert stress.kills == 6 and stress.in_saves > 0


def children(process: subprocess.Popen) -> list[int]:
    """The processes that a torchrun has started."""
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(child) for child in listed.read_text().split()]


def wait_for(condition: Callable[[], object], what: str, seconds: float = TIMEOUT) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.05)


def test_two_nodes_train_outlive_a_kill_and_stop_together(undisturbed: TinyRun, tmp_path: Path) -> None:
    """Two agents of torchrun on one machine go on from step 2 of other ranks; a rank is killed and both agents start
    theirs anew; one agent gets a SIGUSR1 and both end well; a last start makes the weights of the undisturbed run."""
    run = TinyRun.make(tmp_path)
    shutil.copytree(undisturbed.folder / "checkpoints/step_00000002", run.folder / "checkpoints/step_00000002")
    nodes = environment(
        PYTHON=interpreter(tmp_path),
        NNODES=2,
        RDZV_ENDPOINT=f"127.0.0.1:{free_port()}",
        TORCHRUN_ARGS="--max-restarts 1 --local-addr 127.0.0.1",
    )
    script = Path(main_train_vrt.__file__).with_name("launch_train.sh")
    command = [str(script), "1", str(run.options), "--", "--set", *STEPS, "train.checkpoint_save=1"]
    agents = [
        subprocess.Popen(command, env=nodes, stdout=output, stderr=subprocess.STDOUT, text=True)
        for output in (open(tmp_path / "node0.txt", "w"), open(tmp_path / "node1.txt", "w"))
    ]
    try:
        third = run.folder / "checkpoints/step_00000003/COMPLETE"
        wait_for(lambda: third.exists() or agents[0].poll() is not None, "step 3")
        os.kill(children(agents[1])[0], signal.SIGKILL)
        wait_for(lambda: run.log().count("Resumed from step") == 2 or agents[0].poll() is not None, "a restart")
        agents[1].send_signal(signal.SIGUSR1)
        assert [agent.wait(TIMEOUT) for agent in agents] == [0, 0], (tmp_path / "node0.txt").read_text()
    finally:
        for agent in agents:
            agent.kill()
    assert "2 ranks on cpu" in run.log()
    stopped = json.loads((run.folder / "PREEMPTED").read_text())
    assert stopped["signal"] == "SIGTERM" and 3 <= stopped["step"] < 6
    with start_ranks(run, 2, *STEPS) as ranks:
        assert ranks.wait(TIMEOUT) == [0, 0], ranks.text()
    for kind in ("G", "E", "optimizerG"):
        assert differing(undisturbed.weights(6, kind), run.weights(6, kind)) == []
