"""A video file (mp4, avi, mov, mkv) as a data root of one clip: the file's name, frames 000000, 000001, ...

Reading in order decodes every frame once; a step back decodes from the beginning again, since seeking is inexact in
many files.

Every process decodes with a reader of its own. A decoder that a fork has inherited lacks its threads, and closing it
would wait for them for ever; so it is never closed there.
"""

import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data.frames import Frames
from data.picture_crop import Box
from data.spike.video_source import FrameSize, FrameSource
from utils.user_error import UserError
from utils.utils_file import sha256_of

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".m4v", ".webm")


class VideoFrames(Frames):
    """The frames of a video file.

    Args:
        root: the file.
        option: the option that names it, for messages.
        single_name: name of the clip; None: the file's, without ending.

    Attributes:
        fps: frames per second, as the file says.

    Raises:
        UserError: not a video, or one without frames.
    """

    def __init__(self, root: Path, option: str, single_name: str | None = None) -> None:
        super().__init__(root)
        if root.suffix.lower() not in VIDEO_SUFFIXES:
            endings = " ".join(VIDEO_SUFFIXES)
            raise UserError(f"{option}: {root} is neither a folder nor a video file ({endings})")
        self._source = FrameSource(root, FrameSize(multiple=1))
        self.single = single_name or root.stem
        self.clips = {self.single: [f"{number:06d}" for number in range(self._source.length)]}
        self.fps = _fps(root)
        self._begin_process()

    def _begin_process(self) -> None:
        """Starts without a reader, in the process that is to read."""
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._reader: Iterator[np.ndarray] | None = None
        self._last: tuple[int, np.ndarray] | None = None
        self._digest: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        """State that is pickled for a spawned worker: everything but this process's reader and lock."""
        own = ("_lock", "_reader", "_last", "_inherited")
        return {key: value for key, value in self.__dict__.items() if key not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin_process()

    def where(self, clip: str, frame: str) -> str:
        return f"{self.root}[{frame}]"

    def read(self, clip: str, frame: str, box: Box | None = None) -> np.ndarray:
        image = self._preloaded.get((clip, frame))
        image = self._frame(int(frame)) if image is None else image
        return image if box is None else box.of(image)

    def content(self, clip: str, frames: Iterable[str]) -> Iterator[bytes]:
        yield " ".join(frames).encode()
        if self._digest is None:  # read once, however many groups of frames are asked for
            self._digest = sha256_of(self.root)
        yield self._digest.encode()

    def _frame(self, number: int) -> np.ndarray:
        if self._process != os.getpid():
            # Kept, so that nothing closes it; its lock may have been held when the process forked.
            self._inherited = self._reader
            self._begin_process()
        with self._lock:
            if self._last is None or self._last[0] != number:
                place = -1 if self._last is None else self._last[0]
                if self._reader is None or number <= place:
                    self._reader, place = self._source.frames(number, self._source.length), number - 1
                for _ in range(number - place):
                    frame = next(self._reader)
                self._last = number, frame
            return self._last[1]

    def _encoded(self, clip: str, frame: str) -> bytes:
        """As PNG, which loses nothing."""
        return cv2.imencode(".png", cv2.cvtColor(self.read(clip, frame), cv2.COLOR_RGB2BGR))[1].tobytes()

    def _read_size(self, clip: str, frame: str) -> tuple[int, int]:
        height, width = self._frame(int(frame)).shape[:2]
        return height, width


def _fps(path: Path) -> float | None:
    """Frames per second that a file states; None where it states none."""
    capture = cv2.VideoCapture(str(path.absolute()))
    try:
        return capture.get(cv2.CAP_PROP_FPS) or None
    finally:
        capture.release()
