"""Scores of a test: means over clips and frames, the table, and the files."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from utils.utils_metric import psnr, psnr_y, ssim, ssim_y
from utils.utils_report import Scores
from utils.utils_scoring import score_frame


def scores(*, inputs: bool = True) -> Scores:
    """Two clips, of one and of three frames, whose means over clips and over frames differ."""
    result = Scores()
    for clip, frame, value in (
        ("a", "0", 20.0),
        ("long name", "0", 30.0),
        ("long name", "1", 32),
        ("long name", "2", 34),
    ):
        row = {"psnr": value, "ssim": value / 100, "psnr_y": value + 1, "ssim_y": value / 50}
        result.add(clip, frame, row | ({"input_psnr": value - 2.5, "input_ssim": 0.5} if inputs else {}))
    return result


def test_a_frames_scores() -> None:
    rng = np.random.default_rng(0)
    restored, sharp = (rng.integers(0, 255, (16, 18, 3), dtype=np.uint8) for _ in range(2))
    expected = {"psnr": psnr, "ssim": ssim, "psnr_y": psnr_y, "ssim_y": ssim_y}
    assert score_frame(restored, sharp) == {name: metric(restored, sharp) for name, metric in expected.items()}


def test_means() -> None:
    assert scores().clips()["long name"]["psnr"] == 32
    assert scores().mean_over_clips()["psnr"] == 26
    assert scores().mean_over_frames()["psnr"] == 29
    assert scores().mean_over_clips()["input_psnr"] == 23.5
    assert list(scores().clips()) == ["a", "long name"]


def test_nothing_scored() -> None:
    assert (Scores().metrics(), Scores().clips(), Scores().mean_over_clips()) == ([], {}, {})


def test_table() -> None:
    assert scores().table().splitlines() == [
        "clip              input PSNR  input SSIM        PSNR        SSIM      PSNR_Y      SSIM_Y",
        "a                      17.50      0.5000       20.00      0.2000       21.00      0.4000  +2.50 dB",
        "long name              29.50      0.5000       32.00      0.3200       33.00      0.6400  +2.50 dB",
        "mean over clips        23.50      0.5000       26.00      0.2600       27.00      0.5200  +2.50 dB",
        "mean over frames       26.50      0.5000       29.00      0.2900       30.00      0.5800  +2.50 dB",
    ]


def test_table_without_the_input() -> None:
    lines = scores(inputs=False).table().splitlines()
    assert lines[0].split() == ["clip", "PSNR", "SSIM", "PSNR_Y", "SSIM_Y"]
    assert lines[1] == "a                      20.00      0.2000       21.00      0.4000"


def test_files(tmp_path: Path) -> None:
    scores().write(tmp_path / "new")
    with open(tmp_path / "new" / "metrics.csv", encoding="utf-8", newline="") as file:
        text = file.read()
    assert text.splitlines()[0] == "clip,frame,psnr,ssim,psnr_y,ssim_y,input_psnr,input_ssim"
    rows = list(csv.DictReader(text.splitlines()))
    assert [(row["clip"], row["frame"], float(row["psnr"])) for row in rows][-1] == ("long name", "2", 34.0)
    summary = json.loads((tmp_path / "new" / "metrics.json").read_text())
    assert summary["mean_over_clips"] == scores().mean_over_clips()
    assert summary["mean_over_frames"] == scores().mean_over_frames()
    assert summary["clips"] == scores().clips()
    assert summary["frames"] == scores().rows


@pytest.mark.parametrize("value", [float("inf")])
def test_equal_pictures(tmp_path: Path, value: float) -> None:
    """Infinite PSNR stays readable."""
    picture = np.zeros((16, 16, 3), np.uint8)
    result = Scores()
    result.add("a", "0", score_frame(picture, picture))
    result.write(tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text())["frames"][0]["psnr"] == value
    assert "inf" in result.table()
