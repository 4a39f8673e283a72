"""Restorations without training: the formula, dark pixels, sizes; and that they restore."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from data.dataset_video_rgbspike import VideoRecurrentTestDatasetRGBSpike
from data.spike.encoding import build_encoding
from data.spike.reconstruction.baselines import (
    CHARGE_MOMENT,
    EXPOSURE,
    INTERVAL,
    MOMENT,
    SIGMA,
    as_picture,
    spike_guided,
    training_free,
)
from data.spike.simulation.simulate import Exposure, expose
from data.spike.sync import ExposureWindow, default_window
from tests.data.trees import GoproTree, make_gopro_tree
from utils.evaluation.metrics import psnr, psnr_y
from utils.spike_loader import SpikeStream


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> GoproTree:
    return make_gopro_tree(tmp_path_factory.mktemp("data"), clips=1, frames=3, size=(96, 128), spikes_per_frame=56)


def dataset(tree: GoproTree, **options: Any) -> VideoRecurrentTestDatasetRGBSpike:
    return VideoRecurrentTestDatasetRGBSpike(**tree.roots, spike={"representation": "count"}, **options)


def read(path: Path) -> np.ndarray:
    return cv2.imread(str(path))[..., ::-1]


def test_the_quotient_scales_the_blurred_frame() -> None:
    blurred = np.full((4, 6, 3), (40, 100, 200), np.uint8)
    moment, exposure = np.full((2, 3), 0.3, np.float32), np.full((2, 3), 0.2, np.float32)
    assert np.array_equal(spike_guided(blurred, moment, exposure, 0.05)[0, 0], [56, 140, 255])
    assert np.array_equal(spike_guided(blurred, exposure, exposure, 0.05), blurred)


def test_pixels_that_never_fired_keep_their_colour() -> None:
    blurred = np.full((4, 4, 3), 17, np.uint8)
    zero, once = np.zeros((4, 4), np.float32), np.full((4, 4), 0.5, np.float32)
    assert np.array_equal(spike_guided(blurred, zero, zero, 0.01), blurred)
    assert spike_guided(blurred, once, zero, 0.5).max() == 34
    with pytest.raises(ValueError, match="floor is 0; an intensity above 0"):
        spike_guided(blurred, zero, zero, 0)


def test_pictures_of_another_size() -> None:
    plane = np.random.default_rng(0).random((6, 8), dtype=np.float32)
    assert as_picture(plane, (12, 16)).shape == (12, 16)
    assert np.array_equal(as_picture(plane, (6, 8)), np.rint(plane * 255).astype(np.uint8))
    means = plane.reshape(3, 2, 4, 2).mean(axis=(1, 3))
    assert as_picture(plane, (3, 4)) == pytest.approx(means * 255, abs=0.51)
    assert as_picture(np.full((2, 2), 1.7, np.float32), (2, 2)).tolist() == [[255, 255], [255, 255]]


def test_what_a_test_set_gives(tree: GoproTree) -> None:
    clip, frame = tree.clips[0], tree.frames[1]
    blurred = read(tree.lq / clip / f"{frame}.png")
    spikes = SpikeStream(tree.spike / clip / "spike" / f"{frame}.dat").get_spike_matrix()
    window = ExposureWindow(0, 56, 28)
    expected = training_free(blurred, lambda section: build_encoding(section, 2.0)(spikes, window)[0], 2.0 / 56)
    found = dataset(tree).training_free(clip, frame, blurred)
    assert list(found) == ["sdm", "charge", "gaussian", "interval"]
    for name, picture in found.items():
        assert np.array_equal(picture, expected[name])
    assert found["sdm"].shape == (96, 128, 3) and found["gaussian"].shape == (96, 128)


def test_they_restore() -> None:
    """A picture of one hue that moves by 16 pixels during the exposure."""
    rng = np.random.default_rng(0)
    gray = cv2.resize(rng.integers(20, 236, (12, 20), np.uint8), (160, 96), interpolation=cv2.INTER_LINEAR)
    scene = (gray[..., None] * np.array([1.0, 0.8, 0.6])).astype(np.uint8)
    moving = (np.roll(scene, tick // 3, axis=1) for tick in range(56))
    (block,) = expose(moving, Exposure(7, 7), start=rng)
    window = ExposureWindow(0, 49, 24)
    found = training_free(
        block.blurred, lambda section: build_encoding(section, 2.0)(block.spikes, window)[0], 2.0 / len(window)
    )
    assert psnr(found["sdm"], block.sharp) > psnr(block.blurred, block.sharp) + 2
    assert psnr(found["charge"], block.sharp) > psnr(found["sdm"], block.sharp) + 0.4
    for name in ("gaussian", "interval"):
        alone = np.repeat(found[name][..., None], 3, axis=2)
        assert psnr_y(alone, block.sharp) > psnr_y(block.blurred, block.sharp) + 2


def test_the_threshold_changes_gray_pictures_alone(tree: GoproTree) -> None:
    """The quotient is the same whatever the camera's threshold is said to be."""
    clip, frame = tree.clips[0], tree.frames[0]
    blurred = read(tree.lq / clip / f"{frame}.png")
    told, other = (dataset(tree, spike_threshold=t).training_free(clip, frame, blurred) for t in (2.0, 1.0))
    for name in ("sdm", "charge"):
        assert np.abs(told[name].astype(int) - other[name]).max() <= 1
    assert other["gaussian"].mean() == pytest.approx(told["gaussian"].mean() / 2, rel=0.05)


