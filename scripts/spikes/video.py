"""Writing gray videos, one picture after another: .mp4 (H.264), .gif, and spikling's .avi, which no browser plays."""

import itertools
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from utils.user_error import UserError
from utils.utils_video import VideoWriter

SUFFIXES = (".mp4", ".gif", ".avi")


def check_video_path(path: Path) -> None:
    """
    Raises:
        UserError: an ending that no format here has.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path}: videos are written as {', '.join(SUFFIXES)}")


def write_video(path: Path, pictures: Iterable[np.ndarray], fps: float = 30.0) -> tuple[int, int, int]:
    """Writes pictures (h, w) uint8.

    Args:
        path: .mp4, .gif or .avi, whose folder is made; it takes its name when all pictures are written.
        fps: pictures per second; a .gif rounds the time of a picture to 1/100 s.

    Returns:
        Pictures, height and width of the video: an .mp4 has even sides.

    Raises:
        UserError: unknown ending, no pictures, fps not above 0, or OpenCV has no such encoder here.
    """
    check_video_path(path)
    if not fps > 0:
        raise UserError(f"{fps} pictures per second: a number above 0 is needed")
    iterator = iter(pictures)
    first = next(iterator, None)
    if first is None:
        raise UserError(f"{path}: there is no picture to write")
    pictures = itertools.chain([first], iterator)
    if path.suffix.lower() == ".mp4":
        with VideoWriter(path, fps) as video:
            for picture in pictures:
                video.write(picture)
        return video.count, *video.size
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.part{path.suffix.lower()}")
    write = _write_gif if path.suffix.lower() == ".gif" else _write_avi
    try:
        count = write(temporary, pictures, fps, first.shape)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return count, first.shape[0], first.shape[1]


def _write_avi(path: Path, pictures: Iterable[np.ndarray], fps: float, size: tuple[int, ...]) -> int:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"XVID"), fps, (size[1], size[0]), isColor=False)
    if not writer.isOpened():
        raise UserError(f"{path}: this OpenCV has no XVID encoder; write an .mp4 or .gif")
    count = 0
    for picture in pictures:
        writer.write(picture)
        count += 1
    writer.release()
    return count


def _write_gif(path: Path, pictures: Iterable[np.ndarray], fps: float, size: tuple[int, ...]) -> int:
    counter = itertools.count()
    images = (Image.fromarray(picture) for picture, _ in zip(pictures, counter, strict=False))
    next(images).save(path, save_all=True, append_images=images, duration=max(10, round(1000 / fps)), loop=0)
    return next(counter)
