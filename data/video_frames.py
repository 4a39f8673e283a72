"""A video file (mp4, avi, mov, mkv) as a data root with one clip, named like the file; frames 000000, 000001, ...

Reading in order decodes every frame once; reading an earlier frame decodes from the beginning again, because seeking is
inexact in many files.

Every process has its own decoder. A decoder inherited by a fork lacks its threads, and closing it would wait for them
for ever, so it is never closed.
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

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".m4v", ".webm")  # containers that OpenCV's FFmpeg reads


class VideoFrames(Frames):
    """The frames of a video file.

    Args:
        root: the file.
        option: the root's option, for messages.
        single_name: name of the clip; None: the file's name without suffix.

    Attributes:
        fps: frames per second stated in the file.

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
        """Resets the reader's state for the current process."""
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._reader: Iterator[np.ndarray] | None = None
        self._last: tuple[int, np.ndarray] | None = None
        self._digest: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        """State to pickle for a spawned worker: without this process's reader and lock."""
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
        if self._digest is None:  # computed once for all groups of frames
            self._digest = sha256_of(self.root)
        yield self._digest.encode()

    def _frame(self, number: int) -> np.ndarray:
        if self._process != os.getpid():
            # Keep a reference to the inherited reader, so that it is never closed. The lock is replaced too, as it may
            # have been held at the fork.
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
        """The frame as PNG, which is lossless."""
        return cv2.imencode(".png", cv2.cvtColor(self.read(clip, frame), cv2.COLOR_RGB2BGR))[1].tobytes()

    def _read_size(self, clip: str, frame: str) -> tuple[int, int]:
        height, width = self._frame(int(frame)).shape[:2]
        return height, width


def _fps(path: Path) -> float | None:
    """Frames per second stated in a file; None if there are none."""
    capture = cv2.VideoCapture(str(path.absolute()))
    try:
        return capture.get(cv2.CAP_PROP_FPS) or None
    finally:
        capture.release()