def test_normalisation_and_the_networks_representation_do_not_matter(tree: GoproTree) -> None:
    clip, frame = tree.clips[0], tree.frames[0]
    blurred = read(tree.lq / clip / f"{frame}.png")
    plain = dataset(tree).training_free(clip, frame, blurred)
    normalised = VideoRecurrentTestDatasetRGBSpike(
        **tree.roots, spike={"representation": "voxel", "bins": 8}, spike_normalize={"mean": 1.0, "std": 2.0}
    ).training_free(clip, frame, blurred)
    assert all(np.array_equal(plain[name], normalised[name]) for name in plain)
    assert not np.array_equal(
        plain["sdm"], dataset(tree, spike_perturb={"kind": "zero"}).training_free(clip, frame, blurred)["sdm"]
    )


def test_instants_of_an_exposure(tree: GoproTree) -> None:
    clip, frame = tree.clips[0], tree.frames[0]
    instants = dataset(tree).instants(clip, frame, 5)
    spikes = SpikeStream(tree.spike / clip / "spike" / f"{frame}.dat").get_spike_matrix()
    encoding = build_encoding(MOMENT, 2.0)
    expected = [encoding(spikes, ExposureWindow(0, 56, center))[0] for center in (0, 14, 28, 41, 55)]
    assert instants == pytest.approx(np.stack(expected))
    assert dataset(tree).instants(clip, frame, 1000).shape[0] == 56
    assert (MOMENT["sigma"], EXPOSURE, INTERVAL["orders"]) == (SIGMA, {"representation": "count"}, [2])


def test_a_recorded_frame_of_the_gopro_set(shared_data: Path) -> None:
    """Gray pictures of a real stream, against the sharp frame that it belongs to."""
    folder = shared_data / "gopro_spike_sample"
    spikes = SpikeStream(folder / "000226.dat", 360, 640).get_spike_matrix()
    gray = cv2.cvtColor(cv2.imread(str(folder / "000226.png")), cv2.COLOR_BGR2GRAY)
    sharp = cv2.resize(gray, (640, 360), interpolation=cv2.INTER_AREA)
    window = default_window("GOPR0884_11_00", len(spikes))
    for section, least in ((MOMENT, 33.9), (CHARGE_MOMENT, 36.0), (INTERVAL, 32.0)):
        picture = as_picture(build_encoding(section, 2.0)(spikes, window)[0], (360, 640))
        assert psnr(picture, sharp) > least
