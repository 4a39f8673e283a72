"""The doctor: nothing wrong with sound data, and every fault that is planted found by name."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from data.frame_io import FolderFrames, _environments, lmdb_module
from data.frame_lmdb import write_lmdb
from data.sampler import SampleIndex
from scripts.doctor import environment, main, shared_memory_room
from tests.data.trees import make_gopro_tree, write_dat
from tests.tiny import TinyRun, alone
from utils.spike_loader import SpikeStream
from utils.utils_option import load_options


@pytest.fixture
def run(tmp_path: Path) -> TinyRun:
    """An experiment on larger frames than usual, so that orientation and moment can be measured."""
    run = TinyRun.make(tmp_path)
    shutil.rmtree(tmp_path / "GOPRO_Large")
    shutil.rmtree(tmp_path / "GOPRO_Large_spike_seq")
    for seed, phase in enumerate(("train", "test")):
        make_gopro_tree(tmp_path, phase=phase, clips=2, frames=4, size=(96, 128), seed=seed)
    return run


def doctor(run: TinyRun, *flags: str) -> int:
    with alone():
        return main(["--opt", str(run.options), "--sheet", str(run.options.parent / "sheet.png"), *flags])


def change(run: TinyRun, **keys: object) -> None:
    """Sets keys of datasets.train."""
    options = json.loads(run.options.read_text())
    options["datasets"]["train"].update(keys)
    run.options.write_text(json.dumps(options))


def test_sound_data(run: TinyRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(run) == 0
    out = capsys.readouterr().out
    for part in (
        "Nothing is wrong.",
        "datasets.test: 16 pictures inspected, 2 items, 0 findings",
        "first step: ",
        "torch",
        "GB are free",
    ):
        assert part in out
    assert "options: " not in out and not run.folder.exists()
    sheet = cv2.imread(str(run.options.parent / "sheet.png"))
    assert sheet is not None and sheet.shape[0] > 4 * 96 and sheet.std() > 20


def cut(path: Path, keep: float = 0.9) -> None:
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])


def damage_middle(run: TinyRun) -> str:
    path = run.train_data.lq / "train_clip_00/000002.png"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    return "train_clip_00/000002.png: not a readable picture"


def cut_picture(run: TinyRun) -> str:
    cut(run.train_data.gt / "train_clip_01/000001.png")
    return "train_clip_01/000001.png: cut short: the PNG has no end"


def cut_jpeg(run: TinyRun) -> str:
    path = run.train_data.lq / "train_clip_00/000001.png"
    cv2.imwrite(str(path.with_suffix(".jpg")), cv2.imread(str(path)))
    path.unlink()
    cut(path.with_suffix(".jpg"))
    change(run, filename_ext="jpg")
    return "train_clip_00/000001.jpg: cut short: the JPEG has no end"


def empty_picture(run: TinyRun) -> str:
    (run.test_data.gt / "test_clip_00/000003.png").write_bytes(b"")
    return "test_clip_00/000003.png: empty file"


def no_picture(run: TinyRun) -> str:
    (run.test_data.gt / "test_clip_00/000000.png").write_text("<html>404</html>")
    return "test_clip_00/000000.png: not a readable picture"


def deep_picture(run: TinyRun) -> str:
    path = run.train_data.gt / "train_clip_00/000001.png"
    cv2.imwrite(str(path), cv2.imread(str(path)).astype(np.uint16) * 257)
    return "train_clip_00/000001.png: 96x128 16-bit pixels (1 frames), but the clip has 96x128"


def other_size(run: TinyRun) -> str:
    path = run.train_data.lq / "train_clip_01/000002.png"
    cv2.imwrite(str(path), cv2.imread(str(path))[:80])
    return "train_clip_01/000002.png: 80x128 pixels (1 frames), but the clip has 96x128"


def other_size_on_one_side(run: TinyRun) -> str:
    for path in (run.train_data.lq / "train_clip_01").iterdir():
        cv2.imwrite(str(path), cv2.imread(str(path))[:80])
    return "train_clip_01: frames of 96x128 in dataroot_gt and 80x128 in dataroot_lq"


def lost_picture(run: TinyRun) -> str:
    (run.train_data.lq / "train_clip_01/000002.png").unlink()
    return "train_clip_01: 1 frames not in dataroot_lq"


def lost_clip(run: TinyRun) -> str:
    shutil.rmtree(run.test_data.gt / "test_clip_01")
    return "test_clip_01: not in dataroot_gt"


def lost_root(run: TinyRun) -> str:
    shutil.rmtree(run.train_data.spike)
    return f"datasets.train.dataroot_spike: the folder {run.train_data.spike} does not exist"


def lost_spikes(run: TinyRun) -> str:
    (run.train_data.spike / "train_clip_00/spike/000003.dat").unlink()
    return "train_clip_00/spike/000003.dat: no such spike file"


def cut_spikes(run: TinyRun) -> str:
    cut(run.test_data.spike / "test_clip_01/spike/000001.dat")
    return "test_clip_01/spike/000001.dat: "


def wrong_geometry(run: TinyRun) -> str:
    (run.train_data.spike.parent / "config.yaml").write_text("spike_h: 32\nspike_w: 96\n")
    return "96x128 are 3 times as high and 1.33333 times as wide as spikes of 32x96"


def scrambled_geometry(run: TinyRun) -> str:
    """As many bytes, and even the frames' shape: only the pictures tell."""
    for path in run.train_data.spike.glob("*/spike/*.dat"):
        spikes = SpikeStream(path, 48, 64).get_spike_matrix()
        write_dat(path, np.random.default_rng(0).permutation(spikes.reshape(len(spikes), -1).T).T.reshape(-1, 48, 64))
    return "train_clip_01: the spikes show another scene than the frames"


