"""A headless Chromium for tests of pages: the fixture `browser`, which skips with the reason where there is none."""

import shutil
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest

COMMANDS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A Selenium driver of Chromium that reaches no network."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (requirement-dev.txt)")
    binary = next(filter(None, map(shutil.which, COMMANDS)), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no Chromium with its driver (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND")
    options.add_argument("--lang=en-US")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chromium = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield chromium
    finally:
        chromium.quit()


def set_width(browser: Any, width: int) -> None:
    """Gives the page a window of a width in pixels."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def screenshot(element: Any) -> np.ndarray:
    """What an element looks like now, (H,W,3) RGB."""
    return cv2.imdecode(np.frombuffer(element.screenshot_as_png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
