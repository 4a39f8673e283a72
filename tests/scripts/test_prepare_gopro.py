"""Laying out GoPro: links, meta info, what is missing."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from scripts.data_preparation.prepare_gopro_spike_dataset import main


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two raw clips of three frames per split, with empty spike files (their content is not looked at here)."""
    for split in ("train", "test"):
        for clip in ("GOPR0001_07_00", "GOPR0002_11_00"):
            for frame in ("000047", "000048", "000049"):
                for kind in ("sharp", "blur", "blur_gamma"):
                    file = tmp_path / "GOPRO_Large" / split / clip / kind / f"{frame}.png"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    cv2.imwrite(str(file), np.full((8, 12, 3), len(kind), np.uint8))
                spike = tmp_path / "GOPRO_Large_spike_seq" / split / clip / "spike" / f"{frame}.dat"
                spike.parent.mkdir(parents=True, exist_ok=True)
                spike.touch()
    return tmp_path


def run(raw: Path, *flags: str) -> int:
    return main(["--gopro_root", str(raw / "GOPRO_Large"), "--spike_root", str(raw / "GOPRO_Large_spike_seq"), *flags])


@pytest.mark.parametrize("flags", [[], ["--copy"]])
def test_layout(raw, flags, capsys):
    assert run(raw, *flags) == 0
    root = raw / "GOPRO_Large"
    for split in ("train", "test"):
        for kind, source in (("GT", "sharp"), ("GT_blurred", "blur")):
            made = root / f"{split}_{kind}" / "GOPR0002_11_00"
            assert made.is_symlink() != bool(flags)
            same = root / split / "GOPR0002_11_00" / source / "000048.png"
            assert (made / "000048.png").read_bytes() == same.read_bytes()
        lines = (root / f"meta_info_{split}.txt").read_text().splitlines()
        assert lines == ["GOPR0001_07_00 3 (8,12,3) 47", "GOPR0002_11_00 3 (8,12,3) 47"]
    assert "spike_h: 360" in (raw / "GOPRO_Large_spike_seq/config.yaml").read_text()
    assert "train: 2 clips, 6 frames" in capsys.readouterr().out
    assert run(raw, *flags) == 0  # again: everything is kept


def test_roots_of_an_option_file(raw, tmp_path):
    train = f'{{"dataroot_gt": "{raw}/GOPRO_Large/train_GT", "dataroot_spike": "{raw}/GOPRO_Large_spike_seq/train"}}'
    (tmp_path / "options.json").write_text(f'{{"datasets": {{"train": {train}}}}}')
    assert main(["--opt", str(tmp_path / "options.json")]) == 0
    assert (raw / "GOPRO_Large/test_GT/GOPR0001_07_00").is_symlink()


def test_what_is_missing_is_named(raw, capsys):
    (raw / "GOPRO_Large/train/GOPR0001_07_00/blur/000048.png").unlink()
    assert run(raw) == 2
    assert "GOPR0001_07_00" in (error := capsys.readouterr().err) and "000048.png" in error
    assert not (raw / "GOPRO_Large/train_GT/GOPR0001_07_00").exists()


def test_missing_spikes_are_named(raw, capsys):
    (raw / "GOPRO_Large_spike_seq/test/GOPR0002_11_00/spike/000049.dat").unlink()
    assert run(raw) == 2
    assert "000049.dat" in capsys.readouterr().err


def test_missing_raw_folder_says_what_to_unpack(tmp_path, capsys):
    assert main(["--gopro_root", str(tmp_path / "none"), "--spike_root", str(tmp_path)]) == 2
    assert "Unpack GOPRO_Large" in capsys.readouterr().err
