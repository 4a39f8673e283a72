"""Cached arrays: made once, verified, and recreated where a file is damaged in any way."""

from pathlib import Path

import numpy as np
import pytest

from data.array_cache import ArrayCache

ARRAY = np.random.default_rng(0).random((3, 8, 10), np.float32)


def counted(created: list[int]) -> np.ndarray:
    created.append(1)
    return ARRAY


def test_an_array_is_made_once_for_a_key(tmp_path: Path) -> None:
    created: list[int] = []
    cache = ArrayCache(tmp_path / "cache")
    for key, count in (("a", 1), ("a", 1), ("b", 2)):
        array = cache.read("x", key, lambda: counted(created))
        assert np.array_equal(array, ARRAY) and isinstance(array, np.memmap) and len(created) == count
    turned = cache.read("x", "turned", lambda: np.asfortranarray(ARRAY))
    assert np.array_equal(turned, ARRAY)


def test_damage_of_every_kind_is_seen_and_repaired(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ArrayCache(tmp_path).read("x", "key", lambda: ARRAY)
    (file,) = tmp_path.iterdir()
    content, rng = file.read_bytes(), np.random.default_rng(1)
    damaged = [content[:size] for size in (0, 10, 200, len(content) // 2, len(content) - 1)]
    for bit in rng.integers(8 * len(content), size=120):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << (bit % 8)
        damaged.append(bytes(flipped))
    for bad in damaged:
        file.write_bytes(bad)
        array = ArrayCache(tmp_path).read("x", "key", lambda: ARRAY)
        assert np.array_equal(array, ARRAY) and array.shape == ARRAY.shape
        assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert "damaged" in caplog.text and "recreated" in caplog.text


def test_a_file_that_is_replaced_is_verified_again(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path)
    cache.read("x", "key", lambda: ARRAY)
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 1
    file.unlink()
    file.write_bytes(content)
    assert np.array_equal(cache.read("x", "key", lambda: ARRAY), ARRAY)
