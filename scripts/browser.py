"""A headless Chromium, for tests of pages and for their pictures in the documents (`scripts.screenshot`).

    with headless_chromium() as browser:
        browser.open(Path("results/demo/index.html"))

Spoken to through chromedriver in the WebDriver protocol (W3C), which is JSON over HTTP: no package is needed.
"""

import base64
import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from scripts.local_ranks import free_port
from utils.user_error import UserError

COMMANDS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("headless=new", "no-sandbox", "disable-gpu", "hide-scrollbars", "disable-dev-shm-usage", "lang=en-US")
NO_NETWORK = "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
PHONE = 600  # pixels; narrower windows are a phone's
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the protocol's name for an element's id


class Browser:
    """One window.

    Args:
        url: of the driver.
        binary: Chromium.
    """

    def __init__(self, url: str, binary: str) -> None:
        self._url = url
        arguments = [f"--{flag}" for flag in (*FLAGS, NO_NETWORK)]
        options = {"binary": binary, "args": arguments}
        capabilities = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self._session = self._call("POST", "", {"capabilities": {"alwaysMatch": capabilities}})["sessionId"]

    def open(self, page: Path | str, width: int = 1280, height: int = 900) -> None:
        """Opens a file, or an address, in a window of a size in pixels; a narrow one is a phone's."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < PHONE}
        self._post("goog/cdp/execute", {"cmd": "Emulation.setDeviceMetricsOverride", "params": size})
        self._post("url", {"url": page if isinstance(page, str) else page.resolve().as_uri()})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns; it finds the arguments in `arguments`."""
        return self._post("execute/sync", {"script": script, "args": list(arguments)})

    def texts(self, selector: str) -> list[str]:
        """Texts of all elements that a CSS selector finds."""
        return self.run("return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector)

    def click(self, selector: str) -> None:
        """Clicks on the first one."""
        self._post(f"element/{self._find(selector)}/click", {})

    def drag(self, selector: str, by: int) -> None:
        """Presses the mouse on the middle of the first one, moves it to the right by pixels, and lets go."""
        self.run("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", selector)
        start = {"type": "pointerMove", "origin": {ELEMENT: self._find(selector)}, "x": 0, "y": 0}
        move = {"type": "pointerMove", "origin": "pointer", "x": by, "y": 0, "duration": 100}
        actions = [start, {"type": "pointerDown", "button": 0}, move, {"type": "pointerUp", "button": 0}]
        self._post("actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": actions}]})

    def screenshot(self, selector: str) -> np.ndarray:
        """What the first one looks like now, (H,W,3) RGB; a pixel less each way, which comes and goes by rounding."""
        content = base64.b64decode(self._get(f"element/{self._find(selector)}/screenshot"))
        rectangle = "const r = document.querySelector(arguments[0]).getBoundingClientRect(); return [r.height, r.width]"
        height, width = (int(side) - 1 for side in self.run(rectangle, selector))
        return _picture(content)[:height, :width]

    def window(self) -> np.ndarray:
        """What the window shows, (H,W,3) RGB."""
        return self._captured({})

    def element(self, selector: str) -> np.ndarray:
        """The first element that a CSS selector finds, (H,W,3) RGB, where it is taller than the window as well."""
        place = (
            "const box = document.querySelector(arguments[0]).getBoundingClientRect();"
            "return {x: box.x + scrollX, y: box.y + scrollY, width: box.width, height: box.height, scale: 1}"
        )
        return self._captured({"clip": self.run(place, selector), "captureBeyondViewport": True})

    def _captured(self, where: dict[str, Any]) -> np.ndarray:
        answer = self._post("goog/cdp/execute", {"cmd": "Page.captureScreenshot", "params": {"format": "png", **where}})
        return _picture(base64.b64decode(answer["data"]))

    def errors(self) -> list[str]:
        """What the page complained about since it was asked last."""
        return [entry["message"] for entry in self._post("se/log", {"type": "browser"}) if entry["level"] == "SEVERE"]

    def close(self) -> None:
        """Ends the window."""
        self._call("DELETE", f"/{self._session}")

    def _find(self, selector: str) -> str:
        return self._post("element", {"using": "css selector", "value": selector})[ELEMENT]

    def _post(self, command: str, content: dict[str, Any]) -> Any:
        return self._call("POST", f"/{self._session}/{command}", content)

    def _get(self, command: str) -> Any:
        return self._call("GET", f"/{self._session}/{command}")

    def _call(self, method: str, path: str, content: dict[str, Any] | None = None) -> Any:
        body = None if content is None else json.dumps(content).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self._url}/session{path}", body, headers, method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            return json.load(answer)["value"]


def _picture(content: bytes) -> np.ndarray:
    """A PNG file as (H,W,3) uint8 RGB."""
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None, "the browser sent no picture"
    return np.ascontiguousarray(picture[..., ::-1])


@contextmanager
def headless_chromium() -> Iterator[Browser]:
    """A Chromium that reaches no network but this machine.

    Raises:
        UserError: there is none, or no driver.
    """
    binary = next(filter(None, map(shutil.which, COMMANDS)), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        raise UserError("no Chromium with its driver (Debian: apt-get install chromium chromium-driver)")
    port = free_port()
    with subprocess.Popen(
        [driver, f"--port={port}"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            while "started successfully" not in (line := process.stdout.readline()):
                assert line, "chromedriver ended"
            chromium = Browser(f"http://127.0.0.1:{port}", binary)
            try:
                yield chromium
            finally:
                chromium.close()
        finally:
            process.terminate()
