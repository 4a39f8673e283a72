"""Testing any input: videos, one clip, odd sizes, interrupted runs, the tasks' data, and what can't be used."""

import errno
import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import data.select_dataset  # noqa: F401  registers data sets
from models.select_network import define_G
from tests.published_rule import by_the_published_rule
from tests.tiny import NETWORK, TinyRun, run_test
from utils.evaluation import results as utils_results
from utils.options.tester_flags import options, parse
from utils.spike_loader import write_spikes
from utils.utils_image import imread_rgb
from utils.utils_option import load_options

pytestmark = pytest.mark.slow
TASKS = Path(__file__).resolve().parents[1] / "options" / "vrt" / "test"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """A run with random weights in weights.pth beside its option file."""
    run = TinyRun.make(tmp_path_factory.mktemp("tiny"))
    torch.manual_seed(0)
    torch.save(define_G(load_options(run.options).netG).state_dict(), run.options.with_name("weights.pth"))
    return run


def restored_by(run: TinyRun, output: Path, *flags: object) -> int:
    """Tests the run's weights on all frames; the exit code."""
    weights = ["--checkpoint", run.options.with_name("weights.pth"), "--output", output]
    return run.test(*weights, *flags, overrides=("datasets.test.num_frame=-1",))


def frames_in(folder: Path) -> dict[str, np.ndarray]:
    """Pictures of a results folder by "clip/frame"."""
    paths = [path for path in sorted(folder.glob("*/*.png")) if path.parent.name != "panels"]
    return {path.relative_to(folder).with_suffix("").as_posix(): imread_rgb(path) for path in paths}


def small_task(task: str, path: Path, *more: str) -> list[str]:
    """A task's flags with a small network, whose random weights are written to `path`."""
    small = [f"netG.{key}={json.dumps(value)}" for key, value in NETWORK.items() if key != "upscale"]
    changes = [*small, "netG.spynet_path=null", *more]
    network = define_G(load_options(TASKS / f"{task}.json", changes).netG)
    torch.nn.init.zeros_(network.get_parameter("conv_last.weight"))
    torch.nn.init.zeros_(network.get_parameter("conv_last.bias"))
    torch.save({"params": network.state_dict()}, path)
    return ["--task", task, "--checkpoint", str(path), "--set", *changes]


def write_frames(folder: Path, names: list[str], size: tuple[int, int] = (16, 24)) -> None:
    folder.mkdir(parents=True)
    for place, name in enumerate(names):
        cv2.imwrite(str(folder / f"{name}.png"), np.full((*size, 3), 20 * place, np.uint8))


