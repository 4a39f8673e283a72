"""Testing by its entry script: experiments and published models, tiles, pictures, tables, folders."""

import csv
import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

import data.select_dataset  # noqa: F401  registers data sets
from models.select_network import define_G
from tests.tiny import NETWORK, TinyRun, run_test
from utils.utils_option import load_options

pytestmark = pytest.mark.slow

PUBLISHED = {
    "001_VRT_videosr_bi_REDS_6frames": 30_676_435,
    "002_VRT_videosr_bi_REDS_16frames": 35_134_783,
    "003_VRT_videosr_bi_Vimeo_7frames": 32_577_991,
    "004_VRT_videosr_bd_Vimeo_7frames": 32_577_991,
    "005_VRT_videodeblurring_DVD": 18_320_007,
    "006_VRT_videodeblurring_GoPro": 18_320_007,
    "007_VRT_videodeblurring_REDS": 18_320_007,
    "008_VRT_videodenoising_DAVIS": 18_320_871,
    "009_VRT_videofi_Vimeo_4frames": 9_943_387,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """A run of three steps whose test clips have all their frames."""
    run = TinyRun.make(tmp_path_factory.mktemp("trained"))
    assert run.train("train.total_iter=3", "datasets.test.num_frame=-1") == 0
    return run


def restore(run: TinyRun, output: Path, *flags: object) -> dict[str, np.ndarray]:
    """Tests all frames into `output`; the restored pictures by clip and frame."""
    assert run.test("--output", output, "--save_result", *flags, overrides=("datasets.test.num_frame=-1",)) == 0
    return pictures(output / "tiny")


def pictures(folder: Path) -> dict[str, np.ndarray]:
    """The restored frames in a results folder, by "clip/frame", RGB."""
    paths = [path for path in sorted(folder.glob("*/*.png")) if path.parent.name != "panels"]
    return {path.relative_to(folder).with_suffix("").as_posix(): read(path) for path in paths}


def read(path: Path) -> np.ndarray:
    return cv2.imread(str(path))[..., ::-1]


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    """Whether two sets of pictures are equal, pixel by pixel."""
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def as_float(rgb: np.ndarray) -> torch.Tensor:
    """(H, W, 3) uint8 to (1, 1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None, None].float() / 255


def test_pictures_and_scores_of_an_experiment(
    trained: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    restored = restore(trained, tmp_path)
    clips, frames = trained.test_data.clips, trained.test_data.frames
    assert list(restored) == [f"{clip}/{frame}" for clip in clips for frame in frames]
    assert {path.name for path in (tmp_path / "tiny" / "panels").iterdir()} == {f"{clip}_000002.png" for clip in clips}

    with open(tmp_path / "tiny" / "metrics.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [f"{row['clip']}/{row['frame']}" for row in rows] == list(restored)
    for row in rows:
        name = f"{row['clip']}/{row['frame']}.png"
        sharp, blurred = read(trained.test_data.gt / name), read(trained.test_data.lq / name)
        result = restored[name.removesuffix(".png")]
        assert float(row["psnr"]) == pytest.approx(peak_signal_noise_ratio(sharp, result), abs=1e-6)
        assert float(row["input_psnr"]) == pytest.approx(peak_signal_noise_ratio(sharp, blurred), abs=1e-6)

    summary = json.loads((tmp_path / "tiny" / "metrics.json").read_text())
    for metric in ("psnr", "ssim", "psnr_y", "ssim_y", "input_psnr"):
        values = [float(row[metric]) for row in rows]
        assert summary["mean_over_frames"][metric] == pytest.approx(np.mean(values))
        assert summary["clips"][clips[1]][metric] == pytest.approx(np.mean(values[4:]))
    table = capsys.readouterr().out
    for name in (*clips, "mean over clips and frames"):
        means = summary["clips"].get(name) or summary["mean_over_frames"]
        gain = means["psnr"] - means["input_psnr"]
        line = next(line for line in table.splitlines() if line.startswith(f"{name} "))
        assert line.split()[-6:] == [
            *(f"{means[key]:{form}}" for key, form in (("psnr", ".2f"), ("ssim", ".4f"))),
            *(f"{means[key]:{form}}" for key, form in (("psnr_y", ".2f"), ("ssim_y", ".4f"))),
            f"{gain:+.2f}",
            "dB",
        ]
    for told in ("metrics.csv", "metrics.json", "panels", "<clip>/<frame>.png"):
        assert told in table


def test_scores_are_those_of_the_last_validation(trained: TinyRun, tmp_path: Path) -> None:
    restore(trained, tmp_path)
    average = json.loads((tmp_path / "tiny" / "metrics.json").read_text())["mean_over_clips"]
    logged = re.findall(r"iter: +3 Average PSNR: ([\d.]+) dB; SSIM: ([\d.]+); PSNR_Y: ([\d.]+)", trained.log())[-1]
    assert logged == (f"{average['psnr']:.2f}", f"{average['ssim']:.4f}", f"{average['psnr_y']:.2f}")


def test_checkpoints_by_folder_file_and_default(trained: TinyRun, tmp_path: Path) -> None:
    default = restore(trained, tmp_path / "default")
    average = trained.folder / "models" / "3_E.pth"
    for name, checkpoint in (("folder", trained.folder), ("average", average)):
        assert same(default, restore(trained, tmp_path / name, "--checkpoint", checkpoint))
    plain = restore(trained, tmp_path / "plain", "--checkpoint", trained.folder / "models" / "3_G.pth")
    assert not same(default, plain)
    published = tmp_path / "published.pth"
    torch.save({"params": trained.weights(3, "G"), "params_ema": trained.weights(3, "E")}, published)
    assert same(default, restore(trained, tmp_path / "published", "--checkpoint", published))


def test_one_tile_is_the_whole_and_tiles_stand_alone(trained: TinyRun, tmp_path: Path) -> None:
    whole = restore(trained, tmp_path / "whole")
    assert same(whole, restore(trained, tmp_path / "one", "--tile", 4, 24, 32, "--tile_overlap", 2, 8, 8))
    # Tiles of two frames without overlap are the two halves of the clip, each restored by itself.
    halves = restore(trained, tmp_path / "halves", "--tile", 2, 0, 0, "--tile_overlap", 0, 0, 0)
    assert trained.test("--output", tmp_path / "begin", "--save_result") == 0
    begin = pictures(tmp_path / "begin" / "tiny")
    assert len(begin) == 4 and same(begin, {name: halves[name] for name in begin})
    assert not same(whole, halves)
    assert not same(whole, restore(trained, tmp_path / "tiled", "--tile", 4, 16, 16, "--tile_overlap", 2, 8, 8))
    workers = restore(trained, tmp_path / "workers", "--num_workers", 1)
    assert same(whole, workers)


def test_without_save_result_there_are_panels_alone(trained: TinyRun, tmp_path: Path) -> None:
    assert trained.test("--output", tmp_path) == 0
    assert sorted(path.name for path in (tmp_path / "tiny").iterdir()) == [
        "LOCK",
        "about.json",
        "index.html",
        "metrics.csv",
        "metrics.json",
        "panels",
    ]


def test_folders_of_the_command_line(trained: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its own clips, under other names; the option file's meta info does not apply to them."""
    own = {}
    for name, root in (("lq", trained.test_data.lq), ("gt", trained.test_data.gt), ("spike", trained.test_data.spike)):
        own[name] = tmp_path / name
        shutil.copytree(root / trained.test_data.clips[1], own[name] / "walk")
    for settings in own["spike"].parent.glob("spike/*/sync.json"):
        settings.unlink()
    shutil.copy(trained.test_data.spike.parent / "config.yaml", own["spike"])
    (own["spike"] / "walk" / "sync.json").write_text(
        (trained.test_data.spike / trained.test_data.clips[1] / "sync.json")
        .read_text()
        .replace(trained.test_data.clips[1], "walk")
    )
    whole = restore(trained, tmp_path / "whole")
    expected = {name.replace("test_clip_01", "walk"): value for name, value in whole.items() if "clip_01" in name}
    flags = ["--folder_lq", own["lq"], "--folder_spike", own["spike"]]
    capsys.readouterr()
    assert same(expected, restore(trained, tmp_path / "scored", *flags, "--folder_gt", own["gt"]))
    assert "mean over clips" in capsys.readouterr().out
    # Without ground truth: the same pictures, no scores.
    assert same(expected, restore(trained, tmp_path / "unscored", *flags))
    assert "PSNR" not in capsys.readouterr().out
    written = {path.name for path in (tmp_path / "unscored" / "tiny").iterdir()}
    assert written == {"walk", "panels", "run.json", "about.json", "index.html", "LOCK"}


def test_center_frame_only(trained: TinyRun, tmp_path: Path) -> None:
    overrides = ("datasets.test.num_frame=-1", "val.center_frame_only=true")
    assert trained.test("--output", tmp_path, "--save_result", overrides=overrides) == 0
    whole = restore(trained, tmp_path / "whole")
    center = pictures(tmp_path / "tiny")
    assert list(center) == [f"{clip}/000002" for clip in trained.test_data.clips]
    assert all(np.array_equal(picture, whole[name]) for name, picture in center.items())


def test_flags_that_contradict(capsys: pytest.CaptureFixture[str]) -> None:
    for flags in ([], ["--opt", "a.json", "--task", "b"], ["--opt", "a.json", "--tile", "1"]):
        with pytest.raises(SystemExit) as ending:
            run_test(*flags)
        assert ending.value.code == 2
    assert "--opt" in capsys.readouterr().err


# Published models


def test_every_published_model_has_its_options(repository: Path) -> None:
    assert {path.stem for path in (repository / "options" / "vrt" / "test").glob("*.json")} == set(PUBLISHED)


@pytest.mark.parametrize("task, parameters", PUBLISHED.items())
def test_published_sizes(repository: Path, task: str, parameters: int) -> None:
    opt = load_options(repository / "options" / "vrt" / "test" / f"{task}.json", ["netG.spynet_path=null"])
    with torch.device("meta"):
        network = define_G(opt.netG)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_a_published_model_restores(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """006 at full size, on two frames of 16x16; its weights as the release packs them."""
    task = "006_VRT_videodeblurring_GoPro"
    for frame in range(2):
        frames = tmp_path / "lq" / "clip"
        frames.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(
            str(frames / f"{frame:06d}.png"), np.random.default_rng(frame).integers(0, 255, (16, 16, 3), np.uint8)
        )
    opt = load_options(repository / "options" / "vrt" / "test" / f"{task}.json", ["netG.spynet_path=null"])
    network = define_G(opt.netG)
    # Nothing is added to the frames where the last layer is zero: the result is known without a second forward.
    torch.nn.init.zeros_(network.get_parameter("conv_last.weight"))
    torch.nn.init.zeros_(network.get_parameter("conv_last.bias"))
    checkpoint = tmp_path / "published.pth"
    torch.save({"params": network.state_dict()}, checkpoint)
    flags = ["--task", task, "--folder_lq", tmp_path / "lq", "--output", tmp_path, "--save_result"]
    assert run_test(*flags, "--checkpoint", checkpoint, "--tile", 0, 0, 0) == 0
    restored = pictures(tmp_path / task)
    assert list(restored) == ["clip/000000", "clip/000001"]
    for name, picture in restored.items():
        np.testing.assert_array_equal(picture, read(tmp_path / "lq" / f"{name}.png"))


def shrunk() -> list[str]:
    """`--set` of the small network."""
    return [f"netG.{key}={json.dumps(value)}" for key, value in NETWORK.items()]


def test_a_denoiser_is_given_its_noise(trained: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """008 with a small network: the test adds noise of the level named to clean frames, and tells the network."""
    task = "008_VRT_videodenoising_DAVIS"
    options = Path(__file__).resolve().parents[1] / "options" / "vrt" / "test" / f"{task}.json"
    overrides = [*shrunk(), "netG.spynet_path=null", "val.tile=[0, 16, 16]", "val.tile_overlap=[0, 8, 8]"]
    network = define_G(load_options(options, overrides).netG)
    torch.nn.init.zeros_(network.get_parameter("conv_last.weight"))
    torch.nn.init.zeros_(network.get_parameter("conv_last.bias"))
    torch.save(network.state_dict(), tmp_path / "small.pth")
    clean = trained.test_data.gt
    flags = ["--task", task, "--checkpoint", tmp_path / "small.pth", "--folder_lq", clean, "--folder_gt", clean]
    flags += ["--sigma", 30, "--output", tmp_path, "--save_result", "--set", *overrides]
    assert run_test(*flags) == 0
    # This network changes nothing, so what it returns is the noisy input.
    summary = json.loads((tmp_path / task / "metrics.json").read_text())
    means = summary["mean_over_frames"]
    assert means["psnr"] == pytest.approx(means["input_psnr"])
    assert 10 * np.log10(255**2 / 30**2) == pytest.approx(means["psnr"], abs=0.5)
    flags[flags.index("--sigma") + 1] = 0
    capsys.readouterr()
    assert run_test(*flags) == 2
    assert f"--sigma: {task} needs the noise level" in capsys.readouterr().err
    others = ["--task", "006_VRT_videodeblurring_GoPro", "--folder_lq", trained.test_data.lq, "--sigma", 30]
    assert run_test(*others) == 2
    assert "--sigma: 006_VRT_videodeblurring_GoPro takes no noise level" in capsys.readouterr().err


def test_a_published_model_that_is_not_there(
    trained: TinyRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    task = "006_VRT_videodeblurring_GoPro"
    assert run_test("--task", task, "--folder_lq", trained.test_data.lq) == 2
    told = capsys.readouterr().err
    assert f"model_zoo/vrt/{task}.pth" in told and "--checkpoint" in told and told.count("Error") == 1


def test_clips_of_the_command_line_where_the_options_have_no_test_set(trained: TinyRun, tmp_path: Path) -> None:
    """Class, spikes and the like follow from the training set, also where `--set` names a key of the test set: the
    pictures are the same."""
    data = trained.test_data
    flags = ["--folder_lq", data.lq, "--folder_gt", data.gt, "--folder_spike", data.spike]
    expected = restore(trained, tmp_path / "named", *flags)
    tree = json.loads(trained.options.read_text())
    options = tmp_path / "train_only.json"
    options.write_text(json.dumps({**tree, "datasets": {**tree["datasets"], "test": None}}))
    flags += ["--set", "datasets.test.pair_by=name"]
    assert run_test("--opt", options, "--output", tmp_path / "derived", "--save_result", *flags) == 0
    assert same(expected, pictures(tmp_path / "derived" / "tiny"))
