"""Locks a folder for one process; the system releases the lock when the process ends, also by a crash.

    lock = FolderLock(experiment_dir)
    lock.acquire()          # UserError, naming the holder, if another process has locked the folder

The file LOCK names the process that has, or last had, the lock. The lock itself is the system's lock on that file, so a
file left by a killed process does not lock the folder. On a network drive the lock is valid for all machines if the
server supports that; otherwise a warning is logged.
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

NAME = "LOCK"  # of the file in the folder
HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)  # errors of a lock held by another process: POSIX and Windows
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # errors of drives without locks
# Windows lets no other process read a locked byte, so lock one after the text.
LOCKED_BYTE = 1 << 20
logger = logging.getLogger(__name__)


class FolderLock:
    """The exclusive right to write into a folder, until `release` or the end of the process.

    Args:
        folder: created by `acquire` if missing.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Takes the lock; does nothing if this object already has it.

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
        """Releases the lock; the file remains."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _lock(descriptor: int) -> None:
    """Locks an open file, or raises OSError without waiting.

    A POSIX record lock belongs to the process. A loader's workers don't inherit it, unlike flock's, so it ends with the
    process even if they survive.
    """
    if sys.platform == "win32":
        os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _whoami() -> str:
    """Number, user, machine, start and command of this process, for the file and for messages."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = f"user {os.getuid()}" if hasattr(os, "getuid") else "an unknown user"
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    command = " ".join(without_secrets(sys.argv))[:200]
    return f"process {os.getpid()} of {user} on {socket.gethostname()}, since {now}: {command}"