def upside_down(run: TinyRun) -> str:
    change(run, spike_flipud=False)
    return "train_clip_00: the spikes are upside down"


def mirrored(run: TinyRun) -> str:
    for path in (run.test_data.spike / "test_clip_01/spike").iterdir():
        write_dat(path, SpikeStream(path, 48, 64).get_spike_matrix()[:, :, ::-1])
    return "test_clip_01: the spikes are mirrored"


def off_center(run: TinyRun) -> str:
    path = run.train_data.spike / "train_clip_01/sync.json"
    path.write_text(path.read_text().replace('"spike_center": 12', '"spike_center": 20'))
    return "spike frames before the time in sync.json"


def sync_of_another_clip(run: TinyRun) -> str:
    path = run.train_data.spike / "train_clip_01/sync.json"
    path.write_text(path.read_text().replace("train_clip_01", "train_clip_07"))
    return "train_clip_01/sync.json: seq_name is 'train_clip_07'"


def sync_outside_of_the_stream(run: TinyRun) -> str:
    path = run.train_data.spike / "train_clip_01/sync.json"
    path.write_text(path.read_text().replace('"spike_end": 24', '"spike_end": 30'))
    return "exposure [0, 30) lies outside the stream"


def leaked_clip(run: TinyRun) -> str:
    for root in ("GOPRO_Large/{}_GT", "GOPRO_Large/{}_GT_blurred", "GOPRO_Large_spike_seq/{}"):
        source, target = (run.options.parent / root.format(phase) for phase in ("train", "test"))
        shutil.copytree(source / "train_clip_01", target / "test_clip_07")
    sync = run.test_data.spike / "test_clip_07/sync.json"
    sync.write_text(sync.read_text().replace("train_clip_01", "test_clip_07"))
    options = json.loads(run.options.read_text())
    options["datasets"]["test"]["meta_info_file"] = None
    run.options.write_text(json.dumps(options))
    return "test clip test_clip_07 has 4 pictures of training clip train_clip_01"


def missing_weights(run: TinyRun) -> str:
    options = json.loads(run.options.read_text())
    options["netG"]["spynet_path"] = "nowhere/spynet.pth"
    run.options.write_text(json.dumps(options))
    return "netG.spynet_path: nowhere/spynet.pth does not exist"


def misspelt_option(run: TinyRun) -> str:
    change(run, gt_siez=16)
    return "gt_siez"


def crop_too_large(run: TinyRun) -> str:
    change(run, gt_size=128)
    return "96x128 are smaller than the crop of 128x128"


def meta_info_of_another_set(run: TinyRun) -> str:
    change(run, meta_info_file=str(run.test_data.meta_info))
    return "test_clip_00: not in dataroot_lq"


FAULTS: list[Callable[[TinyRun], str]] = [
    damage_middle, cut_picture, cut_jpeg, empty_picture, no_picture, deep_picture, other_size, other_size_on_one_side,
    lost_picture, lost_clip, lost_root, lost_spikes, cut_spikes, wrong_geometry, scrambled_geometry, upside_down,
    mirrored, off_center, sync_of_another_clip, sync_outside_of_the_stream, leaked_clip, missing_weights,
    misspelt_option, crop_too_large, meta_info_of_another_set,
]  # fmt: skip


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_planted_faults_are_found_by_name(
    run: TinyRun, plant: Callable[[TinyRun], str], capsys: pytest.CaptureFixture[str]
) -> None:
    expected = plant(run)
    assert doctor(run, "--no-step") == 1
    wrong = capsys.readouterr().out.split("Wrong:")[1]
    assert expected in wrong and "->" in wrong
    assert len(wrong.split("Notices:")[0].split("->")) <= 10


