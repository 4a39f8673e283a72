"""What people get wrong: one message with the name and the remedy, exit code 2, and nothing left behind."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.tiny import TinyRun, run_test

pytestmark = pytest.mark.slow


class Complaint:
    """What a failed command said on standard error."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.text = capsys.readouterr().err

    def tells(self, *parts: object) -> None:
        """It is one message, without a traceback, and holds all the parts."""
        assert self.text.startswith("Error: ") and self.text.count("Error: ") == 1, self.text
        for unwanted in ("Traceback", 'File "', "Caught "):
            assert unwanted not in self.text, self.text
        for part in parts:
            assert str(part) in self.text, self.text


def png_of(run: TinyRun, side: str = "lq", phase: str = "train") -> Path:
    """The second frame of the first clip."""
    data = run.train_data if phase == "train" else run.test_data
    return getattr(data, side) / data.clips[0] / "000001.png"


def dat_of(run: TinyRun) -> Path:
    """The spikes of that frame."""
    return run.train_data.spike / run.train_data.clips[0] / "spike" / "000001.dat"


def cut(path: Path, keep: float) -> None:
    """Leaves the first part of a file."""
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])


def fails(run: TinyRun, capsys: pytest.CaptureFixture[str], *overrides: str) -> Complaint:
    """Training with these overrides ends as a user's mistake and makes no experiment's folder."""
    capsys.readouterr()
    assert run.train(*overrides) == 2
    assert not run.folder.parent.exists()
    return Complaint(capsys)


@pytest.mark.parametrize(
    "override, parts",
    [
        ("train.total_itr=5", ["train.total_itr", "did you mean 'total_iter'"]),
        ("trian.total_iter=5", ["trian", "did you mean 'train'"]),
        ("netG.depth=[1]", ["netG.depth", "did you mean 'depths'"]),
        ("train.total_iter=many", ["train.total_iter", 'expected a whole number, got "many"']),
        ("datasets.train.use_hflip=1", ["datasets.train.use_hflip", "expected true or false"]),
        ("datasets.train.dataset_type=RGBSpike", ["datasets.train.dataset_type", "Choices: "]),
        ("netG.in_chans=3", ["netG.in_chans", "leave in_chans out"]),
        ("val.tile=[2, 18, 16]", ["val.tile", "18 rows", "multiple of the attention window of 4", "16 or 20"]),
        ("netG.deformable_groups=3", ["netG.deformable_groups", "got 3"]),
    ],
)
def test_options(tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str, parts: list[str]) -> None:
    fails(TinyRun.make(tmp_path), capsys, override).tells(*parts)


def test_all_faults_of_an_option_file_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = TinyRun.make(tmp_path, train={"total_itr": 5, "E_decay": "much"}, val={"tiles": [2, 16, 16]})
    fails(run, capsys).tells(run.options, "train.total_itr", "train.E_decay", "val.tiles", "tiny.json:")


def test_an_option_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = TinyRun.make(tmp_path)
    run.options.unlink()
    fails(run, capsys).tells(run.options)
    run.options.write_text('{"task": "tiny", "train": {"total_iter": 3,, }')
    fails(run, capsys).tells(f"{run.options}:1:44", "double quotes")


def test_a_file_without_a_training_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(TinyRun.make(tmp_path), capsys, "datasets.train=null").tells("datasets.train: missing")


@pytest.mark.parametrize("root", ["dataroot_gt", "dataroot_lq", "dataroot_spike"])
def test_a_missing_data_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str], root: str) -> None:
    absent = tmp_path / "nowhere"
    fails(TinyRun.make(tmp_path), capsys, f"datasets.train.{root}={absent}").tells(
        root, absent, "--prepare-data", "prepares a downloaded GoPro set", "--demo", "makes a small data set"
    )


def test_an_empty_data_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    complaint = fails(TinyRun.make(tmp_path), capsys, f"datasets.test.dataroot_lq={tmp_path / 'empty'}")
    complaint.tells("dataroot_lq", tmp_path / "empty", "holds no clip folders", "--demo")


@pytest.mark.parametrize("side, option", [("lq", "dataroot_lq"), ("gt", "dataroot_gt")])
def test_a_frame_on_one_side_only(tmp_path: Path, capsys: pytest.CaptureFixture[str], side: str, option: str) -> None:
    run = TinyRun.make(tmp_path)
    png_of(run, side).unlink()
    fails(run, capsys).tells(f"train_clip_00: 1 frames not in {option} {getattr(run.train_data, side)}: 000001")


@pytest.mark.parametrize("side, option", [("lq", "dataroot_lq"), ("gt", "dataroot_gt")])
def test_a_clip_on_one_side_only(tmp_path: Path, capsys: pytest.CaptureFixture[str], side: str, option: str) -> None:
    run = TinyRun.make(tmp_path)
    root = getattr(run.train_data, side)
    shutil.rmtree(root / "train_clip_01")
    fails(run, capsys).tells("train_clip_01", f"not in {option} {root}")


