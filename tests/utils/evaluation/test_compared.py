"""Results of other tests: their names, their files, their pictures."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from utils.evaluation.compared import ComparedResults
from utils.evaluation.frame_result import FrameResult
from utils.evaluation.scores import Scores
from utils.user_error import UserError
from utils.utils_image import imwrite_rgb

CLIPS = [SimpleNamespace(name="a/b", frames=["0", "1"], target=None)]
PICTURE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for frame in range(2):
        imwrite_rgb(tmp_path / "guided" / "a" / "b" / f"{frame}.png", PICTURE + frame)
    return tmp_path / "guided"


def frame(size: tuple[int, int] = (4, 6)) -> FrameResult:
    empty = np.zeros((*size, 3), np.uint8)
    return FrameResult("a/b", "1", 1, 2, blurred=empty, restored=empty, sharp=None, spikes=None)


def test_frames_are_read_under_their_names(results: Path) -> None:
    compared = ComparedResults([str(results), f"the same={results}"], CLIPS)
    assert list(compared.folders) == ["guided", "the same"]
    for picture in compared.pictures(frame()).values():
        assert np.array_equal(picture, PICTURE + 1)
    assert ComparedResults([], CLIPS).pictures(frame()) == {}


@pytest.mark.parametrize("flags", [["input={}"], ['x"y={}'], ["psnr={}"], ["={}"], ["{}", "guided={}"]])
def test_names_that_cannot_be(results: Path, flags: list[str]) -> None:
    with pytest.raises(UserError, match="can't be used as its name"):
        ComparedResults([flag.format(results) for flag in flags], CLIPS)


def test_missing_frames_are_told_before_anything_is_restored(results: Path) -> None:
    (results / "a" / "b" / "1.png").unlink()
    with pytest.raises(UserError, match=r"a/b/1\.png is missing.*--save_result"):
        ComparedResults([str(results)], CLIPS)


def test_another_size_is_refused(results: Path) -> None:
    with pytest.raises(UserError, match="is 4x6, the frame restored now 8x6"):
        ComparedResults([str(results)], CLIPS).pictures(frame((8, 6)))


def test_they_are_rows_before_the_network() -> None:
    scores = Scores(network="mine")
    scores.add("clip", "0", {"psnr": 30.0, "input_psnr": 20.0, "gaussian_psnr_y": 21.0, "light, 2_psnr": 29.0})
    assert scores.methods() == ["input", "gaussian", "light, 2", ""]
    lines = [line.split("  ")[0] for line in scores.method_table().splitlines()]
    assert lines[1:] == ["input", "spikes alone, Gaussian", "light, 2", "mine"]
