"""The light network's tables under scripts/benchmark/, on the smallest of videos and trainings."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from scripts.benchmark import generator_sheet, guided_ablation, guided_table, trust_table
from utils.utils_image import GAP, TITLE_HEIGHT, imread_rgb


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Nine frames of a picture that moves, as a folder."""
    folder = tmp_path / "walk"
    folder.mkdir()
    noise = cv2.GaussianBlur(np.random.default_rng(0).random((32, 80, 3), np.float32), (0, 0), 2)
    picture = np.rint(255 * cv2.normalize(noise, None, 0, 1, cv2.NORM_MINMAX)).astype(np.uint8)  # type: ignore[call-overload]
    for index in range(9):
        cv2.imwrite(str(folder / f"{index}.png"), picture[:, 4 * index : 4 * index + 32])
    return folder


def test_a_row_of_the_table(video: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(guided_table, "TICKS", 64)
    monkeypatch.setattr(guided_table, "BLURS", guided_table.BLURS[2:])
    assert guided_table.main([str(video), "--scale", "1", "--rows", "blurs"]) == 0
    row = capsys.readouterr().out.splitlines()[-1]
    blurred, counted, between, restored, *gains = (float(n) for n in re.findall(r"[+-]?\d+\.\d\d", row))
    assert row.startswith("| extreme") and restored > blurred and between > counted
    for formula, gain, least in zip((counted, between), gains[::2], gains[1::2], strict=True):
        assert abs(restored - formula - gain) < 0.02 and least == gain  # one clip


def test_trust_is_measured(video: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(guided_table, "TICKS", 112)
    monkeypatch.setattr(trust_table, "BLURS", [guided_table.Blur("n=7 of 2x", 7, 2)])
    monkeypatch.setattr(trust_table, "PATCH", 8)
    assert trust_table.main([str(video), "--scale", "1"]) == 0
    row, pooled = capsys.readouterr().out.splitlines()[-2:]
    numbers = [float(n) for n in re.findall(r"(-?\d+\.\d+)%? \|", row)]
    assert row.startswith("| walk, n=7 of 2x |") and pooled.split("|")[2:] == row.split("|")[2:]
    assert -1 <= numbers[0] <= 1 and numbers[2] < 5 and numbers[3] > 90


def test_the_sheet_has_generated_and_real_rows(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(guided_table, "TICKS", 64)
    monkeypatch.setattr(generator_sheet, "SCALE", 1.0)
    monkeypatch.setattr(generator_sheet, "BLURS", (None, guided_table.BLURS[2]))
    small = ["--samples", "2", "--side", "32", "--set", "datasets.train.sim_exposure=[8,16]"]
    assert generator_sheet.main([str(tmp_path / "sheet.png"), str(video), *small]) == 0
    assert "2 generated samples, 1 of videos" in capsys.readouterr().out
    assert imread_rgb(tmp_path / "sheet.png").shape == (3 * (32 + TITLE_HEIGHT), 4 * 32 + 3 * GAP, 3)


def test_the_ablation_trains_every_variant(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(guided_ablation, "VALIDATION_SAMPLES", 2)
    small = ["netG.channels=4", "netG.blocks=[0,0,0]", "datasets.train.gt_size=16", "train.amp_dtype=null"]
    assert guided_ablation.main(["--seconds", "0.01", "--set", *small, "datasets.train.sim_exposure=[8,16]"]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == [variant.name for variant in guided_ablation.VARIANTS]
    assert all(int(row.split("|")[2]) >= 1 and float(row.split("|")[3]) > 5 for row in rows)
