"""Spike streams in `.dat` files: reading, writing, geometry.

A `.dat` file has no header. It holds T frames of ceil(H*W/8) bytes; pixel p of a frame (row-major) is bit p % 8,
least significant first, of byte p // 8; 1 = the pixel fired. Rows are usually stored bottom-up (`flipud=True`), and
some cameras record 16 more columns than the picture has (`head_columns=16`). docs/spike_format.md has the details.

    stream = SpikeStream("GOPR0884_11_00/spike/000226.dat", spike_h=360, spike_w=640)
    spikes = stream.crop(begin=0, length=len(stream), top=100, left=200, h=96, w=96)     # (88, 96, 96) uint8

The functions and argument names are SpikeCV's (`scripts/spikecv.py` has more of them); SpikeCV itself is not needed.
"""

import logging
import operator
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.spike_config import LABEL_DATA_TYPE as LABEL_DATA_TYPE
from utils.spike_config import SpikeFormatError as SpikeFormatError
from utils.spike_config import data_parameter_dict as data_parameter_dict
from utils.spike_config import find_geometry as find_geometry
from utils.spike_config import find_threshold as find_threshold
from utils.spike_config import nearest_config
from utils.spike_writer import write_spikes as write_spikes
from utils.user_error import UserError
from utils.utils_file import open_regular

logger = logging.getLogger(__name__)

KNOWN_GEOMETRIES = (  # (height, width) of public cameras and data sets
    (250, 400),  # Vidar camera, REDS_BASE
    (360, 640),  # Spk-GoPro
    (396, 640),
    (180, 320),  # Spk-GoPro at a quarter of the frame's size
    (256, 256),  # Spk-X4K1000FPS, validation
    (384, 384),  # Spk-X4K1000FPS, training
    (500, 800),  # SPIFT, PHM
    (1000, 1000),  # second-generation Vidar camera, cropped
)

RAW_LINES = (1000, 1024)
"""Rows and recorded columns of the 1000x1000 camera's raw lines (SpikeCV's camera_type "PCIE"). 24 of the columns, in
two places, are not pixels; `convert --drop_columns` makes a stream of the others. A file that is a whole number of such
frames is not attributed to another camera by its size."""

SPIKECV_HEAD = (400, 416)  # `with_head` drops columns 400 to 415, as in SpikeCV: the 250x400 camera's head columns


