"""PSNR and SSIM against direct definitions, scikit-image, and golden values."""

import cv2
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from skimage.metrics import structural_similarity

from utils.evaluation.metrics import luma, optical_flow, psnr, psnr_y, ssim, ssim_y, tof

# Of the pair above, printed once by the slow definitions of this file.
GOLDEN = {
    "psnr": 31.832744818219926,
    "ssim": 0.9833041714328425,
    "psnr_y": 35.43338290425432,
    "ssim_y": 0.9822711546693771,
}


def deterministic_pair(height: int = 24, width: int = 31) -> tuple[np.ndarray, np.ndarray]:
    """A coloured wave, and the same with a ripple, by integer arithmetic alone."""
    rows, columns, channels = np.ogrid[:height, :width, :3]
    a = (rows * 7 + columns * 3 + channels * 40 + (rows * columns) % 17 * 5) % 256
    b = np.clip(a + (rows * 5 + columns * 11 + channels * 3) % 23 - 11, 0, 255)
    return a.astype(np.uint8), b.astype(np.uint8)


def slow_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """SSIM of one plane straight from its definition: every window, every weight, no separable filter."""
    offsets = np.arange(11) - 5.0
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    values = []
    windows = zip(
        *(sliding_window_view(x.astype(np.float64), (11, 11)).reshape(-1, 11, 11) for x in (a, b)), strict=True
    )
    for x, y in windows:
        mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
        var_x, var_y = (weights * (x - mean_x) ** 2).sum(), (weights * (y - mean_y) ** 2).sum()
        cov = (weights * (x - mean_x) * (y - mean_y)).sum()
        c1, c2 = 2.55**2, 7.65**2
        values.append(
            (2 * mean_x * mean_y + c1) * (2 * cov + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
        )
    return float(np.mean(values))


def slow_luma(picture: np.ndarray) -> np.ndarray:
    """BT.601 luma pixel by pixel."""
    y = np.empty(picture.shape[:2])
    for (row, column), _ in np.ndenumerate(y):
        red, green, blue = (int(v) for v in picture[row, column])
        y[row, column] = 16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255
    return y


def test_ssim_equals_the_direct_definition() -> None:
    a, b = deterministic_pair()
    assert ssim(a, b) == pytest.approx(np.mean([slow_ssim(a[..., c], b[..., c]) for c in range(3)]), abs=1e-10)
    assert ssim_y(a, b) == pytest.approx(slow_ssim(slow_luma(a), slow_luma(b)), abs=1e-10)
    assert ssim(a[..., 0], b[..., 0]) == pytest.approx(slow_ssim(a[..., 0], b[..., 0]), abs=1e-10)


def test_golden_values() -> None:
    a, b = deterministic_pair()
    assert psnr(a, b) == pytest.approx(GOLDEN["psnr"], abs=1e-9)
    assert ssim(a, b) == pytest.approx(GOLDEN["ssim"], abs=1e-10)
    assert psnr_y(a, b) == pytest.approx(GOLDEN["psnr_y"], abs=1e-9)
    assert ssim_y(a, b) == pytest.approx(GOLDEN["ssim_y"], abs=1e-10)


def test_ssim_agrees_with_scikit_image_inside_the_border() -> None:
    rng = np.random.default_rng(3)
    a = rng.integers(0, 256, (40, 52), dtype=np.uint8)
    b = np.clip(a + rng.normal(0, 20, a.shape), 0, 255).astype(np.uint8)
    # scikit-image cuts its Gaussian at 3.5 sigma: 11 taps, as here. It crops the same border of 5.
    reference = structural_similarity(
        a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
    )
    assert ssim(a, b) == pytest.approx(reference, abs=1e-10)


def test_psnr_of_a_known_error() -> None:
    a = np.full((4, 5, 3), 100, np.uint8)
    assert psnr(a, a) == float("inf")
    assert psnr(a, a + np.uint8(1)) == pytest.approx(20 * np.log10(255), abs=1e-12)
    assert psnr(np.zeros_like(a), np.full_like(a, 255)) == pytest.approx(0, abs=1e-12)  # no wrap-around of uint8


def test_equal_pictures_have_ssim_one() -> None:
    a, _ = deterministic_pair()
    assert ssim(a, a) == 1.0
    assert ssim_y(a, a) == 1.0
    assert psnr_y(a, a) == float("inf")


def test_luma_is_bt601_and_not_rounded() -> None:
    a, _ = deterministic_pair(12, 13)
    np.testing.assert_allclose(luma(a), slow_luma(a), rtol=0, atol=1e-12)
    black_white = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
    np.testing.assert_allclose(luma(black_white), [[16, 235]], rtol=0, atol=1e-12)
    assert luma(np.array([[[1, 0, 0]]], np.uint8))[0, 0] == pytest.approx(16 + 65.481 / 255)  # R first, a fraction kept


def test_luma_in_float32_as_kair_holds_it_changes_nothing_visible() -> None:
    a, b = (slow_luma(x).astype(np.float32).astype(np.float64) for x in deterministic_pair())
    assert 10 * np.log10(255**2 / np.mean((a - b) ** 2)) == pytest.approx(GOLDEN["psnr_y"], abs=1e-5)


def test_gray_pictures_are_their_own_luma() -> None:
    a, b = (x[..., 1] for x in deterministic_pair())
    assert psnr_y(a, b) == psnr(a, b)
    assert ssim_y(a, b) == ssim(a, b)


def test_bad_input_is_refused() -> None:
    a, b = deterministic_pair()
    for metric in (psnr, ssim, psnr_y, ssim_y):
        with pytest.raises(ValueError, match="one shape"):
            metric(a, b[:-1])
        with pytest.raises(ValueError, match="uint8"):
            metric(a.astype(np.float32), b.astype(np.float32))
        with pytest.raises(ValueError, match="uint8"):
            metric(a[..., :2], b[..., :2])
    for metric in (ssim, ssim_y):
        with pytest.raises(ValueError, match="11 x 11"):
            metric(a[:10], b[:10])
    assert psnr(a[:10], b[:10]) > 0


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
