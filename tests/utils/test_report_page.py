"""The report page: complete in itself, safe for any name, its numbers those of metrics.json; and used in Chromium."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.browser import browser, screenshot, set_width  # noqa: F401  (a fixture)
from utils.report_gallery import Gallery
from utils.report_page import write_page
from utils.utils_report import METHODS, METRICS, Scores, format_value, gain, key_of
from utils.utils_sweep import Sweep, SweepRow

SIZE = (120, 160)
COLOURS = {"input": (0, 0, 0), "sdm": (0, 0, 255), "gaussian": (90, 90, 90), "": (255, 255, 255), "sharp": (255, 0, 0)}
CLIPS = ["clip", "<b>&\"'</script>"]
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


def opened(browser: Any, page: Path, width: int = 1280) -> Any:  # noqa: F811
    set_width(browser, width)
    browser.get(page.as_uri())
    return browser


def texts(browser: Any, selector: str) -> list[str]:  # noqa: F811
    return browser.execute_script(f"return [...document.querySelectorAll({selector!r})].map(e => e.textContent)")


def test_the_page_shows_what_the_table_says(browser: Any, page: Path) -> None:  # noqa: F811
    opened(browser, page)
    summary = json.loads(browser.execute_script("return document.getElementById('metrics').textContent"))
    cells = browser.execute_script(
        "return [...document.querySelectorAll('td[data-key]')].map(e => [e.dataset.row, e.dataset.key, e.textContent])"
    )
    rows = {**summary["clips"], **{name: summary[name] for name in ("mean_over_clips", "mean_over_frames")}}
    assert {row for row, _, _ in cells} == set(rows) and len(cells) > 50
    for row, key, shown in cells:
        metric = next(name for name in sorted(METRICS, key=len, reverse=True) if key.endswith(name))
        assert shown == format_value(metric, rows[row].get(key)), (row, key)
    assert texts(browser, "#clips .gain") == [gain(rows[row]).removesuffix(" dB") for row in rows]
    assert texts(browser, "[data-sweep=threshold] td") == ["2.00", "3.00", "9.00", "4.00", "5.00", "9.00"]
    assert texts(browser, "[data-sweep=drop] td") == ["inf", "21.00"]
    assert texts(browser, "#clips tbody th")[:2] == CLIPS and texts(browser, "h1") == ["task <1> {{metrics}}"]
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def share(stage: Any, colour: tuple[int, int, int]) -> float:
    """How much of the picture has a colour, the handle left out."""
    rows = screenshot(stage)[4:20].astype(int)
    return float((np.abs(rows - colour).max(axis=2) < 9).mean())


def test_the_slider_moves_and_the_picture_changes(browser: Any, page: Path) -> None:  # noqa: F811
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    opened(browser, page)
    card = browser.find_element(By.CLASS_NAME, "clip")
    stage, slider = card.find_element(By.CLASS_NAME, "stage"), card.find_element(By.CSS_SELECTOR, ".stage input")
    before = screenshot(stage)
    assert (share(stage, BLACK), share(stage, WHITE)) == pytest.approx((0.5, 0.5), abs=0.02)
    width = stage.size["width"]
    ActionChains(browser).move_to_element(slider).click_and_hold().move_by_offset(-width // 4, 0).release().perform()
    assert float(slider.get_attribute("value")) == pytest.approx(25, abs=2)
    assert not np.array_equal(screenshot(stage), before)
    assert (share(stage, BLACK), share(stage, WHITE)) == pytest.approx((0.25, 0.75), abs=0.03)

    left, right = (Select(element) for element in card.find_elements(By.TAG_NAME, "select"))
    assert [option.text for option in left.options] == [
        "input",
        "training-free",
        "spikes alone, Gaussian",
        "network",
        "sharp",
    ]
    right.select_by_visible_text("sharp")
    assert (share(stage, BLACK), share(stage, RED)) == pytest.approx((0.25, 0.75), abs=0.03)
    left.select_by_visible_text("network")
    assert (share(stage, WHITE), share(stage, RED)) == pytest.approx((0.25, 0.75), abs=0.03)
    other = browser.find_elements(By.CLASS_NAME, "stage")[1]
    browser.execute_script("arguments[0].scrollIntoView()", other)
    assert share(other, BLACK) == pytest.approx(0.5, abs=0.02)


def test_the_exposure_plays(browser: Any, page: Path) -> None:  # noqa: F811
    from selenium.webdriver.common.by import By

    opened(browser, page)
    player = browser.find_element(By.CLASS_NAME, "player")
    picture, slider = player.find_element(By.TAG_NAME, "div"), player.find_element(By.TAG_NAME, "input")
    shades = []
    for instant in range(4):
        browser.execute_script(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))", slider, instant
        )
        shades.append(np.median(screenshot(picture)))
    assert shades == pytest.approx([0, 85, 170, 255], abs=4)


def test_a_phone_shows_it_without_scrolling_sideways(browser: Any, page: Path) -> None:  # noqa: F811
    opened(browser, page, 375)
    assert browser.execute_script("return document.documentElement.scrollWidth") == 375


def test_the_page_speaks_chinese(browser: Any, page: Path) -> None:  # noqa: F811
    from selenium.webdriver.common.by import By

    opened(browser, page)
    button = browser.find_element(By.ID, "language")
    english = texts(browser, "h2, th, figcaption, li, option")
    button.click()
    assert texts(browser, "h2")[:2] == ["结果", "各片段"] and button.text == "English"
    remaining = [text for text in texts(browser, "h2, figcaption, li, option") if re.fullmatch(r"[a-z ,-]+", text)]
    assert remaining == []
    button.click()
    assert texts(browser, "h2, th, figcaption, li, option") == english and button.text == "中文"
