"""Pictures: read and write RGB files, turn tensors into pictures, put pictures side by side under titles.

A picture is a uint8 array, (H,W,3) in RGB order or (H,W) gray. Frames of clips may be uint16; `to_8_bits` shows them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from utils.picture_checks import check_picture
from utils.user_error import UserError
from utils.utils_file import atomic_write, read_bytes

if TYPE_CHECKING:  # importing torch takes seconds, and reading pictures does not need it
    from torch import Tensor

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")  # formats that OpenCV and Pillow read
DEEP_SUFFIXES = (".png", ".tif", ".tiff")  # formats that can have 16 bits per channel
TITLE_HEIGHT = 24  # pixels of the strip above a panel's pictures: one line of text at OpenCV's size 0.5
GAP = 4  # pixels between a panel's pictures
CROP_STEP = 8  # stride in pixels of the search for a crop: fine enough for a crop of tens of pixels


def imread_rgb(path: str | Path) -> np.ndarray:
    """Reads a picture file as uint8 (H,W,3) RGB; accepts what `decode_rgb` accepts.

    Raises:
        UserError: the file is missing, damaged, or not an 8-bit picture; the message names it.
    """
    return decode_rgb(read_bytes(path), str(path))


def decode_rgb(content: bytes, name: str, most_bits: int = 8) -> np.ndarray:
    """Decodes the bytes of a picture file (PNG, JPEG, ...) as (H,W,3) RGB: uint8, or uint16 with 16 bits per channel.

    Gray becomes three equal channels, and a completely opaque alpha channel is dropped; both are lossless. Pixels are
    returned as stored: a camera's EXIF rotation is not applied.

    Args:
        content: the file's bytes.
        name: file name or key, for messages.
        most_bits: per channel, 8 or 16.

    Raises:
        UserError: damaged or cut short, more bits per channel, partly transparent, or larger than `MOST_PIXELS`.
    """
    size = check_picture(content, name, most_bits=most_bits)
    try:
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise UserError(f"{name}: not a readable picture ({error.err}); copy it again") from error
    if picture is None or picture.shape[:2] != size:
        raise UserError(f"{name}: not a readable picture ({len(content)} bytes; damaged or cut short?); copy it again")
    if picture.dtype not in (np.uint8, np.uint16) or 8 * picture.itemsize > most_bits:
        raise UserError(
            f"{name}: {picture.dtype} pixels; only {most_bits} bits per channel are supported, convert it first"
        )
    if picture.ndim == 2:
        return cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB)
    if picture.shape[2] == 4:
        if picture[..., 3].min() < 2 ** (8 * picture.itemsize) - 1:
            raise UserError(f"{name}: partly transparent; flatten it to RGB first")
        return cv2.cvtColor(picture, cv2.COLOR_BGRA2RGB)
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def imwrite_rgb(path: str | Path, picture: np.ndarray, quality: int = 95) -> None:
    """Writes a picture in the format of the path's suffix (.png is lossless), completely or not at all.

    Args:
        path: the file; its folder is created.
        picture: uint8 (H,W,3) RGB or (H,W) gray; uint16 (H,W,3) as .png or .tif.
        quality: of a JPEG, 0 to 100; 95 is OpenCV's default.

    Raises:
        ValueError: not a picture.
        UserError: a suffix without a known format.
        OSError: the disk is full or the folder can't be written; no partial file remains.
    """
    suffix = Path(path).suffix.lower()
    deep = picture.dtype == np.uint16 and suffix in DEEP_SUFFIXES
    rgb = picture if deep else as_rgb(picture)
    if not suffix or not cv2.haveImageWriter(f"picture{suffix}"):
        raise UserError(f"{path}: no picture format has the ending {suffix!r}; use .png, .jpg, .bmp or .tif")
    stored = picture if picture.ndim == 2 else cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix in (".jpg", ".jpeg") else []
    encoded, content = cv2.imencode(suffix, stored, settings)
    assert encoded, f"{path}: {stored.shape} could not be encoded as {suffix}"
    with atomic_write(path, "wb") as file:
        file.write(content.tobytes())


def tensor2uint(tensor: "Tensor", bits: int = 8) -> np.ndarray:
    """A float picture (C,H,W) in [0,1], RGB, as integers: (H,W,3) for C = 3, (H,W) for C = 1.

    Args:
        bits: 8 or 16: values are clamped, multiplied by 255 or 65535 and rounded, to uint8 or uint16.

    Raises:
        ValueError: another shape.
        UserError: NaN among the values.
    """
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3):
        raise ValueError(f"a picture is a tensor (3,H,W) or (1,H,W), not {tuple(tensor.shape)}")
    values = tensor.detach().float().cpu()
    if values.isnan().any():
        raise UserError("a picture has values that are not numbers (NaN); the network or its input is broken")
    # In float32, as KAIR; torch and numpy both round halves to even, so that the results are equal.
    picture = values.clamp(0, 1).mul(2**bits - 1).round().numpy().astype(f"uint{bits}")
    return np.ascontiguousarray(picture.transpose(1, 2, 0)) if len(picture) == 3 else picture[0]


def to_8_bits(picture: np.ndarray) -> np.ndarray:
    """A uint8 or uint16 picture as uint8: 65535 becomes 255, the rest is rounded."""
    return picture if picture.dtype == np.uint8 else ((picture.astype(np.uint32) + 128) // 257).astype(np.uint8)


def as_rgb(picture: np.ndarray) -> np.ndarray:
    """A uint8 picture, (H,W,3), (H,W,1) or (H,W), as (H,W,3).

    Raises:
        ValueError: not such an array, or an empty one.
    """
    shaped = picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] in (1, 3))
    if picture.dtype != np.uint8 or not shaped or picture.size == 0:
        raise ValueError(f"a picture is uint8 (H,W,3) RGB or (H,W) gray, not {picture.dtype} {picture.shape}")
    if picture.ndim == 3 and picture.shape[2] == 3:
        return picture
    return np.repeat(picture.reshape(*picture.shape[:2], 1), 3, axis=2)


def panel(pictures: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
    """Pictures side by side, each under its title on black: input | spikes | restored | sharp.

    Smaller pictures are enlarged to the largest height by repeating pixels, so that no spike pixel is interpolated.

    Args:
        pictures: titles (ASCII; long ones in a smaller font) and uint8 pictures (H,W,3) or (H,W).

    Returns:
        uint8 (H + strip, W', 3) RGB.

    Raises:
        ValueError: an empty list, or an array that is not a picture.
    """
    if not pictures:
        raise ValueError("a panel needs at least one picture")
    height = max(picture.shape[0] for _, picture in pictures)
    columns = [_titled(title, _enlarged(as_rgb(picture), height)) for title, picture in pictures]
    gap = np.zeros((height + TITLE_HEIGHT, GAP, 3), np.uint8)
    parts = [part for column in columns for part in (gap, column)][1:]
    return np.concatenate(parts, axis=1)


def most_different(first: np.ndarray, second: np.ndarray, side: int) -> tuple[int, int, int, int]:
    """Top, left, height, width of the box (sides up to `side` pixels) in which two RGB pictures differ most."""
    error = np.abs(first.astype(np.float64) - second).mean(axis=2)
    height, width = (min(side, size) for size in error.shape)
    total = cv2.integral(error)
    places = [
        (top, left)
        for top in range(0, error.shape[0] - height + 1, CROP_STEP)
        for left in range(0, error.shape[1] - width + 1, CROP_STEP)
    ]

    def inside(place: tuple[int, int]) -> float:
        top, left = place
        bottom, right = top + height, left + width
        return float(total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left])

    top, left = max(places, key=inside)
    return top, left, height, width


def _enlarged(picture: np.ndarray, height: int) -> np.ndarray:
    """A picture resized to a height by nearest neighbour, with its aspect ratio."""
    if picture.shape[0] == height:
        return picture
    width = max(1, round(picture.shape[1] * height / picture.shape[0]))
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)


def _titled(title: str, picture: np.ndarray) -> np.ndarray:
    """A picture under a strip with its title, in the largest font that fits."""
    strip = np.zeros((TITLE_HEIGHT, picture.shape[1], 3), np.uint8)
    font, thickness = cv2.FONT_HERSHEY_SIMPLEX, 1
    (width, _), _ = cv2.getTextSize(title, font, 1.0, thickness)
    size = min(0.5, (picture.shape[1] - 4) / max(width, 1))
    if size > 0:
        cv2.putText(strip, title, (2, TITLE_HEIGHT - 8), font, size, (255, 255, 255), thickness, cv2.LINE_AA)
    return np.concatenate([strip, picture])
