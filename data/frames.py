"""The interface of all sources of RGB frames, which are read whole or in part, by clip and name, as uint8 or uint16.

The sources are folders and LMDBs (`data/frame_io.py`) and videos (`data/video_frames.py`).
"""

import io
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from data.picture_crop import MOST_BITS, Box, Encoded, decode_box
from utils.user_error import UserError
from utils.utils_image import decode_rgb

logger = logging.getLogger(__name__)


class Frames(ABC):
    """The frames of a data root.

    Attributes:
        root: the folder or LMDB.
        clips: frame names (without extension) of every clip in temporal order.
        single: name of the only clip if the root is a clip itself, else None.
        fps: frames per second, None if unknown.
    """

    fps: float | None = None

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clips: dict[str, list[str]] = {}
        self.single: str | None = None
        self._sizes: dict[str, tuple[int, int]] = {}
        self._preloaded: dict[tuple[str, str], np.ndarray] = {}

    @abstractmethod
    def where(self, clip: str, frame: str) -> str:
        """Name of a frame's file (or LMDB and key), for messages."""

    @abstractmethod
    def _encoded(self, clip: str, frame: str) -> bytes:
        """The encoded image."""

    def _mapped(self, clip: str, frame: str) -> Encoded:
        """The encoded image, mapped into memory if only parts of it may be read."""
        return self._encoded(clip, frame)

    @abstractmethod
    def _read_size(self, clip: str, frame: str) -> tuple[int, int]:
        """Height and width, without decoding the image."""

    def size(self, clip: str) -> tuple[int, int]:
        """Height and width of a clip's first frame; all its frames must have this size."""
        if clip not in self._sizes:
            self._sizes[clip] = self._read_size(clip, self.clips[clip][0])
        return self._sizes[clip]

    def read(self, clip: str, frame: str, box: Box | None = None) -> np.ndarray:
        """Decodes a frame or a box of it.

        Returns:
            (h, w, 3) RGB: uint8, or uint16 for a picture with 16 bits per channel.

        Raises:
            UserError: the file can't be read, or has another size than the clip's first frame.
        """
        image = self._preloaded.get((clip, frame))
        if image is not None:
            return image if box is None else box.of(image)
        where = self.where(clip, frame)
        if box is None:
            image = decode_rgb(self._encoded(clip, frame), where, MOST_BITS)
            height, width = image.shape[:2]
        else:
            image, (height, width) = decode_box(self._mapped(clip, frame), where, box)
        if (height, width) != self.size(clip):
            raise UserError(
                f"{where}: {height}x{width} pixels, but the first frame of the clip has "
                f"{self.size(clip)[0]}x{self.size(clip)[1]}. All frames of a clip must have one size."
            )
        return image

    def open(self, clip: str, frame: str) -> BinaryIO:
        """The encoded image as an open file."""
        return io.BytesIO(self._encoded(clip, frame))

    def content(self, clip: str, frames: Iterable[str]) -> Iterator[bytes]:
        """Names and bytes of frames, to distinguish them from other frames with the same names."""
        for frame in frames:
            yield frame.encode()
            yield self._encoded(clip, frame)

    def stack(self, clip: str, frames: Iterable[str], box: Box | None = None) -> np.ndarray:
        """Frames by name, or a box of each: (T, h, w, 3) RGB, uint8 or uint16.

        Raises:
            UserError: as `read`, or frames of 8 and of 16 bits in one clip.
        """
        names = list(frames)
        pictures = [self.read(clip, frame, box) for frame in names]
        by_bits = {
            8 * picture.itemsize: self.where(clip, frame) for frame, picture in zip(names, pictures, strict=True)
        }
        if len(by_bits) > 1:
            raise UserError(
                f"{by_bits[8]} has 8 bits per channel, {by_bits[16]} 16; a clip's frames must have equal bits"
            )
        return np.stack(pictures)

    def preload(self, frames: Iterable[tuple[str, str]]) -> None:
        """Decodes (clip, frame) pairs into memory, which forked workers share."""
        for clip, frame in frames:
            self._preloaded[clip, frame] = self.read(clip, frame)
        total = sum(image.nbytes for image in self._preloaded.values())
        logger.info("cache_data: %d frames of %s take %.2f GB", len(self._preloaded), self.root, total / 1e9)
