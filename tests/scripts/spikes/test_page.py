"""`page`: the browser decodes the spikes and makes the pictures that Python makes."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.spike.reconstruction.reconstruct import charge, gaussian, k_interval, window
from data.spike.simulation.presets import PRESETS
from data.spike.simulation.simulate import to_uint8
from scripts.spikes.__main__ import main
from tests.browser import Browser

PIXELS = "const c = document.getElementById('picture'); return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].filter((_, i) => i % 4 === 0)"  # noqa: E501
SET = "const e = document.getElementById(arguments[0]); e.value = arguments[1]; e.dispatchEvent(new Event('input'))"


def test_page_shows_what_python_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, browser: Browser) -> None:
    rng = np.random.default_rng(0)
    light = cv2.resize(rng.uniform(0, 1, (4, 5)), (26, 20))[None].repeat(75, 0)
    spikes = PRESETS["v2s"].sensor((20, 26), rng).step(np.clip(light, 0, 1))
    np.save(tmp_path / "a<b>.npy", spikes)
    monkeypatch.chdir(tmp_path)
    assert main(["page", "a<b>.npy", "--threshold", "2", "--begin", "3"]) == 0
    spikes = spikes[3:]
    browser.open(tmp_path / "a<b>.html")
    browser.run("return new Promise(done => { const t = setInterval(() => document.body.dataset.ready && done(clearInterval(t)), 20) })")  # fmt: skip  # noqa: E501
    assert browser.texts("h1") == ["a<b>.npy"] and browser.texts("#time-shown") == ["39"]

    def shown(method: str, time: int) -> np.ndarray:
        browser.run(SET, "method", method)
        browser.run(SET, "time", time)
        return np.array(browser.run(PIXELS)).reshape(20, 26)

    browser.run(SET, "width", 50)
    sigma, length = (browser.run(f"return {name}()") for name in ("sigma", "boxLength"))
    for time in (0, 30, 71):
        assert (shown("spikes", time) == 255 * spikes[time]).all()
        for method, expected in (
            ("charge", charge(spikes, time, 2.0, sigma=sigma)),
            ("gaussian", gaussian(spikes, time, 2.0, sigma=sigma)),
            ("window", window(spikes, time, 2.0, length=length)),
            ("k_interval", k_interval(spikes, time, 2.0)),
        ):
            assert np.abs(shown(method, time) - to_uint8(expected).astype(int)).max() <= 1, (method, time)
    assert not browser.errors()


def test_two_thousand_frames_take_below_20_megabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fiftieth of the pixels of a 250x400 camera, so a fiftieth of the page, with room for motion."""
    model = dataclasses.replace(PRESETS["v2s"], threshold=3.0)
    light = np.random.default_rng(1).uniform(0, 1, (40, 50))
    drifting = np.stack([np.roll(light, time // 20, 1) for time in range(2100)])
    np.save(tmp_path / "a.npy", model.sensor((40, 50), np.random.default_rng(2)).step(drifting))
    monkeypatch.chdir(tmp_path)
    assert main(["page", "a.npy"]) == 0
    content = (tmp_path / "a.html").read_text()
    assert '"frames": 2000' in content and len(content) < 20e6 / 50
