"""Reads a picture file's size, pixel type and completeness from its first and last bytes.

Only the header and the last 4096 bytes are read, so ten thousand files take seconds. Faults that only decoding shows,
such as flipped bits in the middle, are not found. Test: `python -m pytest tests/data/test_picture_header.py`.
"""

import struct
import zlib
from typing import BinaryIO, NamedTuple

from PIL import Image

from utils.picture_checks import MOST_PIXELS, PNG_SIGNATURE

PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"  # the last chunk: length 0, name, CRC-32
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"  # the markers SOI and EOI
PNG_COLOURS = {0: "gray", 2: "RGB", 3: "palette", 4: "gray with alpha", 6: "RGB with alpha"}  # IHDR's colour types
BITS_PER_SAMPLE = 258  # tag of TIFF 6.0
TAIL = 4096  # bytes of the fingerprint, at the file's end, where the compressed data of different pictures differ


class PictureHeader(NamedTuple):
    """Attributes:
    height, width: in pixels; 0 if the header can't be read.
    fingerprint: length of the file and check sum of its end; equal for copies, different for different pictures.
    fault: the file's fault, or "".
    bits: bits per channel.
    """

    height: int
    width: int
    fingerprint: tuple[int, int]
    fault: str
    bits: int = 8


def read_header(file: BinaryIO) -> PictureHeader:
    """Reads the header and the end of an open picture file."""
    head = file.read(33)
    length = file.seek(0, 2)
    file.seek(max(0, length - TAIL))
    tail = file.read()
    fingerprint = length, zlib.crc32(tail)
    if head.startswith(PNG_SIGNATURE) and len(head) == 33:
        width, height, depth, colour = struct.unpack(">IIBB", head[16:26])
        fault = "" if tail.endswith(PNG_END) else "cut short: the PNG has no end"
        if depth not in (8, 16) or colour not in (0, 2, 3, 6):
            fault = fault or f"{depth}-bit {PNG_COLOURS.get(colour, 'unknown')} pixels; RGB of 8 or 16 bits is needed"
        return PictureHeader(height, width, fingerprint, fault or _size_fault(height, width), depth)
    file.seek(0)
    try:
        with Image.open(file) as image:
            height, width = image.height, image.width
            bits = max(getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (8,)))
    except Exception as error:  # Pillow's readers raise exceptions of any type on damaged bytes
        reason = "empty file" if length == 0 else f"not a readable picture ({type(error).__name__})"
        return PictureHeader(0, 0, fingerprint, reason)
    cut = head.startswith(JPEG_START) and not tail.rstrip(b"\x00").endswith(JPEG_END)
    fault = "cut short: the JPEG has no end" if cut else _size_fault(height, width)
    return PictureHeader(height, width, fingerprint, fault, bits)


def _size_fault(height: int, width: int) -> str:
    return "" if 0 < height * width <= MOST_PIXELS else f"{height}x{width} pixels, more than {MOST_PIXELS} or none"
