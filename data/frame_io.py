"""RGB frames by clip and name, from folders of images or from KAIR's LMDB files.

A root holds `<clip>/<frame>.png`; a clip is any folder below the root that contains images, and its name is its path
below the root. A root that contains images itself is one clip, with the folder's name.
An LMDB is a folder `X.lmdb` with `data.mdb` and `meta_info.txt` (lines `clip/frame.png (h,w,c) 1`); its keys are
`clip/frame`, its values encoded images.
Hidden files are skipped. Frames keep their integer type here: only crops are converted to float.
"""

import logging
import mmap
import os
import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from data.frames import Frames
from data.picture_crop import Box, Encoded
from data.picture_header import read_header
from data.preparations import remedies
from data.video_frames import VideoFrames
from utils.user_error import UserError
from utils.utils_file import check_relative, open_regular, read_bytes, read_text, walk_folders
from utils.utils_file import natural_order as natural_order
from utils.utils_image import PICTURE_SUFFIXES

LMDB_MAGIC = 0xBEEFC0DE  # MDB_MAGIC of lmdb's mdb.c
TILED_SUFFIXES = (".tif", ".tiff")  # formats with tiles, of which `picture_crop` reads only those of the crop
logger = logging.getLogger(__name__)


class FolderFrames(Frames):
    """Frames in folders of image files.

    Args:
        root: the data root.
        option: the root's option, for messages.
        filename_ext: extension of the frames without dot; None: any image.
        single_name: name of the clip if the root is a clip itself; None: the folder's name.
    """

    def __init__(
        self, root: Path, option: str, filename_ext: str | None = None, single_name: str | None = None
    ) -> None:
        super().__init__(root)
        if not root.is_dir():
            raise UserError(f"{option}: the folder {root} does not exist. {' '.join(remedies([root]))}")
        suffixes = PICTURE_SUFFIXES if filename_ext is None else (f".{filename_ext.lstrip('.').lower()}",)
        self._files: dict[str, dict[str, str]] = {}
        for folder, images in walk_folders(root, suffixes):
            if images:
                self._files[folder.relative_to(root).as_posix()] = _by_stem(images)
        if "." in self._files:
            if len(self._files) > 1:
                raise UserError(f"{option}: {root} holds both images and folders of images; move the images away.")
            self.single = single_name or os.path.basename(os.path.abspath(root))
            self._files = {self.single: self._files["."]}
        if not self._files:
            raise UserError(
                f"{option}: {root} holds no clip folders with {' '.join(suffixes)} files. The layout is "
                f"<folder>/<clip>/<frame>; `filename_ext` names the frames' extension. " + " ".join(remedies([root]))
            )
        self.clips = _in_order(self._files)

    def where(self, clip: str, frame: str) -> str:
        folder = self.root if self.single else self.root / clip
        return str(folder / self._files[clip][frame])

    def _encoded(self, clip: str, frame: str) -> bytes:
        return read_bytes(self.where(clip, frame))

    def _mapped(self, clip: str, frame: str) -> Encoded:
        path = self.where(clip, frame)
        if not path.lower().endswith(TILED_SUFFIXES):
            return self._encoded(clip, frame)
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size == 0:
                return b""
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def open(self, clip: str, frame: str) -> BinaryIO:
        return open_regular(self.where(clip, frame))

    def _read_size(self, clip: str, frame: str) -> tuple[int, int]:
        with self.open(clip, frame) as file:
            header = read_header(file)
        if not header.height:
            raise UserError(f"{self.where(clip, frame)}: {header.fault}; copy it again")
        return header.height, header.width


class LmdbFrames(Frames):
    """Frames in an LMDB, which every process opens at its first read."""

    def __init__(self, root: Path, option: str) -> None:
        super().__init__(root)
        meta = root / "meta_info.txt"
        if not (root / "data.mdb").is_file() or not meta.is_file():
            raise UserError(
                f"{option}: {root} is no LMDB folder (data.mdb and meta_info.txt); "
                f'folders of images are read with "io_backend": {{"type": "disk"}}. ' + " ".join(remedies([root]))
            )
        self._frame_sizes: dict[tuple[str, str], tuple[int, int]] = {}
        for number, line in enumerate(read_text(meta).splitlines(), 1):
            match = re.fullmatch(r"(.+)/([^/]+)\.\w+ \((\d{1,9}), ?(\d{1,9}), ?\d+\) \d+\s*", line)
            if match is None:
                raise UserError(f"{meta}, line {number}: {line!r} is not `clip/frame.png (h,w,c) 1`.")
            clip, frame = match[1], match[2]
            check_relative(f"{clip}/{frame}", f"{meta}, line {number}")
            self.clips.setdefault(clip, []).append(frame)
            self._frame_sizes[clip, frame] = int(match[3]), int(match[4])
        self.clips = _in_order(self.clips)

    def where(self, clip: str, frame: str) -> str:
        return f"{self.root}[{clip}/{frame}]"

    def _encoded(self, clip: str, frame: str) -> bytes:
        try:
            with _environment(os.path.realpath(self.root)).begin() as transaction:
                value = transaction.get(f"{clip}/{frame}".encode())
        except lmdb_module().Error as error:
            raise UserError(f"{self.where(clip, frame)}: {error}; copy or write the LMDB again") from error
        if value is None:
            raise UserError(f"{self.where(clip, frame)}: the key is in meta_info.txt but not in data.mdb.")
        return bytes(value)

    def _read_size(self, clip: str, frame: str) -> tuple[int, int]:
        return self._frame_sizes[clip, frame]


