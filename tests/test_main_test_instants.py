"""`main_test_vrt.py --times`: a film inside each exposure, in pictures, scores, video and report."""

import json
import re
from pathlib import Path

import av
import pytest

from scripts.data_preparation.simulate_dataset import main as simulate
from tests.browser import Browser
from tests.tiny import TinyRun, run_test


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the shipped network on a clip of two exposures, at five instants; three have sharp pictures."""
    root = tmp_path_factory.mktemp("instants")
    flags = "--n 3 --size 32 48 --train_clips 0 --test_clips 1 --test_frames 2 --instants 3"
    assert simulate(["--root", str(root / "set"), *flags.split()]) == 0
    pictures, spikes = root / "set" / "GOPRO_Large", root / "set" / "GOPRO_Large_spike_seq" / "test"
    names = {"lq": "test_GT_blurred", "gt": "test_GT", "instants": "test_GT_instants"}
    folders = [word for name, folder in names.items() for word in (f"--folder_{name}", pictures / folder)]
    more = ["--times", "0:1:1/4", "--output", root / "results", "--save_result", "--save_video"]
    assert run_test("--task", "guided", *folders, "--folder_spike", spikes, *more) == 0
    return root / "results" / "guided"


def test_pictures_video_and_scores(tested: Path) -> None:
    names = [f"{frame:06d}_{number}" for frame in range(2) for number in range(5)]
    assert sorted(path.stem for path in (tested / "demo00_03_00").iterdir()) == names
    assert sorted(path.stem for path in (tested / "training_free" / "demo00_03_00").iterdir()) == names
    with av.open(str(tested / "demo00_03_00_restored.mp4")) as video:
        assert len(list(video.decode(video=0))) == 10
    metrics = json.loads((tested / "metrics.json").read_text())
    assert [(row["frame"], row["time"]) for row in metrics["frames"]][:3] == [
        ("000000_0", "0"),
        ("000000_2", "0.5"),
        ("000000_4", "1"),
    ]
    of_middle = [row["psnr"] for row in metrics["frames"] if row["time"] == "0.5"]
    assert metrics["instants"]["0.5"]["psnr"] == pytest.approx(sum(of_middle) / 2)
    assert (tested / "metrics.csv").read_text().startswith("clip,frame,time,psnr")


def test_the_report_has_a_film(tested: Path) -> None:
    page = (tested / "index.html").read_text()
    film = re.search(r'<div class="film".*?</div></div>|<div class="film".*?</label>', page, re.DOTALL)
    assert film is not None and film[0].count("<template") == 10  # of the network, and training-free
    assert "Over the exposure" in page


def test_the_slider_shows_the_instants(tested: Path, browser: Browser) -> None:
    browser.open(tested / "index.html")
    shown = "document.querySelectorAll('.film figure img')[2].src"
    move = "const r = document.querySelector('.film input'); r.value = {}; r.oninput();"
    sources = [browser.run(move.format(number) + f"return {shown}") for number in range(5)]
    assert len(set(sources)) == 5
    assert browser.run("return document.querySelector('.film output').value") == "t = 1"


def test_vrt_restores_the_centre_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = TinyRun.make(tmp_path)
    assert run.test("--times", "0:1:1/4") == 2
    told = capsys.readouterr().err.strip()
    assert "\n" not in told and "vrt restores the centre of an exposure alone" in told and "guided" in told


def test_trust_needs_no_sharp_frames(tested: Path) -> None:
    pictures, spikes = (tested.parents[1] / "set" / name for name in ("GOPRO_Large", "GOPRO_Large_spike_seq"))
    folders = ["--folder_lq", pictures / "test_GT_blurred", "--folder_spike", spikes / "test"]
    output = tested.parents[1] / "trusted"
    assert run_test("--task", "guided", *folders, "--trust", "--output", output) == 0
    rows = json.loads((output / "guided" / "trust.json").read_text())["frames"]
    assert [row["frame"] for row in rows] == ["000000", "000001"]
    assert all(
        row["reblur_psnr"] > 30 and row["painted"] < 0.1 and row["gain"] == pytest.approx(1, 0.1) for row in rows
    )
    assert len(list((output / "guided" / "trust").rglob("*.png"))) == 2
    page = (output / "guided" / "index.html").read_text()
    assert (
        "How far to trust it" in page
        and 'data-view="contradiction"' in page
        and not (output / "guided/metrics.csv").exists()
    )


def test_trust_needs_the_exposures_ends(tested: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures, spikes = (tested.parents[1] / "set" / name for name in ("GOPRO_Large", "GOPRO_Large_spike_seq"))
    folders = ["--folder_lq", pictures / "test_GT_blurred", "--folder_spike", spikes / "test"]
    assert (
        run_test("--task", "guided", *folders, "--trust", "--times", "0.5", "--output", tested.parents[1] / "no") == 2
    )
    assert "--times: must begin at 0 and end at 1" in capsys.readouterr().err


def test_adapting_says_before_and_after(tested: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures, spikes = (tested.parents[1] / "set" / name for name in ("GOPRO_Large", "GOPRO_Large_spike_seq"))
    flags = ["--folder_lq", pictures / "test_GT_blurred", "--folder_spike", spikes / "test", "--times", "0:1:1/2"]
    output = tested.parents[1] / "adapted"
    assert run_test("--task", "guided", *flags, "--adapt", "0.5s", "--output", output) == 0
    assert re.search(r"adaptation: adapted in \d+ steps; held-out frames: re-blur PSNR", capsys.readouterr().out)
    assert (output / "guided" / "adapted.pth").is_file() and "held-out" in (output / "guided/index.html").read_text()
    weights = output / "guided" / "adapted.pth"
    assert run_test("--task", "guided", *flags, "--checkpoint", weights, "--output", output) == 0
    assert run_test("--task", "guided", *flags, "--adapt", "1s", "--resume", "--save_result", "--output", output) == 2
    assert "two sets of weights" in capsys.readouterr().err
