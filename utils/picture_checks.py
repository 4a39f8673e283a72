"""Reads an encoded picture's size and pixel type before it is decoded, and verifies its check sums.

Every picture is checked here before it is decoded, because each decoder misses some faults: libtiff ignores the check
sum of a deflated tile, libpng those of rows below a crop, and others fill the missing end of a file with gray.
Test: `python -m pytest tests/utils/test_picture_checks.py`.
"""

import io
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from utils.user_error import UserError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"  # first 8 bytes of a PNG
MOST_PIXELS = 1 << 27
"""16384 x 8192: a damaged header with a larger size would allocate gigabytes."""
CHECKED_TIFF = b"S-VRT tiles, CRC-32 at the end"
"""TIFF tag Software of files that end with `TRAILER` and the CRC-32 of all bytes before it."""
TRAILER = b"CRC\n"
"""Marks the check sum, so that a truncated file is recognised."""


def check_picture(
    content: bytes | memoryview, name: str, *, in_part: bool = False, most_bits: int = 8
) -> tuple[int, int]:
    """Checks an encoded picture's size, pixel type and check sums, and returns its height and width.

    Args:
        content: the file's bytes.
        name: file name or key, for messages.
        in_part: the caller decodes parts of a TIFF and verifies their check sums itself.
        most_bits: largest number of bits per channel, 8 or 16.

    Raises:
        UserError: damaged or cut short, more bits per channel, or more than `MOST_PIXELS`.
    """
    view = memoryview(content)
    try:
        height, width, bits = _png(view) if bytes(view[:8]) == PNG_SIGNATURE else _other(view, in_part)
    except _Damaged as error:
        raise _refusal(name, len(view), str(error)) from error
    if height < 1 or width < 1 or height * width > MOST_PIXELS:
        raise UserError(
            f"{name}: {height}x{width} pixels by its header; pictures of 1 to {MOST_PIXELS} pixels are read"
        )
    if bits > most_bits:
        raise UserError(f"{name}: uint{bits} pixels; only {most_bits} bits per channel are supported, convert it first")
    return height, width


def with_check_sum(tiff: bytes) -> bytes:
    """Appends the check sum to a TIFF whose tag Software is `CHECKED_TIFF`."""
    return tiff + TRAILER + struct.pack("<I", zlib.crc32(tiff))


class _Damaged(Exception):
    """A damaged picture; the text is the reason."""


def _refusal(name: str, size: int, reason: str) -> UserError:
    return UserError(f"{name}: not a readable picture ({size} bytes; {reason}; damaged or cut short?); copy it again")


def _png(view: memoryview) -> tuple[int, int, int]:
    """Height, width and bits per channel of a PNG; verifies the CRC-32 of all chunks, and that the last one is IEND."""
    place, names = len(PNG_SIGNATURE), []
    while place + 12 <= len(view):
        (length,) = struct.unpack_from(">I", view, place)
        end = place + 12 + length
        if end > len(view):
            break
        (found,) = struct.unpack_from(">I", view, end - 4)
        names.append(bytes(view[place + 4 : place + 8]))
        if zlib.crc32(view[place + 4 : end - 4]) != found:
            raise _Damaged(f"the check sum of {names[-1]!r} does not hold")
        place = end
        if names[-1] == b"IEND":
            break
    if names[:1] != [b"IHDR"] or names[-1] != b"IEND" or b"IDAT" not in names:
        raise _Damaged("the PNG has no end")
    width, height, bits = struct.unpack_from(">IIB", view, 16)
    return height, width, bits


def _other(view: memoryview, in_part: bool) -> tuple[int, int, int]:
    """Height, width and bits per channel of a picture in any other format."""
    head = bytes(view[:12])
    if head.startswith(b"\xff\xd8"):
        content = bytes(view)
        if content.rfind(b"\xff\xd9") <= content.rfind(b"\xff\xda"):
            raise _Damaged("the JPEG has no end")
    elif head[:2] == b"BM" and struct.unpack_from("<I", head, 2)[0] > len(view):
        raise _Damaged("shorter than its header says")
    elif head[:4] == b"RIFF" and struct.unpack_from("<I", head, 4)[0] + 8 > len(view):
        raise _Damaged("shorter than its header says")
    elif head[:4] in (b"II*\x00", b"MM\x00*"):
        _check_sum(view)
    try:
        with Image.open(io.BytesIO(view)) as image:
            size = image.height, image.width
            if head[:4] in (b"II*\x00", b"MM\x00*"):
                tags = dict(image.tag_v2)  # type: ignore[attr-defined]
                bits = max(tags.get(258, (1,)))
                if size[0] * size[1] <= MOST_PIXELS and not in_part:
                    # Upper bound of a tile's bytes: tiles may extend beyond the picture, with up to 4 channels.
                    _check_deflated(view, tags, 4 * (size[0] + 4096) * (size[1] + 4096))
                return *size, int(bits)
    except _Damaged:
        raise
    except Exception as error:  # Pillow's readers raise exceptions of any type on damaged bytes
        raise _Damaged(type(error).__name__) from error
    return *size, 8


def _check_sum(view: memoryview) -> None:
    """Verifies the check sum at the end of a TIFF written by this code."""
    ends, tagged = bytes(view[-8:-4]) == TRAILER, CHECKED_TIFF in bytes(view[:4096])
    if (ends or tagged) and not (ends and struct.unpack("<I", view[-4:])[0] == zlib.crc32(view[:-8])):
        raise _Damaged("its check sum does not hold")


def _check_deflated(view: memoryview, tags: dict[int, object], most: int) -> None:
    """Inflates the strips or tiles of a TIFF, whose check sums libtiff ignores, up to `most` bytes each."""
    offsets, lengths = (tags.get(324, tags.get(273)), tags.get(325, tags.get(279)))
    parts = list(zip(_numbers(offsets), _numbers(lengths), strict=True))
    if not parts or any(begin + length > len(view) for begin, length in parts):
        raise _Damaged("the TIFF reaches beyond its end")
    if tags.get(259) not in (8, 32946):  # tag Compression: deflate has these two values
        return
    for begin, length in parts:
        inflate = zlib.decompressobj()
        try:
            inflate.decompress(view[begin : begin + length], most)
        except zlib.error as error:
            raise _Damaged(str(error)) from error
        if not inflate.eof:
            raise _Damaged("a part of the TIFF is cut short, or larger than the picture")


def _numbers(value: object) -> Iterator[int]:
    yield from value if isinstance(value, tuple) else (value,)
