"""The report's closer looks, used in Chromium: all methods move alike, the error map, the strip, the line over time."""

import base64
import re
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.browser import Browser
from utils.evaluation.report_gallery import PROFILE_HEIGHT, Gallery
from utils.evaluation.report_page import write_page
from utils.evaluation.scores import Scores

SIZE = (96, 128)
SHADES = {"input": 40, "": 110, "sharp": 100}
PIXEL = """
const canvas = document.querySelectorAll(".zoom canvas")[arguments[0]];
const at = [arguments[1] * canvas.width, arguments[2] * canvas.height];
return [...canvas.getContext("2d").getImageData(...at, 1, 1).data].slice(0, 3);
"""
KEY = """
const event = new KeyboardEvent("keydown", {key: arguments[0], bubbles: true, cancelable: true});
document.querySelector(".zoom .grid").dispatchEvent(event);
return event.defaultPrevented;
"""
SAVED = """
let href; const click = HTMLAnchorElement.prototype.click;
HTMLAnchorElement.prototype.click = function () { href = this.href; document.title = this.download; };
document.querySelector(".zoom button[data-do=save]").click();
HTMLAnchorElement.prototype.click = click;
return href;
"""


def pictures(shift: int = 0) -> dict[str, np.ndarray]:
    """Flat pictures with a white square of 24 pixels, left of the middle and moving right by `shift`."""
    found = {name: np.full((*SIZE, 3), shade, np.uint8) for name, shade in SHADES.items()}
    for picture in found.values():
        picture[36:60, 20 + shift : 44 + shift] = 255
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    gallery, scores = Gallery(), Scores()
    for frame in range(4):
        row = {"psnr": 30.0, "input_psnr": 20.0, "ssim": 0.9, "input_ssim": 0.8}
        scores.add("a clip", str(frame), row)
        shown = pictures(4 * frame)
        gallery.judge("a clip", str(frame), shown.pop("sharp"), shown, row)
    gallery.show("a clip", "1", pictures(), None)
    path = tmp_path_factory.mktemp("zoom") / "index.html"
    write_page(path, "zoom", [], scores, gallery)
    return path


@pytest.fixture
def opened(browser: Browser, page: Path) -> Browser:
    browser.open(page)
    browser.run("document.querySelector('.zoom').open = true")
    end = time.monotonic() + 20
    while browser.run("return document.querySelector('.zoom').dataset.built") is None:
        assert time.monotonic() < end
        time.sleep(0.05)
    return browser


def pixel(browser: Browser, number: int, x: float, y: float) -> Any:
    return browser.run(PIXEL, number, x, y)


def test_all_methods_are_enlarged_alike(opened: Browser) -> None:
    assert opened.texts(".zoom figcaption") == ["input", "network", "sharp"]
    assert [pixel(opened, number, 0.9, 0.9) for number in range(3)] == [[s] * 3 for s in SHADES.values()]
    # The square's middle is at a quarter of the width: twice as large, and moved left, it is in the middle.
    for key in ("+", "+", "ArrowLeft", "ArrowLeft", "ArrowLeft", "ArrowLeft", "ArrowLeft"):
        assert opened.run(KEY, key)
    assert [pixel(opened, number, 0.5, 0.5) for number in range(3)] == [[255] * 3] * 3
    assert opened.texts(".zoom output") == ["2.3×"]
    assert pixel(opened, 2, 0.7, 0.5) == [100] * 3
    opened.drag(".zoom canvas", 90)
    assert pixel(opened, 2, 0.7, 0.5) == [255] * 3  # dragged to the right, in the other canvases too
    assert opened.run(KEY, "0") and opened.texts(".zoom output") == ["1.0×"]
    assert not opened.run(KEY, "x") and opened.errors() == []


def test_error_map(opened: Browser) -> None:
    opened.run(KEY, "e")
    assert pixel(opened, 1, 0.9, 0.9) == [40] * 3 and pixel(opened, 0, 0.9, 0.9) == [240] * 3  # 4 * 10, 4 * 60
    assert pixel(opened, 0, 0.25, 0.5) == [0] * 3 and pixel(opened, 2, 0.9, 0.9) == [100] * 3
    opened.click('.zoom button[data-do="error"]')
    assert pixel(opened, 1, 0.9, 0.9) == [110] * 3


def test_strip_has_the_box_and_every_crop(opened: Browser) -> None:
    opened.click('.zoom button[data-do="in"]')
    content = base64.b64decode(opened.run(SAVED).removeprefix("data:image/png;base64,"))
    strip = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    width = round(256 * SIZE[1] / SIZE[0])
    assert strip.shape == (256 + 28, 4 * width + 3 * 8, 3)
    assert (strip[128, round(width / 6)] == (224, 0, 0)).all()  # of a box of 1 / 1.5 in the middle, its left edge
    for number, shade in enumerate(SHADES.values()):
        assert (strip[240, (number + 1) * (width + 8) + width // 2] == shade).all()
    assert opened.run("return document.title") == "a_clip_crops.png"


def test_line_over_time(page: Path, opened: Browser) -> None:
    assert opened.texts(".profile figcaption") == ["input", "network", "sharp"]
    text = page.read_text(encoding="utf-8")
    panel = text[text.index('<details class="profile">') :]
    uris = re.findall(r'src="data:image/png;base64,([^"]+)"', panel)[:3]
    shown = cv2.imdecode(np.frombuffer(base64.b64decode(uris[2]), np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape == (PROFILE_HEIGHT, SIZE[1], 3)
    for frame in range(4):
        assert (shown[24 * frame + 12, 20 + 4 * frame : 44 + 4 * frame] == 255).all()
        assert (shown[24 * frame + 12, : 20 + 4 * frame] == 100).all()


def test_a_phone_shows_it_without_scrolling_sideways(browser: Browser, page: Path) -> None:
    browser.open(page, width=375)
    browser.run("for (const panel of document.querySelectorAll('details')) panel.open = true")
    assert browser.run("return document.documentElement.scrollWidth") == 375
