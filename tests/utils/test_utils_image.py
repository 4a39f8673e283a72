"""Pictures in, pictures out, panels."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from utils.utils_image import (
    GAP,
    TITLE_HEIGHT,
    as_rgb,
    decode_rgb,
    imread_rgb,
    imwrite_rgb,
    panel,
    tensor2uint,
    to_8_bits,
)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_png_round_trip_keeps_every_pixel_and_the_channel_order(tmp_path: Path) -> None:
    picture = noise(17, 23, 3)
    path = tmp_path / "new folder" / "frame ü.png"
    imwrite_rgb(path, picture)
    np.testing.assert_array_equal(imread_rgb(path), picture)
    np.testing.assert_array_equal(cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)[..., ::-1], picture)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_gray_is_repeated_and_opaque_alpha_dropped(tmp_path: Path) -> None:
    gray = noise(9, 11)
    imwrite_rgb(tmp_path / "gray.png", gray)
    assert cv2.imread(str(tmp_path / "gray.png"), cv2.IMREAD_UNCHANGED).ndim == 2
    np.testing.assert_array_equal(imread_rgb(tmp_path / "gray.png"), np.stack([gray] * 3, axis=-1))
    bgra = np.concatenate([noise(9, 11, 3), np.full((9, 11, 1), 255, np.uint8)], axis=2)
    cv2.imwrite(str(tmp_path / "opaque.png"), bgra)
    np.testing.assert_array_equal(imread_rgb(tmp_path / "opaque.png"), bgra[..., 2::-1])


def test_what_would_lose_information_is_refused(tmp_path: Path) -> None:
    deep, transparent = tmp_path / "deep.png", tmp_path / "transparent.png"
    cv2.imwrite(str(deep), noise(9, 11, 3).astype(np.uint16) * 257)
    cv2.imwrite(str(transparent), noise(9, 11, 4))
    with pytest.raises(ValueError, match=r"deep\.png: uint16"):
        imread_rgb(deep)
    with pytest.raises(ValueError, match=r"transparent\.png: partly transparent"):
        imread_rgb(transparent)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_go_around_where_they_are_asked_for(tmp_path: Path, suffix: str) -> None:
    picture = np.random.default_rng(0).integers(0, 65536, (9, 11, 3), dtype=np.uint16)
    path = tmp_path / f"deep{suffix}"
    imwrite_rgb(path, picture)
    np.testing.assert_array_equal(decode_rgb(path.read_bytes(), "deep", most_bits=16), picture)
    assert decode_rgb(path.read_bytes(), "deep", most_bits=16).dtype == np.uint16
    np.testing.assert_array_equal(tensor2uint(torch.from_numpy(picture / 65535).permute(2, 0, 1), 16), picture)
    with pytest.raises(ValueError, match="uint16"):
        imwrite_rgb(tmp_path / "deep.jpg", picture)


def test_8_bits_of_16() -> None:
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(to_8_bits(levels), np.round(levels / 65535 * 255).astype(np.uint8))
    assert to_8_bits(noise(3, 3)).dtype == np.uint8


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("kept", [0, 20, 0.5, -10])
def test_damaged_files_are_named(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"frame{suffix}"
    imwrite_rgb(path, noise(64, 64, 3))
    assert imread_rgb(path).shape == (64, 64, 3)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept) if isinstance(kept, float) else kept])
    with pytest.raises(ValueError, match=path.name):
        imread_rgb(path)


def test_missing_file_is_a_value_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.png"):
        imread_rgb(tmp_path / "absent.png")


def test_writing_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "frame.png"
    imwrite_rgb(path, noise(8, 8, 3))
    before = path.read_bytes()

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", no_space)
    with pytest.raises(OSError, match="No space"):
        imwrite_rgb(path, noise(8, 8, 3, seed=1))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_bad_pictures_and_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ending"):
        imwrite_rgb(tmp_path / "frame.pgn", noise(8, 8, 3))
    for wrong in (noise(8, 8, 3).astype(np.float32), noise(8, 8, 2), noise(8, 0, 3), noise(1, 8, 8, 3)):
        with pytest.raises(ValueError, match="uint8"):
            imwrite_rgb(tmp_path / "frame.png", wrong)
    assert list(tmp_path.iterdir()) == []


def test_tensor2uint_inverts_division_by_255_and_clamps() -> None:
    picture = noise(6, 7, 3)
    tensor = torch.from_numpy(picture).permute(2, 0, 1).float() / 255
    np.testing.assert_array_equal(tensor2uint(tensor), picture)
    np.testing.assert_array_equal(tensor2uint(tensor.double()), picture)
    np.testing.assert_array_equal(tensor2uint(tensor[:1]), picture[..., 0])
    values = torch.tensor([[[-1.0, 0.49 / 255, 0.51 / 255, 2.0, float("inf"), 254.6 / 255]]])
    np.testing.assert_array_equal(tensor2uint(values), [[0, 0, 1, 255, 255, 255]])
    assert tensor2uint(tensor).flags["C_CONTIGUOUS"]


def test_tensor2uint_refuses_what_is_no_picture() -> None:
    with pytest.raises(ValueError, match="NaN"):
        tensor2uint(torch.full((3, 2, 2), float("nan")))
    with pytest.raises(ValueError, match=r"\(4, 2, 2\)"):
        tensor2uint(torch.zeros(4, 2, 2))


def test_panel_shows_every_picture_at_the_full_height() -> None:
    colour, spikes = noise(40, 60, 3), noise(20, 30)
    image = panel([("input", colour), ("spikes", spikes), ("sharp", colour)])
    assert image.shape == (40 + TITLE_HEIGHT, 3 * 60 + 2 * GAP, 3)
    assert image.dtype == np.uint8
    body = image[TITLE_HEIGHT:]
    np.testing.assert_array_equal(body[:, :60], colour)
    np.testing.assert_array_equal(body[:, -60:], colour)
    enlarged = as_rgb(spikes.repeat(2, axis=0).repeat(2, axis=1))
    np.testing.assert_array_equal(body[:, 60 + GAP : 120 + GAP], enlarged)
    assert not body[:, 60 : 60 + GAP].any()


def test_panel_titles_differ_fit_and_stay_in_the_strip() -> None:
    black = np.zeros((30, 50, 3), np.uint8)
    one, other = panel([("input", black)]), panel([("a very long title of a narrow picture", black)])
    assert one.shape == other.shape == (30 + TITLE_HEIGHT, 50, 3)
    assert one[:TITLE_HEIGHT].any() and other[:TITLE_HEIGHT].any()
    assert not one[TITLE_HEIGHT:].any()
    assert (one != other).any()
    assert panel([("x", np.zeros((3, 1), np.uint8))]).shape == (3 + TITLE_HEIGHT, 1, 3)
    with pytest.raises(ValueError, match="at least one"):
        panel([])
