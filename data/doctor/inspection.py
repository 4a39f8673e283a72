"""Inspects all files of a data set quickly, and reports faults in sentences.

`inspect_frames` reads the header and the end of every picture and decodes a few; `shared_pictures` finds test pictures
among the training ones. Checks of a data set's constructor (pairs, spike files, exposures) are not repeated here. Used
by `dataset_inspection.py` and `scripts/doctor.py`.
Test: `python -m pytest tests/scripts/test_doctor.py`.
"""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from data.frame_io import Frames
from data.picture_header import PictureHeader, read_header
from utils.user_error import UserError

DECODED = 24  # pictures of each root that are decoded whole: enough to find a systematic fault, in seconds
COPY_AGAIN = "copy or download the file again"  # remedy of several findings

Item = TypeVar("Item")


@dataclass(frozen=True)
class Finding:
    """A fault or notice.

    Attributes:
        kind: one or two words for lists: "damaged", "size", "leak".
        what: a sentence that names the file, clip or option.
        remedy: the remedy.
        serious: a run would fail or be trained on wrong data; False: a notice.
        clip: the clip, if its pictures can't be used.
    """

    kind: str
    what: str
    remedy: str
    serious: bool = True
    clip: str | None = None


def read_headers(frames: Frames) -> dict[tuple[str, str], PictureHeader]:
    """The header of every frame, by clip and frame."""
    headers = {}
    for clip, names in frames.clips.items():
        for name in names:
            with frames.open(clip, name) as file:
                headers[clip, name] = read_header(file)
    return headers


def inspect_frames(option: str, frames: Frames, headers: Mapping[tuple[str, str], PictureHeader]) -> Iterator[Finding]:
    """Finds faulty pictures of a root: damaged, not RGB, or of another size or depth than the rest of their clip.

    Args:
        option: the root's option, for messages.
        headers: from `read_headers`.
    """
    faulty = {key for key, header in headers.items() if header.fault}
    for clip, name in sorted(faulty):
        what = f"{option}: {frames.where(clip, name)}: {headers[clip, name].fault}"
        yield Finding("damaged", what, COPY_AGAIN, clip=clip)
    for clip, names in frames.clips.items():
        kinds = {name: _kind(headers[clip, name]) for name in names if (clip, name) not in faulty}
        sizes = Counter(kinds.values())
        if not sizes:
            continue
        (usual, _), *unusual = sizes.most_common()
        for size, count in unusual:
            odd = next(name for name, kind in kinds.items() if kind == size)
            yield Finding(
                "size",
                f"{option}: {frames.where(clip, odd)}: {size} pixels ({count} frames), but the clip has {usual}",
                "all frames of a clip need one size and depth: " + COPY_AGAIN,
                clip=clip,
            )
    sound = sorted(headers.keys() - faulty)
    for clip, name in random.Random(0).sample(sound, min(DECODED, len(sound))):
        try:
            frames.read(clip, name)
        except UserError as error:
            yield Finding("damaged", f"{option}: {error}", COPY_AGAIN, clip=clip)


def _kind(header: PictureHeader) -> str:
    """Size, and depth unless it is 8 bits, as text."""
    return f"{header.height}x{header.width}" + ("" if header.bits == 8 else f" {header.bits}-bit")


def shared_pictures(
    train: Mapping[tuple[str, str], PictureHeader], test: Mapping[tuple[str, str], PictureHeader]
) -> dict[tuple[str, str], tuple[str, list[str]]]:
    """Test clips that contain training pictures.

    Returns:
        (test clip, training clip) -> the training frame of one shared picture, and the names of the test frames.
    """
    known = {header.fingerprint: key for key, header in train.items() if not header.fault}
    shared: dict[tuple[str, str], tuple[str, list[str]]] = {}
    for (clip, frame), header in test.items():
        if not header.fault and header.fingerprint in known:
            train_clip, train_frame = known[header.fingerprint]
            shared.setdefault((clip, train_clip), (train_frame, []))[1].append(frame)
    return shared


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """Up to `count` items, spread evenly."""
    count = min(count, len(items))
    return [items[(2 * k + 1) * len(items) // (2 * count)] for k in range(count)]
