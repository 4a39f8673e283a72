"""Writes, lists and reads files.

Files are written completely or not at all: under a temporary name, flushed to the disk, then renamed. Folders are
listed in natural order, without hidden files; an unreadable folder or broken link is an error, so that no file of a
data set is silently skipped. Errors of reading name the file and the fault in one line.
Test: `python -m pytest tests/utils/test_utils_file.py`.
"""

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO

from utils.user_error import UserError

CHECK = "check the path and its permissions"  # remedy in several messages


@contextmanager
def atomic_write(path: Path | str, mode: str = "w") -> Iterator[IO[Any]]:
    """Opens a file for writing, which gets its name only when the block ends without an error.

    Args:
        path: the file; its folder is created if missing.
        mode: "w" for UTF-8 text, "wb" for bytes.

    Raises:
        OSError: the disk is full or the folder can't be written; an existing file is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, mode, **({} if "b" in mode else {"encoding": "utf-8", "newline": ""})) as file:  # type: ignore[call-overload]
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_stale(folder: Path | str) -> None:
    """Removes temporary files of ended processes below a folder: `.<name>.<process>.tmp<ending>`."""
    for path in Path(folder).rglob(".*.tmp*"):
        match = re.fullmatch(r"\..+\.(\d+)\.tmp(\.\w+)?", path.name)
        if match and path.is_file() and not _is_alive(int(match[1])):
            path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    """Whether a process with this number is running."""
    if os.name != "posix":
        return True  # os.kill would end the process on Windows
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def sha256_of(path: Path | str) -> str:
    """SHA-256 of a file, in hexadecimal; raises the errors of `open_regular`."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def digest_file(path: Path | str) -> Path:
    """Path of the file with a file's SHA-256, beside it and in `sha256sum`'s format."""
    return Path(f"{path}.sha256")


def write_sha256(path: Path | str, digest: str) -> None:
    """Writes a file's SHA-256 beside it."""
    with atomic_write(digest_file(path)) as file:
        file.write(f"{digest}  {Path(path).name}\n")


def check_sha256(path: Path | str) -> None:
    """Compares a file with the SHA-256 beside it, if there is one.

    Raises:
        UserError: they differ.
    """
    beside = digest_file(path)
    if not beside.is_file():
        return
    expected, found = read_text(beside).split(), sha256_of(path)
    if not expected or found != expected[0].lower():
        raise UserError(f"{path}: its SHA-256 is {found}, not as in {beside}; remove both and download it again")


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Sorting key that puts `2` before `10` and keeps zero-padded names in order."""
    parts = re.split(r"([0-9]+)", name)
    return [(1, int(part), part) if index % 2 else (0, 0, part) for index, part in enumerate(parts)]


def list_folder(folder: Path | str, suffixes: Sequence[str] | None = None) -> list[Path]:
    """Entries of a folder in natural order, without hidden ones.

    Args:
        suffixes: list only files with these lower-case suffixes (".png"), in any case; None: all entries.

    Raises:
        UserError: the folder can't be listed, or contains a broken link; the message names it.
    """
    folder = Path(folder)
    try:
        entries = [folder / name for name in os.listdir(folder) if not name.startswith(".")]
        broken = [entry for entry in entries if entry.is_symlink() and not entry.exists()]
    except OSError as error:
        raise UserError(f"{folder}: the folder can't be listed ({error.strerror}); {CHECK}") from error
    if broken:
        entry = min(broken, key=lambda path: natural_order(path.name))
        raise UserError(
            f"{entry}: a link to {os.readlink(entry)}, which does not exist ({len(broken)} such links in this folder); "
            "move its target back, or prepare the data again where they are now"
        )
    if suffixes is not None:
        endings = tuple(suffixes)
        entries = [entry for entry in entries if entry.name.lower().endswith(endings) and not entry.is_dir()]
    return sorted(entries, key=lambda path: natural_order(path.name))


def walk_folders(root: Path | str, suffixes: Sequence[str]) -> Iterator[tuple[Path, list[Path]]]:
    """`root` and all folders below it, links followed, each with its files of these suffixes, in natural order.

    Raises:
        UserError: as `list_folder`; or a link leads back to a folder above it.
    """

    def below(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[Path, list[Path]]]:
        entries, endings, status = list_folder(folder), tuple(suffixes), folder.stat()
        own = status.st_dev, status.st_ino
        if own in above:
            raise UserError(f"{folder}: a link back to a folder that it lies in; remove it")
        folders = [entry for entry in entries if entry.is_dir()]
        yield folder, [entry for entry in entries if entry.name.lower().endswith(endings) and not entry.is_dir()]
        for subfolder in folders:
            yield from below(subfolder, (*above, own))

    yield from below(Path(root), ())


def find_files(root: Path | str, suffixes: Sequence[str]) -> list[Path]:
    """All files below a folder with these suffixes, in the order of `walk_folders`; [] if there is no folder."""
    if not Path(root).is_dir():
        return []
    return [file for _, files in walk_folders(root, suffixes) for file in files]


def open_regular(path: Path | str) -> BinaryIO:
    """Opens a file for reading bytes, without Python's buffer.

    Raises:
        UserError: it is missing, unreadable, or no regular file (opening a pipe would wait for ever).
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UserError(f"{path}: a folder, a pipe or a device where a file is needed; {CHECK}")
        return open(path, "rb", buffering=0)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {CHECK}") from error


