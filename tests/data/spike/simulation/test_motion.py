"""motion.py: scenes are seeded, move as their paths say, and hold something that moves by itself."""

import numpy as np
import pytest

from data.spike.simulation.motion import (
    TEST_PHOTOGRAPHS,
    TRAIN_PHOTOGRAPHS,
    CameraScene,
    Pose,
    SmoothPath,
    load_photograph,
)


def scene(seed: int = 0, speed: float = 2.0) -> CameraScene:
    photographs = np.random.default_rng(99).integers(0, 256, (2, 300, 320, 3), dtype=np.uint8)
    return CameraScene(photographs[0], photographs[1], (32, 40), speed, np.random.default_rng(seed))


def constant(value: float) -> SmoothPath:
    return SmoothPath(np.array([value]), np.array([np.inf]), np.array([np.pi / 2]))


def test_the_same_seed_gives_the_same_pictures() -> None:
    first, again, other = (np.stack(list(scene(seed).frames(9))) for seed in (0, 0, 1))
    assert first.shape == (9, 32, 40, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5


def test_without_speed_nothing_moves() -> None:
    still = scene(speed=0.0)
    np.testing.assert_array_equal(still.render(0.0), still.render(13.7))


def test_the_background_moves_as_the_path_says() -> None:
    moving = scene()
    moving.object = np.zeros_like(moving.object)
    pictures = []
    for shift in (0.0, 4.0):  # rendered pixels, two to one of the picture
        moving.camera = Pose(constant(shift), constant(0.0), constant(0.0), constant(0.0))
        pictures.append(moving.render(1.0))
    np.testing.assert_array_equal(pictures[1][:, :-2], pictures[0][:, 2:])


def test_the_object_moves_over_a_still_background() -> None:
    white, black = np.full((300, 300, 3), 255, np.uint8), np.zeros((300, 300, 3), np.uint8)
    created = CameraScene(white, black, (64, 64), 2.0, np.random.default_rng(3))
    centers = []
    for picture in (created.render(time) for time in (0.0, 3.0, 6.0)):
        dark = np.argwhere(picture[..., 0] < 128)
        assert 0.02 < len(dark) / 64**2 < 0.5
        centers.append(dark.mean(axis=0))
    assert np.linalg.norm(centers[1] - centers[0]) > 1 and np.linalg.norm(centers[2] - centers[1]) > 1


def test_a_path_is_as_fast_as_asked_and_stays_in_reach() -> None:
    path = SmoothPath.random(np.random.default_rng(0), speed=2.0, shake=0.5)
    values = np.array([path(time) for time in np.arange(0, 300, 0.125)])
    speed = np.abs(np.diff(values)).max() / 0.125
    assert 2.0 < speed <= 2.0 + 1.0 + 0.5
    assert np.abs(values).max() <= path.reach


def test_test_photographs_are_held_out_and_all_are_on_this_machine() -> None:
    assert not set(TRAIN_PHOTOGRAPHS) & set(TEST_PHOTOGRAPHS)
    assert len(TEST_PHOTOGRAPHS) >= 3
    colourful = 0
    for name in (*TRAIN_PHOTOGRAPHS, *TEST_PHOTOGRAPHS):
        photograph = load_photograph(name)
        assert photograph.ndim == 3 and photograph.shape[2] == 3 and min(photograph.shape[:2]) >= 256
        colourful += bool((photograph.max(axis=2) != photograph.min(axis=2)).any())
    assert colourful >= 5


def test_a_photograph_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"nothing\.png: no such photograph"):
        load_photograph("nothing.png")
