"""scripts/data_preparation/simulate_dataset.py: a whole data set, as laid down and repeatable, or none."""

import filecmp
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

import models.select_network  # noqa: F401  registers the networks
from data.dataset_video_rgbspike import VideoRecurrentTrainDatasetRGBSpike
from data.select_dataset import define_Dataset
from data.spike.simulation import gopro_layout
from data.spike.simulation.simulate import integrate_and_fire, sensor_light
from data.spike.sync import ExposureWindow, SyncTable
from scripts.data_preparation.simulate_dataset import main
from utils.spike_loader import SpikeStream
from utils.utils_image import imread_rgb
from utils.utils_option import load_options
from utils.utils_video import VideoWriter

SMALL = [
    "--size",
    "36",
    "48",
    "--n",
    "3",
    "--train_clips",
    "2",
    "--test_clips",
    "1",
    "--train_frames",
    "3",
    "--test_frames",
    "2",
]


def tree(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("simulated") / "demo"
    assert main(["--root", str(root), *SMALL]) == 0
    return root


@pytest.fixture
def frames(tmp_path: Path) -> Callable[[str, int], Path]:
    """Makes folders of frames: a picture that moves right by a pixel a frame, its number in the corner."""

    def make(name: str, count: int, size: tuple[int, int] = (40, 52)) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        noise = np.random.default_rng(0).random((size[0], size[1] + count, 3), dtype=np.float32)
        picture = np.rint(255 * cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 1, cv2.NORM_MINMAX))
        for index in range(count):
            frame = picture[:, count - index : count - index + size[1]].astype(np.uint8)
            frame[:4, :4] = index
            cv2.imwrite(str(folder / f"{index:04d}.png"), frame)
        return folder

    return make


def test_the_layout_is_that_of_the_gopro_set(demo: Path) -> None:
    expected = ["meta_info_test.txt", "meta_info_train.txt", "simulation.json", "GOPRO_Large_spike_seq/config.yaml"]
    for split, clips, length in (("train", ("demo00_03_00", "demo01_03_00"), 3), ("test", ("demo02_03_00",), 2)):
        for clip in clips:
            expected.append(f"GOPRO_Large_spike_seq/{split}/{clip}/sync.json")
            for index in range(length):
                expected += [
                    f"GOPRO_Large/{split}_GT/{clip}/{index:06d}.png",
                    f"GOPRO_Large/{split}_GT_blurred/{clip}/{index:06d}.png",
                    f"GOPRO_Large_spike_seq/{split}/{clip}/spike/{index:06d}.dat",
                ]
    assert tree(demo) == sorted(expected)
    assert (demo / "meta_info_train.txt").read_text() == "demo00_03_00 3 (36,48,3) 0\ndemo01_03_00 3 (36,48,3) 0\n"
    assert (demo / "meta_info_test.txt").read_text() == "demo02_03_00 2 (36,48,3) 0\n"
    config = yaml.safe_load((demo / "GOPRO_Large_spike_seq/config.yaml").read_text())
    assert config == {"spike_h": 18, "spike_w": 24, "is_labeled": False, "labeled_data_type": [0]}
    assert not list(demo.parent.glob(".*partial*"))


def test_spikes_are_upright_aligned_and_true_in_brightness(demo: Path) -> None:
    clip = demo / "GOPRO_Large_spike_seq/test/demo02_03_00"
    table = SyncTable.load(clip / "sync.json", "demo02_03_00")
    for name in ("000000", "000001"):
        stream = SpikeStream(clip / "spike" / f"{name}.dat")
        assert stream.shape == (24, 18, 24)
        assert table.window(name) == ExposureWindow(0, 17, 8)
        rate = 2.0 * stream.get_block_spikes(0, 17).mean(axis=0)
        blurred = sensor_light(imread_rgb(demo / f"GOPRO_Large/test_GT_blurred/demo02_03_00/{name}.png"))
        # The count of 17 frames is within one spike of the light, 2/17 per pixel.
        assert np.abs(rate - blurred).max() <= 2 / 17 + 2 / 255
        assert abs(rate.mean() - blurred.mean()) < 0.01
        assert np.abs(rate - blurred[::-1]).max() > 0.2


