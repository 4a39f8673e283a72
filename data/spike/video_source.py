"""Sharp frames from a video file or a folder of pictures, read one at a time and resized to one size."""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from data.video_container import container_fault
from utils.user_error import UserError
from utils.utils_file import list_folder, sha256_of
from utils.utils_image import PICTURE_SUFFIXES as PICTURE_SUFFIXES
from utils.utils_image import imread_rgb

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FrameSize:
    """How frames are resized: by `scale`, or to cover `target` (height, width) and cropped to it at the centre; then
    cropped to multiples of `multiple` at the right and bottom. Shrinking averages areas, enlarging is bicubic."""

    scale: float = 1.0
    target: tuple[int, int] | None = None
    multiple: int = 2

    def apply(self, frame: np.ndarray) -> np.ndarray:
        """(H,W,3) uint8 -> (h,w,3) uint8."""
        height, width = frame.shape[:2]
        factor = self.scale
        if self.target is not None:
            factor = max(self.target[0] / height, self.target[1] / width)
        if factor != 1.0:
            size = (max(1, round(width * factor)), max(1, round(height * factor)))
            frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
        height, width = self.target or frame.shape[:2]
        top, left = (frame.shape[0] - height) // 2, (frame.shape[1] - width) // 2
        height, width = height - height % self.multiple, width - width % self.multiple
        return np.ascontiguousarray(frame[top : top + height, left : left + width])


class FrameSource:
    """A video file, or a folder of pictures in the natural order of their names.

    Args:
        path: the file or folder.
        size: how every frame is resized.
        max_frames: number of frames to read from the beginning; None: all.

    Attributes:
        length: number of frames, counted by reading the video once.

    Raises:
        UserError: no such file or folder, no or a truncated video, or no pictures in the folder.
    """

    def __init__(self, path: Path, size: FrameSize, max_frames: int | None = None) -> None:
        self.path, self.size = path, size
        self.pictures: list[Path] = []
        if path.is_dir():
            self.pictures = list_folder(path, PICTURE_SUFFIXES)
            if not self.pictures:
                raise UserError(f"{path}: no pictures ({', '.join(PICTURE_SUFFIXES)}) in this folder")
            found = len(self.pictures)
        elif path.is_file():
            fault = container_fault(path)
            if fault:
                raise UserError(f"{path}: {fault}; copy it again, or: ffmpeg -i {path.name} -c copy new.mkv")
            found = self._count()
        else:
            raise UserError(f"{path}: no such video file or folder of frames")
        self.length = found if max_frames is None else min(found, max_frames)

    def _open(self) -> cv2.VideoCapture:
        # Absolute, as ffmpeg interprets text before a colon as a protocol.
        capture = cv2.VideoCapture(str(self.path.absolute()))
        if not capture.isOpened():
            raise UserError(
                f"{self.path}: cannot be decoded as a video; give a file that OpenCV's ffmpeg reads "
                "(mp4, avi, mov, mkv), or a folder of its frames"
            )
        return capture

    def _count(self) -> int:
        # The number stated by the container is an estimate in some files, so the frames are counted.
        capture = self._open()
        count = 0
        while capture.grab():
            count += 1
        stated = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.release()
        if count == 0:
            raise UserError(f"{self.path}: the video has no frame that can be decoded")
        if count < stated:
            logger.warning("%s: only %d of the %d frames stated can be decoded", self.path, count, stated)
        return count

    def frames(self, begin: int, end: int) -> Iterator[np.ndarray]:
        """Frames [begin, end): (h,w,3) uint8 RGB, all of one size.

        Raises:
            UserError: a frame cannot be read or differs in size from the first.
        """
        first: tuple[int, ...] | None = None
        for index, frame in enumerate(self._read(begin, end), start=begin):
            first = first or frame.shape
            if frame.shape != first:
                name = self.pictures[index] if self.pictures else f"{self.path}, frame {index}"
                raise UserError(
                    f"{name}: {frame.shape[0]}x{frame.shape[1]} pixels, but the first frame has "
                    f"{first[0]}x{first[1]}: all frames of a clip must have the same size"
                )
            yield self.size.apply(frame)

    def _read(self, begin: int, end: int) -> Iterator[np.ndarray]:
        """Frames [begin, end) as stored, RGB."""
        if self.pictures:
            for path in self.pictures[begin:end]:
                yield imread_rgb(path)
            return
        capture = self._open()
        try:
            # Seeking is inexact in many files, so frames are skipped by decoding.
            for _ in range(begin):
                capture.grab()
            for index in range(begin, end):
                good, frame = capture.read()
                if not good:
                    raise UserError(f"{self.path}: frame {index} cannot be decoded")
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        finally:
            capture.release()

    @property
    def fps(self) -> float | None:
        """Frames per second of a video; None for a folder of pictures or a file that lacks the number."""
        if self.pictures:
            return None
        capture = self._open()
        rate = capture.get(cv2.CAP_PROP_FPS)
        capture.release()
        return round(rate, 3) if rate > 0 else None

    def identity(self) -> dict[str, int | str]:
        """Identifies the content, so that sources of the same name can be distinguished; independent of the folder."""
        files = self.pictures or [self.path]
        digest = hashlib.sha256("".join(sha256_of(file) for file in files).encode()).hexdigest()[:16]
        size = sum(file.stat().st_size for file in files)
        return {"name": self.path.name, "frames": self.length, "bytes": size, "sha256": digest}

    def state(self) -> list[list[int | str]]:
        """Path, size and modification time of every file, which distinguish these frames from all others."""
        files = [(file.resolve(), file.stat()) for file in self.pictures or [self.path]]
        own: list[list[int | str]] = [[str(path), status.st_size, status.st_mtime_ns] for path, status in files]
        return [*own, [repr(self.size), self.length]]
