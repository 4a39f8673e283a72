"""The report's closer looks, used in Chromium: all methods move alike, the error map, the strip, the line over time."""

import base64
import re
import time
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.browser import Browser
from utils.evaluation.report_gallery import Gallery
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
const click = HTMLAnchorElement.prototype.click, [panel, kind] = arguments;
return new Promise(saved => {
  HTMLAnchorElement.prototype.click = async function () {
    HTMLAnchorElement.prototype.click = click;
    const content = new Uint8Array(await (await fetch(this.href)).arrayBuffer());
    saved([this.download, btoa([...content].map(byte => String.fromCharCode(byte)).join(""))]);
  };
  document.querySelector(`${panel} button[data-do=${kind}]`).click();
});
"""
LINES = """
return [...document.querySelectorAll(".profile .grid canvas")].map(canvas => {
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return [canvas.height, canvas.width, [...pixels].filter((_, index) => index % 4 === 0)];
});
"""
LINE_KEY = KEY.replace(".zoom .grid", ".draw")


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
    browser.run("for (const panel of document.querySelectorAll('details')) panel.open = true")
    end = time.monotonic() + 20
    while browser.run("return document.querySelectorAll('details[data-built]').length") < 2:
        assert time.monotonic() < end
        time.sleep(0.05)
    return browser


def saved(browser: Browser, panel: str, kind: str) -> tuple[str, bytes]:
    """Name and content of the file that a panel's button saves."""
    name, content = browser.run(SAVED, panel, kind)
    return name, base64.b64decode(content)


def lines(browser: Browser) -> list[np.ndarray]:
    """Red of the profiles, (frames, length) each."""
    return [np.array(values).reshape(height, width) for height, width, values in browser.run(LINES)]


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
    name, content = saved(opened, ".zoom", "png")
    strip = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    width = round(256 * SIZE[1] / SIZE[0])
    assert strip.shape == (256 + 28, 4 * width + 3 * 8, 3)
    assert (strip[128, round(width / 6)] == (224, 0, 0)).all()  # of a box of 1 / 1.5 in the middle, its left edge
    for number, shade in enumerate(SHADES.values()):
        assert (strip[240, (number + 1) * (width + 8) + width // 2] == shade).all()
    assert name == "a_clip_crops.png"


def test_pdf_has_the_pixels_of_the_png(opened: Browser) -> None:
    strip = cv2.imdecode(np.frombuffer(saved(opened, ".zoom", "png")[1], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    name, content = saved(opened, ".zoom", "pdf")
    assert name == "a_clip_crops.pdf" and content.startswith(b"%PDF-1.4\n") and content.endswith(b"%%EOF\n")
    xref = int(content[content.rindex(b"startxref") :].split()[1])
    assert content[xref:].startswith(b"xref\n0 6\n")
    places = [int(row[:10]) for row in content[xref:].splitlines()[3:8]]
    for number, place in enumerate(places, start=1):
        assert content[place:].startswith(b"%d 0 obj\n" % number)
    image = content[places[4] :]
    height, width = (int(re.search(rb"/%s (\d+)" % key, image)[1]) for key in (b"Height", b"Width"))  # type: ignore[index]
    length = int(re.search(rb"/Length (\d+)", image)[1])  # type: ignore[index]
    begin = image.index(b"stream\n") + len(b"stream\n")
    assert image[begin + length :].startswith(b"\nendstream")
    pixels = np.frombuffer(zlib.decompress(image[begin : begin + length]), np.uint8)
    assert np.array_equal(pixels.reshape(height, width, 3), strip)
    assert b"/MediaBox [0 0 %.2f %.2f]" % (width * 0.24, height * 0.24) in content


def test_line_over_time(opened: Browser) -> None:
    """The square moves by 4 pixels a frame; JPEG departs from it by some levels."""
    assert opened.texts(".profile figcaption") == ["input", "network", "sharp"]
    for shown, shade in zip(lines(opened), SHADES.values(), strict=True):
        assert shown.shape == (4, SIZE[1])
        for frame in range(4):
            left = 20 + 4 * frame
            assert abs(shown[frame, left + 2 : left + 22] - 255).max() < 12
            assert abs(shown[frame, : left - 8] - shade).max() < 12
    name, content = saved(opened, ".profile", "pdf")
    assert name == "a_clip_profile.pdf" and content.startswith(b"%PDF")


def test_reader_draws_the_line(opened: Browser) -> None:
    opened.drag(".draw canvas", 120)  # from the middle to the right by a quarter of 480 pixels
    assert [shown.shape for shown in lines(opened)] == [(4, SIZE[1] // 4)] * 3
    assert opened.run(LINE_KEY, "0") and lines(opened)[0].shape == (4, SIZE[1])
    for key in ("-",) * 8 + ("]",) * 18:  # shorter, and a quarter turn: upright, through the picture's middle
        assert opened.run(LINE_KEY, key)
    for _ in range(24):
        opened.run(LINE_KEY, "ArrowLeft")
    upright = lines(opened)[2]  # at 0.26 of the width: 33 pixels, in the square of the first four frames
    assert upright.shape[0] == 4 and upright.shape[1] == round(SIZE[1] / 1.1**8)
    middle = upright.shape[1] // 2
    assert abs(upright[:, middle - 8 : middle + 8] - 255).max() < 12 and abs(upright[:, :8] - 100).max() < 12
    assert not opened.run(LINE_KEY, "x") and opened.errors() == []


def test_a_phone_shows_it_without_scrolling_sideways(browser: Browser, page: Path) -> None:
    browser.open(page, width=375)
    browser.run("for (const panel of document.querySelectorAll('details')) panel.open = true")
    assert browser.run("return document.documentElement.scrollWidth") == 375
