"""The report page: complete in itself, safe for any name, its numbers those of metrics.json; and used in Chromium."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from tests.browser import Browser
from utils.evaluation.report_gallery import Gallery
from utils.evaluation.report_page import write_page
from utils.evaluation.scores import METHODS, METRICS, Scores, format_value, gain, key_of
from utils.evaluation.sweep import Sweep, SweepRow

SIZE = (120, 160)
COLOURS = {"input": (0, 0, 0), "sdm": (0, 0, 255), "gaussian": (90, 90, 90), "": (255, 255, 255), "sharp": (255, 0, 0)}
CLIPS = ["clip", "<b>&\"'</script><!--<script>"]
BLACK, WHITE, RED = COLOURS["input"], COLOURS[""], COLOURS["sharp"]


def scores() -> Scores:
    """Two clips of three frames, every number another one."""
    result = Scores()
    for index in range(6):
        row = {key_of(m, metric): 30.0 + index + k for k, m in enumerate(METHODS) for metric in ("psnr", "psnr_y")}
        row |= {key_of(m, metric): 0.5 + index / 50 for m in METHODS for metric in ("ssim", "ssim_y")}
        row |= {"lpips": 0.1 * index, "tof": 0.01 * index, "input_tof": 0.02 * index}
        result.add(CLIPS[index // 3], str(index % 3), row)
    return result


def gallery() -> Gallery:
    found = Gallery()
    pictures = {name: np.full((*SIZE, 3), colour, np.uint8) for name, colour in COLOURS.items()}
    sharp = pictures["sharp"]
    instants = np.linspace(0, 1, 4)[:, None, None] * np.ones((4, 60, 80))
    for row in scores().rows:
        judged = {name: pictures[name] for name in ("", "input", "sdm")}
        found.judge(str(row["clip"]), str(row["frame"]), sharp, judged, {"psnr": float(row["psnr"])})
    for clip in CLIPS:
        found.show(clip, "1", {**pictures, "gaussian": pictures["gaussian"][..., 0]}, instants)
    return found


def sweep() -> Sweep:
    rows = [
        SweepRow("threshold", v, told, "", {"psnr": v + told, "sdm_psnr": 9.0})
        for v in (2.0, 4.0)
        for told in (False, True)
    ]
    return Sweep([*rows, SweepRow("drop", 0.5, False, "", {"psnr": math.inf, "sdm_psnr": 21.0})])


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "index.html"
    write_page(path, "task <1> {{metrics}}", ["checkpoint: a & b"], scores(), gallery(), sweep())
    return path


def test_nothing_is_fetched(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(
        r"https?:|//[a-z]|@import|<link(?! rel=\"icon\" href=\"data:,\")", re.sub(r"base64,[\w+/=]+", "", text)
    )
    assert set(re.findall(r'(?:src|href)="([a-z]*:?)', text)) == {"data:"}
    assert text.count("<script") == 2 and "{{" not in re.sub(r"\{\{metrics\}\}", "", text)


def test_the_numbers_are_inside(page: Path) -> None:
    found = re.search(r'<script type="application/json" id="metrics">(.*?)</script>', page.read_text(encoding="utf-8"))
    assert found is not None and json.loads(found[1]) == json.loads(json.dumps(scores().summary()))


def test_without_ground_truth_there_are_pictures(tmp_path: Path) -> None:
    write_page(tmp_path / "index.html", "t", [], Scores(), gallery())
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert text.count('class="stage"') == 2 and "<table" not in text and "<svg" not in text and "<h2>Worst" not in text


def test_equal_pictures_read_inf(tmp_path: Path) -> None:
    result = scores()
    result.rows[0]["psnr"] = math.inf
    write_page(tmp_path / "index.html", "t", [], result, gallery())
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert (
        '<td data-row="clip" data-key="psnr">inf</td>' in text and "<b>inf dB</b>" in text and "nan" not in text.lower()
    )


def test_the_page_shows_what_the_table_says(browser: Browser, page: Path) -> None:
    browser.open(page)
    summary = json.loads(browser.run("return document.getElementById('metrics').textContent"))
    cells = browser.run(
        "return [...document.querySelectorAll('td[data-key]')].map(e => [e.dataset.row, e.dataset.key, e.textContent])"
    )
    rows = {**summary["clips"], **{name: summary[name] for name in ("mean_over_clips", "mean_over_frames")}}
    assert {row for row, _, _ in cells} == set(rows) and len(cells) > 50
    for row, key, shown in cells:
        metric = next(name for name in sorted(METRICS, key=len, reverse=True) if key.endswith(name))
        assert shown == format_value(metric, rows[row].get(key)), (row, key)
    assert browser.texts("#clips .gain") == [gain(rows[row]).removesuffix(" dB") for row in rows]
    assert browser.texts("[data-sweep=threshold] td") == ["2.00", "3.00", "9.00", "4.00", "5.00", "9.00"]
    assert browser.texts("[data-sweep=drop] td") == ["inf", "21.00"]
    assert browser.texts("#clips tbody th")[:2] == CLIPS and browser.texts("h1") == ["task <1> {{metrics}}"]
    assert browser.errors() == []


def share(browser: Browser, colour: tuple[int, int, int], stage: str = ".stage") -> float:
    """How much of the picture has a colour, looked at beside the handle."""
    rows = browser.screenshot(stage)[4:20].astype(int)
    return float((np.abs(rows - colour).max(axis=2) < 9).mean())


def choose(browser: Browser, side: int, view: str) -> None:
    browser.run(
        "const menu = document.querySelectorAll('.clip select')[arguments[0]];"
        "menu.value = [...menu.options].find(option => option.text === arguments[1]).value;"
        "menu.dispatchEvent(new Event('change'))",
        side,
        view,
    )


def test_the_slider_moves_and_the_picture_changes(browser: Browser, page: Path) -> None:
    browser.open(page)
    before = browser.screenshot(".stage")
    assert (share(browser, BLACK), share(browser, WHITE)) == pytest.approx((0.5, 0.5), abs=0.02)
    browser.drag(".stage input", -before.shape[1] // 4)
    assert float(browser.run("return document.querySelector('.stage input').value")) == pytest.approx(25, abs=2)
    assert not np.array_equal(browser.screenshot(".stage"), before)
    assert (share(browser, BLACK), share(browser, WHITE)) == pytest.approx((0.25, 0.75), abs=0.03)

    views = ["input", "training-free", "spikes alone, Gaussian", "network", "sharp"]
    assert browser.texts(".clip select:first-child option") == [*views, *views]
    choose(browser, 1, "sharp")
    assert (share(browser, BLACK), share(browser, RED)) == pytest.approx((0.25, 0.75), abs=0.03)
    choose(browser, 0, "network")
    assert (share(browser, WHITE), share(browser, RED)) == pytest.approx((0.25, 0.75), abs=0.03)
    # The other clip's slider is its own.
    assert share(browser, BLACK, ".clip:last-child .stage") == pytest.approx(0.5, abs=0.02)


def test_the_exposure_plays(browser: Browser, page: Path) -> None:
    browser.open(page)
    shades = []
    for instant in range(4):
        browser.run(
            "const range = document.querySelector('.player input');"
            "range.value = arguments[0]; range.dispatchEvent(new Event('input'))",
            instant,
        )
        shades.append(np.median(browser.screenshot(".player div")))
    assert shades == pytest.approx([0, 85, 170, 255], abs=4)


def test_a_phone_shows_it_without_scrolling_sideways(browser: Browser, page: Path) -> None:
    browser.open(page, width=375)
    assert browser.run("return document.documentElement.scrollWidth") == 375


def test_the_page_speaks_chinese(browser: Browser, page: Path) -> None:
    browser.open(page)
    english = browser.texts("h2, th, figcaption, li, option, dd")
    browser.click("#language")
    assert browser.texts("h2")[:2] == ["结果", "各片段"] and browser.texts("#language") == ["English"]
    assert [text for text in browser.texts("h2, figcaption, li, option, dd") if re.fullmatch("[ -~]+", text)] == []
    browser.click("#language")
    assert browser.texts("h2, th, figcaption, li, option, dd") == english and browser.texts("#language") == ["中文"]
