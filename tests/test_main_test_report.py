"""What the tester reports: baselines, LPIPS, a sweep, and a page whose numbers are those of metrics.json."""

import json
from pathlib import Path

import pytest

from tests.browser import Browser
from tests.data.trees import make_gopro_tree
from tests.tiny import TinyRun
from tests.utils.evaluation.test_lpips import folder as lpips_folder  # noqa: F401  (a fixture)
from utils.evaluation.lpips import LPIPS
from utils.utils_image import imread_rgb

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    run = TinyRun.make(tmp_path_factory.mktemp("trained"))
    assert run.train("train.total_iter=1", "datasets.test=null") == 0
    return run


@pytest.fixture(scope="module")
def swept(trained: TinyRun) -> Path:
    """The results of a sweep."""
    assert trained.test("--sweep", "threshold=2,4", "drop=0.5,1") == 0
    return trained.results / "tiny"


def test_the_table_has_what_needs_no_training(trained: TinyRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert trained.test() == 0
    table = capsys.readouterr().out
    means = trained.metrics()["mean_over_frames"]
    for title, prefix in (("input", "input_"), ("training-free", "sdm_"), ("network", "")):
        line = f"{means[prefix + 'psnr']:.2f} {means[prefix + 'ssim']:.4f} {means[prefix + 'psnr_y']:.2f}"
        assert f"{title} {line}" in " ".join(table.split())
    assert f"spikes alone, Gaussian {means['gaussian_psnr_y']:.2f}" in " ".join(table.split())
    assert "LPIPS is left out: model_zoo/lpips/alexnet-owt-7be5be79.pth and" in table
    assert "tof" in means and not any("lpips" in name for name in means)


def test_results_of_other_tests_are_in_the_table_and_the_slider(
    trained: TinyRun, tmp_path: Path, browser: Browser, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trained.test("--output", tmp_path / "first", "--save_result") == 0
    assert trained.test("--output", tmp_path, "--compare", f"before={tmp_path / 'first' / 'tiny'}") == 0
    table = " ".join(capsys.readouterr().out.split())
    means = json.loads((tmp_path / "tiny" / "metrics.json").read_text())["mean_over_frames"]
    for metric in ("psnr", "ssim", "tof"):
        assert means[f"before_{metric}"] == means[metric]  # of the same network
    assert f"before {means['psnr']:.2f}" in table and f"tiny {means['psnr']:.2f}" in table
    browser.open(tmp_path / "tiny" / "index.html")
    assert browser.texts(".clip:first-of-type select:first-child option")[-3:] == ["tiny", "sharp", "spikes"]
    assert "before" in browser.texts(".clip:first-of-type select:first-child option")
    assert "before" in browser.texts(".crops figcaption") and browser.errors() == []


def test_a_sweep_is_tabulated(trained: TinyRun, swept: Path) -> None:
    rows = json.loads((swept / "sweep.json").read_text())
    assert [(row["kind"], row["value"], row["told"]) for row in rows] == [
        ("threshold", 2, False),
        ("threshold", 2, True),
        ("threshold", 4, False),
        ("threshold", 4, True),
        ("drop", 0.5, False),
        ("drop", 1, False),
    ]
    means = json.loads((swept / "metrics.json").read_text())["mean_over_frames"]
    assert rows[0]["psnr"] == rows[1]["psnr"] == means["psnr"]
    assert len({row["psnr"] for row in rows[1:]}) == 5
    assert rows[-1]["sdm_psnr"] == means["input_psnr"]  # without spikes the blurred frame stays as it is
    # A condition is the same as testing with its options.
    perturb = 'datasets.test.spike_perturb={"kind": "threshold", "amount": 2}'
    told = (perturb, "datasets.test.spike_threshold=4")
    assert trained.test("--output", swept.parent / "alone", overrides=told) == 0
    alone = json.loads((swept.parent / "alone" / "tiny" / "metrics.json").read_text())["mean_over_frames"]
    assert {name: alone[name] for name in ("psnr", "ssim")} == {name: rows[3][name] for name in ("psnr", "ssim")}


def test_the_page_of_a_test(swept: Path, browser: Browser) -> None:
    browser.open(swept / "index.html")
    summary = json.loads((swept / "metrics.json").read_text())
    assert json.loads(browser.run("return document.getElementById('metrics').textContent")) == summary
    shown = browser.texts('td[data-row="mean_over_frames"][data-key="psnr"]')
    assert shown == [f"{summary['mean_over_frames']['psnr']:.2f}"] * 2
    rows = json.loads((swept / "sweep.json").read_text())
    assert browser.texts("[data-sweep=drop] td:nth-child(2)") == [f"{row['psnr']:.2f}" for row in rows[4:]]
    assert len(browser.texts(".clip")) == 2 and browser.errors() == []
    before = browser.screenshot(".stage")
    browser.drag(".stage input", -before.shape[1] // 4)
    assert (browser.screenshot(".stage") != before).any()


def test_lpips_from_files(trained: TinyRun, lpips_folder: Path, tmp_path: Path) -> None:  # noqa: F811
    data = make_gopro_tree(tmp_path, phase="test", clips=1, frames=2, size=(64, 64), spikes_per_frame=8)
    flags = ["--folder_lq", data.lq, "--folder_gt", data.gt, "--folder_spike", data.spike, "--lpips", lpips_folder]
    assert trained.test(*flags, "--save_result", "--output", tmp_path) == 0
    lpips = LPIPS(lpips_folder)
    for row in json.loads((tmp_path / "tiny" / "metrics.json").read_text())["frames"]:
        name = f"{row['clip']}/{row['frame']}.png"
        sharp, blurred = imread_rgb(data.gt / name), imread_rgb(data.lq / name)
        restored = imread_rgb(tmp_path / "tiny" / name)
        assert row["lpips"] == pytest.approx(lpips.of_pictures(restored, sharp), rel=1e-5)
        assert row["input_lpips"] == pytest.approx(lpips.of_pictures(blurred, sharp), rel=1e-5)
        assert "sdm_lpips" in row and "gaussian_lpips" not in row
    assert "LPIPS" in (tmp_path / "tiny" / "index.html").read_text()


def test_mistakes(trained: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flags, message in (
        (["--sweep", "threshold=1"], "no simulated set"),
        (["--sweep", "blur=1"], "'blur' is unknown; choices: threshold, shift, drop, noise"),
        (["--lpips", tmp_path], "alexnet-owt-7be5be79.pth"),
    ):
        assert trained.test("--output", tmp_path / "none", *flags) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
