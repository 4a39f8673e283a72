"""scripts/screenshot.py: what a page shows, as a picture; mistakes are told."""

from pathlib import Path

import cv2
import pytest

from scripts.screenshot import main
from tests.browser import Browser

PAGE = """<!doctype html><style>body { margin: 0 } div { width: 60px; height: 40px; background: #00f }</style>
<details><summary>more</summary><div></div></details>"""


def test_pictures_of_a_page(browser: Browser, tmp_path: Path) -> None:
    page, output = tmp_path / "page.html", tmp_path / "page.png"
    page.write_text(PAGE)
    assert main([str(page), str(output), "--width", "640", "--height", "120"]) == 0
    picture = cv2.imread(str(output))
    assert picture.shape == (120, 640, 3) and not (picture == (255, 0, 0)).all(2).any()
    assert main([str(page), str(output), "--selector", "div", "--open"]) == 0
    picture = cv2.imread(str(output))
    assert picture.shape == (40, 60, 3) and (picture == (255, 0, 0)).all()


def test_mistakes(browser: Browser, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.html"), str(tmp_path / "a.png")]) == 2
    assert "no such file" in capsys.readouterr().err
    (tmp_path / "page.html").write_text(PAGE)
    assert main([str(tmp_path / "page.html"), str(tmp_path / "a.png"), "--selector", "table"]) == 2
    assert "--selector table" in capsys.readouterr().err and not (tmp_path / "a.png").exists()
