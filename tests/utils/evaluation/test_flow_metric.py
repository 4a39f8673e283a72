"""tOF: the flow's arguments and direction, the distance, and what is refused."""

import cv2
import numpy as np
import pytest

from utils.evaluation.metrics import optical_flow, tof


def moving(shift: int) -> np.ndarray:
    """A smooth picture moved to the right by `shift` pixels."""
    rows, columns = np.mgrid[:96, :128]
    columns = columns - shift
    gray = 128 + 60 * np.sin(columns / 5) + 40 * np.cos(rows / 7 + columns / 11)
    return np.repeat(gray.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def test_flow_is_the_motion_from_the_first_picture_to_the_second() -> None:
    flow = optical_flow(moving(0), moving(3))
    assert flow.shape == (96, 128, 2)
    assert np.median(flow[20:-20, 20:-20], axis=(0, 1)) == pytest.approx([3, 0], abs=0.1)
    gray = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (moving(0), moving(3))]
    assert np.array_equal(flow, cv2.calcOpticalFlowFarneback(*gray, None, 0.5, 3, 15, 3, 5, 1.2, 0))
    assert np.array_equal(flow, optical_flow(*gray))


def test_tof_is_the_mean_length_of_the_difference() -> None:
    first = np.zeros((4, 5, 2), np.float32)
    second = first.copy()
    second[0, 0] = (3, 4)
    second[3, 4] = (-6, 8)
    assert tof(first, second) == tof(second, first) == (5 + 10) / 20
    assert tof(second, second) == 0


def test_a_jitter_costs_as_many_pixels_as_it_moves() -> None:
    """The restored video jumps by 2 pixels where the sharp one moves by 1."""
    assert tof(optical_flow(moving(0), moving(3)), optical_flow(moving(0), moving(1))) == pytest.approx(2, abs=0.3)


def test_mistakes() -> None:
    with pytest.raises(ValueError, match=r"not float32 \(96, 128, 3\)"):
        optical_flow(moving(0).astype(np.float32), moving(0))
    with pytest.raises(ValueError, match="of one shape"):
        optical_flow(moving(0), moving(0)[:50])