@pytest.mark.parametrize("what", ["clip", "frame"])
def test_missing_spikes(tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str) -> None:
    run = TinyRun.make(tmp_path)
    if what == "clip":
        shutil.rmtree(run.train_data.spike / "train_clip_00")
    else:
        dat_of(run).unlink()
    named = dat_of(run) if what == "frame" else dat_of(run).with_name("000000.dat")
    fails(run, capsys).tells(named, "no such spike file")


def test_a_truncated_spike_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = TinyRun.make(tmp_path)
    cut(dat_of(run), 0.9)
    fails(run, capsys).tells(dat_of(run), "truncated")


def test_a_spike_file_that_ends_between_two_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its size is a whole number of spike frames, but the exposure lies beyond its end."""
    run = TinyRun.make(tmp_path)
    cut(dat_of(run), 0.5)
    fails(run, capsys).tells(dat_of(run), "exposure")


@pytest.mark.parametrize("size, parts", [((11, 16), ["spike_h"]), ((16, 12), ["spike_h and spike_w"])])
def test_a_wrong_spike_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], size: tuple[int, int], parts: list[str]
) -> None:
    """11x16 does not fit the files' size; 16x12 does, but not the frames' shape."""
    run = TinyRun.make(tmp_path)
    overrides = [f"datasets.train.spike_h={size[0]}", f"datasets.train.spike_w={size[1]}"]
    fails(run, capsys, *overrides).tells("train_clip_00", *parts)


def test_a_crop_that_is_no_whole_number_of_spike_pixels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(TinyRun.make(tmp_path), capsys, "datasets.train.gt_size=17").tells("gt_size", "16 or 18")


def test_a_picture_whose_head_is_unreadable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a clip's first frame: found before training, as the frames' sizes are read from there."""
    run = TinyRun.make(tmp_path)
    broken = png_of(run).with_name("000000.png")
    broken.write_bytes(b"no picture")
    fails(run, capsys).tells(broken, "not a readable picture", "copy it again")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("side", ["lq", "gt"])
def test_a_picture_that_breaks_off_is_met_in_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: int, side: str
) -> None:
    run = TinyRun.make(tmp_path)
    cut(png_of(run, side), 0.3)
    overrides = [f"datasets.train.dataloader_num_workers={workers}", "datasets.train.dataloader_shuffle=false"]
    assert run.train(*overrides, "datasets.train.num_frame=1", "train.total_iter=8") == 2
    Complaint(capsys).tells(png_of(run, side))
    assert "iter:       1" in run.log() and "iter:       2" not in run.log()
    assert (run.folder / "checkpoints" / "step_00000001" / "COMPLETE").exists()  # no step is lost


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_picture_in_testing(tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: int) -> None:
    run = TinyRun.make(tmp_path)
    assert run.train("train.total_iter=1", "datasets.test=null") == 0
    cut(png_of(run, "lq", "test"), 0.3)
    capsys.readouterr()
    assert run.test("--num_workers", workers) == 2
    Complaint(capsys).tells(png_of(run, "lq", "test"))
    assert not (run.results / "tiny" / "metrics.json").exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """A run of one step; tests copy it before they change it."""
    run = TinyRun.make(tmp_path_factory.mktemp("trained"))
    assert run.train("train.total_iter=1", "datasets.test=null") == 0
    return run


def other_widths(run: TinyRun) -> tuple[str, ...]:
    return "netG.embed_dims=[12,12,12,12,12,12,12,12]", f"path.root={run.results}/other"


