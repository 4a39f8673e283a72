"""utils/perceptual_hash.py: what keeps a hash and what changes it."""

import cv2
import numpy as np

from utils.perceptual_hash import SAME, distances, hashes_of


def scene(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).random((12, 16, 3), np.float32)
    return np.rint(255 * np.clip(cv2.resize(noise, (160, 120), interpolation=cv2.INTER_CUBIC), 0, 1)).astype(np.uint8)


def test_same_scene_other_file() -> None:
    picture = scene(0)
    _, content = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 40])
    versions = [
        picture,
        cv2.imdecode(content, cv2.IMREAD_COLOR),
        cv2.resize(picture, (80, 60), interpolation=cv2.INTER_AREA),
        np.clip(picture.astype(int) * 0.7 + 20, 0, 255).astype(np.uint8),
    ]
    found = distances(hashes_of([picture]), hashes_of(versions))
    assert found.shape == (1, 4) and found[0, 0] == 0 and found.max() <= SAME


def test_other_scenes_are_far_apart() -> None:
    hashes = hashes_of(scene(seed) for seed in range(8))
    between = distances(hashes, hashes)
    assert np.array_equal(between, between.T) and between[~np.eye(8, dtype=bool)].min() > SAME
