"""inspect_run --serve: the page and what it asks for, of a run that has begun and of one that has not."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from scripts.inspect_run import look, main
from scripts.inspect_server import Watch
from utils.evaluation.chart import SIZE
from utils.utils_image import imwrite_rgb

LINE = (
    "26-01-01 00:00:0{0}.000 : <epoch:  0, iter:       {0}, lr:1.000e-03> G_loss: {0}e-01 ETA: 0:00:09 samples/s: 2.5"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of 8 steps at step 4, with a test and a bad step."""
    run = tmp_path / "tiny run"
    (run / "options").mkdir(parents=True)
    lines = [LINE.format(step) for step in (1, 2, 3, 4)]
    lines.append("26-01-01 00:00:05.000 : <epoch:  0, iter:       4 Average PSNR: 30.25 dB; SSIM: 0.9000")
    (run / "train.log").write_text("\n".join(lines))
    (run / "options" / "resolved.json").write_text(json.dumps({"train": {"total_iter": 8}}))
    entry = {"step": 3, "grad_norm": "nan", "ranks": [{"rank": 0, "loss": "nan", "keys": ["a/1"]}]}
    (run / "bad_steps.jsonl").write_text(json.dumps(entry) + "\n")
    imwrite_rgb(run / "panels" / "a clip.png", np.full((8, 12, 3), 7, np.uint8))
    return run


@pytest.fixture
def watch(folder: Path) -> Iterator[Watch]:
    with Watch(lambda: look(folder), port=0) as watch:
        thread = threading.Thread(target=watch.serve_forever, daemon=True)
        thread.start()
        yield watch
        watch.shutdown()
        thread.join()


def get(watch: Watch, place: str, **headers: str) -> bytes:
    request = urllib.request.Request(watch.address + place, headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        content: bytes = answer.read()
        return content


def picture(content: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)


def test_page_asks_for_what_is_there(watch: Watch, folder: Path) -> None:
    assert watch.address.startswith("http://127.0.0.1:")
    page = get(watch, "/").decode()
    state: dict[str, Any] = json.loads(get(watch, "/state.json"))
    for key in ("name", "status", "share", "figures", "troubles", "checkpoints", "curves", "panels"):
        assert f"state.{key}" in page and key in state
    assert state["name"] == "tiny run" and state["share"] == 0.5
    figures = {name: value for name, value, *_ in state["figures"]}
    assert figures["step"] == "4 of 8" and figures["samples per second"] == "2.5" and figures["bad steps"] == "1"
    assert figures["test PSNR, newest"] == "30.25 dB" and state["troubles"][0].startswith("bad steps: 1")
    assert list(state["curves"]) == ["loss", "test PSNR", "throughput", "gradient norm", "learning rate"]
    for name in state["curves"]:
        assert picture(get(watch, f"/curve/{name.replace(' ', '%20')}?1")).shape == (*SIZE, 3)
    assert (picture(get(watch, "/panel/a%20clip?1")) == 7).all()
    # A test later, the panel has another version, which the page fetches.
    before = state["panels"]["a clip"]
    imwrite_rgb(folder / "panels" / "a clip.png", np.full((8, 12, 3), 9, np.uint8))
    assert json.loads(get(watch, "/state.json"))["panels"]["a clip"] != before


@pytest.mark.parametrize(
    "place", ["/panel/../train.log", "/panel/..%2Ftrain.log", "/curve/other", "/train.log", "/etc"]
)
def test_nothing_else_is_served(watch: Watch, place: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(watch, place)


def test_other_names_of_the_host_are_refused(watch: Watch) -> None:
    with pytest.raises(urllib.error.HTTPError, match="403"):
        get(watch, "/state.json", Host="evil.example:8008")
    assert get(watch, "/state.json", Host="localhost:8008")


def test_a_run_that_has_not_begun(tmp_path: Path) -> None:
    state = look(tmp_path / "later").state()
    assert state["status"].startswith("no step logged yet") and state["share"] is None
    assert state["curves"] == {} and state["panels"] == {} and state["checkpoints"] == "none; best –"


def test_a_port_that_is_taken(watch: Watch, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    port = str(watch.server_address[1])
    assert main([str(folder), "--serve", "--port", port]) == 2
    assert f"--port {port}: " in capsys.readouterr().err
    assert main([str(folder), "--serve", "--port", "70000"]) == 2
