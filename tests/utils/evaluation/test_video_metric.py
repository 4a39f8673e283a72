"""ColorVideoVDP in the scorer: a number per clip and method; with the package, that of known pairs."""

import sys
from typing import Any

import numpy as np
import pytest
import torch

from utils.evaluation.scorer import Scorer
from utils.evaluation.video_metric import CVVDP
from utils.user_error import UserError


class Difference:
    """Stands in for the metric: mean absolute difference, and the frames it was given."""

    def __init__(self) -> None:
        self.frames: list[int] = []

    def of_clip(self, restored: np.ndarray, sharp: np.ndarray) -> float:
        self.frames.append(len(restored))
        return float(np.abs(restored.astype(float) - sharp).mean())


@pytest.mark.parametrize("workers", [0, 2])
def test_a_clip_has_a_number_in_its_last_frame(workers: int) -> None:
    sharp, metric = np.full((16, 16, 3), 100, np.uint8), Difference()
    video: Any = metric
    with Scorer(temporal=False, workers=workers, video=video) as scorer:
        for clip, length, error in (("a", 2, 1), ("b", 3, 4)):
            for frame in range(length):
                gray = sharp[..., 0]
                scorer.add(clip, str(frame), sharp, {"": sharp + np.uint8(error), "input": sharp, "gaussian": gray})
    rows = scorer.scores.rows
    assert [row.get("cvvdp") for row in rows] == [None, 1.0, None, None, 4.0]
    assert rows[1]["input_cvvdp"] == 0 and not any("gaussian_cvvdp" in row for row in rows)
    assert scorer.scores.mean_over_clips()["cvvdp"] == 2.5 and metric.frames == [2, 2, 3, 3]


def test_without_the_package_the_flag_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycvvdp", None)
    with pytest.raises(UserError, match="pip install cvvdp"):
        CVVDP(torch.device("cpu"))


def test_worse_videos_have_lower_numbers() -> None:
    pytest.importorskip("pycvvdp", reason="the optional package cvvdp is not installed")
    rng = np.random.default_rng(0)
    sharp = rng.integers(60, 200, (2, 64, 64, 3)).astype(np.uint8)
    metric = CVVDP(torch.device("cpu"))
    scores = [metric.of_clip((sharp + rng.normal(0, sigma, sharp.shape)).astype(np.uint8), sharp) for sigma in (4, 16)]
    assert metric.of_clip(sharp, sharp) == pytest.approx(10) and 10 > scores[0] > scores[1] > 0
