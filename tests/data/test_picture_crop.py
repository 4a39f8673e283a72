"""Crops decoded alone are the crops of the whole picture, as two other decoders see it."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from data.frame_io import FolderFrames
from data.picture_crop import Box, decode_box, encode_tiles
from data.picture_header import read_header
from utils.picture_checks import CHECKED_TIFF
from utils.utils_image import decode_rgb

BOXES = [Box(0, 0, 16, 16), Box(70, 90, 20, 40), Box(3, 61, 64, 5), Box(94, 145, 6, 5), Box(0, 0, 100, 150)]


@pytest.fixture
def picture() -> np.ndarray:
    """100x150 RGB, neither a multiple of the tiles."""
    noise = np.random.default_rng(0).random((100, 150, 3), np.float32)
    return (255 * cv2.GaussianBlur(noise, (0, 0), 1)).astype(np.uint8)


def encode(picture: np.ndarray, suffix: str, *flags: int) -> bytes:
    return cv2.imencode(suffix, picture[..., ::-1], flags)[1].tobytes()


def test_tiles_are_a_picture_that_others_read(picture: np.ndarray) -> None:
    encoded = encode_tiles(picture)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encoded))), picture)
    opened = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(opened[..., ::-1], picture)


@pytest.mark.parametrize("box", BOXES, ids=lambda box: f"{box.top}-{box.left}")
def test_crops_are_exact(picture: np.ndarray, box: Box) -> None:
    strips, deflated = io.BytesIO(), io.BytesIO()
    Image.fromarray(picture).save(strips, "tiff")
    Image.fromarray(picture).save(deflated, "tiff", compression="tiff_adobe_deflate", tiffinfo={317: 2})
    rgba = np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])
    png_rgba = io.BytesIO()
    Image.fromarray(rgba).save(png_rgba, "png")
    files = {
        "tiles": encode_tiles(picture),
        "tiles of 32": encode_tiles(picture, 32),
        "tiff": strips.getvalue(),
        "tiff of deflated strips": deflated.getvalue(),
        "png": encode(picture, ".png"),
        "png with alpha": png_rgba.getvalue(),
        "bmp": encode(picture, ".bmp"),
    }
    for name, encoded in files.items():
        crop, size = decode_box(encoded, name, box)
        assert size == (100, 150) and np.array_equal(crop, box.of(picture)), name


def test_damage_outside_of_a_crop_is_refused_too(picture: np.ndarray) -> None:
    """Every single flipped bit of 200: a crop of the top is refused as the whole picture is."""
    rng = np.random.default_rng(0)
    for encoded in (encode(picture, ".png"), encode_tiles(picture, 32)):
        for bit in rng.integers(8 * len(encoded), size=100):
            damaged = bytearray(encoded)
            damaged[bit // 8] ^= 1 << (bit % 8)
            for box in (Box(0, 0, 20, 30), Box(0, 0, 100, 150)):
                with pytest.raises(ValueError, match=r"^name: "):
                    decode_box(bytes(damaged), "name", box)
            with pytest.raises(ValueError, match=r"^name: "):
                decode_rgb(bytes(damaged), "name")


def test_tiles_of_another_program_are_checked_where_they_are_read(picture: np.ndarray) -> None:
    encoded = encode_tiles(picture, 32)[:-8].replace(CHECKED_TIFF, b"x" * len(CHECKED_TIFF))
    damaged = bytearray(encoded)
    damaged[len(encoded) // 2 : len(encoded) // 2 + 64] = bytes(64)
    crop, _ = decode_box(bytes(damaged), "name", Box(0, 0, 20, 30))
    assert np.array_equal(crop, picture[:20, :30])
    for read in (
        lambda: decode_box(bytes(damaged), "name", Box(0, 0, 100, 150)),
        lambda: decode_rgb(bytes(damaged), "name"),
    ):
        with pytest.raises(ValueError, match="name: not a readable picture"):
            read()


@pytest.mark.parametrize("suffix", ["tif", "png", "jpg"])
def test_folders_of_each_kind(picture: np.ndarray, tmp_path: Path, suffix: str) -> None:
    (tmp_path / "clip").mkdir()
    encoded = encode_tiles(picture) if suffix == "tif" else encode(picture, f".{suffix}")
    (tmp_path / f"clip/1.{suffix}").write_bytes(encoded)
    (tmp_path / f"clip/2.{suffix}").write_bytes(encoded if suffix == "tif" else encode(picture[:90], f".{suffix}"))
    if suffix == "tif":
        (tmp_path / f"clip/2.{suffix}").write_bytes(encode_tiles(picture[:90]))
    frames = FolderFrames(tmp_path, "root")
    whole = frames.read("clip", "1")
    assert suffix == "jpg" or np.array_equal(whole, picture)
    for box in BOXES:
        assert np.array_equal(frames.read("clip", "1", box), box.of(whole))
    for bad in (None, BOXES[0], BOXES[3]):
        with pytest.raises(ValueError, match="90x150 pixels, but the first frame of the clip has 100x150"):
            frames.read("clip", "2", bad)
    (tmp_path / f"clip/2.{suffix}").write_bytes(b"")
    with pytest.raises(ValueError, match=r"2\..*not a readable picture"):
        frames.read("clip", "2", BOXES[0])


@pytest.mark.parametrize("keep", [6, 100, 2000])
def test_cut_files_are_named(picture: np.ndarray, keep: int) -> None:
    for encoded in (encode_tiles(picture), encode(picture, ".png")):
        with pytest.raises(ValueError, match="name: not a readable picture"):
            decode_box(encoded[:keep], "name", Box(60, 100, 40, 50))


def header(encoded: bytes) -> tuple[int, int, str]:
    found = read_header(io.BytesIO(encoded))
    return found.height, found.width, found.fault


def test_headers(picture: np.ndarray) -> None:
    png, jpg = encode(picture, ".png"), encode(picture, ".jpg")
    for encoded in (png, jpg, encode(picture, ".bmp"), encode_tiles(picture), encode(picture[..., 0], ".png")):
        assert header(encoded) == (100, 150, "")
    assert header(png[:-20]) == (100, 150, "cut short: the PNG has no end")
    assert header(jpg[:-20]) == (100, 150, "cut short: the JPEG has no end")
    for suffix in (".png", ".tif"):
        deep = read_header(io.BytesIO(encode(picture.astype(np.uint16), suffix)))
        assert (deep.fault, deep.bits) == ("", 16)
    assert header(b"")[2] == "empty file" and header(b"text" * 20)[2].startswith("not a readable picture")
    assert read_header(io.BytesIO(png)).fingerprint == read_header(io.BytesIO(png)).fingerprint
    assert (
        read_header(io.BytesIO(png)).fingerprint != read_header(io.BytesIO(encode(picture[::-1], ".png"))).fingerprint
    )
