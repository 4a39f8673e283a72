"""Laying out GoPro and its spikes: links, copies, LMDBs, tiles, meta info, exposures; what is missing or resumed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from data.dataset_video_rgbspike import VideoRecurrentTrainDatasetRGBSpike
from data.spike.sync import ExposureWindow, SyncTable
from scripts.data_preparation.prepare_gopro_spike_dataset import RECIPE, main
from tests.data.raw_trees import raw_gopro
from utils.options.layers import load_layers
from utils.spike_loader import find_geometry

CLIP = "GOPR0002_03_00"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    raw_gopro(tmp_path)
    return tmp_path


def run(raw: Path, *flags: str) -> int:
    return main(["--gopro_root", str(raw / "GOPRO_Large"), "--spike_root", str(raw / "GOPRO_Large_spike_seq"), *flags])


def state(root: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every file and link."""
    return {str(path): (path.lstat().st_ino, path.lstat().st_mtime_ns) for path in root.rglob("*")}


@pytest.mark.parametrize("flags", [[], ["--copy"]])
def test_layout(raw: Path, flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in raw.rglob("*") if path.is_file()}
    assert run(raw, *flags) == 0
    root, spikes = raw / "GOPRO_Large", raw / "GOPRO_Large_spike_seq"
    for kind, source in (("GT", "sharp"), ("GT_blurred", "blur")):
        created = root / f"train_{kind}" / CLIP
        assert created.is_symlink() != bool(flags)
        assert (created / "000048.png").read_bytes() == (root / "train" / CLIP / source / "000048.png").read_bytes()
    lines = (root / "meta_info_train.txt").read_text().splitlines()
    assert lines == ["GOPR0001_03_00 4 (32,48,3) 47", "GOPR0002_03_00 4 (32,48,3) 47"]
    assert (root / "meta_info_test.txt").read_text() == "GOPR0003_03_00 4 (32,48,3) 47\n"
    assert find_geometry(spikes) == (16, 24)
    table = SyncTable.load(spikes / "train" / CLIP / "sync.json", CLIP)
    assert table.spike_fps == 1920 and table.window("000050") == ExposureWindow(0, 17, 8)
    assert "train: 2 clips, 8 frames" in capsys.readouterr().out
    assert all(path.read_bytes() == content for path, content in before.items())
    made_before = state(raw)
    assert run(raw, *flags) == 0
    changed = {path for path, stamp in state(raw).items() if made_before.get(path) != stamp}
    assert {Path(path).name for path in changed if Path(path).is_file()} == {
        "meta_info_train.txt",
        "meta_info_test.txt",
    }


def test_interrupted_runs_go_on(raw: Path) -> None:
    assert run(raw, "--copy", "--tiles", "--generate_lmdb") == 0
    root = raw / "GOPRO_Large"
    shutil.rmtree(root / "train_GT" / CLIP)
    (root / "train_GT_tiles" / CLIP / "000049.tif").unlink()
    shutil.rmtree(root / "test_GT.lmdb")
    half_made = root / "train_GT" / f".{CLIP}.tmp"
    half_made.mkdir()
    (half_made / "000099.png").touch()
    kept = root / "train_GT_tiles" / CLIP / "000048.tif"
    stamp = kept.stat().st_mtime_ns
    assert run(raw, "--copy", "--tiles", "--generate_lmdb") == 0
    assert len(list((root / "train_GT" / CLIP).iterdir())) == 4 and not half_made.exists()
    assert (root / "train_GT_tiles" / CLIP / "000049.tif").is_file() and (root / "test_GT.lmdb/data.mdb").is_file()
    assert kept.stat().st_mtime_ns == stamp


