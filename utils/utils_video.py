"""Writes pictures as a video file, whole or not at all.

    with VideoWriter(path, fps=25) as video:
        video.write(picture)

MPEG-4 in an .mp4, which OpenCV's ffmpeg writes everywhere.
"""

import os
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from utils.utils_image import as_rgb

MOST_COLUMNS = 7680  # wider pictures are made smaller, since MPEG-4 can't hold them


class VideoWriter:
    """A video being written; it takes its name when the block ends without an error.

    Args:
        path: the .mp4 file; its folder is made.
        fps: frames per second.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.path, self.fps, self.count = path, fps, 0
        self._temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
        self._size = (0, 0)
        self._writer: cv2.VideoWriter | None = None

    def write(self, picture: np.ndarray) -> None:
        """Adds a picture, uint8 (H,W,3) RGB or (H,W); all are brought to the size of the first.

        Raises:
            OSError: the file can't be written.
        """
        if self._writer is None:
            height, width = picture.shape[:2]
            factor = min(1.0, MOST_COLUMNS / width)
            # The codec takes even numbers alone.
            self._size = (max(2, round(width * factor) // 2 * 2), max(2, round(height * factor) // 2 * 2))
            self.path.parent.mkdir(parents=True, exist_ok=True)
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._temporary), code, self.fps, self._size)
            if not self._writer.isOpened():
                raise OSError(f"{self.path}: the video can't be written; is the folder writable, and is there space?")
        rgb = as_rgb(picture)
        if (rgb.shape[1], rgb.shape[0]) != self._size:
            rgb = cv2.resize(rgb, self._size, interpolation=cv2.INTER_AREA)
        self._writer.write(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
        self.count += 1

    def close(self) -> None:
        """Ends the video and gives the file its name.

        Raises:
            OSError: not all pictures are in it, as when the disk is full; nothing is left behind.
        """
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        # OpenCV does not say when writing fails.
        capture = cv2.VideoCapture(str(self._temporary))
        found = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if found != self.count:
            self.discard()
            raise OSError(f"{self.path}: {found} of {self.count} pictures could be written; is the disk full?")
        os.replace(self._temporary, self.path)

    def discard(self) -> None:
        """Removes what was written."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()
