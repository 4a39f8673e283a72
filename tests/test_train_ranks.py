"""The same training on 1, 2 and 4 ranks: samples, weights, tests; what one rank meets, all act on."""

import json
import re
from functools import partial
from pathlib import Path

import pytest

from tests.tiny import TinyRun, close, differing, start_ranks

pytestmark = pytest.mark.slow

# Seconds; what should end would otherwise not end at all.
TIMEOUT = 300
# An epoch is 2 steps of 4 samples. Drop path would draw other numbers on other ranks.
STEPS = (
    "train.total_iter=4",
    "train.G_scheduler_periods=4",
    "train.checkpoint_save=2",
    "datasets.train.dataloader_batch_size=4",
    "netG.drop_path_rate=0",
)


def record_samples(rank: int, *, folder: Path) -> None:
    """Notes epoch and index of every sample that this process loads, in their order."""
    from data.dataset_video_train import VideoRecurrentTrainDataset

    draw = VideoRecurrentTrainDataset.draw

    def recorded(self, sample):
        with open(folder / f"samples_{rank}.txt", "a") as file:
            file.write(f"{sample.epoch} {sample.index}\n")
        return draw(self, sample)

    VideoRecurrentTrainDataset.draw = recorded


def global_batches(run: TinyRun, world_size: int) -> list[list[tuple[int, int]]]:
    """Epoch and index of the samples of every step, those of rank 0 first."""
    shares = []
    for rank in range(world_size):
        lines = (run.options.parent / f"samples_{rank}.txt").read_text().splitlines()
        shares.append([tuple(map(int, line.split())) for line in lines])
    size = 4 // world_size
    steps = len(shares[0]) // size
    return [[s for share in shares for s in share[step * size : (step + 1) * size]] for step in range(steps)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, TinyRun]:
    """Four steps on 1, 2 and 4 ranks."""
    created = {}
    for world_size in (1, 2, 4):
        run = created[world_size] = TinyRun.make(tmp_path_factory.mktemp(f"ranks{world_size}"))
        setup = partial(record_samples, folder=run.options.parent)
        with start_ranks(run, world_size, *STEPS, setup=setup) as ranks:
            assert ranks.wait(TIMEOUT) == [0] * world_size, ranks.text()
    return created


def test_every_step_has_the_same_samples(runs: dict[int, TinyRun]) -> None:
    one, two, four = (global_batches(run, world_size) for world_size, run in runs.items())
    assert one == two == four and len(one) == 4


def test_every_epoch_has_an_order_of_its_own(runs: dict[int, TinyRun]) -> None:
    batches = global_batches(runs[2], 2)
    first, second = batches[0] + batches[1], batches[2] + batches[3]
    assert {epoch for epoch, _ in first} == {0} and {epoch for epoch, _ in second} == {1}
    assert sorted(index for _, index in first) == sorted(index for _, index in second) == list(range(8))
    assert [index for _, index in first] != [index for _, index in second]


def test_the_last_step_has_the_least_learning_rate(runs: dict[int, TinyRun]) -> None:
    for run in runs.values():
        assert re.findall(r"iter: +4, lr:(\S+)>", run.log()) == ["1.000e-07"]


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_learn_what_one_process_learns(runs: dict[int, TinyRun], world_size: int) -> None:
    one, several = runs[1], runs[world_size]
    assert f"{world_size} ranks on cpu" in several.log()
    assert close(one, several, 2, 4)
    # The first step's loss and gradient, averaged over the ranks, are the same to the digits of the log.
    figures = r"iter: +1, .* G_loss: (\S+) G_pixel: (\S+) grad_norm: (\S+)"
    expected, found = (re.findall(figures, run.log())[0] for run in (one, several))
    assert [float(text) for text in found] == pytest.approx([float(text) for text in expected], rel=1e-3)


def test_a_run_goes_on_with_another_number_of_ranks(runs: dict[int, TinyRun], tmp_path: Path) -> None:
    """Two steps on four ranks, one on one, one on two: the samples and the weights of one process."""
    run = TinyRun.make(tmp_path)
    for total, world_size in ((2, 4), (3, 1), (4, 2)):
        setup = partial(record_samples, folder=tmp_path)
        with start_ranks(run, world_size, *STEPS, f"train.total_iter={total}", setup=setup) as ranks:
            assert ranks.wait(TIMEOUT) == [0] * world_size, ranks.text()
    assert "Resumed from step 2" in run.log() and "Resumed from step 3" in run.log()
    loaded = sorted(line for file in tmp_path.glob("samples_*.txt") for line in file.read_text().splitlines())
    assert loaded == sorted(f"{epoch} {index}" for batch in global_batches(runs[1], 1) for epoch, index in batch)
    assert close(runs[1], run, 2, 4)


