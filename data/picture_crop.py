"""Decodes a box of an encoded picture without decoding all of it.

- Of a tiled TIFF (deflate, horizontal differences, RGB; written by `encode_tiles`, opened by any viewer) it decodes the
  tiles that overlap the box.
- Of a PNG (8-bit RGB, not interlaced) it decodes the rows down to the box's last one, as rows depend on those above.
- All other pictures are decoded whole.

Measured by `python scripts/benchmark/bench_loader.py`. Test: `python -m pytest tests/data/test_picture_crop.py`.
"""

import io
import mmap
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from utils.picture_checks import CHECKED_TIFF, MOST_PIXELS, PNG_SIGNATURE, check_picture, with_check_sum
from utils.user_error import UserError
from utils.utils_image import decode_rgb

Encoded = bytes | mmap.mmap
MOST_BITS = 16  # largest number of bits per channel of frames
TILE = 64  # pixels; larger tiles compress slightly better, but a crop then needs more pixels outside of it


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, plane: np.ndarray) -> np.ndarray:
        """The part of (H, W, ...) inside the box; a view."""
        return plane[self.top : self.top + self.height, self.left : self.left + self.width]

    def scaled(self, numerator: int, denominator: int = 1) -> "Box":
        """The same rectangle on a grid `numerator / denominator` times as fine; its edges must be whole pixels."""
        edges = [edge * numerator for edge in (self.top, self.left, self.height, self.width)]
        assert not any(edge % denominator for edge in edges), (self, numerator, denominator)
        return Box(*(edge // denominator for edge in edges))


def decode_box(encoded: Encoded, name: str, box: Box) -> tuple[np.ndarray, tuple[int, int]]:
    """Decodes a box of a picture.

    Args:
        encoded: the file's bytes, or the file mapped into memory.
        name: file name or key, for messages.
        box: the box; its part outside the picture is left out.

    Returns:
        (h, w, 3) RGB, uint8 or uint16, and the whole picture's height and width.

    Raises:
        UserError: the part that was read is damaged, or the picture does not have 8 or 16 bits per channel.
    """
    view = memoryview(encoded)
    check_picture(view, name, in_part=True, most_bits=MOST_BITS)
    try:
        tiles = _TileIndex.read(view)
        if tiles is not None:
            return tiles.decode(view, box), (tiles.height, tiles.width)
    except (zlib.error, struct.error, ValueError, IndexError) as error:
        raise _damaged(name, error) from error
    if _is_plain_png(view):
        rows, size = _decode_top_rows(view, name, box.top + box.height)
        return box.of(rows), size
    picture = decode_rgb(bytes(view), name, MOST_BITS)
    return box.of(picture), (picture.shape[0], picture.shape[1])


def encode_tiles(picture: np.ndarray, tile: int = TILE) -> bytes:
    """A picture (H, W, 3) uint8 RGB as a tiled TIFF, lossless."""
    import tifffile

    file = io.BytesIO()
    tifffile.imwrite(
        file,
        picture,
        tile=(tile, tile),
        compression="zlib",
        compressionargs={"level": 6},
        predictor=True,
        photometric="rgb",
        metadata=None,
        software=CHECKED_TIFF.decode(),
    )
    return with_check_sum(file.getvalue())


def _is_plain_png(view: memoryview) -> bool:
    """Whether this is a PNG with 8-bit RGB, not interlaced."""
    return bytes(view[:8]) == PNG_SIGNATURE and len(view) > 33 and bytes(view[24:26]) == b"\x08\x02" and view[28] == 0


def _decode_top_rows(view: memoryview, name: str, bottom: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Rows [0, bottom) of a plain PNG, and the size of the whole picture."""
    try:
        with Image.open(io.BytesIO(view)) as image:
            width, height = image.size
            if "transparency" in image.info or len(image.tile) != 1:
                picture = decode_rgb(bytes(view), name, MOST_BITS)
                return picture[:bottom], (height, width)
            # With a smaller height, Pillow's decoder stops after the last row needed.
            image._size = width, min(bottom, height)
            image.tile = [image.tile[0]._replace(extents=(0, 0, *image._size))]
            return np.asarray(image), (height, width)
    except ValueError:  # raised by Pillow for large text chunks, which other decoders skip
        picture = decode_rgb(bytes(view), name, MOST_BITS)
        return picture[:bottom], (picture.shape[0], picture.shape[1])
    except (OSError, SyntaxError, struct.error) as error:
        raise _damaged(name, error) from error


def _damaged(name: str, error: Exception) -> UserError:
    return UserError(f"{name}: not a readable picture ({error}; damaged or cut short?); copy it again")


@dataclass(frozen=True)
class _TileIndex:
    """Offsets and lengths of a TIFF's tiles (TIFF 6.0, sections 2, 14 and 15)."""

    height: int
    width: int
    tile_height: int
    tile_width: int
    offsets: np.ndarray
    lengths: np.ndarray

    @classmethod
    def read(cls, view: memoryview) -> "_TileIndex | None":
        """The index of a TIFF in the format of `encode_tiles`; None for any other file."""
        if bytes(view[:4]) != b"II*\x00":
            return None
        (directory,) = struct.unpack_from("<I", view, 4)
        (count,) = struct.unpack_from("<H", view, directory)
        fields = {}
        for tag, kind, length, value in struct.iter_unpack("<HHII", view[directory + 2 : directory + 2 + 12 * count]):
            fields[tag] = kind, length, value

        def values(tag: int) -> np.ndarray:
            kind, length, value = fields.get(tag, (4, 1, 0))
            if kind not in (3, 4):
                return np.zeros(1, np.uint32)
            if length * (2 if kind == 3 else 4) <= 4:  # the field itself holds the value
                return np.frombuffer(struct.pack("<I", value), f"<u{2 if kind == 3 else 4}", length)
            return np.frombuffer(view, f"<u{2 if kind == 3 else 4}", length, value)

        if 324 not in fields:
            return None  # stored in strips
        layout = [int(values(tag)[0]) for tag in (258, 259, 262, 277, 284, 317)]
        if layout != [8, 8, 2, 3, 1, 2]:  # bits, deflate, RGB, 3 samples, interleaved, horizontal differences
            return None
        height, width, tile_height, tile_width = (int(values(tag)[0]) for tag in (257, 256, 323, 322))
        if not 0 < tile_height * tile_width <= MOST_PIXELS:
            raise ValueError(f"tiles of {tile_height}x{tile_width} pixels")
        return cls(height, width, tile_height, tile_width, values(324), values(325))

    def decode(self, view: memoryview, box: Box) -> np.ndarray:
        """Decodes the box from the tiles that overlap it."""
        bottom, right = min(box.top + box.height, self.height), min(box.left + box.width, self.width)
        first_row, first_column = box.top // self.tile_height, box.left // self.tile_width
        end_row, end_column = -(-bottom // self.tile_height), -(-right // self.tile_width)
        per_row = -(-self.width // self.tile_width)
        shape = end_row - first_row, end_column - first_column, self.tile_height, self.tile_width, 3
        tiles = np.empty(shape, np.uint8)
        for row in range(first_row, end_row):
            for column in range(first_column, end_column):
                index = row * per_row + column
                begin = int(self.offsets[index])
                inflate, size = zlib.decompressobj(), self.tile_height * self.tile_width * 3
                content = inflate.decompress(view[begin : begin + int(self.lengths[index])], size + 1)
                if not inflate.eof or len(content) != size:
                    raise ValueError(f"tile {index} is cut short, or larger than it says")
                tiles[row - first_row, column - first_column] = np.frombuffer(content, np.uint8).reshape(shape[2:])
        np.add.accumulate(tiles, axis=3, dtype=np.uint8, out=tiles)
        joined = tiles.transpose(0, 2, 1, 3, 4).reshape(shape[0] * shape[2], shape[1] * shape[3], 3)
        top, left = box.top - first_row * self.tile_height, box.left - first_column * self.tile_width
        return joined[top : top + bottom - box.top, left : left + right - box.left]