def test_the_blurred_pictures_differ_from_the_sharp_ones(demo: Path) -> None:
    differences = [
        np.abs(imread_rgb(sharp).astype(int) - imread_rgb(Path(str(sharp).replace("_GT/", "_GT_blurred/"))))
        for sharp in demo.glob("GOPRO_Large/*_GT/*/*.png")
    ]
    assert len(differences) == 8 and np.mean(differences) > 0.5 and min(map(np.max, differences)) > 3


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(demo: Path, tmp_path: Path) -> None:
    assert main(["--root", str(tmp_path / "again"), *SMALL]) == 0
    assert main(["--root", str(tmp_path / "other"), *SMALL, "--seed", "1"]) == 0
    _, differing, errors = filecmp.cmpfiles(demo, tmp_path / "again", tree(demo), shallow=False)
    assert not differing and not errors
    _, differing, _ = filecmp.cmpfiles(demo, tmp_path / "other", tree(demo), shallow=False)
    assert {path.rsplit(".", 1)[1] for path in differing} == {"png", "dat", "json"}


def test_a_whole_data_set_is_kept_and_another_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "set"
    assert main(["--root", str(root), *SMALL]) == 0
    sharp = root / "GOPRO_Large/train_GT/demo00_03_00/000000.png"
    created = sharp.stat().st_ino
    assert main(["--root", str(root), *SMALL]) == 0
    assert "kept" in capsys.readouterr().out and sharp.stat().st_ino == created
    assert main(["--root", str(root), *SMALL, "--light", "linear"]) == 2
    said = capsys.readouterr().err
    assert "light srgb -> linear" in said and "--force" in said and sharp.stat().st_ino == created
    assert main(["--root", str(root), *SMALL, "--light", "linear", "--force"]) == 0
    assert sharp.stat().st_ino != created
    assert json.loads((root / "simulation.json").read_text())["parameters"]["light"] == "linear"
    sharp.unlink()
    assert main(["--root", str(root), *SMALL, "--light", "linear"]) == 2
    assert "000000.png is missing" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("precious")
    for extra in ([], ["--force"]):
        assert main(["--root", str(tmp_path / "mine"), *SMALL, *extra]) == 2
        assert "another folder" in capsys.readouterr().err
    assert tree(tmp_path) == ["mine/thesis.tex"]


def test_what_breaks_in_the_middle_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def full_disk(path: Path, spikes: np.ndarray) -> None:
        written.append(path)
        if len(written) == 4:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(gopro_layout, "write_spikes", full_disk)
    assert main(["--root", str(tmp_path / "set"), *SMALL]) == 1
    assert len(written) == 4 and not list(tmp_path.iterdir())


