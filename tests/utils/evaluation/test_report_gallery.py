"""Pictures of the report: bounded in number and size; the worst and best frame of each clip, cut at the right place."""

import base64
from collections.abc import Mapping

import cv2
import numpy as np
import pytest

from utils.evaluation.report_gallery import CLIPS_SHOWN, CROP, LOSSLESS_SIDE, MAX_SIDE, Gallery, as_uint8, data_uri


def decoded(uri: str) -> np.ndarray:
    content = base64.b64decode(uri.split(",", 1)[1])
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    return picture if picture.ndim == 2 else picture[..., ::-1]


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_small_pictures_are_kept_exactly() -> None:
    for picture in (noise(20, LOSSLESS_SIDE, 3), noise(30, 40)):
        uri = data_uri(picture)
        assert uri.startswith("data:image/png;base64,") and np.array_equal(decoded(uri), picture)


def test_large_pictures_are_made_smaller() -> None:
    uri = data_uri(np.full((1080, 1920, 3), (200, 100, 50), np.uint8))
    assert uri.startswith("data:image/jpeg;base64,") and decoded(uri).shape == (540, MAX_SIDE, 3)
    assert decoded(uri)[0, 0] == pytest.approx([200, 100, 50], abs=3)
    assert decoded(data_uri(noise(2, 2000))).shape == (1, MAX_SIDE)


def test_a_shown_frame_has_its_views_and_instants() -> None:
    gallery = Gallery()
    restored, instants = noise(24, 32, 3), np.linspace(0, 1, 5)[:, None, None] * np.ones((5, 12, 16))
    gallery.show("a", "3", {"input": noise(24, 32, 3), "": restored}, instants)
    shown = gallery.shown["a"]
    assert (shown.frame, shown.size, list(shown.views)) == ("3", (24, 32), ["input", ""])
    assert np.array_equal(decoded(shown.views[""]), restored)
    assert (shown.instant_count, shown.instant_size) == (5, (12, 16)) and shown.instants is not None
    strip = decoded(shown.instants)
    assert strip.shape == (12, 80) and strip[0, ::16].tolist() == [0, 64, 128, 191, 255]


def test_instants_without_spikes_are_black() -> None:
    assert not as_uint8(np.zeros((2, 3, 4), np.float32)).any()


def test_clips_are_bounded() -> None:
    gallery = Gallery()
    for index in range(CLIPS_SHOWN + 3):
        gallery.show(str(index), "0", {"": noise(4, 4, 3)}, None)
    assert len(gallery.shown) == CLIPS_SHOWN
    assert gallery.left_out == [str(CLIPS_SHOWN + k) for k in range(3)]


def test_worst_and_best_frames_of_every_clip() -> None:
    gallery = Gallery()
    sharp = np.full((2 * CROP, 3 * CROP, 3), 100, np.uint8)
    restored, blurred = sharp.copy(), sharp.copy()
    restored[CROP:, :CROP] = 90
    blurred[:CROP, 2 * CROP :] = 50

    def judge(clip: str, frame: str, psnr: float) -> None:
        pictures: Mapping[str, np.ndarray] = {"": restored, "input": blurred, "gaussian": restored[..., 0]}
        gallery.judge(clip, frame, sharp, pictures, {"psnr": psnr})

    for frame, psnr in enumerate([30.0, 28.0, 33.0, 28.0]):
        judge("a", str(frame), psnr)
    judge("b", "0", 25.0)
    assert {clip: (e.frame, e.psnr) for clip, e in gallery.worst.items()} == {"a": ("1", 28), "b": ("0", 25)}
    assert {clip: (e.frame, e.psnr) for clip, e in gallery.best.items()} == {"a": ("2", 33), "b": ("0", 25)}
    assert list(gallery.worst["a"].crops) == ["input", "", "sharp"]
    # The worst is cut where the restored frame is wrong, the best where the input was.
    assert decoded(gallery.worst["a"].crops[""]).mean() == 90
    assert decoded(gallery.best["a"].crops["input"]).mean() == 50
    assert decoded(gallery.best["a"].crops[""]).shape == (CROP, CROP, 3)
