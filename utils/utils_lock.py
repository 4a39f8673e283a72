"""One process per folder: a lock that the system releases when its holder ends, however it ends.

    lock = FolderLock(experiment_dir)
    lock.acquire()          # UserError where another process holds it; names it

The file LOCK tells who holds, or last held, the folder. What counts is the system's lock on that file: a file that a
killed process has left is simply taken over. On a network drive the lock holds for all machines where the server
supports that; where it does not, a warning says so.
Test: `python -m pytest tests/utils/test_utils_lock.py`.
"""

import errno
import getpass
import logging
import os
import socket
import sys
from datetime import datetime
from pathlib import Path

from utils.user_error import UserError
from utils.utils_cli import without_secrets

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

NAME = "LOCK"
HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
# Windows forbids others to read what is locked, so a byte behind the text is.
LOCKED_BYTE = 1 << 20
logger = logging.getLogger(__name__)


class FolderLock:
    """The right to write into a folder; held until the process ends or `release`.

    Args:
        folder: made by `acquire` where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Takes the lock, or keeps it.

        Raises:
            UserError: another process holds it.
            OSError: the folder can't be written.
        """
        if self._descriptor is not None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(descriptor)
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                holder = os.read(descriptor, 1000).decode("utf-8", "replace").strip()
                os.close(descriptor)
                if error.errno not in HELD:
                    raise
                raise UserError(
                    f"{self.path.parent}: in use by {holder or 'another process'}; wait for it or end it, or choose "
                    "another folder (path.root or task; --output in tests)"
                ) from error
            logger.warning("%s: this drive has no locks; make sure that one run alone writes here", self.path.parent)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{_whoami()}\n".encode())
        self._descriptor = descriptor

    def release(self) -> None:
        """Lets others take the folder; the file stays."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _lock(descriptor: int) -> None:
    """Locks an open file or raises OSError at once.

    A POSIX record lock is the process's alone: unlike flock's, a loader's workers don't inherit it, so it is gone with
    its holder.
    """
    if sys.platform == "win32":
        os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _whoami() -> str:
    """This process, for people."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = f"user {os.getuid()}" if hasattr(os, "getuid") else "an unknown user"
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    command = " ".join(without_secrets(sys.argv))[:200]
    return f"process {os.getpid()} of {user} on {socket.gethostname()}, since {now}: {command}"