@pytest.mark.parametrize("kind", ["G", "E"])
def test_a_checkpoint_of_another_architecture(trained: TinyRun, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    """As pretrained weights."""
    path = trained.folder / "models" / f"1_{kind}.pth"
    capsys.readouterr()
    assert trained.train(f"path.pretrained_net{kind}={path}", *other_widths(trained)) == 2
    Complaint(capsys).tells(path, "checkpoint of another architecture", "conv_first.weight", "network (12, ", "netG")
    assert not (trained.results / "other").exists()


def test_resuming_with_another_architecture(
    trained: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(trained.folder, root / "tiny")
    before = sorted(path.name for path in root.rglob("*"))
    capsys.readouterr()
    assert trained.train("netG.depths=[2,2,1,1,1,1,1,1]", f"path.root={root}") == 2
    Complaint(capsys).tells(root / "tiny", "checkpoint of another architecture", "missing in the checkpoint", "stage2")
    assert sorted(path.name for path in root.rglob("*")) == before
    assert "another architecture" not in (root / "tiny" / "train.log").read_text()


def test_testing_with_another_architecture(trained: TinyRun, capsys: pytest.CaptureFixture[str]) -> None:
    for checkpoint in (trained.folder, trained.folder / "models" / "1_G.pth"):
        capsys.readouterr()
        assert trained.test("--checkpoint", checkpoint, overrides=other_widths(trained)[:1]) == 2
        Complaint(capsys).tells(checkpoint, "checkpoint of another architecture", "conv_first.weight (8, ", "netG")
    assert not trained.results.exists()


def test_missing_checkpoints(trained: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "nothing.pth"
    assert trained.test("--checkpoint", missing) == 2
    Complaint(capsys).tells(missing, "there is no such file", "put the checkpoint there")
    assert trained.test(overrides=(f"path.root={tmp_path}/none",)) == 2
    Complaint(capsys).tells(tmp_path / "none" / "tiny", "train first", "--checkpoint")
    assert trained.train(f"path.pretrained_netG={missing}", f"path.root={tmp_path}/new") == 2
    Complaint(capsys).tells(missing)
    assert not (tmp_path / "new").exists()
    assert not trained.results.exists()


def test_a_file_that_is_no_checkpoint(trained: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "notes.pth"
    path.write_text("not weights")
    assert trained.test("--checkpoint", path) == 2
    Complaint(capsys).tells(path, "damaged")
    torch.save({"a": 1}, path)
    assert trained.test("--checkpoint", path) == 2
    Complaint(capsys).tells(path, "holds no network's weights but a")


@pytest.mark.parametrize(
    "flags, parts",
    [
        (["--tile", 2, 18, 16], ["tile", "18 rows", "multiple of the attention window of 4", "16 or 20"]),
        (["--tile", 2, 16, 16, "--tile_overlap", 2, 16, 16], ["tile", "can't overlap"]),
        (["--folder_lq", "nowhere/lq"], ["dataroot_lq", "nowhere/lq", "--demo"]),
        (["--folder_lq", "nowhere/lq", "--folder_gt", "nowhere/gt"], ["dataroot_gt", "nowhere/gt"]),
    ],
)
def test_flags_of_the_tester(
    trained: TinyRun, capsys: pytest.CaptureFixture[str], flags: list[object], parts: list[str]
) -> None:
    capsys.readouterr()
    assert trained.test(*flags) == 2
    Complaint(capsys).tells(*parts)
    assert not trained.results.exists()


def test_an_unknown_task(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_test("--task", "006_VRT_videodeblurring_Gopro") == 2
    Complaint(capsys).tells("006_VRT_videodeblurring_Gopro", "006_VRT_videodeblurring_GoPro")


@pytest.mark.parametrize("damage", [lambda path: cut(path, 0.6), lambda path: path.with_name("COMPLETE").unlink()])
def test_a_damaged_newest_checkpoint_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    run = TinyRun.make(tmp_path)
    settings = ("train.checkpoint_save=1", "train.total_iter=2", "datasets.test=null")
    assert run.train(*settings) == 0
    whole = run.weights(2)
    newest = run.folder / "checkpoints" / "step_00000002"
    damage(newest / "state.pth")
    with caplog.at_level(logging.WARNING):
        assert run.train(*settings) == 0
    warning = next(record.getMessage() for record in caplog.records if str(newest) in record.getMessage())
    assert "The one before it is taken" in warning and warning in run.log()
    assert "Resumed from step 1" in run.log()
    assert all(torch.equal(value, whole[name]) for name, value in run.weights(2).items())


def test_only_damaged_checkpoints(trained: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "copy"
    shutil.copytree(trained.folder, root / "tiny")
    cut(root / "tiny" / "checkpoints" / "step_00000001" / "state.pth", 0.6)
    cut(root / "tiny" / "models" / "1_G.pth", 0.6)
    capsys.readouterr()
    assert trained.train(f"path.root={root}") == 2
    Complaint(capsys).tells(root / "tiny", "no checkpoint can be read", "to start again")


@pytest.mark.parametrize(
    "overrides, parts",
    [
        (("train.accumulate_grad=2",), ["train.accumulate_grad", "dataloader_batch_size"]),
        (("logger.wandb=true", "logger.wandb_mode=online"), ["logger.wandb_mode", "WANDB_API_KEY"]),
    ],
)
def test_what_is_found_late_leaves_nothing_either(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    overrides: tuple[str, ...],
    parts: list[str],
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    fails(TinyRun.make(tmp_path), capsys, *overrides).tells(*parts)


def test_another_optimizer_than_the_checkpoints(
    trained: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(trained.folder, root / "tiny")
    capsys.readouterr()
    grouped = ("train.fix_iter=1", 'train.fix_keys=["spynet"]', "train.fix_lr_mul=0.5")
    assert trained.train(f"path.root={root}", *grouped) == 2
    Complaint(capsys).tells(root / "tiny", "fix_lr_mul")


def test_the_option_file_stays_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = TinyRun.make(tmp_path)
    before = json.loads(run.options.read_text())
    fails(run, capsys, "train.total_iter=0")
    assert json.loads(run.options.read_text()) == before
