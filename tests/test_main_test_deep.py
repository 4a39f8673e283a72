"""Clips of 16 bits per channel: restored frames have 16 bits too, in one go and resumed."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from data.frame_io import FolderFrames
from tests.tiny import run_test
from utils.spike_loader import write_spikes
from utils.user_error import UserError

SIZE = (32, 48)


def write_clip(folder: Path, factor: int, dtype: type = np.uint16) -> list[str]:
    """Two smooth frames, factor x 0 to 255, and their spikes; the tester's flags."""
    random = np.random.default_rng(0)
    for name in ("blur", "sharp"):
        (folder / name).mkdir(parents=True)
        for index in range(2):
            small = random.integers(0, 256, (4, 6, 3), dtype=np.uint8)
            picture = cv2.resize(small, SIZE[::-1], interpolation=cv2.INTER_LINEAR).astype(dtype) * dtype(factor)
            cv2.imwrite(str(folder / name / f"{index}.png"), picture)
    write_spikes(folder / "clip.dat", random.integers(0, 2, (40, 16, 24), dtype=np.uint8))
    (folder / "config.yaml").write_text("spike_h: 16\nspike_w: 24\n")
    folders = {"lq": folder / "blur", "gt": folder / "sharp", "spike": folder / "clip.dat"}
    flags = [word for name, path in folders.items() for word in (f"--folder_{name}", str(path))]
    return ["--task", "guided", *flags, "--save_result", "--output", str(folder / "results")]


def restored(folder: Path) -> list[np.ndarray]:
    paths = sorted((folder / "results" / "guided" / "blur").glob("*.png"))
    return [np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)) for path in paths]


def test_16_bits_in_and_out(tmp_path: Path) -> None:
    deep, plain = write_clip(tmp_path / "deep", 257), write_clip(tmp_path / "plain", 1, np.uint8)
    assert run_test(*deep) == 0 and run_test(*plain) == 0
    pictures = restored(tmp_path / "deep")
    for picture, eight in zip(pictures, restored(tmp_path / "plain"), strict=True):
        assert picture.dtype == np.uint16 and eight.dtype == np.uint8
        assert np.abs(picture / 257 - eight).max() < 0.51  # of the same picture, before its levels were rounded
        assert (picture % 257 != 0).mean() > 0.9  # and not 8 bits stretched
    metrics = [(tmp_path / name / "results/guided/metrics.csv").read_text() for name in ("deep", "plain")]
    assert metrics[0].splitlines()[0] == metrics[1].splitlines()[0]
    first = metrics[0]
    (tmp_path / "deep" / "results/guided/blur/1.png").unlink()
    assert run_test(*deep, "--resume") == 0
    assert all((a == b).all() for a, b in zip(restored(tmp_path / "deep"), pictures, strict=True))
    assert (tmp_path / "deep" / "results/guided/metrics.csv").read_text() == first


def test_a_stack_of_8_and_16_bits_is_refused(tmp_path: Path) -> None:
    write_clip(tmp_path, 257)
    cv2.imwrite(str(tmp_path / "blur" / "1.png"), np.zeros((*SIZE, 3), np.uint8))
    frames = FolderFrames(tmp_path / "blur", "root")
    assert [frames.read("blur", name).dtype for name in ("0", "1")] == [np.uint16, np.uint8]
    with pytest.raises(UserError, match=r"1\.png has 8 bits per channel, .*0\.png 16"):
        frames.stack("blur", ["0", "1"])