def read_bytes(path: Path | str) -> bytes:
    """A file's content; raises the errors of `open_regular`."""
    with open_regular(path) as file:
        try:
            return file.read()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); copy it again") from error


def read_text(path: Path | str) -> str:
    """A text file in UTF-8, with or without a byte-order mark.

    Raises:
        UserError: as `open_regular`, or another encoding.
    """
    content = read_bytes(path)
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: no text in UTF-8 (byte {error.start}); save it again as UTF-8, or copy it again"
        ) from error


def read_json(path: Path | str) -> Any:
    """The value in a JSON file.

    Raises:
        UserError: as `read_text`, not JSON, nested too deeply, or an integer with too many digits.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except RecursionError as error:
        raise UserError(f"{path}: nested too deeply to be read as JSON; write it again") from error
    except ValueError as error:
        raise UserError(f"{path}: not readable as JSON ({error}); write it again") from error


def read_yaml(path: Path | str) -> Any:
    """The value in a small YAML file; aliases are refused, as they could expand to more than memory holds.

    Raises:
        UserError: as `read_text`, not YAML, or an invalid value (`!!int abc`, an impossible date).
    """
    import yaml  # slow to import, and most files here are JSON

    class WithoutAliases(yaml.SafeLoader):
        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            if self.check_event(yaml.AliasEvent):
                raise ValueError("it has aliases (*name); write the values out")
            return super().compose_node(parent, index)

        def fetch_flow_collection_start(self, TokenClass: type) -> None:
            if self.flow_level > 50:  # the scanner's time grows with the square of the levels
                raise ValueError("it is nested too deeply")
            super().fetch_flow_collection_start(TokenClass)

    text = read_text(path)
    try:
        return yaml.load(text, WithoutAliases)
    except Exception as error:  # constructors of YAML's types raise exceptions of any type
        reason = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise UserError(f"{path}: not readable as YAML ({reason}); write it again") from error


def check_relative(name: str, where: Path | str) -> str:
    """Returns the name of a clip or frame after checking that its path stays inside the folder of all clips.

    Args:
        name: `name` or `a/b`.
        where: the file that lists it, for the message.

    Raises:
        UserError: the name is empty, absolute, or has parts such as `..`.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or "\\" in name or "\0" in name or {"..", "."} & set(name.split("/")):
        raise UserError(f"{where}: the name {name!r} leads out of the folder; a clip or frame is `name` or `a/b`")
    return name
