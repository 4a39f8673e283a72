"""Files that are there and can't be read: a pipe, a folder, a link that leads nowhere, no permission; of every kind.

Each ends in one message that names the file (`user_message`), at once: opening a pipe would wait for its other end.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.test_fuzz import KINDS, limited
from utils.user_error import UserError
from utils.utils_cli import user_message

NOBODY = 65534


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent / "nowhere")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def forbidden(path: Path) -> None:
    path.chmod(0)


# Made anew where they can't be read, or a note of which nothing depends.
MADE_ANEW = ("cached_array", "skipped_steps", "best")


@pytest.mark.parametrize("spoil", [pipe, folder, dangling, empty, forbidden], ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("name", [name for name in KINDS if name not in MADE_ANEW])
def test_one_line(name: str, spoil: Callable[[Path], None]) -> None:
    if spoil is forbidden and os.name != "posix":
        pytest.skip("permissions are another thing on this system")
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        sound = KINDS[name](Path(place))
        spoil(sound.file)
        root = os.geteuid() == 0
        if spoil is forbidden and root:
            os.seteuid(NOBODY)
        try:
            with limited(f"{name}, {spoil.__name__}"):
                answer = sound.read()
        except (UserError, OSError) as error:
            told = user_message(error)
            assert told is not None and place in told, f"{name}, {spoil.__name__}: {error!r}"
        else:
            # An empty file may be sound: a config.yaml without geometry, no line of an option file's base.
            assert spoil is empty and not sound.checked, f"{name}, {spoil.__name__}: read as {answer!r:.100}"
        finally:
            os.seteuid(0) if root else None
            if spoil is forbidden:
                sound.file.chmod(0o644)
