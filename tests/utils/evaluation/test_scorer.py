"""Scores in the background: the same as one by one, in order, for every method; errors come back."""

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from utils.evaluation.lpips import LPIPS
from utils.evaluation.metrics import optical_flow, psnr, psnr_y, ssim, ssim_y, tof
from utils.evaluation.scorer import Scorer, score_frame

METRICS = {"psnr": psnr, "ssim": ssim, "psnr_y": psnr_y, "ssim_y": ssim_y}
CLIPS = {"a": 3, "b": 2}


class MeanDifference:
    """In the place of LPIPS: something that can be known beforehand."""

    def of_pictures(self, a: np.ndarray, b: np.ndarray) -> float:
        return float(np.abs(a.astype(float) - b).mean())


def frames(seed: int) -> dict[tuple[str, str], np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        (clip, str(k)): rng.integers(0, 256, (64, 70, 3), np.uint8)
        for clip, count in CLIPS.items()
        for k in range(count)
    }


SHARP, RESTORED, INPUT = frames(0), frames(1), frames(2)


def measured(scorer: Scorer) -> list[dict[str, Any]]:
    with scorer:
        for (clip, frame), sharp in SHARP.items():
            pictures = {"": RESTORED[clip, frame], "input": INPUT[clip, frame]}
            scorer.add(clip, frame, sharp, pictures, lambda key=(clip, frame): {"gaussian": INPUT[key][..., 0]})
    return scorer.scores.rows


def expected(key: tuple[str, str]) -> dict[str, float]:
    clip, frame = key
    before = (clip, str(int(frame) - 1))
    row: dict[str, float] = {}
    for prefix, pictures in (("", RESTORED), ("input_", INPUT)):
        row |= {prefix + name: metric(pictures[key], SHARP[key]) for name, metric in METRICS.items()}
        row[f"{prefix}lpips"] = MeanDifference().of_pictures(pictures[key], SHARP[key])
        if before in SHARP:
            flow, sharp = (optical_flow(of[before], of[key]) for of in (pictures, SHARP))
            row[f"{prefix}tof"] = tof(flow, sharp)
    gray = np.repeat(INPUT[key][..., :1], 3, axis=2)
    row |= {f"gaussian_{name}": METRICS[name](gray, SHARP[key]) for name in ("psnr_y", "ssim_y")}
    if before in SHARP:
        flow = optical_flow(INPUT[before][..., 0], INPUT[key][..., 0])
        row["gaussian_tof"] = tof(flow, optical_flow(SHARP[before], SHARP[key]))
    return row


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_rows_are_what_the_metrics_say_in_order(workers: int) -> None:
    lpips: Any = MeanDifference()
    seen = []

    def on_scored(clip: str, frame: str, sharp: np.ndarray, pictures: Mapping[str, np.ndarray], row: Any) -> None:
        assert threading.current_thread() is threading.main_thread()
        assert sharp is SHARP[clip, frame] and set(pictures) == {"", "input", "gaussian"}
        seen.append((clip, frame, row["psnr"]))

    rows = measured(Scorer(lpips, workers=workers, on_scored=on_scored))
    assert [(row["clip"], row["frame"]) for row in rows] == list(SHARP)
    for row in rows:
        key = str(row["clip"]), str(row["frame"])
        assert {name: value for name, value in row.items() if not isinstance(value, str)} == pytest.approx(
            expected(key)
        )
    assert seen == [(row["clip"], row["frame"], row["psnr"]) for row in rows]


def test_without_lpips_and_flow_there_are_the_four() -> None:
    rows = measured(Scorer(temporal=False, workers=2))
    assert {name for name in rows[1] if not name.startswith(("input_", "gaussian_"))} == {"clip", "frame", *METRICS}


def test_few_frames_wait() -> None:
    """Where frames come faster than they can be scored, `add` waits: memory does not grow with the clip."""
    alive, most = 0, 0
    gate = threading.Semaphore(0)

    def slow() -> dict[str, np.ndarray]:
        gate.acquire()
        return {}

    scorer = Scorer(temporal=False, workers=2, on_scored=lambda *_: released())

    def released() -> None:
        nonlocal alive
        alive -= 1

    with scorer:
        for index in range(20):
            alive += 1
            gate.release()
            scorer.add("a", str(index), SHARP["a", "0"], {"": RESTORED["a", "0"]}, slow)
            most = max(most, alive)
    assert most <= 4 and len(scorer.scores.rows) == 20


def test_small_and_gray_pictures() -> None:
    sharp, gray = SHARP["a", "0"], RESTORED["a", "0"][..., 1]
    assert set(score_frame(gray, sharp)) == {"psnr_y", "ssim_y"}
    assert set(score_frame(sharp[:10], sharp[:10])) == {"psnr", "psnr_y"}
    assert set(score_frame(gray[:10], sharp[:10])) == {"psnr_y"}


def test_pictures_too_small_for_lpips_have_none(caplog: pytest.LogCaptureFixture) -> None:
    class Refuses(LPIPS):
        def __init__(self) -> None:
            pass

        def of_pictures(self, a: np.ndarray, b: np.ndarray) -> float:
            raise AssertionError("not to be called")

    with Scorer(Refuses(), workers=0) as scorer:
        for frame in "01":
            scorer.add("a", frame, SHARP["a", frame][:63], {"": RESTORED["a", frame][:63]})
    assert caplog.messages == ["LPIPS is left out of pictures with a side below 64 pixels"]
    assert set(scorer.scores.metrics()) == {*METRICS, "tof"}


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_comes_back(workers: int) -> None:
    def broken() -> dict[str, np.ndarray]:
        raise OSError("spikes can't be read")

    with pytest.raises(OSError, match="spikes can't be read"), Scorer(workers=workers) as scorer:
        scorer.add("a", "0", SHARP["a", "0"], {"": RESTORED["a", "0"]}, broken)
        scorer.close()
    with pytest.raises(ZeroDivisionError), Scorer(workers=workers) as scorer:
        scorer.add("a", "0", SHARP["a", "0"], {"": RESTORED["a", "0"]})
        raise ZeroDivisionError


def test_gray_scenes_are_compared_as_they_are() -> None:
    rng = np.random.default_rng(0)
    sharp = rng.integers(0, 256, (24, 20), np.uint8)
    restored = np.clip(sharp.astype(int) + rng.integers(-9, 10, sharp.shape), 0, 255).astype(np.uint8)
    row = score_frame(restored, sharp)
    assert row == {"psnr": psnr(restored, sharp), "ssim": ssim(restored, sharp)} | {
        "psnr_y": row["psnr"],
        "ssim_y": row["ssim"],
    }