def poison(rank: int, *, steps: set[int]) -> None:
    """Makes the loss of rank 1 not a number in some steps."""
    from models.model_vrt import ModelVRT

    compute = ModelVRT.compute_losses
    taken = 0

    def compute_losses(self, batch):
        nonlocal taken
        taken += 1
        losses = compute(self, batch)
        return {name: loss * float("nan") if rank == 1 and taken in steps else loss for name, loss in losses.items()}

    ModelVRT.compute_losses = compute_losses


def test_a_loss_that_is_no_number_on_one_rank_is_skipped_on_all(tmp_path: Path) -> None:
    """Step 2 is skipped and the run goes on; steps 4 and 5 end it, with the samples of both ranks."""
    run = TinyRun.make(tmp_path)
    settings = ["train.total_iter=8", "train.checkpoint_save=1", "train.checkpoint_keep=8", "train.max_bad_steps=2"]
    with start_ranks(run, 2, *STEPS, *settings, setup=partial(poison, steps={2, 4, 5})) as ranks:
        assert ranks.wait(TIMEOUT) == [1, 1], ranks.text()
    for log in (run.log(), (run.folder / "train_rank1.log").read_text()):
        skipped = re.findall(r"WARNING: Step (\d) skipped: .* \((\d) in a row\)", log)
        assert skipped == [("2", "1"), ("4", "1"), ("5", "2")]
        assert re.search(
            r"Training stopped: 2 steps in a row .*rank 0, loss [\d.]+: \['train_.*rank 1, loss nan: \['", log
        )
    kept = [run.state(step) for step in (1, 2, 3, 4)]
    for state in kept:
        state["moments"] = state["optimizerG"]["state"]
    for part in ("netG", "netE", "moments"):
        assert differing(kept[0][part], kept[1][part]) == [] == differing(kept[2][part], kept[3][part])
    assert differing(kept[1]["netG"], kept[2]["netG"]) != []
    assert [state["bad_steps"] for state in kept] == [0, 1, 0, 1]
    noted = [json.loads(line) for line in (run.folder / "bad_steps.jsonl").read_text().splitlines()]
    assert [(entry["step"], entry["in_a_row"]) for entry in noted] == [(2, 1), (4, 1), (5, 2)]
    for entry in noted:
        assert [rank["rank"] for rank in entry["ranks"]] == [0, 1] and entry["ranks"][1]["loss"] == "nan"
        assert all(len(rank["keys"]) == 2 and rank["keys"][0].startswith("train_clip_") for rank in entry["ranks"])


def test_tests_on_several_ranks_equal_those_of_one(tmp_path: Path) -> None:
    """Three clips of 4, 3 and 2 frames on 1, 2 and 4 ranks, with weights that a rate of nearly nothing leaves alone."""
    scores, lines = [], []
    for world_size in (1, 2, 4):
        run = TinyRun.make(tmp_path / str(world_size), test_clips=3)
        entries = [f"{clip} {4 - k} (24,32,3) 0\n" for k, clip in enumerate(run.test_data.clips)]
        run.test_data.meta_info.write_text("".join(entries))
        still = ["train.total_iter=1", "train.G_optimizer_lr=1e-30", "train.G_scheduler_eta_min=0"]
        with start_ranks(run, world_size, *STEPS, *still, "datasets.test.num_frame=-1") as ranks:
            assert ranks.wait(TIMEOUT) == [0] * world_size, ranks.text()
        scores.append(json.loads((run.folder / "checkpoints/step_00000001/score.json").read_text())["score"])
        lines.append([line.partition(" : ")[2] for line in run.log().splitlines() if "PSNR" in line])
    assert scores == pytest.approx([scores[0]] * 3, abs=1e-10, rel=0) and 5 < scores[0] < 60
    assert len(lines[0]) == 4 and lines[0] == lines[1] == lines[2]
