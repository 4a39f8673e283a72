"""Log lines in KAIR's formats, one file per rank, curves and pictures that can be read back."""

import ast
import logging
import re
import sys
import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from utils import utils_logger
from utils.evaluation.scores import Scores
from utils.utils_image import imread_rgb
from utils.utils_logger import (
    PANEL_WIDTH,
    PANELS,
    Writer,
    average_line,
    clip_line,
    log_train,
    log_validation,
    metrics_text,
    setup_logger,
    train_line,
)
from utils.utils_option import LoggerOptions
from utils.utils_timer import Timer

METRICS = {"psnr": 30.126, "ssim": 0.91236, "psnr_y": 31.5, "ssim_y": 0.92}
TEXT = "PSNR: 30.13 dB; SSIM: 0.9124; PSNR_Y: 31.50 dB; SSIM_Y: 0.9200"


@pytest.fixture(autouse=True)
def clean_root_logger() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    for handler in [handler for handler in root.handlers if handler not in before[0]]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(before[1])
    logging.captureWarnings(False)


@dataclass
class FakeFrame:
    """A restored frame."""

    clip: str
    frame: str
    restored: np.ndarray
    is_middle: bool

    def views(self) -> list[tuple[str, np.ndarray]]:
        return [("input", self.restored), ("restored", self.restored)]


def clip(name: str = "clip", size: tuple[int, int] = (12, 16)) -> list[FakeFrame]:
    """The frames of a restored clip."""
    pictures = np.random.default_rng(0).integers(0, 256, (3, *size, 3), dtype=np.uint8)
    return [FakeFrame(name, f"{index:03d}", picture, index == 1) for index, picture in enumerate(pictures)]


def timed() -> Timer:
    timer = Timer(torch.device("cpu"))
    with timer.step(), timer.section("data"):
        pass
    return timer


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder / "tb_logger"))
    accumulator.Reload()
    return accumulator


def test_lines_are_kairs() -> None:
    assert (
        train_line(3, 12345, 4e-4, {"G_loss": 0.01234}) == "<epoch:  3, iter:  12,345, lr:4.000e-04> G_loss: 1.234e-02"
    )
    assert train_line(0, 1, 1.0, {"G_loss": 1}, {"ETA": "0:01"}).endswith("> G_loss: 1.000e+00 ETA: 0:01")
    assert clip_line("GOPR0384_11_00", 0, 11, METRICS) == f"Testing GOPR0384_11_00       ( 0/11) - {TEXT}"
    assert average_line(12, 5000, METRICS) == f"<epoch: 12, iter:   5,000 Average {TEXT}"


def test_rank_0_speaks_and_every_rank_has_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup_logger(tmp_path / "run", 0)
    logging.getLogger("data.some_module").info("from a module")
    logging.getLogger("data.some_module").debug("too much")
    logging.getLogger("svrt").warning("careful")
    warnings.warn("from a library", stacklevel=1)
    setup_logger(tmp_path / "run", 3)
    logging.getLogger("svrt").info("from rank three")
    setup_logger(tmp_path / "run", 0)
    logging.getLogger("svrt").info("appended")
    content = (tmp_path / "run" / "train.log").read_text()
    assert capsys.readouterr().out == content
    lines = content.splitlines()
    assert all(re.match(r"\d\d-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} : ", line) for line in lines[:2])
    assert lines[0].endswith(" : from a module") and lines[1].endswith(" : WARNING: careful")
    assert "from a library" in lines[2] and lines[-1].endswith(" : appended")
    assert "too much" not in content and "three" not in content
    assert (tmp_path / "run" / "train_rank3.log").read_text().endswith(" : from rank three\n")