def test_force_and_another_manner(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(raw, "--splits", "test") == 0
    assert not (raw / "GOPRO_Large/train_GT").exists()
    assert run(raw, "--splits", "test", "--copy") == 0  # links become copies
    copied = raw / "GOPRO_Large/test_GT/GOPR0003_03_00"
    assert not copied.is_symlink()
    (copied / "000049.png").unlink()
    assert run(raw, "--splits", "test", "--copy") == 2
    assert "holds other frames" in (error := capsys.readouterr().err) and "--force" in error
    sync = raw / "GOPRO_Large_spike_seq/test/GOPR0003_03_00/sync.json"
    sync.write_text(json.dumps({"seq_name": "GOPR0003_03_00", "frames": []}))
    assert run(raw, "--splits", "test", "--force") == 0
    assert copied.is_symlink() and len(SyncTable.load(sync)) == 4


def test_prepared_forms_give_the_same_samples(raw: Path) -> None:
    assert run(raw, "--tiles", "--generate_lmdb") == 0

    def samples(suffix: str, **options: Any) -> list[Any]:
        roots = {f"dataroot_{side}": f"{raw}/GOPRO_Large/train_{kind}{suffix}" for side, kind in
                 (("gt", "GT"), ("lq", "GT_blurred"))}  # fmt: skip
        data = VideoRecurrentTrainDatasetRGBSpike(
            **roots,
            dataroot_spike=f"{raw}/GOPRO_Large_spike_seq/train",
            spike={"representation": "tfp"},
            num_frame=2,
            gt_size=16,
            **options,
        )
        return [data[index] for index in range(len(data))]

    plain = samples("")
    for other in (samples("_tiles", filename_ext="tif"), samples(".lmdb")):
        assert all((a["L"] == b["L"]).all() and (a["H"] == b["H"]).all() for a, b in zip(plain, other, strict=True))


def test_folders_of_an_option_file(raw: Path, tmp_path: Path) -> None:
    """KAIR's names: an LMDB for training, another place for the test set, a meta info file elsewhere."""
    train = {
        "dataroot_gt": f"{raw}/GOPRO_Large/train_GT.lmdb",
        "dataroot_lq": f"{raw}/GOPRO_Large/train_GT_blurred.lmdb",
        "meta_info_file": f"{tmp_path}/meta/meta_info_GoPro_train_GT.txt",
    }
    test = {"dataroot_gt": f"{tmp_path}/GoPro11/test_GT", "dataroot_lq": f"{tmp_path}/GoPro11/test_GT_blurred"}
    (tmp_path / "options.json").write_text(json.dumps({"datasets": {"train": train, "test": test}}))
    assert main(["--opt", str(tmp_path / "options.json")]) == 0
    assert "GOPR0001_03_00/000047.png (32,48,3) 1" in (Path(train["dataroot_lq"]) / "meta_info.txt").read_text()
    assert (tmp_path / "GoPro11/test_GT/GOPR0003_03_00").is_symlink()
    assert len((tmp_path / "meta/meta_info_GoPro_train_GT.txt").read_text().splitlines()) == 2
    assert not [path for path in (raw / "GOPRO_Large_spike_seq").rglob("*.*") if path.suffix != ".dat"]


def test_without_flags_the_folders_are_the_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw_gopro(tmp_path / "trainsets")
    monkeypatch.chdir(tmp_path)
    assert main([]) == 0
    for phase, clip in (("train", CLIP), ("test", "GOPR0003_03_00")):
        assert Path(f"trainsets/GOPRO_Large/{phase}_GT_blurred/{clip}/000047.png").is_file()
        assert Path(f"trainsets/GOPRO_Large_spike_seq/{phase}/{clip}/sync.json").is_file()
    section = load_layers(RECIPE).tree["datasets"]["train"]
    assert all(Path(section[f"dataroot_{side}"]).is_dir() for side in ("gt", "lq", "spike"))


def test_which_blurred_frames_is_recorded_and_kept(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = raw / "GOPRO_Large/train_GT_blurred"
    assert run(raw, "--blur", "blur_gamma") == 0
    assert f"{folder}: blurred frames of blur_gamma, recorded in train_GT_blurred.json" in capsys.readouterr().out
    assert json.loads((raw / "GOPRO_Large/train_GT_blurred.json").read_text()) == {"blur": "blur_gamma"}
    assert run(raw) == 0  # not asked again
    assert (folder / CLIP).resolve().name == "blur_gamma"
    assert run(raw, "--blur", "blur") == 2
    assert "holds frames of blur_gamma, not of blur; --force" in capsys.readouterr().err
    (raw / "GOPRO_Large/train_GT_blurred.json").unlink()
    assert run(raw, "--blur", "blur") == 2  # links tell without the record
    assert run(raw, "--blur", "blur", "--force") == 0
    assert (folder / CLIP).resolve().name == "blur"
    assert json.loads((raw / "GOPRO_Large/train_GT_blurred.json").read_text()) == {"blur": "blur"}


def test_data_made_elsewhere_are_left_alone(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """LMDBs alone, without the raw folders."""
    assert run(raw, "--generate_lmdb") == 0
    for name in ("train", "train_GT", "train_GT_blurred"):
        shutil.rmtree(raw / "GOPRO_Large" / name)
    train = {f"dataroot_{side}": f"{raw}/GOPRO_Large/train_{kind}.lmdb" for side, kind in
             (("gt", "GT"), ("lq", "GT_blurred"))}  # fmt: skip
    (tmp_path / "options.json").write_text(json.dumps({"datasets": {"train": train}}))
    before = state(raw)
    assert main(["--opt", str(tmp_path / "options.json"), "--splits", "train"]) == 0
    assert "left alone" in capsys.readouterr().out and state(raw) == before


def test_spikes_of_an_option_file(raw: Path, tmp_path: Path) -> None:
    train = {"dataroot_gt": f"{raw}/GOPRO_Large/train_GT", "dataroot_spike": f"{raw}/GOPRO_Large_spike_seq/train"}
    (tmp_path / "options.json").write_text(json.dumps({"datasets": {"train": train}}))
    assert main(["--opt", str(tmp_path / "options.json"), "--blur", "blur_gamma"]) == 0
    linked = raw / "GOPRO_Large/test_GT_blurred/GOPR0003_03_00"
    assert linked.resolve() == raw / "GOPRO_Large/test/GOPR0003_03_00/blur_gamma"
    assert (raw / "GOPRO_Large_spike_seq/test/GOPR0003_03_00/sync.json").is_file()


def lose_blur(raw: Path) -> None:
    (raw / "GOPRO_Large/train/GOPR0001_03_00/blur/000048.png").unlink()


def lose_frame(raw: Path) -> None:
    for kind in ("blur", "sharp"):
        (raw / f"GOPRO_Large/train/GOPR0001_03_00/{kind}/000048.png").unlink()


def lose_clip(raw: Path) -> None:
    shutil.rmtree(raw / "GOPRO_Large/test/GOPR0003_03_00/blur")


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (lose_blur, ["GOPR0001_03_00", "blur lacks 000048"]),
        (lose_frame, ["GOPR0001_03_00: frame numbers are missing in between: 48"]),
        (lose_clip, ["test/GOPR0003_03_00: no pictures for lq"]),
        (lambda raw: shutil.rmtree(raw / "GOPRO_Large/train"), ["Unpack GOPRO_Large"]),
    ],
)
def test_what_is_missing_is_named_before_anything_is_made(
    raw: Path, change: Any, messages: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    change(raw)
    before = state(raw)
    assert run(raw) == 2
    error = capsys.readouterr().err
    assert all(message in error for message in messages), error
    assert state(raw) == before


def test_missing_and_cut_spikes_are_named(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spikes = raw / "GOPRO_Large_spike_seq/test/GOPR0003_03_00/spike"
    (spikes / "000049.dat").unlink()
    (spikes / "000050.dat").write_bytes((spikes / "000050.dat").read_bytes()[:-1])
    assert run(raw) == 2
    assert "000049.dat" in (error := capsys.readouterr().err) and "000050.dat" in error
    assert run(raw, "--spike_h", "17", "--spike_w", "24") == 2


def test_a_length_that_the_name_does_not_imply_is_told(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for side in ("GOPRO_Large", "GOPRO_Large_spike_seq"):
        (raw / side / "test/GOPR0003_03_00").rename(raw / side / "test/GOPR0003_05_00")
    assert run(raw, "--splits", "test") == 0
    assert "GOPR0003_05_00: files are not of 40 spike frames" in capsys.readouterr().out


def test_a_full_disk_is_found_before_anything_is_made(
    raw: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = shutil.disk_usage(raw)._replace(free=1000)
    monkeypatch.setattr("scripts.data_preparation.preparation.shutil.disk_usage", lambda place: usage)
    before = state(raw)
    assert run(raw, "--tiles") == 2
    assert "GB are free" in capsys.readouterr().err and state(raw) == before
    assert run(raw) == 0  # links need no room
