"""utils/evaluation/intervals.py: bootstrap intervals of known distributions, errors by speed of a known motion."""

import cv2
import numpy as np
import pytest

from utils.evaluation.intervals import SPEEDS, SpeedErrors, bootstrap_interval, speed_names
from utils.evaluation.metrics import psnr


def test_interval_of_a_mean_is_the_normal_one() -> None:
    values = np.random.default_rng(0).standard_normal(400)
    low, high = bootstrap_interval(values.tolist(), [f"{i}" for i in range(400)])
    half = 1.96 * values.std() / np.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_repeated_clips_of_a_source_add_nothing() -> None:
    values, sources = [1.0, 2.0, 4.0], ["a", "b", "c"]
    assert bootstrap_interval(values * 5, sources * 5) == bootstrap_interval(values, sources)
    assert bootstrap_interval([3.0, 5.0], ["a", "a"]) == (4.0, 4.0)


def test_patches_go_to_the_bin_of_their_speed() -> None:
    rng = np.random.default_rng(0)
    base = cv2.GaussianBlur(rng.integers(0, 256, (64, 80, 3)).astype(np.float32), (0, 0), 2)
    base = np.clip((base - 128) * 6 + 128, 0, 255).astype(np.uint8)
    before, sharp = base[:, 3:67], base[:, :64]  # moves by 3 pixels
    errors = SpeedErrors()
    restored = np.clip(sharp.astype(int) + 2, 0, 255).astype(np.uint8)
    errors.add(restored, sharp, before)
    assert errors.patches.sum() == 16
    fast = speed_names().index("2 to 4")
    assert errors.patches[fast] >= 10 and len(speed_names()) == len(SPEEDS) + 1
    still = SpeedErrors()
    still.add(restored, sharp, sharp)
    assert still.patches[0] == 16 and still.psnr()[1:] == [None] * len(SPEEDS)
    assert still.psnr()[0] == pytest.approx(psnr(restored, sharp))