class FramesByOrder(Frames):
    """The frames of one root under the clip and frame names of another, matched in natural order.

    Args:
        frames: the root to read.
        names: the root with the names.
        option: the option of the first root, for messages.

    Raises:
        UserError: the numbers of clips or of a clip's frames differ.
    """

    def __init__(self, frames: Frames, names: Frames, option: str) -> None:
        super().__init__(frames.root)
        self._frames = frames
        counts = [(len(side.clips), str(side.root)) for side in (frames, names)]
        if counts[0][0] != counts[1][0]:
            told = ", ".join(f"{count} clips in {root}" for count, root in counts)
            raise UserError(f'{option}: {told}; pair_by "order" needs as many')
        self._own: dict[tuple[str, str], tuple[str, str]] = {}
        for (clip, own), (name, named) in zip(frames.clips.items(), names.clips.items(), strict=True):
            if len(own) != len(named):
                told = f"{len(own)} frames in {frames.root}/{clip}, {len(named)} in {names.root}/{name}"
                raise UserError(f'{option}: {told}; pair_by "order" needs as many')
            self._own |= {(name, frame): (clip, of_clip) for frame, of_clip in zip(named, own, strict=True)}
        self.clips = {clip: list(named) for clip, named in names.clips.items()}
        self.single, self.fps = names.single, frames.fps

    def where(self, clip: str, frame: str) -> str:
        return self._frames.where(*self._own[clip, frame])

    def _encoded(self, clip: str, frame: str) -> bytes:
        return self._frames._encoded(*self._own[clip, frame])

    def _mapped(self, clip: str, frame: str) -> Encoded:
        return self._frames._mapped(*self._own[clip, frame])

    def open(self, clip: str, frame: str) -> BinaryIO:
        return self._frames.open(*self._own[clip, frame])

    def read(self, clip: str, frame: str, box: Box | None = None) -> np.ndarray:
        return self._frames.read(*self._own[clip, frame], box)

    def _read_size(self, clip: str, frame: str) -> tuple[int, int]:
        return self._frames._read_size(*self._own[clip, frame])

    def preload(self, frames: Iterable[tuple[str, str]]) -> None:
        self._frames.preload(self._own[frame] for frame in frames)


def lmdb_module() -> Any:
    """The package lmdb.

    Raises:
        UserError: it is not installed.
    """
    try:
        import lmdb
    except ImportError as error:
        raise UserError('io_backend "lmdb" requires the package lmdb: pip install lmdb') from error
    return lmdb


def check_lmdb(path: Path) -> None:
    """Checks the size of a data.mdb against its newest meta page: reading past its end would end the process (SIGBUS).

    Layout: the first two pages are meta pages (LMDB 0.9, `MDB_meta` after a page header of 16 bytes).

    Raises:
        UserError: the file is no LMDB, or truncated.
    """
    with open_regular(path) as file:
        size, head = os.fstat(file.fileno()).st_size, file.read(64)
        page_size = struct.unpack_from("<I", head, 40)[0] if len(head) == 64 else 0
        pages = []
        for number in (0, 1):
            file.seek(number * page_size)
            meta = file.read(152)
            if len(meta) == 152 and struct.unpack_from("<I", meta, 16)[0] == LMDB_MAGIC:
                last_page, transaction = struct.unpack_from("<QQ", meta, 136)
                pages.append((transaction, last_page))
    if len(pages) < 2 or size < 2 * page_size:
        raise UserError(f"{path}: no LMDB, or the beginning of one; copy or write it again")
    needed = (max(pages)[1] + 1) * page_size
    if size < needed:
        raise UserError(f"{path}: cut short, {size} of {needed} bytes; copy or write the LMDB again")


_environments: dict[str, tuple[int, Any]] = {}


def _environment(root: str) -> Any:
    """The LMDB at `root`, opened once per process, as the library requires."""
    process, environment = _environments.get(root, (0, None))
    if process != os.getpid():
        if environment is not None:
            environment.close()  # an environment opened before a fork must not be used in the child
        check_lmdb(Path(root) / "data.mdb")
        environment = lmdb_module().open(root, readonly=True, lock=False, readahead=False, meminit=False)
        _environments[root] = os.getpid(), environment
    return environment


def open_frames(
    option: str,
    root: str,
    io_backend: dict[str, Any] | None = None,
    filename_ext: str | None = None,
    single_name: str | None = None,
) -> Frames:
    """Opens a data root: an LMDB if `io_backend` or the suffix `.lmdb` says so, a video if it is a file, else a folder.

    Raises:
        UserError: the root does not exist, or an unknown `io_backend`.
    """
    backend = (io_backend or {}).get("type", "disk")
    if backend not in ("disk", "lmdb"):
        raise UserError(f"io_backend.type: no backend is called {backend!r}. Choices: disk, lmdb.")
    path = Path(root).expanduser()
    if backend == "lmdb" or path.suffix == ".lmdb":
        return LmdbFrames(path, option)
    if path.is_file():
        return VideoFrames(path, option, single_name)
    return FolderFrames(path, option, filename_ext, single_name)


def _in_order(clips: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """Clips and their frames in natural order."""
    return {clip: sorted(clips[clip], key=natural_order) for clip in sorted(clips, key=natural_order)}


def _by_stem(files: Iterable[Path]) -> dict[str, str]:
    """File names by stem."""
    by_stem: dict[str, str] = {}
    for file in files:
        other = by_stem.setdefault(file.stem, file.name)
        if other != file.name:
            raise UserError(
                f"{file.parent}: {other} and {file.name} are the same frame; set `filename_ext` or remove one."
            )
    return by_stem
