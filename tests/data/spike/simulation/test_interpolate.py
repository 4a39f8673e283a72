"""interpolate.py: frames between frames lie where the motion puts them, hidden places included."""

import cv2
import numpy as np
import pytest

from data.spike.simulation.interpolate import FrameInterpolator, to_spike_clock


def texture(seed: int, height: int = 120, width: int = 140) -> np.ndarray:
    """A smooth random picture, detailed enough for optical flow."""
    noise = np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.0)
    return np.rint(255 * cv2.normalize(smooth, None, 0, 1, cv2.NORM_MINMAX)).astype(np.uint8)


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.mean((first.astype(float) - second) ** 2), 1e-9)))


def test_own_frames_pass_unchanged_at_every_eighth_tick() -> None:
    frames = [texture(seed, 40, 48) for seed in range(3)]
    clock = list(to_spike_clock(frames))
    assert len(clock) == 17
    for index, frame in enumerate(frames):
        np.testing.assert_array_equal(clock[8 * index], frame)


def test_a_still_scene_stays_as_it_is() -> None:
    frame = texture(0)
    for picture in to_spike_clock([frame, frame]):
        np.testing.assert_array_equal(picture, frame)


@pytest.mark.parametrize("time", [0.25, 0.5, 0.75])
def test_a_shift_is_followed_in_proportion_to_time(time: float) -> None:
    picture = texture(1)
    first, second = picture[8:108, 8:128], picture[4:104, 16:136]
    existing = picture[8 - round(4 * time) :, 8 + round(8 * time) :][:100, :120]
    created = FrameInterpolator(first, second).at(time)
    inside = np.s_[10:-10, 12:-12]
    assert psnr(created[inside], existing[inside]) > 38
    faded = (1 - time) * first.astype(float) + time * second
    assert psnr(faded[inside], existing[inside]) < 25


def test_time_reversed_frames_give_the_same_picture() -> None:
    picture = texture(2)
    first, second = picture[:100, :120], picture[3:103, 5:125]
    forward = FrameInterpolator(first, second).at(0.25).astype(int)
    backward = FrameInterpolator(second, first).at(0.75)
    assert np.abs(forward - backward).max() <= 1


def moving_square() -> tuple[np.ndarray, list[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """A background, three frames of a square moving over it by 4 pixels each, the true flows of the first and last."""
    background, square = texture(3, 240, 280), texture(4, 240, 280)[:100, :100]
    frames = []
    for left in (80, 84, 88):
        frame = background.copy()
        frame[60:160, left : left + 100] = square
        frames.append(frame)
    forward, backward = np.zeros((2, 240, 280, 2), np.float32)
    forward[60:160, 80:180, 0] = 8
    backward[60:160, 88:188, 0] = -8
    return background, frames, (forward, backward)


def test_what_an_object_hides_is_taken_from_the_frame_that_shows_it() -> None:
    background, frames, flows = moving_square()
    created = FrameInterpolator(frames[0], frames[2], flows).at(0.5)
    uncovered, covered_later = np.s_[64:156, 80:83], np.s_[64:156, 185:188]
    for hidden in (uncovered, covered_later):  # in the first frame, in the last
        assert psnr(created[hidden], background[hidden]) > 30
        assert psnr((frames[0][hidden].astype(float) + frames[2][hidden]) / 2, background[hidden]) < 25
    meeting = np.s_[64:156, 176:182]  # where the square and the background behind it both arrive
    assert psnr(created[meeting], frames[1][meeting]) > 60


def test_the_edge_of_a_moving_object_stays_whole() -> None:
    _, frames, flows = moving_square()
    for given, least in ((flows, 36), (None, 32)):
        created = FrameInterpolator(frames[0], frames[2], given).at(0.5)
        around = np.s_[50:170, 70:200]
        assert psnr(created[around], frames[1][around]) > least


def test_frames_too_small_for_flow_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 32x32, got 31x40"):
        list(to_spike_clock([np.zeros((31, 40, 3), np.uint8)]))