def test_a_step_that_fails_is_a_finding(
    run: TinyRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr("scripts.doctor.dry_run", fail)
    assert doctor(run) == 1
    assert "[dry step] RuntimeError: out of luck" in capsys.readouterr().out


def test_fix_meta(run: TinyRun, capsys: pytest.CaptureFixture[str]) -> None:
    meta = run.options.parent / "meta.txt"
    meta.write_text("train_clip_00 2 (96,128,3) 0\n")
    change(run, meta_info_file=str(meta))
    assert doctor(run, "--no-step") == 0
    out = capsys.readouterr().out
    assert "leaves out 6 frames of train_clip_00, train_clip_01" in out and "--fix-meta" in out
    assert doctor(run, "--no-step", "--fix-meta") == 0
    assert meta.read_text() == "train_clip_00 4 (96,128,3) 0\ntrain_clip_01 4 (96,128,3) 0\n"
    assert "rewritten, 2 clips, 8 frames" in capsys.readouterr().out


def test_lmdbs_are_looked_at_too(run: TinyRun, capsys: pytest.CaptureFixture[str]) -> None:
    for side in (run.train_data.gt, run.train_data.lq):
        write_lmdb(side.with_name(f"{side.name}.lmdb"), FolderFrames(side, "root"))
    change(run, dataroot_gt=f"{run.train_data.gt}.lmdb", dataroot_lq=f"{run.train_data.lq}.lmdb")
    assert doctor(run, "--no-step") == 0
    _environments.pop(os.path.realpath(f"{run.train_data.lq}.lmdb"))[1].close()  # one per process is allowed
    with lmdb_module().open(f"{run.train_data.lq}.lmdb") as environment, environment.begin(write=True) as transaction:
        transaction.put(b"train_clip_01/000002", b"something else")
    capsys.readouterr()
    assert doctor(run, "--no-step") == 1
    assert "train_GT_blurred.lmdb[train_clip_01/000002]: not a readable picture" in capsys.readouterr().out


def test_clips_of_one_name_are_a_notice(run: TinyRun, capsys: pytest.CaptureFixture[str]) -> None:
    for root in (run.test_data.gt, run.test_data.lq, run.test_data.spike):
        (root / "test_clip_00").rename(root / "train_clip_00")
    meta, sync = run.test_data.meta_info, run.test_data.spike / "train_clip_00/sync.json"
    for path in (meta, sync):
        path.write_text(path.read_text().replace("test_clip_00", "train_clip_00"))
    assert doctor(run, "--no-step") == 0
    assert "have the same name: train_clip_00" in capsys.readouterr().out


def found(run: TinyRun) -> list[str]:
    """What the environment is found to lack."""
    return [f"{finding.kind}: {finding.what}" for finding in environment(load_options(run.options))]


def test_the_environment(run: TinyRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with alone():
        assert found(run) == []
        monkeypatch.setattr("scripts.doctor.missing", lambda path: [f"{path.name}: tifffile: not installed"])
        usage = shutil.disk_usage(run.options)._replace(free=10**9)
        monkeypatch.setattr("scripts.doctor.shutil.disk_usage", lambda place: usage)
        place = run.options.parent
        assert found(run) == [
            "versions: requirement.txt: tifffile: not installed",
            f"disk: only 1.0 GB are free in {place}",
        ]
    device = SimpleNamespace(name="Card", total_memory=24e9)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda index: device)
    monkeypatch.setattr("torch.distributed.is_nccl_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert "versions: this torch has no NCCL, so the GPUs can't work together" in found(run)
    assert "GPU 1: Card, 24 GB" in capsys.readouterr().out


def test_small_shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A container of Docker has 64 MB."""
    usage = shutil.disk_usage(tmp_path)._replace(total=2**26, free=2**20)
    monkeypatch.setattr("data.loader.shutil.disk_usage", lambda place: usage)
    section = SimpleNamespace(dataloader_num_workers=8, dataloader_prefetch_factor=2, dataloader_batch_size=8)
    opt = SimpleNamespace(datasets=SimpleNamespace(train=section))
    sets = [SimpleNamespace(phase="train", dataset={SampleIndex(0, 0): {"L": torch.zeros(3, 64, 64), "key": "clip"}})]
    with alone():
        (finding,) = shared_memory_room(opt, sets)  # type: ignore[arg-type]
        assert finding.what == "/dev/shm (64 MiB, 1 free) is too small for the workers' 24 batches, about 9 MiB"
        section.dataloader_batch_size = 1
        usage = usage._replace(free=2**22)
        assert list(shared_memory_room(opt, sets)) == []  # type: ignore[arg-type]
