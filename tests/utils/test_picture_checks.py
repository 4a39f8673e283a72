"""Pictures are checked before they are decoded: no bomb is inflated, and all readers see or refuse the same."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from data.frame_io import FolderFrames
from data.picture_crop import Box, decode_box, encode_tiles
from data.picture_header import read_header
from data.spike.video_source import FrameSize, FrameSource
from utils.picture_checks import CHECKED_TIFF, MOST_PIXELS, PNG_SIGNATURE
from utils.utils_image import PICTURE_SUFFIXES, decode_rgb, imread_rgb

FORMATS = {".png": "png", ".jpg": "jpeg", ".bmp": "bmp", ".tif": "tiff", ".webp": "webp"}


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def encoded(picture: np.ndarray, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(height: int, width: int, pixels: bytes, depth: int = 8, texts: bytes = b"") -> bytes:
    """An RGB PNG of any content."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0))
    return PNG_SIGNATURE + head + texts + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def refused(content: bytes, message: str) -> None:
    """By all readers, with a line that names the picture."""
    for read in (lambda: decode_rgb(content, "name"), lambda: decode_box(content, "name", Box(0, 0, 8, 8))):
        with pytest.raises(ValueError, match=f"^name: .*{message}"):
            read()


@pytest.mark.parametrize("size", [(100_000, 100_000), (2**31 - 1, 2**31 - 1), (0, 16), (1, MOST_PIXELS + 1)])
def test_sizes_are_checked_before_anything_is_decoded(size: tuple[int, int]) -> None:
    refused(png(*size, b""), f"{size[0]}x{size[1]} pixels by its header")
    header = bytearray(encoded(noise(8, 8, 3), "bmp"))
    header[18:26] = struct.pack("<II", size[1], size[0])
    refused(bytes(header), "")
    tiff = encode_tiles(noise(8, 8, 3))
    refused(tiff[:100] + b"\xff\xff" + tiff[102:], "check sum")


def test_what_a_png_inflates_to_is_bounded() -> None:
    """A text of 64 MB in a file of 300 kB."""
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(1 << 26), 1))
    content = png(8, 8, bytes(8 * 25), texts=text)
    assert not decode_rgb(content, "name").any()
    assert not decode_box(content, "name", Box(0, 0, 4, 4))[0].any()
    with pytest.raises(ValueError, match=r"^name: uint16 pixels; only 8 bits"):
        decode_rgb(png(8, 8, bytes(8 * 25), depth=16), "name")


@pytest.mark.parametrize("kind", FORMATS.values())
@pytest.mark.parametrize("keep", [0, 1, 10, 100, 0.3, 0.6, 0.95, -1])
def test_cut_pictures_are_refused(kind: str, keep: float) -> None:
    content = encoded(cv2.blur(noise(64, 80, 3), (3, 3)), kind)
    refused(content[: int(keep * len(content)) if isinstance(keep, float) else keep], "not a readable picture")


def test_a_tile_that_inflates_to_gigabytes() -> None:
    """A foreign tiled TIFF of 16x16 pixels, whose only tile holds 128 MB of zeros."""
    content = bytearray(encode_tiles(noise(16, 16, 3), 16)[:-8].replace(CHECKED_TIFF, b"x" * len(CHECKED_TIFF)))
    bomb = zlib.compress(bytes(1 << 27), 1)
    (count,) = struct.unpack_from("<H", content, 8)
    for place in range(10, 10 + 12 * count, 12):
        tag = struct.unpack_from("<H", content, place)[0]
        if tag in (324, 325):  # offset and length of the tile
            struct.pack_into("<HII", content, place + 2, 4, 1, len(content) if tag == 324 else len(bomb))
    refused(bytes(content) + bomb, "not a readable picture")


def test_simulation_and_training_read_the_same(tmp_path: Path) -> None:
    """Pixels as stored: not turned by EXIF, gray repeated, opaque alpha dropped; for every ending."""
    rgb = cv2.blur(noise(32, 48, 3), (5, 5))
    turned = Image.Exif()
    turned[274] = 6
    files = {
        "0.jpg": encoded(rgb, "jpeg", exif=turned),
        "1.png": encoded(rgb, "png", exif=turned),
        "2.webp": encoded(rgb, "webp", lossless=True),
        "3.bmp": encoded(rgb, "bmp"),
        "4.tif": encode_tiles(rgb),
        "5.png": encoded(np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)]), "png"),
        "6.png": encoded(rgb[..., 0], "png"),
    }
    (tmp_path / "clip").mkdir()
    for name, content in files.items():
        (tmp_path / "clip" / name).write_bytes(content)
    assert {Path(name).suffix for name in files} <= set(PICTURE_SUFFIXES)
    simulated = list(FrameSource(tmp_path / "clip", FrameSize(multiple=1)).frames(0, len(files)))
    trained = FolderFrames(tmp_path, "root").stack("clip", [Path(name).stem for name in files])
    np.testing.assert_array_equal(simulated, trained)
    for lossless in (1, 2, 3, 4, 5):
        np.testing.assert_array_equal(trained[lossless], rgb)
    np.testing.assert_array_equal(trained[6], np.repeat(rgb[..., :1], 3, axis=2))


@pytest.mark.parametrize(
    "picture, message", [(noise(9, 11, 4), "partly transparent"), (noise(9, 11).astype(np.uint16), "uint16")]
)
def test_simulation_refuses_what_training_refuses(tmp_path: Path, picture: np.ndarray, message: str) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), picture)
    with pytest.raises(ValueError, match=rf"0\.png: .*{message}"):
        list(FrameSource(tmp_path, FrameSize()).frames(0, 1))
    with pytest.raises(ValueError, match=rf"0\.png: .*{message}"):
        imread_rgb(tmp_path / "0.png")


def test_headers_of_bombs_are_faults() -> None:
    for content in (png(100_000, 100_000, b""), encoded(noise(8, 8, 3), "bmp")[:20]):
        assert read_header(io.BytesIO(content)).fault