def test_curves_and_panels_reach_tensorboard(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer = Writer(tmp_path, LoggerOptions())
    scores = Scores()
    scores.add("a", "0", {name: value + 1 for name, value in METRICS.items()})
    scores.add("b", "0", METRICS)
    scores.add("b", "1", METRICS)
    with caplog.at_level(logging.INFO):
        log_train(writer, timed(), 2, 200, 1000, 8, 1e-4, {"G_loss": torch.tensor(0.5), "grad_norm": 2.0})
        log_validation(writer, 2, 200, scores)
        log_validation(writer, 2, 200, Scores())
    show = writer.panels(200, tmp_path / "images")
    for index in range(PANELS + 1):
        for frame in clip(f"clip{index}", (12, 16 if index else PANEL_WIDTH)):
            show(frame)
    writer.close()
    writer.scalars({"late": 1.0}, 300)
    found = events(tmp_path)
    assert found.Scalars("train/G_loss")[0].value == 0.5 and found.Scalars("train/G_loss")[0].step == 200
    assert found.Scalars("test/psnr")[0].value == pytest.approx(30.626)
    assert found.Scalars("test_over_frames/psnr")[0].value == pytest.approx(30.126 + 1 / 3)
    assert {"train/learning_rate", "time/data", "time/samples_per_second"} <= set(found.Tags()["scalars"])
    assert sorted(found.Tags()["images"]) == [f"test/clip{index}" for index in range(PANELS)]
    panels = sorted(path.name for path in (tmp_path / "panels").iterdir())
    assert panels == [f"clip{index}.png" for index in range(PANELS)]
    assert found.Images("test/clip0")[0].width == PANEL_WIDTH and found.Images("test/clip1")[0].width == 36
    np.testing.assert_array_equal(imread_rgb(tmp_path / "images" / "clip4" / "001_200.png"), clip()[1].restored)
    lines = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(
        r"<epoch:  2, iter:     200, lr:1\.000e-04> G_loss: 5\.000e-01 grad_norm: 2\.000e\+00 "
        r"ETA: 0:00:\d\d samples/s: \S+ data wait: \d+%",
        lines[0],
    )
    assert lines[1].startswith("Testing a                    ( 0/2) - PSNR: 31.13 dB")
    assert lines[3].startswith("<epoch:  2, iter:     200 Average PSNR: 30.63 dB") and len(lines) == 4


def test_points_after_the_step_resumed_from_are_dropped(tmp_path: Path) -> None:
    for resumed_step, steps in ((0, (1, 2, 3)), (2, (3,))):
        writer = Writer(tmp_path, LoggerOptions(), resumed_step=resumed_step)
        for step in steps:
            writer.scalars({"x": step + 10.0 * resumed_step}, step)
        writer.close()
    assert [(point.step, point.value) for point in events(tmp_path).Scalars("x")] == [(1, 1), (2, 2), (3, 23)]


def test_other_ranks_write_nothing_but_frames(tmp_path: Path) -> None:
    writer = Writer(tmp_path, LoggerOptions(wandb=True), rank=1)
    writer.scalars({"x": 1.0}, 1)
    writer.image("x", clip()[0].restored, 1)
    writer.panels(1)(clip()[1])
    assert list(tmp_path.iterdir()) == []
    writer.panels(1, tmp_path / "images")(clip()[1])
    writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


class FakeWandb(types.ModuleType):
    """Remembers what it was told."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.inits: list[dict[str, Any]] = []
        self.logged: list[tuple[list[str], int]] = []
        self.finished = 0

    def init(self, **arguments: Any) -> None:
        self.inits.append(arguments)

    def log(self, values: dict[str, Any], step: int) -> None:
        self.logged.append((list(values), step))

    def Image(self, picture: np.ndarray) -> np.ndarray:
        return picture

    def finish(self) -> None:
        self.finished += 1


def test_wandb_is_offline_without_a_key_and_goes_on_with_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    options = LoggerOptions(tensorboard=False, wandb=True, wandb_project="p")
    folder = tmp_path / "task"
    for key in (None, "secret"):
        if key:
            monkeypatch.setenv("WANDB_API_KEY", key)
        writer = Writer(folder, options, config={"scale": 1})
        writer.scalars({"x": 1.0}, 5)
        writer.image("y", clip()[0].restored, 5)
        writer.close()
    assert [call["mode"] for call in wandb.inits] == ["offline", "online"]
    assert wandb.inits[0]["id"] == wandb.inits[1]["id"] and wandb.inits[0]["resume"] == "allow"
    assert wandb.inits[0]["name"] == "task" and wandb.inits[0]["config"] == {"scale": 1}
    assert wandb.logged == [(["x"], 5), (["y"], 5)] * 2 and wandb.finished == 2
    assert "secret" not in str(wandb.inits)
    assert not (folder / "tb_logger").exists()


def test_wandb_that_cannot_be_had_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb())
    with pytest.raises(ValueError, match="WANDB_API_KEY"):
        Writer(tmp_path, LoggerOptions(tensorboard=False, wandb=True, wandb_mode="online"))
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match="pip install wandb"):
        Writer(tmp_path, LoggerOptions(tensorboard=False, wandb=True))


def test_tensorboard_and_wandb_are_imported_only_where_asked_for() -> None:
    tree = ast.parse(Path(utils_logger.__file__).read_text())
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not [ast.unparse(node) for node in imports if re.search("tensorboard|wandb", ast.unparse(node))]


def test_pictures_too_small_for_ssim_are_logged_without_it() -> None:
    assert metrics_text({"psnr": 30.0, "psnr_y": 31.0, "tof": 1.0}) == "PSNR: 30.00 dB; PSNR_Y: 31.00 dB"