class SpikeStream:
    """One `.dat` file.

    Opening checks the size. Every read opens the file and reads the frames asked for only, so a block of a 200 MB file
    takes no longer than one of a small file. All arrays are new, contiguous, uint8, 0 or 1.

    Args:
        filepath: the file; ".dat" is added to a name without suffix, as in SpikeCV.
        spike_h, spike_w: height and width of the picture in pixels. If both are left out, they are those of the nearest
            config.yaml in the file's folder or above it, else the one known geometry that fits the size.
        flipud: rows are stored bottom-up and flipped on reading, so that row 0 is the top. False: rows as stored.
        head_columns: columns recorded after the picture's last one and dropped on reading (16 in some recordings of
            the 250x400 camera); the recorded width is spike_w + head_columns.
        drop_incomplete: read a recording that was cut inside its last frame without that frame, with a warning; the
            geometry must be given or in config.yaml. False: such a recording is an error.
        offline, camera_type: SpikeCV's arguments; only the defaults are accepted, as only files are read.
        print_dat_detail, filelist, labeled_data_type, labeled_data_suffix, labeled_data_dir, label_root_list:
            accepted, so that SpikeStream(**data_parameter_dict(...)) and SpikeCV's calls work; without effect here.

    Attributes:
        filename, spike_height, spike_width: SpikeCV's names for the file's path and the picture's size.
        camera_type: 1, as in SpikeCV for all files but the 1000x1000 camera's raw lines.
        SpikeMatrix: last result of get_spike_matrix, get_block_spikes or get_file_matrix; None before.

    Raises:
        SpikeFormatError: no such file, a size that is not a whole number of frames, or an unknown or ambiguous
            geometry.
    """

    camera_type = 1

    def __init__(
        self,
        filepath: str | Path,
        spike_h: int | None = None,
        spike_w: int | None = None,
        flipud: bool = True,
        head_columns: int = 0,
        *,
        drop_incomplete: bool = False,
        offline: bool = True,
        camera_type: str | None = None,
        print_dat_detail: bool = False,
        filelist: Sequence[str] | None = None,
        labeled_data_type: Sequence[float] | None = None,
        labeled_data_suffix: str | None = None,
        labeled_data_dir: str | Sequence[str] | None = None,
        label_root_list: str | None = None,
    ) -> None:
        if not offline or camera_type is not None:
            raise SpikeFormatError(
                f"{filepath}: offline={offline}, camera_type={camera_type!r} mean a camera or its raw line format, "
                "which is not read here; convert the recording to a .dat of whole frames and leave both out."
            )
        self.filepath = Path(filepath)
        if not self.filepath.suffix:
            self.filepath = self.filepath.with_suffix(".dat")
        self.filename = str(self.filepath)
        self.SpikeMatrix: np.ndarray | None = None
        self.flipud = flipud
        self.head_columns = head_columns
        size = _size_of(self.filepath)
        geometry = _resolve_geometry(self.filepath, size, spike_h, spike_w, head_columns, drop_incomplete)
        self.spike_h, self.spike_w = geometry.spike_h, geometry.spike_w
        self.spike_height, self.spike_width = self.spike_h, self.spike_w
        self._recorded_w = self.spike_w + head_columns
        self._frame_bytes = _frame_bytes(self.spike_h, self._recorded_w)
        self._length = size // self._frame_bytes

    def __len__(self) -> int:
        """Number of spike frames T."""
        return self._length

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T, H, W)."""
        return len(self), self.spike_h, self.spike_w

    def __repr__(self) -> str:
        return f"SpikeStream({str(self.filepath)!r}, T={len(self)}, H={self.spike_h}, W={self.spike_w})"

    def get_spike_matrix(self, flipud: bool | None = None, with_head: bool = False) -> np.ndarray:
        """The whole stream, (T, H, W) uint8; arguments as in `get_block_spikes`."""
        return self.get_block_spikes(0, len(self), flipud, with_head)

    def get_block_spikes(
        self, begin_idx: int, block_len: int = 1, flipud: bool | None = None, with_head: bool = False
    ) -> np.ndarray:
        """Frames [begin_idx, begin_idx + block_len), (block_len, H, W) uint8.

        Args:
            flipud: overrides the object's.
            with_head: drops columns 400 to 415 of a stream opened with spike_w=416, as in SpikeCV; `head_columns=16`
                does so for any width.

        Raises:
            UserError: a frame is not in the file (SpikeCV returns zeros), or `with_head` with another width.
        """
        if with_head and self.spike_w != SPIKECV_HEAD[1]:
            raise SpikeFormatError(
                f"{self.filepath}: with_head=True drops columns {SPIKECV_HEAD[0]} to {SPIKECV_HEAD[1] - 1} of a stream "
                f"opened with spike_w={SPIKECV_HEAD[1]}; this one has spike_w={self.spike_w}. For another width leave "
                "it out and open the stream with head_columns."
            )
        width = SPIKECV_HEAD[0] if with_head else self.spike_w
        self.SpikeMatrix = self.crop(begin_idx, block_len, 0, 0, self.spike_h, width, flipud)
        return self.SpikeMatrix

    def get_file_matrix(
        self, flipud: bool | None = None, begin_idx: int = 0, block_len: int | None = None, with_head: bool = False
    ) -> np.ndarray:
        """`get_block_spikes`, or without `block_len` the whole stream, as in SpikeCV."""
        if block_len is None:
            return self.get_spike_matrix(flipud, with_head)
        return self.get_block_spikes(begin_idx, block_len, flipud, with_head)

    def crop(
        self, begin: int, length: int, top: int, left: int, h: int, w: int, flipud: bool | None = None
    ) -> np.ndarray:
        """A box in time and space, (length, h, w) uint8, equal to get_spike_matrix(flipud)[box].

        Args:
            begin, length: frames [begin, begin + length).
            top, left, h, w: rows [top, top + h) and columns [left, left + w) of the picture, after flipping.
            flipud: overrides the object's.

        Raises:
            UserError: the box is empty or reaches outside the stream; the message gives both ranges.
        """
        begin, end = self._checked_range("frames", begin, length, len(self))
        top, bottom = self._checked_range("rows", top, h, self.spike_h)
        left, right = self._checked_range("columns", left, w, self.spike_w)
        flip = self.flipud if flipud is None else flipud
        if flip:
            top, bottom = self.spike_h - bottom, self.spike_h - top
        if self._recorded_w % 8 == 0:
            return self._crop_whole_bytes(begin, end, top, bottom, left, right, flip)
        return self._crop_straddling(begin, end, top, bottom, left, right, flip)

    def _crop_whole_bytes(
        self, begin: int, end: int, top: int, bottom: int, left: int, right: int, flip: bool
    ) -> np.ndarray:
        """`crop` if rows start on a byte: unpacks only the bytes of the box's columns."""
        rows = self._read(begin, end).reshape(end - begin, self.spike_h, self._recorded_w // 8)
        first, last = left // 8, -(-right // 8)
        packed = rows[:, top:bottom, first:last]
        bits = np.unpackbits(packed[:, ::-1] if flip else packed, axis=2, bitorder="little")
        return np.ascontiguousarray(bits[:, :, left - 8 * first : right - 8 * first])

    def _crop_straddling(
        self, begin: int, end: int, top: int, bottom: int, left: int, right: int, flip: bool
    ) -> np.ndarray:
        """`crop` if neighbouring rows share bytes: unpacks the box's rows over their whole width."""
        width = self._recorded_w
        first = top * width // 8
        packed = self._read(begin, end)[:, first : -(-bottom * width // 8)]
        bits = np.unpackbits(packed, axis=1, bitorder="little")
        offset = top * width - 8 * first
        rows = bits[:, offset : offset + (bottom - top) * width].reshape(end - begin, bottom - top, width)
        return np.ascontiguousarray((rows[:, ::-1] if flip else rows)[:, :, left:right])

    def _read(self, begin: int, end: int) -> np.ndarray:
        """The bytes of frames [begin, end), (end - begin, bytes per frame) uint8.

        Not mapped into memory: if the file became shorter meanwhile, a mapping would end the process (SIGBUS).
        """
        content = np.empty((end - begin, self._frame_bytes), np.uint8)
        rest = memoryview(content.data).cast("B")
        try:
            with open_regular(self.filepath) as file:
                file.seek(begin * self._frame_bytes)
                while rest and (count := file.readinto(rest)):  # type: ignore[attr-defined]
                    rest = rest[count:]
        except OSError as fault:
            raise SpikeFormatError(f"{self.filepath}: cannot be read ({fault.strerror}); copy it again.") from fault
        if rest:
            raise SpikeFormatError(
                f"{self.filepath}: shorter than when it was opened, {len(rest)} bytes of frames [{begin}, {end}) are "
                "missing; copy it again."
            )
        return content

    def _checked_range(self, what: str, begin: int, length: int, available: int) -> tuple[int, int]:
        """(begin, end) as plain integers, inside [0, available)."""
        begin, length = operator.index(begin), operator.index(length)
        if begin < 0 or length < 1 or begin + length > available:
            raise UserError(
                f"{self.filepath}: {what} [{begin}, {begin + length}) were asked for; it has {what} [0, {available})."
            )
        return begin, begin + length


SpikeStreamSimple = SpikeStream  # name in S-VRT's first documents


class _Geometry(NamedTuple):
    spike_h: int
    spike_w: int


def _size_of(path: Path) -> int:
    """Size in bytes of a readable, non-empty file."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
    except UserError as fault:
        raise SpikeFormatError(f"{path}: no readable spike file ({fault})") from fault
    if size == 0:
        raise SpikeFormatError(f"{path}: the spike file is empty (0 bytes); copy or generate it again.")
    return size


def _frame_bytes(height: int, width: int) -> int:
    return -(-height * width // 8)


def _resolve_geometry(
    path: Path, size: int, spike_h: int | None, spike_w: int | None, head_columns: int, drop_incomplete: bool
) -> _Geometry:
    """The given geometry, else config.yaml's, else the one known geometry that fits; checked against the size."""
    if (spike_h is None) != (spike_w is None):
        raise SpikeFormatError(f"{path}: spike_h={spike_h}, spike_w={spike_w}: give both or neither.")
    if head_columns < 0:
        raise SpikeFormatError(f"{path}: head_columns={head_columns} must be 0 or more.")
    if spike_h is not None and spike_w is not None:
        geometry, source = _Geometry(spike_h, spike_w), "spike_h, spike_w"
    elif (found := nearest_config(path.parent)) is not None:
        geometry, source = _Geometry(found[1]["spike_h"], found[1]["spike_w"]), str(found[0])
    elif len(fits := fitting_geometries(size, head_columns)) == 1 and size % _frame_bytes(*RAW_LINES):
        logger.info("%s: %dx%d, the only known geometry of which %d bytes are whole frames", path, *fits[0], size)
        return fits[0]
    else:
        raise SpikeFormatError(
            f"{path}: {size} bytes, geometry not given and no config.yaml with spike_h and spike_w in its folder or "
            f"above. Known geometries that fit: {_listed_fits(size, head_columns)}. Give spike_h and spike_w, "
            f"or write them into {path.parent / 'config.yaml'}: two lines, spike_h: HEIGHT and spike_w: WIDTH."
        )
    if geometry.spike_h < 1 or geometry.spike_w < 1:
        raise SpikeFormatError(f"{path}: {geometry.spike_h}x{geometry.spike_w} (from {source}) is no picture size.")
    frame_bytes = _frame_bytes(geometry.spike_h, geometry.spike_w + head_columns)
    if size % frame_bytes and drop_incomplete and size >= frame_bytes:
        logger.warning(
            "%s: the last of %d frames is incomplete, %d of %d bytes, and is left out",
            *(path, size // frame_bytes + 1, size % frame_bytes, frame_bytes),
        )
    elif size % frame_bytes:
        head = f" with {head_columns} head columns" if head_columns else ""
        raise SpikeFormatError(
            f"{path}: {size} bytes are {size / frame_bytes:.2f} frames of {geometry.spike_h}x{geometry.spike_w}{head} "
            f"({frame_bytes} bytes each; from {source}), not a whole number: the geometry is wrong or the file is "
            f"truncated. Known geometries that fit: {_listed_fits(size, head_columns)}. Of a recording cut inside its "
            f"last frame, scripts.spikes convert IN OUT --end {size // frame_bytes} makes a stream of the whole frames."
        )
    return geometry


def fitting_geometries(size: int, head_columns: int = 0) -> list[_Geometry]:
    """The known geometries whose frames divide `size` bytes."""
    return [_Geometry(h, w) for h, w in KNOWN_GEOMETRIES if size % _frame_bytes(h, w + head_columns) == 0]


def _listed_fits(size: int, head_columns: int) -> str:
    """The fitting geometries and their numbers of frames, for a message."""
    fits = fitting_geometries(size, head_columns)
    listed = [f"{h}x{w} ({size // _frame_bytes(h, w + head_columns)} frames)" for h, w in fits]
    if size % _frame_bytes(*RAW_LINES) == 0:
        listed.append(
            f"the 1000x1000 camera's raw lines, 1024 columns ({size // _frame_bytes(*RAW_LINES)} frames), to be "
            "converted by scripts.spikes convert IN OUT --spike_h 1000 --spike_w 1024 --drop_columns 500:512 1012:1024"
        )
    return ", ".join(listed) or "none"
