"""Scores of a test: means over clips and frames, the table, and the files."""

import csv
import json
import math
from pathlib import Path

import numpy as np

from utils.evaluation.metrics import psnr, psnr_y, ssim, ssim_y
from utils.evaluation.scorer import score_frame
from utils.evaluation.scores import Scores


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


def test_equal_pictures(tmp_path: Path) -> None:
    """Infinite PSNR: null in metrics.json, which is strict JSON, "inf" elsewhere; means over it are infinite too."""
    picture = np.zeros((16, 16, 3), np.uint8)
    result = scores()
    result.add("a", "1", {**score_frame(picture, picture), "input_psnr": math.inf, "input_ssim": 1.0})
    result.write(tmp_path)

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    summary = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=refuse)
    assert summary["frames"][-1]["psnr"] is summary["clips"]["a"]["psnr"] is summary["mean_over_frames"]["psnr"] is None
    assert summary["frames"][-1]["ssim"] == 1 and summary["clips"]["long name"]["psnr"] == 32
    assert "infinite" in summary["notes"]["null"]
    lines = result.table().splitlines()
    assert lines[1].split()[:6] == ["a", "inf", "0.7500", "inf", "0.6000", "inf"] and not lines[1].endswith("dB")
    with open(tmp_path / "metrics.csv", encoding="utf-8", newline="") as file:
        assert [row["psnr"] for row in csv.DictReader(file)][-1] == "inf"


def test_numbers_that_not_every_frame_has(tmp_path: Path) -> None:
    """tOF begins with a clip's second frame: its mean is over the frames that have it."""
    result = Scores()
    for frame, row in enumerate([{"psnr": 30.0}, {"psnr": 31.0, "tof": 1.0}, {"psnr": 32.0, "tof": 2.0}]):
        result.add("a", str(frame), row)
    result.add("alone", "0", {"psnr": 20.0})
    assert result.metrics() == ["psnr", "tof"]
    assert result.clips() == {"a": {"psnr": 31, "tof": 1.5}, "alone": {"psnr": 20}}
    assert result.mean_over_clips() == {"psnr": 25.5, "tof": 1.5}
    assert result.mean_over_frames() == {"psnr": 28.25, "tof": 1.5}
    result.write(tmp_path)
    assert (tmp_path / "metrics.csv").read_text().splitlines()[1:3] == ["a,0,30.0,", "a,1,31.0,1.0"]


def test_methods_side_by_side() -> None:
    result = scores()
    for row in result.rows:
        row |= {"gaussian_psnr_y": 25.0, "sdm_psnr": 22.0, "tof": 0.5}
    assert result.methods() == ["input", "sdm", "gaussian", ""]
    clips, frames = result.method_table().split("\n\n")
    assert clips.splitlines() == [
        "mean over clips               PSNR        SSIM      PSNR_Y      SSIM_Y         tOF",
        "input                        23.50      0.5000",
        "training-free                22.00",
        "spikes alone, Gaussian                               25.00",
        "network                      26.00      0.2600       27.00      0.5200      0.5000",
    ]
    assert frames.splitlines()[-1].split() == ["network", "29.00", "0.2900", "30.00", "0.5800", "0.5000"]
    assert scores(inputs=False).method_table() == ""


def test_means_that_are_equal_are_one_table() -> None:
    """Clips of the same length."""
    same = Scores(
        [{"clip": clip, "frame": "0", "psnr": psnr, "input_psnr": 20.0} for clip, psnr in (("a", 30.0), ("b", 32.0))]
    )
    assert [line.split("  ")[0] for line in same.table().splitlines()] == [
        "clip",
        "a",
        "b",
        "mean over clips and frames",
    ]
    assert same.method_table().count("mean over") == 1
