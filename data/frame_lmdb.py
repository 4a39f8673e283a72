"""Writes an LMDB in KAIR's layout from folders of frames; `frame_io.LmdbFrames` reads it.

    X.lmdb/data.mdb         key "clip/frame", value the unchanged bytes of the picture file
    X.lmdb/meta_info.txt    a line "clip/frame.png (h,w,c) 1" for each

KAIR encodes JPEGs again as PNG and holds all frames in memory; here bytes are copied, one frame at a time.
"""

import os
import shutil
from pathlib import Path
from typing import Any

from data.frame_io import FolderFrames, LmdbFrames, lmdb_module
from data.picture_header import read_header
from utils.user_error import UserError
from utils.utils_progress import track

FRAMES_PER_TRANSACTION = 256  # limits the memory, as a transaction's pages stay in memory until it is committed
ROOM = 1.2  # upper bound of the database's size over the stored bytes, each value rounded up to a page


def lmdb_is_complete(path: Path, frames: FolderFrames) -> bool:
    """Whether `path` is an LMDB of exactly these frames."""
    if not (path / "data.mdb").is_file() or not (path / "meta_info.txt").is_file():
        return False
    return LmdbFrames(path, str(path)).clips == frames.clips


def write_lmdb(path: Path, frames: FolderFrames) -> None:
    """Writes the LMDB completely or not at all; it replaces an existing one.

    Raises:
        UserError: a frame can't be read.
    """
    half_made = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(half_made, ignore_errors=True)
    keys = [(clip, frame) for clip, names in frames.clips.items() for frame in names]
    sizes = [Path(frames.where(*key)).stat().st_size for key in keys]
    room = int(ROOM * sum(size + 4096 for size in sizes)) + 2**20
    try:
        half_made.mkdir(parents=True)
        with lmdb_module().open(str(half_made), map_size=room) as environment:
            lines = []
            begins = range(0, len(keys), FRAMES_PER_TRANSACTION)
            for begin in track(begins, len(begins), f"writing {path.name}", "transaction"):
                with environment.begin(write=True) as transaction:
                    for clip, frame in keys[begin : begin + FRAMES_PER_TRANSACTION]:
                        lines.append(_put(transaction, frames, clip, frame))
        (half_made / "meta_info.txt").write_text("".join(lines), encoding="utf-8")
        shutil.rmtree(path, ignore_errors=True)
        half_made.rename(path)
    finally:
        shutil.rmtree(half_made, ignore_errors=True)


def _put(transaction: Any, frames: FolderFrames, clip: str, frame: str) -> str:
    """Stores a frame; returns its line of meta_info.txt."""
    with frames.open(clip, frame) as file:
        header = read_header(file)
        file.seek(0)
        content = file.read()
    where = frames.where(clip, frame)
    if header.fault:
        raise UserError(f"{where}: {header.fault}; copy it again")
    transaction.put(f"{clip}/{frame}".encode(), content)
    return f"{clip}/{frame}{Path(where).suffix} ({header.height},{header.width},3) 1\n"
