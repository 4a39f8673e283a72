"""Writes pictures as a video that browsers play: H.264 in an .mp4, completely or not at all.

    with VideoWriter(path, fps=25) as video:
        video.write(picture)

PyAV's packages include the encoder x264; OpenCV's include no H.264 encoder.
"""

import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import cv2
import numpy as np

from utils.utils_image import as_rgb

MOST_COLUMNS = 7680  # wider pictures are reduced, as H.264's levels end at 8192 columns
QUALITY = "18"  # x264's constant rate factor; 18 is considered visually lossless
COPIED_SOUND = ("aac", "mp3", "mp3float", "ac3", "opus")  # codecs that players support in an .mp4; others become AAC
RATE_DENOMINATOR = 1001  # largest denominator of frame rates: that of television's, such as 30000/1001


class VideoWriter:
    """Writes a video, which gets its name when the block ends without an error.

    Args:
        path: the .mp4 file; its folder is created.
        fps: frames per second.
        sound: a video whose first sound track is copied; None, or a video without one: no sound.
    """

    def __init__(self, path: Path, fps: float, sound: Path | None = None) -> None:
        self.path, self.fps, self.sound, self.count = path, fps, sound, 0
        self._temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
        self._size = (0, 0)
        self._container: Any = None
        self._stream: Any = None
        self._sound: _Sound | None = None

    def write(self, picture: np.ndarray) -> None:
        """Adds a picture, uint8 (H,W,3) RGB or (H,W), resized to the size of the first one.

        Raises:
            OSError: the file can't be written.
        """
        if self._container is None:
            self._open(picture.shape[0], picture.shape[1])
        rgb = as_rgb(picture)
        if (rgb.shape[1], rgb.shape[0]) != (self._stream.width, self._stream.height):
            rgb = cv2.resize(rgb, (self._stream.width, self._stream.height), interpolation=cv2.INTER_AREA)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        # Convert by BT.709, the convention for large pictures; `_open` tags the file with it, as browsers need.
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
        self._container.mux(self._stream.encode(frame))
        self.count += 1

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the video in pixels, even numbers; (0, 0) before the first picture."""
        return self._size

    def _open(self, height: int, width: int) -> None:
        factor = min(1.0, MOST_COLUMNS / width)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # faststart puts the index first, so that a browser can play before it has read the whole file.
        self._container = av.open(str(self._temporary), "w", options={"movflags": "+faststart"})
        rate = Fraction(self.fps).limit_denominator(RATE_DENOMINATOR)
        self._stream = self._container.add_stream("libx264", rate=rate, options={"crf": QUALITY})
        # yuv420p has colours at half the resolution, so both sides must be even.
        self._stream.width = max(2, round(width * factor) // 2 * 2)
        self._stream.height = max(2, round(height * factor) // 2 * 2)
        self._size = self._stream.height, self._stream.width
        self._stream.pix_fmt = "yuv420p"  # the format that every player decodes
        bt709 = 1  # of ITU-T H.273
        codec = self._stream.codec_context
        codec.color_primaries = codec.color_trc = codec.colorspace = bt709
        if self.sound is not None:
            self._sound = _Sound.of(self.sound, self._container)

    def close(self) -> None:
        """Finishes the video and gives the file its name.

        Raises:
            OSError: the file can't be written, for example on a full disk; no partial file remains.
        """
        if self._container is None:
            return
        try:
            self._container.mux(self._stream.encode())
            if self._sound is not None:
                self._sound.write(seconds=self.count / self.fps)
            self._container.close()
        except BaseException:
            self.discard()
            raise
        self._container = None
        os.replace(self._temporary, self.path)

    def discard(self) -> None:
        """Removes the unfinished file."""
        if self._container is not None:
            try:
                self._container.close()
            except OSError:  # the disk is full, which the caller's exception reports already
                pass
            self._container = None
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


class _Sound:
    """Copies the first sound track of a file into another container."""

    def __init__(self, path: Path, container: Any) -> None:
        self._path, self._container = path, container
        with av.open(str(path)) as source:
            template = source.streams.audio[0]
            self._copies = template.codec_context.name in COPIED_SOUND
            self._stream: Any = (
                container.add_stream_from_template(template)
                if self._copies
                else container.add_stream("aac", rate=template.codec_context.sample_rate)
            )

    @classmethod
    def of(cls, path: Path, container: Any) -> "_Sound | None":
        """The sound of a video; None without a sound track."""
        with av.open(str(path)) as source:
            if not source.streams.audio:
                return None
        return cls(path, container)

    def write(self, seconds: float) -> None:
        """Writes the sound of the first `seconds`."""
        with av.open(str(self._path)) as source:
            track = source.streams.audio[0]
            for packet in source.demux(track):
                if packet.pts is None or packet.time_base is None or packet.pts * packet.time_base >= seconds:
                    continue
                if self._copies:
                    packet.stream = self._stream
                    self._container.mux(packet)
                    continue
                for frame in packet.decode():
                    self._container.mux(self._stream.encode(frame))
            if not self._copies:
                self._container.mux(self._stream.encode())