def test_an_option_file_trains_on_it(
    frames: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--root", "my sets/mine", "--video", str(frames("still", 30)), "--n", "3", "--threshold", "1.5"]
    assert main(arguments) == 0
    assert capsys.readouterr().out.endswith("train on it: ./svrt train --opt 'my sets/mine/train.json'\n")
    opt = load_options("my sets/mine/train.json")
    assert opt.task == "mine" and opt.netG.net_type == "vrt"
    for section in (opt.datasets.train, opt.datasets.test):
        assert section is not None and section.arguments()["spike_threshold"] == 1.5
        build = {"seed": 0, "scale": 1, "n_channels": 3}
        shrink = {"gt_size": 16, "num_frame": 2} if section is opt.datasets.train else {}
        assert len(define_Dataset(section.model_copy(update=shrink), **build)) == 1 or section is opt.datasets.train
    # It is part of the set: the same command keeps it, and one with other parameters may replace it.
    assert main(arguments) == 0 and main([*arguments, "--seed", "1", "--force", "--split", "train"]) == 0
    assert load_options("my sets/mine/train.json").datasets.test is None


def numbers(root: Path, split: str, clip: str) -> list[int]:
    """Which frame of the source each sharp picture is."""
    folder = root / "GOPRO_Large" / f"{split}_GT" / clip
    return [int(imread_rgb(path)[1, 1, 0]) for path in sorted(folder.iterdir())]


def test_one_video_is_split_in_time_without_a_shared_frame(frames: Callable[..., Path], tmp_path: Path) -> None:
    root = tmp_path / "set"
    assert main(["--root", str(root), "--video", str(frames("my_clip", 24)), "--n", "3"]) == 0
    assert numbers(root, "train", "my-clip_03_00") == [1, 4, 7, 10, 13]
    assert numbers(root, "test", "my-clip_03_01") == [19]  # made of frames 18 to 21; training ends with frame 15
    rows = [line.split()[:2] for split in ("train", "test") for line in (root / f"meta_info_{split}.txt").open()]
    assert rows == [["my-clip_03_00", "5"], ["my-clip_03_01", "1"]]


def test_several_videos_are_split_by_video_and_all_can_go_to_one_side(
    frames: Callable[..., Path], tmp_path: Path
) -> None:
    folders = [str(frames(name, count)) for name, count in (("a", 7), ("b", 8), ("c", 10))]
    assert main(["--root", str(tmp_path / "set"), "--video", *folders, "--n", "3", "--test_clips", "1"]) == 0
    assert numbers(tmp_path / "set", "train", "a_03_00") == [1, 4]
    assert numbers(tmp_path / "set", "train", "b_03_00") == [1, 4]
    assert numbers(tmp_path / "set", "test", "c_03_00") == [1, 4, 7]
    assert main(["--root", str(tmp_path / "all"), "--video", *folders, "--n", "3", "--split", "test"]) == 0
    assert len(list((tmp_path / "all/GOPRO_Large/test_GT").iterdir())) == 3
    assert (tmp_path / "all/meta_info_train.txt").read_text() == ""


def test_a_longer_stride_leaves_a_gap_and_the_sensor_integrates_through_it(
    frames: Callable[..., Path], tmp_path: Path
) -> None:
    root = tmp_path / "set"
    arguments = ["--n", "3", "--stride", "4", "--split", "train", "--max_frames", "12"]
    assert main(["--root", str(root), "--video", str(frames("still", 14)), *arguments]) == 0
    assert numbers(root, "train", "still_03_00") == [1, 5, 9]
    first, second = (
        SpikeStream(root / f"GOPRO_Large_spike_seq/train/still_03_00/spike/{index:06d}.dat") for index in (0, 1)
    )
    corner = np.stack([np.full((1, 1), level / 8 / 255) for level in range(96)])  # the number's gray grows evenly
    charge = 2 * np.random.default_rng(np.random.SeedSequence((0, 0))).random((20, 26))[0, 0]
    entire = integrate_and_fire(corner, 2.0, np.full((1, 1), charge))[:, 0, 0]
    assert abs(int(first.get_spike_matrix()[:, 0, 0].sum()) - int(entire[:24].sum())) <= 1
    assert abs(int(second.get_spike_matrix()[:, 0, 0].sum()) - int(entire[32:56].sum())) <= 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--video", "{short}", "--n", "7"], "3 frames are too few"),
        (["--video", "{clip}", "--n", "7"], "too few to split in time"),
        (["--video", "{clip}", "{clip}", "--n", "3"], "the same name"),
        (["--video", "{clip}", "{tiny}", "--n", "3"], "at least 32x32, these come to 30x40"),
        (["--video", "{clip}", "--exposure_ms", "20"], "one known frame rate"),
        (["--video", "{clip}", "--spike_fps", "800", "--upsample", "2"], "give one of them"),
        (["--upsample", "2"], "--upsample has no effect without --video"),
        (["--video", "{clip}", "--test_clips", "1", "--n", "3"], "--test_fraction or --split"),
        (["--video", "{clip}", "--train_clips", "1"], "--train_clips has no effect with --video"),
        (["--video", "{clip}", "--n", "3", "--scale", "0.5"], "at least 32x32"),
        (["--video", "{clip}", "--size", "64", "64", "--scale", "0.5"], "both resize"),
        (["--video", "{broken}"], "broken.mp4: cannot be decoded"),
        (["--video", "{broken}/nothing"], "no such video file"),
        (["--scale", "0.5"], "--scale has no effect without --video"),
        (["--size", "8", "8"], "at least 32"),
        (["--n", "1"], "at least 2"),
        (["--stride", "0"], "at least 1"),
        (["--threshold", "0.5"], "--threshold must be at least 1"),
        (["--train_clips", "0", "--test_clips", "0"], "nothing to make"),
    ],
)
def test_mistakes_are_told_and_leave_nothing(
    arguments: list[str], said: str, frames: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 100)
    places = {
        "short": frames("short", 3),
        "clip": frames("clip", 10),
        "tiny": frames("tiny", 10, (30, 40)),
        "broken": tmp_path / "broken.mp4",
    }
    before = tree(tmp_path)
    arguments = [argument.format(**{name: str(path) for name, path in places.items()}) for argument in arguments]
    assert main(["--root", str(tmp_path / "set"), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert tree(tmp_path) == before and not list(tmp_path.glob(".*"))


def test_videos_of_different_sizes_make_one_set(frames: Callable[..., Path], tmp_path: Path) -> None:
    root = tmp_path / "set"
    folders = [str(frames("low", 8)), str(frames("wide", 8, (40, 60)))]
    assert main(["--root", str(root), "--video", *folders, "--n", "3", "--split", "train"]) == 0
    assert (root / "meta_info_train.txt").read_text() == "low_03_00 2 (40,52,3) 0\nwide_03_00 2 (40,60,3) 0\n"
    dataset = VideoRecurrentTrainDatasetRGBSpike(
        dataroot_gt=str(root / "GOPRO_Large/train_GT"),
        dataroot_lq=str(root / "GOPRO_Large/train_GT_blurred"),
        dataroot_spike=str(root / "GOPRO_Large_spike_seq/train"),
        spike={"representation": "tfp"},
        num_frame=2,
        gt_size=32,
    )
    assert {dataset[index]["key"].split("/")[0] for index in range(len(dataset))} == {"low_03_00", "wide_03_00"}


def test_slowed_videos_show_frames_between(frames: Callable[..., Path], tmp_path: Path) -> None:
    root = tmp_path / "set"
    arguments = ["--n", "3", "--split", "train", "--upsample", "4"]
    assert main(["--root", str(root), "--video", str(frames("still", 5)), *arguments]) == 0
    # 17 sharp frames, four to one of the video's: the middle ones of [0, 3), [3, 6), ... are 1, 4, 7, 10, 13.
    shown = numbers(root, "train", "still_03_00")
    assert len(shown) == 5 and shown[1] == 1 and all(0 <= number <= 4 for number in shown)
    assert json.loads((root / "simulation.json").read_text())["parameters"]["upsample"] == 4


def test_physical_times_become_frames(
    frames: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = tmp_path / "clip.mp4"
    with VideoWriter(video, 25.0) as writer:
        for path in sorted(frames("still", 6).iterdir()):
            writer.write(imread_rgb(path))
    arguments = ["--video", str(video), "--split", "train", "--spike_fps", "800", "--exposure_ms", "20"]
    assert main(["--root", str(tmp_path / "set"), *arguments]) == 0
    # 100 sharp frames a second: an exposure from one sharp frame to the third takes 20 ms.
    assert "spike camera of 800 frames/s, exposure of 20.0 ms (--n 3 --upsample 4)" in capsys.readouterr().out
    sync = json.loads(next((tmp_path / "set").rglob("sync.json")).read_text())
    assert sync["spike_fps"] == 800 and sync["frames"][0]["spike_end"] == 17


def test_videos_need_a_root(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--video", "clip.mp4"]) == 2
    assert "--root is missing" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_makes_spikes_of_a_real_video(shared_data: Path, repository: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "scripts.data_preparation.simulate_dataset",
        "--root",
        str(tmp_path / "cat"),
        "--video",
        str(shared_data / "videos/cat.mp4"),
        "--scale",
        "0.3",
        "--max_frames",
        "40",
    ]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, env=dict(os.environ), timeout=120)
    assert done.returncode == 0, done.stderr
    assert "train: 1 clips, 3 pictures\ntest: 1 clips, 1 pictures\n" in done.stdout
    assert done.stderr == ""  # no progress bar outside a terminal
    assert len(SpikeStream(tmp_path / "cat/GOPRO_Large_spike_seq/test/cat_07_01/spike/000000.dat")) == 56
