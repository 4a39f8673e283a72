"""DVD, REDS, DAVIS, Vimeo-90K and X4K1000FPS from tiny raw trees to what the recipes read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import models.select_model  # noqa: F401  registers by being imported
from data.dataset_video_rgbspike import VideoRecurrentTrainDatasetRGBSpike
from data.missing_files import check_files
from data.select_dataset import define_Dataset
from data.spike.sync import ExposureWindow, SyncTable
from data.video_clips import read_meta_info
from scripts.data_preparation import (
    prepare,
    prepare_davis,
    prepare_dvd,
    prepare_reds,
    prepare_vimeo90k,
    prepare_x4k1000fps,
)
from tests.data.raw_trees import write_pictures
from tests.kair_options import kair_options
from utils.utils_image import imread_rgb
from utils.utils_option import load_options


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which trainsets/ and testsets/ are."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def dvd(root: Path) -> None:
    for clip in ("720p_240fps_1", "IMG_0001", "IMG_0003", "720p_240fps_2"):
        for kind in ("GT", "input"):
            folder = root / "trainsets/DVD/quantitative_datasets" / clip / kind
            write_pictures(folder, [f"{k:05d}.jpg" for k in range(3)])


def reds(root: Path) -> None:
    for part, clips in (("train", ("000", "001", "011", "015", "020", "239")), ("val", ("000", "007"))):
        for clip in clips:
            for kind, size in (("sharp", (32, 32)), ("blur", (32, 32)), ("sharp_bicubic/X4", (8, 8))):
                folder = root / f"trainsets/REDS/{part}/{part}_{kind}/{clip}"
                write_pictures(folder, [f"{k:08d}.png" for k in range(2)], size)


def davis(root: Path) -> None:
    raw = root / "trainsets/DAVIS"
    lists = {"train": ["bear", "boat"], "val": ["cows"], "test-dev": ["tennis"]}
    (raw / "ImageSets/2017").mkdir(parents=True)
    for name, clips in lists.items():
        (raw / f"ImageSets/2017/{name}.txt").write_text("\n".join(clips) + "\n")
        for clip in clips:
            write_pictures(raw / "JPEGImages/480p" / clip, [f"{k:05d}.jpg" for k in range(3)])


def vimeo(root: Path) -> None:
    raw = root / "trainsets/vimeo90k"
    names = [f"im{k}.png" for k in range(1, 8)]
    for clip in ("00001/0001", "00001/0002", "00002/0001"):
        write_pictures(raw / "vimeo_septuplet/sequences" / clip, names, (64, 64))
        write_pictures(raw / "vimeo_septuplet_matlabLRx4/sequences" / clip, names, (16, 16))
    (raw / "vimeo_septuplet/sep_trainlist.txt").write_text("00001/0001\n00001/0002\n")
    (raw / "vimeo_septuplet/sep_testlist.txt").write_text("00002/0001\n\n")


def names(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def test_dvd(root: Path) -> None:
    dvd(root)
    assert prepare_dvd.main([]) == 0
    for kind in ("GT", "GT_blurred"):
        assert names(f"trainsets/DVD/train_{kind}") == ["720p_240fps_1", "IMG_0001"]
        assert names(f"testsets/DVD10/test_{kind}") == ["720p_240fps_2", "IMG_0003"]
    link = Path("trainsets/DVD/train_GT/IMG_0001")
    assert link.resolve().parts[-2:] == ("IMG_0001", "GT") and not link.readlink().is_absolute()
    assert [len(clip) for clip in read_meta_info("trainsets/DVD/meta_info_train.txt", "05d")] == [3, 3]


def test_reds_keeps_its_test_clips_out_of_training(root: Path) -> None:
    reds(root)
    assert prepare_reds.main(["--copy"]) == 0
    for kind in ("sharp", "blur", "sharp_bicubic"):
        assert names(f"trainsets/REDS/train_{kind}_with_val") == ["001", "239", "240", "247"]
    for kind in ("GT", "blur", "sharp_bicubic"):
        assert names(f"testsets/REDS4/{kind}") == ["000", "011", "015", "020"]
    copied = Path("trainsets/REDS/train_sharp_bicubic_with_val/247/00000001.png")
    assert copied.read_bytes() == Path("trainsets/REDS/val/val_sharp_bicubic/X4/007/00000001.png").read_bytes()
    assert len(read_meta_info("trainsets/REDS/meta_info_train.txt", "08d")) == 4


def test_davis(root: Path) -> None:
    davis(root)
    assert prepare_davis.main(["--generate_lmdb"]) == 0
    assert names("trainsets/DAVIS/train_GT") == ["bear", "boat", "cows"] and names("testsets/DAVIS-test") == ["tennis"]
    assert "bear/00002.jpg (24,32,3) 1" in Path("trainsets/DAVIS/train_GT.lmdb/meta_info.txt").read_text()


def test_vimeo(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vimeo(root)
    assert prepare_vimeo90k.main([]) == 0
    assert "bd left out" in capsys.readouterr().out
    assert names("trainsets/vimeo90k/vimeo90k_train_GT_all/00001") == ["0001", "0002"]
    assert names("testsets/vimeo90k/vimeo90k_test_LR7frames") == ["00002"]
    clips = read_meta_info("trainsets/vimeo90k/meta_info_train.txt", "im{}")
    assert [clip.name for clip in clips] == ["00001/0001", "00001/0002"]
    assert clips[0].frames == tuple(f"im{k}" for k in range(1, 8))


@pytest.mark.parametrize(
    ("recipe", "make", "made", "untouched"),
    [
        (
            "005_train_vrt_videodeblurring_dvd",
            dvd,
            ["trainsets/DVD/train_GT_blurred.lmdb", "testsets/DVD10/test_GT"],
            [],
        ),
        (
            "007_train_vrt_videodeblurring_reds",
            reds,
            ["trainsets/REDS/train_blur_with_val.lmdb", "testsets/REDS4/blur"],
            ["trainsets/REDS/train_sharp_bicubic_with_val"],
        ),
        (
            "001_train_vrt_videosr_bi_reds_6frames",
            reds,
            ["trainsets/REDS/train_sharp_bicubic_with_val.lmdb", "testsets/REDS4/sharp_bicubic"],
            ["trainsets/REDS/train_blur_with_val"],
        ),
        ("008_train_vrt_videodenoising_davis", davis, ["trainsets/DAVIS/train_GT.lmdb"], ["testsets"]),
        (
            "009_train_vrt_videofi_vimeo_4frames",
            vimeo,
            ["trainsets/vimeo90k/vimeo90k_train_GT_all.lmdb", "testsets/vimeo90k/vimeo90k_test_GT_all"],
            [],
        ),
        ("003_train_vrt_videosr_bi_vimeo_7frames", vimeo, ["trainsets/vimeo90k/vimeo90k_train_LR7frames.lmdb"], []),
    ],
)
def test_recipes_name_what_is_made(
    root: Path, repository: Path, recipe: str, make: Any, made: list[str], untouched: list[str]
) -> None:
    make(root)
    options = repository / f"options/vrt/{recipe}.json"
    assert prepare.main(["--opt", str(options)]) == 0
    assert all(Path(path).is_dir() for path in made) and not any(Path(path).exists() for path in untouched)
    assert len(list(Path("data/meta_info").glob("meta_info_*.txt"))) == (2 if recipe.startswith("009") else 1)


def test_kairs_own_file_of_009_is_prepared(root: Path) -> None:
    """Its test folder has another name than ours; what is made is what its test set reads."""
    vimeo(root)
    tree = kair_options("009")
    tree["datasets"]["train"]["gt_size"] = 64  # these pictures are small
    Path("009.json").write_text(json.dumps(tree))
    assert prepare.main(["--opt", "009.json"]) == 0
    opt = load_options(root / "009.json")
    check_files(opt)
    sets = [
        define_Dataset(section, seed=0, scale=1, n_channels=3) for _, section in opt.datasets if section is not None
    ]
    assert [len(data) for data in sets] == [2, 1]


@pytest.mark.parametrize(
    ("command", "make", "remove", "message"),
    [
        (prepare_dvd.main, dvd, "trainsets/DVD/quantitative_datasets/IMG_0001/input/00001.jpg", "lacks 00001"),
        (prepare_reds.main, reds, "trainsets/REDS/train/train_blur/239/00000001.png", "239: "),
        (prepare_davis.main, davis, "trainsets/DAVIS/JPEGImages/480p/cows/00001.jpg", "missing in between: 1"),
        (
            prepare_vimeo90k.main,
            vimeo,
            "trainsets/vimeo90k/vimeo_septuplet/sequences/00001/0002/im4.png",
            "00001/0002",
        ),
    ],
)
def test_incomplete_raw_data_change_nothing(
    root: Path, command: Any, make: Any, remove: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make(root)
    Path(remove).unlink()
    before = sorted(root.rglob("*"))
    assert command([]) == 2
    assert message in capsys.readouterr().err and sorted(root.rglob("*")) == before


@pytest.mark.parametrize("module", [prepare_dvd, prepare_reds, prepare_davis, prepare_vimeo90k])
def test_missing_raw_data_say_what_to_unpack(root: Path, module: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert module.main([]) == 2
    assert "Unpack" in capsys.readouterr().err


def x4k(root: Path, frames: int = 5) -> None:
    for split, clips in (("train", ("002/occ000", "003/occ001")), ("val", ("Type1/TEST01",))):
        for seed, clip in enumerate(clips):
            folder = root / "trainsets/X4K1000FPS" / split / clip
            write_pictures(folder, [f"{k:04d}.png" for k in range(frames)], (32, 36), seed)


def test_x4k1000fps(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x4k(root)
    flags = ["--exposures", "9", "5", "--step", "4"]
    assert prepare_x4k1000fps.main(flags) == 0
    assert "exposure 9, train: 2 clips, 6 frames" in capsys.readouterr().out
    clip, made, spikes = "002_occ000", Path("trainsets/X4K1000FPS_9"), Path("trainsets/X4K1000FPS_9_spike_seq")
    # 5 raw frames are 17 on the spike clock: exposures begin at 0, 4 and 8; the middle of the first is raw frame 1.
    raw = [imread_rgb(f"trainsets/X4K1000FPS/train/002/occ000/{k:04d}.png") for k in range(5)]
    for k in range(3):
        assert np.array_equal(imread_rgb(made / "train_GT" / clip / f"{k:06d}.png"), raw[k + 1])
    blurred = imread_rgb(made / "train_GT_blurred" / clip / "000001.png").astype(float)
    assert np.abs(blurred - np.mean(raw[1:4], axis=0)).mean() < np.abs(blurred - raw[1]).mean()
    table = SyncTable.load(spikes / "train" / clip / "sync.json", clip)
    assert table.window("000002") == ExposureWindow(0, 9, 4) and table.spike_fps == 4000
    assert len(list(Path("trainsets/X4K1000FPS_5/test_GT/Type1_TEST01").iterdir())) == 4
    data = VideoRecurrentTrainDatasetRGBSpike(
        dataroot_gt=str(made / "train_GT"),
        dataroot_lq=str(made / "train_GT_blurred"),
        dataroot_spike=str(spikes / "train"),
        spike={"representation": "tfp"},
        meta_info_file=str(made / "meta_info_train.txt"),
        num_frame=3,
        gt_size=32,
    )
    sample = data[0]
    gray, rate = sample["L"][:, :3].mean(1), sample["L"][:, 3:].mean(1)
    straight, turned = (np.corrcoef(gray.flatten(), r.flatten())[0, 1] for r in (rate, rate.flip(1)))
    assert straight > turned + 0.15
    kept = made / "train_GT" / clip / "000000.png"
    stamp, lost = kept.stat().st_mtime_ns, made / "train_GT_blurred/003_occ001"
    content = {path.name: path.read_bytes() for path in lost.iterdir()}
    for path in lost.iterdir():
        path.unlink()
    lost.rmdir()
    assert prepare_x4k1000fps.main(flags) == 0
    assert {path.name: path.read_bytes() for path in lost.iterdir()} == content and kept.stat().st_mtime_ns == stamp


def test_x4k1000fps_mistakes(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare_x4k1000fps.main([]) == 2 and "unpack X4K1000FPS" in capsys.readouterr().err
    x4k(root, frames=2)
    assert prepare_x4k1000fps.main(["--exposures", "8"]) == 2 and "odd from 3" in capsys.readouterr().err
    assert prepare_x4k1000fps.main(["--exposures", "33"]) == 2
    assert "too few for an exposure of 33" in capsys.readouterr().err
    assert not list(Path("trainsets").glob("X4K1000FPS_33/*/[!.]*"))


def test_any_other_name_is_gopro(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("o.json").write_text(json.dumps({"datasets": {"train": {"dataroot_gt": "trainsets/mine/train_GT"}}}))
    assert prepare.main(["--opt", "o.json"]) == 2 and "Unpack GOPRO_Large" in capsys.readouterr().err
