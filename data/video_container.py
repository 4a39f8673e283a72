"""Checks that a video file is complete, by the sizes in its container.

Decoders read truncated files without an error. AVI (RIFF), MP4 and MOV (ISO base media), MKV and WebM (EBML) contain
the sizes of their parts, from which a truncation follows.
Test: `python -m pytest tests/data/spike/test_video_source.py`.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from utils.utils_file import open_regular

EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"  # IDs of MKV's two top-level elements


def container_fault(path: Path) -> str:
    """The fault of a video file's top-level parts, or ""; raises the errors of `open_regular`."""
    with open_regular(path) as file:
        size = file.seek(0, 2)
        head = _at(file, 0, 12)
        if head[:4] == b"RIFF" and head[8:] == b"AVI ":
            parts = _riff(file)
        elif head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            parts = _boxes(file)
        elif head[:4] == EBML:
            parts = _elements(file)
        else:
            return ""
        for begin, end in parts:
            if end > size:
                return f"cut short: {size} bytes, but the part that begins at {begin} ends at {end}"
            if end < begin + 8:
                return f"never finished: the part that begins at {begin} has no size"
    return ""


def _at(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)


def _riff(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Begin and end of every RIFF chunk; large files have several."""
    place = 0
    while (head := _at(file, place, 8))[:4] == b"RIFF" and len(head) == 8:
        (length,) = struct.unpack("<I", head[4:])
        end = place + 8 + length if length else place  # length 0: the writer was interrupted
        yield place, end
        place = end + end % 2


def _boxes(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Begin and end of every box."""
    place = 0
    while len(head := _at(file, place, 16)) >= 8:
        (length,) = struct.unpack(">I", head[:4])
        if length == 1 and len(head) == 16:
            (length,) = struct.unpack(">Q", head[8:])
        elif length == 0:  # the box extends to the end of the file
            return
        yield place, place + length
        place += length


def _elements(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Begin and end of the header and of the segment, which contains all else; none for live streams without sizes."""
    place = 0
    for name in (EBML, SEGMENT):
        head = _at(file, place, 12)
        if head[:4] != name or len(head) < 12 or head[4] == 0:
            return
        width = 9 - head[4].bit_length()  # bytes of the number that follows, by its leading zero bits
        number = int.from_bytes(head[4 : 4 + width], "big") & ((1 << 7 * width) - 1)
        if number == (1 << 7 * width) - 1:
            return
        begin, place = place, place + 4 + width + number
        yield begin, place
