"""The tester with a network of spikes alone: pictures as `svrt spikes reconstruct` makes them, scores, tiles, films."""

import json
from pathlib import Path

import numpy as np
import pytest

from data.spike.simulation.simulate import integrate_and_fire
from scripts import restore
from scripts.spikes.__main__ import main as spikes
from tests.tiny import run_test
from utils.evaluation.metrics import psnr
from utils.spike_loader import write_spikes
from utils.utils_image import imread_rgb, imwrite_rgb

SIZE, FRAMES = (24, 32), 50
GEOMETRY = ("--set", f"datasets.test.spike_h={SIZE[0]}", f"datasets.test.spike_w={SIZE[1]}")
TASK = ("--task", "spike_refine", *GEOMETRY, "datasets.test.spike_threshold=2")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """clip.dat, a recorded moving pattern, and two sharp frames of it in sharp/, of its size."""
    folder = tmp_path_factory.mktemp("spikes")
    wide = np.random.default_rng(1).uniform(0.1, 0.9, (6, 20)).repeat(4, 0).repeat(4, 1)  # (24,80)
    light = np.stack([wide[:, t // 2 : t // 2 + SIZE[1]] for t in range(FRAMES)])
    write_spikes(folder / "clip.dat", integrate_and_fire(light, 2.0, np.random.default_rng(0)))
    for number, center in enumerate((12, 37)):  # of the halves of the stream
        gray = np.rint(255 * light[center]).astype(np.uint8)
        imwrite_rgb(folder / "sharp" / f"{number}.png", np.repeat(gray[..., None], 3, 2))
    return folder


def test_pictures_of_a_stream_are_those_of_the_spikes_command(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*TASK, "datasets.test.stride=20", "--folder_spike", data / "clip.dat", "--output", tmp_path]
    assert run_test(*flags, "--save_result", "--save_video") == 0
    folder = tmp_path / "spike_refine"
    names = sorted(path.stem for path in (folder / "clip").glob("*.png"))
    assert names == ["000005", "000025", "000045"]
    size = ["--spike_h", str(SIZE[0]), "--spike_w", str(SIZE[1]), "--threshold", "2", "--method", "network"]
    assert (
        spikes(["reconstruct", str(data / "clip.dat"), str(tmp_path / "own"), *size, "--frame", "5", "25", "45"]) == 0
    )
    for name in names:
        made, expected = (imread_rgb(place / f"{name}.png") for place in (folder / "clip", tmp_path / "own"))
        np.testing.assert_array_equal(made, expected)
    assert {path.name for path in folder.iterdir()} == {
        "clip", "clip.mp4", "clip_restored.mp4", "panels", "run.json", "about.json", "index.html", "LOCK",
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert "a picture every 20 spike frames, from 5 on" in printed and "PSNR" not in printed
    # The frames of the run are kept, and only the missing one is made again.
    (folder / "clip" / "000025.png").unlink()
    kept = (folder / "clip" / "000005.png").stat().st_mtime_ns
    assert run_test(*flags, "--save_result", "--resume") == 0
    assert (folder / "clip" / "000025.png").is_file() and (folder / "clip" / "000005.png").stat().st_mtime_ns == kept


def test_scores_against_sharp_frames(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [*TASK, "--folder_spike", data / "clip.dat", "--folder_gt", data / "sharp", "--output", tmp_path]
    assert run_test(*flags, "--save_result") == 0
    folder = tmp_path / "spike_refine"
    rows = json.loads((folder / "metrics.json").read_text())["frames"]
    assert [row["frame"] for row in rows] == ["0", "1"]
    for row in rows:
        made, sharp = (imread_rgb(place / f"{row['frame']}.png") for place in (folder / "sharp", data / "sharp"))
        assert row["psnr"] == psnr(made, sharp) > 15
        assert row["gaussian_psnr"] > 10 and "input_psnr" not in row
    table = capsys.readouterr().out
    assert "spikes alone, Gaussian" in table and "training-free" not in table
    page = (folder / "index.html").read_text()
    assert "spikes alone, interval" in page


def test_tiles_with_the_frames_film(data: Path, tmp_path: Path) -> None:
    """With blurred frames: their pictures beside the spikes; tiles that overlap give nearly the same picture."""
    frames = ["--folder_lq", data / "sharp", "--folder_spike", data / "clip.dat"]
    assert run_test(*TASK, *frames, "--output", tmp_path / "whole", "--save_result") == 0
    tiles = ["--tile", "1", "24", "24", "--tile_overlap", "0", "0", "16", "--output", tmp_path / "tiled"]
    assert run_test(*TASK, *frames, *tiles, "--save_result") == 0
    whole, tiled = (imread_rgb(tmp_path / name / "spike_refine/sharp/1.png") for name in ("whole", "tiled"))
    assert not np.array_equal(whole, tiled) and psnr(whole, tiled) > 30
    panel = imread_rgb(next((tmp_path / "whole/spike_refine/panels").glob("*.png")))
    assert panel.shape[1] == 3 * SIZE[1] + 2 * 4  # input, spikes, restored
    film = ["--spikes", str(data / "clip.dat"), "-o", str(tmp_path / "film.mp4"), "--task", "spike_refine"]
    assert restore.main([str(data / "sharp"), *film, "--threshold", "2", *GEOMETRY]) == 0
    assert (tmp_path / "film.mp4").stat().st_size > 0


def test_pairs_of_an_option_files_own_test_set(data: Path, tmp_path: Path) -> None:
    """Spike-Zoo's layout, as in training's evaluation."""
    root = tmp_path / "set"
    (root / "spike").mkdir(parents=True)
    (root / "spike" / "a.dat").write_bytes((data / "clip.dat").read_bytes())
    imwrite_rgb(root / "gt" / "a.png", imread_rgb(data / "sharp" / "0.png"))
    changes = [f"datasets.test.dataroot={root}", "datasets.test.window=41", "netG.in_chans=41"]
    assert run_test(*TASK, *changes, "--output", tmp_path, "--save_result") == 0
    rows = json.loads((tmp_path / "spike_refine" / "metrics.json").read_text())["frames"]
    made = imread_rgb(tmp_path / "spike_refine/a/a.png")
    assert rows[0]["psnr"] == psnr(made, imread_rgb(root / "gt" / "a.png"))