def test_an_interrupted_run_goes_on(
    tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The disk fills up after three of eight frames; then the rest is restored, and all of it is as in one go."""
    flags = ["--save_result", "--save_video", "--tile", 2, 16, 16, "--tile_overlap", 0, 8, 8]
    assert restored_by(tiny, tmp_path / "whole", *flags) == 0
    entire = frames_in(tmp_path / "whole" / "tiny")
    write, written = utils_results.imwrite_rgb, []

    def until_full(path: Path, picture: np.ndarray) -> None:
        if path.parent.name != "panels":
            written.append(path)
            if len(written) == 4:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, picture)

    capsys.readouterr()
    monkeypatch.setattr(utils_results, "imwrite_rgb", until_full)
    assert restored_by(tiny, tmp_path / "parts", *flags) == 1
    told = capsys.readouterr().err
    assert "No space left on device" in told and "--resume" in told and "Traceback" not in told
    assert len(frames_in(tmp_path / "parts" / "tiny")) == 3
    assert list((tmp_path / "parts").rglob("*.mp4")) == [] and list((tmp_path / "parts").rglob("*.tmp*")) == []

    def count(path: Path, picture: np.ndarray) -> None:
        written.append(path)
        write(path, picture)

    monkeypatch.setattr(utils_results, "imwrite_rgb", count)
    written.clear()
    assert restored_by(tiny, tmp_path / "parts", *flags, "--resume") == 0
    assert sum(path.parent.name != "panels" for path in written) == 5
    parts = frames_in(tmp_path / "parts" / "tiny")
    assert parts.keys() == entire.keys() and all((parts[name] == entire[name]).all() for name in entire)
    metrics = [(tmp_path / name / "tiny" / "metrics.csv").read_text() for name in ("whole", "parts")]
    assert metrics[0] == metrics[1]
    assert len(list((tmp_path / "parts").rglob("*.mp4"))) == 4
    # Frames of another run are not mixed in.
    capsys.readouterr()
    assert restored_by(tiny, tmp_path / "parts", *flags[:2], "--resume") == 2
    assert "--resume: the frames in" in capsys.readouterr().err
    assert restored_by(tiny, tmp_path / "parts", "--resume") == 2


def test_frames_of_one_run_alone(tiny: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another checkpoint, option, input file, or a lost run.json: resuming refuses, starting again removes."""
    results = tmp_path / "results"
    weights = ["--checkpoint", tiny.options.with_name("weights.pth"), "--output", results, "--save_result"]
    assert tiny.test(*weights) == 0
    first = frames_in(results / "tiny")
    capsys.readouterr()

    def refused(*parts: str, overrides: tuple[str, ...] = ()) -> None:
        assert tiny.test(*weights, "--resume", overrides=overrides) == 2
        told = capsys.readouterr().err
        assert "--resume" in told and "leave --resume out" in told and all(part in told for part in parts), told

    refused("amp_dtype", overrides=("train.amp_dtype=bf16",))
    run_json = results / "tiny" / "run.json"
    content = run_json.read_text()
    for damaged in ("{", "[]", '{"made_with": 3}', "[" * 100_000):
        run_json.write_text(damaged)
        refused("run.json is damaged")
    run_json.unlink()
    refused("run.json is missing")
    run_json.write_text(content)
    for path in (tiny.test_data.lq, tiny.test_data.spike):
        file = min(path.rglob("*.png" if path == tiny.test_data.lq else "*.dat"))
        original = file.read_bytes()
        changed = encoded_noise(file) if file.suffix == ".png" else bytes(len(original))
        file.write_bytes(changed)
        refused("inputs.")
        file.write_bytes(original)
    # A run that starts again leaves no frame of the one before, whichever clips that had.
    gone = results / "tiny" / "other_clip" / "000000.png"
    gone.parent.mkdir()
    shutil.copy(min(run_json.parent.glob("*clip*/0*.png")), gone)
    tree = json.loads(content)
    tree["frames"]["other_clip"] = ["000000"]
    run_json.write_text(json.dumps(tree))
    assert tiny.test(*weights) == 0
    assert not gone.exists() and frames_in(results / "tiny").keys() == first.keys()
    # A damaged frame of ours is restored again.
    frame = min((results / "tiny").glob("*clip*/0*.png"))
    frame.write_bytes(frame.read_bytes()[:-20])
    assert tiny.test(*weights, "--resume") == 0
    again = frames_in(results / "tiny")
    assert all((again[name] == first[name]).all() for name in first)


def encoded_noise(file: Path) -> bytes:
    """Another picture of a file's size."""
    shape = cv2.imread(str(file)).shape
    return cv2.imencode(".png", np.random.default_rng(5).integers(0, 256, shape, np.uint8))[1].tobytes()


def test_a_video_file(tiny: TinyRun, tmp_path: Path) -> None:
    video = tmp_path / "walk.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"FFV1"), 10, (24, 16))
    for value in range(3):
        writer.write(np.full((16, 24, 3), 60 * value, np.uint8))
    writer.release()
    tiles = ["val.tile=[2, 16, 16]", "val.tile_overlap=[0, 8, 8]"]
    flags = small_task("006_VRT_videodeblurring_GoPro", tmp_path / "w.pth", *tiles)
    flags += ["--folder_lq", str(video), "--output", str(tmp_path / "results")]
    assert run_test(*flags, "--save_result", "--save_video", "--num_workers", 2) == 0
    folder = tmp_path / "results" / "006_VRT_videodeblurring_GoPro"
    found = frames_in(folder)
    assert list(found) == [f"walk/{k:06d}" for k in range(3)] and abs(int(found["walk/000002"].mean()) - 120) < 3
    side_by_side = cv2.VideoCapture(str(folder / "walk.mp4"))
    assert side_by_side.get(cv2.CAP_PROP_FRAME_COUNT) == 3 and side_by_side.get(cv2.CAP_PROP_FPS) == 10
    restored = cv2.VideoCapture(str(folder / "walk_restored.mp4"))
    assert (restored.get(cv2.CAP_PROP_FRAME_WIDTH), restored.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (24, 16)
    assert restored.get(cv2.CAP_PROP_FRAME_COUNT) == 3 and abs(int(restored.read()[1].mean())) < 5


def test_the_light_network_restores_at_once_and_says_what_it_assumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two frames and their spikes, nothing else: weights come with the code."""
    write_frames(tmp_path / "clip", ["000", "001"], (16, 24))
    spikes = np.zeros((40, 8, 12), np.uint8)
    spikes[::4] = 1
    for name in ("000", "001"):
        write_spikes(tmp_path / "spikes" / "clip" / "spike" / f"{name}.dat", spikes)
    flags = ["--task", "guided", "--folder_lq", str(tmp_path / "clip"), "--folder_spike", str(tmp_path / "spikes")]
    sizes = ["--set", "datasets.test.spike_h=8", "datasets.test.spike_w=12"]
    assert run_test(*flags, *sizes, "--output", str(tmp_path), "--save_result", "--device", "cpu") == 0
    told = capsys.readouterr().out
    assert "spikes of 8x12" in told and "threshold 2" in told
    assert "clip/000: exposed during spike frames 0 to 39, restored at 20" in told
    restored = frames_in(tmp_path / "guided")
    assert abs(int(restored["clip/001"].mean()) - 20) <= 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_test("--task", "guided", "--folder_lq", str(tmp_path), "--device", "cuda") == 2
    assert "--device: this PyTorch finds no cuda device here. Choices: cpu" in capsys.readouterr().err


def test_an_odd_clip_of_one_frame_within_memory(tiny: TinyRun, tmp_path: Path) -> None:
    """17 x 23 pixels, gray, in tiles that are chosen; the folder of the clip itself."""
    (tmp_path / "clip").mkdir()
    cv2.imwrite(str(tmp_path / "clip" / "a.png"), np.full((17, 23), 99, np.uint8))
    flags = small_task("007_VRT_videodeblurring_REDS", tmp_path / "w.pth")
    flags += ["--folder_lq", str(tmp_path / "clip"), "--output", str(tmp_path / "results"), "--save_result"]
    assert run_test(*flags, "--tile", "auto", "--max_memory", "20GB") == 0
    (restored,) = frames_in(tmp_path / "results" / "007_VRT_videodeblurring_REDS").values()
    assert restored.shape == (17, 23, 3) and (restored == 99).all()


@pytest.mark.parametrize(
    "damage, told",
    [
        ("size", "20x24 pixels, but the first frame of the clip has 16x24"),
        ("alpha", "partly transparent; flatten it to RGB first"),
        ("empty", "holds no clip folders"),
    ],
)
def test_frames_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str, told: str) -> None:
    clip = tmp_path / "lq" / "clip"
    write_frames(clip, [] if damage == "empty" else ["a", "b"])
    if damage == "size":
        cv2.imwrite(str(clip / "b.png"), np.zeros((20, 24, 3), np.uint8))
    if damage == "alpha":
        cv2.imwrite(str(clip / "b.png"), np.full((16, 24, 4), 100, np.uint8))
    flags = small_task("006_VRT_videodeblurring_GoPro", tmp_path / "w.pth")
    assert run_test(*flags, "--folder_lq", tmp_path / "lq", "--output", tmp_path / "results") == 2
    said = capsys.readouterr().err
    assert told in said and said.count("Error: ") == 1 and "Traceback" not in said


def test_spikes_of_one_frame_are_missing(tiny: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = TinyRun.make(tmp_path)
    torch.save(define_G(load_options(run.options).netG).state_dict(), run.options.with_name("weights.pth"))
    missing = run.test_data.spike / run.test_data.clips[0] / "spike" / "000002.dat"
    missing.unlink()
    assert restored_by(run, tmp_path / "results") == 2
    assert f"{missing}: no such spike file" in capsys.readouterr().err


def test_vimeo_scores_the_middle_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_frames(tmp_path / "vimeo_lq" / "00001" / "0001", [f"im{k}" for k in range(1, 8)])
    write_frames(tmp_path / "gt" / "00001" / "0001", ["im4"], (64, 96))
    flags = small_task("003_VRT_videosr_bi_Vimeo_7frames", tmp_path / "w.pth")
    flags += ["--folder_lq", str(tmp_path / "vimeo_lq"), "--folder_gt", str(tmp_path / "gt"), "--save_result"]
    flags += ["--tile", "8", "0", "0", "--output", str(tmp_path / "results")]
    monkeypatch.chdir(tmp_path)
    assert run_test(*flags) == 2
    told = capsys.readouterr().err
    assert "data/meta_info/meta_info_Vimeo90K_test_GT.txt does not exist" in told and "--all_clips" in told
    assert "prepare_vimeo90k" in told
    write_frames(tmp_path / "vimeo_lq" / "00001" / "0002", [f"im{k}" for k in range(1, 8)])
    (tmp_path / "data" / "meta_info").mkdir(parents=True)
    (tmp_path / "data" / "meta_info" / "meta_info_Vimeo90K_test_GT.txt").write_text("00001/0001 7 (256,448,3)\n")
    assert run_test(*flags) == 0
    folder = tmp_path / "results" / "003_VRT_videosr_bi_Vimeo_7frames"
    picture = imread_rgb(folder / "00001" / "0001" / "im4.png")
    assert picture.shape == (64, 96, 3) and (picture == 60).all()
    rows = json.loads((folder / "metrics.json").read_text())["frames"]
    assert [(row["clip"], row["frame"]) for row in rows] == [("00001/0001", "im4")]


def test_official_tiles_give_the_published_pictures_and_scores(tmp_path: Path) -> None:
    """The published program by hand: its tiles, its rounding, its PSNR; pictures to 1 level, scores to 4 digits."""
    rng = np.random.default_rng(0)
    for side in ("lq", "gt"):
        for name in ("a", "b", "c", "d", "e"):
            path = tmp_path / side / "clip" / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), cv2.resize(rng.integers(0, 255, (6, 8, 3), np.uint8), (32, 24)))
    task, tile, overlap = "006_VRT_videodeblurring_GoPro", (4, 16, 16), (2, 8, 8)
    flags = small_task(task, tmp_path / "w.pth", f"val.tile={[*tile]}", f"val.tile_overlap={[*overlap]}")
    network = define_G(load_options(TASKS / f"{task}.json", flags[flags.index("--set") + 1 :]).netG).eval()
    torch.manual_seed(0)
    torch.nn.init.normal_(network.get_parameter("conv_last.weight"), std=0.05)
    weights = network.state_dict()
    # Of a file with both the published program takes "params".
    torch.save({"params": weights, "params_ema": {key: 0 * w for key, w in weights.items()}}, tmp_path / "w.pth")
    flags += ["--folder_lq", str(tmp_path / "lq"), "--folder_gt", str(tmp_path / "gt"), "--save_result"]
    assert run_test(*flags, "--tiling", "official", "--output", tmp_path / "results") == 0
    names = [f"clip/{name}" for name in "abcde"]
    lq, gt = (np.stack([imread_rgb(tmp_path / side / f"{name}.png") for name in names]) for side in ("lq", "gt"))
    video = torch.from_numpy(lq).permute(0, 3, 1, 2)[None] / 255
    with torch.inference_mode():
        expected = by_the_published_rule(network, video, tile, overlap, (2, 4, 4))[0]
    levels = (expected.clamp(0, 1) * 255).round().numpy().transpose(0, 2, 3, 1)
    found = frames_in(tmp_path / "results" / task)
    assert all(np.abs(found[name] - level).max() <= 1 for name, level in zip(names, levels, strict=True))
    psnr = np.mean(
        [10 * np.log10(255**2 / np.mean((level - sharp) ** 2)) for level, sharp in zip(levels, gt, strict=True)]
    )
    summary = json.loads((tmp_path / "results" / task / "metrics.json").read_text())
    assert summary["mean_over_clips"]["psnr"] == pytest.approx(psnr, abs=5e-5)
    assert not np.array_equal(found["clip/c"], np.stack(lq)[2]), "this network changes nothing"


@pytest.mark.parametrize(
    "task, scale",
    [
        ("001_VRT_videosr_bi_REDS_6frames", 4),
        ("002_VRT_videosr_bi_REDS_16frames", 4),
        ("004_VRT_videosr_bd_Vimeo_7frames", 4),
        ("005_VRT_videodeblurring_DVD", 1),
    ],
)
def test_every_frame_is_restored(tmp_path: Path, task: str, scale: int) -> None:
    write_frames(tmp_path / "lq" / "clip", ["a", "b", "c"])
    write_frames(tmp_path / "gt" / "clip", ["a", "b", "c"], (16 * scale, 24 * scale))
    flags = small_task(task, tmp_path / "w.pth", "val.tile=[0,0,0]", "val.tile_overlap=[0,0,0]")
    flags += ["--folder_lq", str(tmp_path / "lq"), "--folder_gt", str(tmp_path / "gt"), "--save_result"]
    assert run_test(*flags, "--output", tmp_path / "results") == 0
    pictures = frames_in(tmp_path / "results" / task)
    assert list(pictures) == ["clip/a", "clip/b", "clip/c"]
    for place, picture in enumerate(pictures.values()):  # nothing is added by this network
        assert picture.shape == (16 * scale, 24 * scale, 3) and (picture == 20 * place).all()
    rows = json.loads((tmp_path / "results" / task / "metrics.json").read_text())["frames"]
    assert [row["psnr"] for row in rows] == [None] * 3, "the pictures are equal"


@pytest.mark.parametrize(
    "name, frames, made",
    [
        ("davis", [f"{k:05d}" for k in range(9)], ["bear/00003", "bear/00005"]),
        ("vid4", [f"{k:03d}" for k in range(4)], ["bear/001", "bear/003"]),
        ("ucf101", ["frame0", "frame1", "frame2", "frame3", "framet"], ["bear/framet"]),
        ("mine", ["a", "b", "c"], ["bear/a_b", "bear/b_c"]),
    ],
)
def test_frames_are_interpolated(tmp_path: Path, name: str, frames: list[str], made: list[str]) -> None:
    write_frames(tmp_path / name / "bear", frames)
    changes = ["netG.img_size=[4, 16, 16]", "netG.pa_frames=0"]
    changes += [] if name in ("mine", "vid4") else ["datasets.test.crop=[16, 24]"]
    flags = small_task("009_VRT_videofi_Vimeo_4frames", tmp_path / "w.pth", *changes)
    flags += ["--folder_lq", str(tmp_path / name), "--output", str(tmp_path / "results"), "--save_result"]
    assert run_test(*flags) == 0
    folder = tmp_path / "results" / "009_VRT_videofi_Vimeo_4frames"
    found = frames_in(folder)
    assert list(found) == made
    # Nothing is added by this network: what is left is the mean of the frames around.
    assert found[made[0]].shape == (16, 24, 3) and (folder / "metrics.json").exists() == (name != "mine")


def test_a_value_that_is_nothing_is_a_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty folder name (a shell's unset variable), a speed of 0, a noise level of 0 against the file's."""
    write_frames(tmp_path / "lq" / "clip", ["a", "b"])
    flags = ["--task", "006_VRT_videodeblurring_GoPro", "--output", tmp_path]
    assert run_test(*flags, "--folder_lq", "") == 2 and "dataroot_lq" in capsys.readouterr().err
    assert run_test(*flags, "--folder_lq", tmp_path / "lq", "--folder_gt", "") == 2
    assert "dataroot_gt" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run_test(*flags, "--fps", 0)
    assert "--fps: a number above 0" in capsys.readouterr().err
    noisy = tmp_path / "noisy.json"
    noisy.write_text(
        json.dumps({"base": str(TASKS / "008_VRT_videodenoising_DAVIS.json"), "datasets": {"test": {"sigma": 30}}})
    )
    assert options(parse(["--opt", str(noisy)], "")).datasets.test.sigma == 30  # type: ignore[union-attr]
    assert options(parse(["--opt", str(noisy), "--sigma", "0"], "")).datasets.test.sigma == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("tile", [["auto", "2"], ["1", "2"], ["x", "1", "2"]])
def test_tiles_that_are_none(tile: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_test("--task", "006_VRT_videodeblurring_GoPro", "--tile", *tile)
    assert "three whole numbers or auto" in capsys.readouterr().err
