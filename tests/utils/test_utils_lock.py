"""One process per folder: another is refused by name; what a killed holder leaves is taken over."""

import multiprocessing
import os
import socket
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from utils.user_error import UserError
from utils.utils_lock import FolderLock


def hold(folder: Path, pipe: Connection) -> None:
    FolderLock(folder).acquire()
    pipe.send(os.getpid())
    pipe.recv()


def test_a_second_process_is_refused_until_the_first_has_died(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    holder = context.Process(target=hold, args=(tmp_path / "run", theirs))
    holder.start()
    try:
        pid = ours.recv()
        with pytest.raises(UserError) as refused:
            FolderLock(tmp_path / "run").acquire()
        for part in (tmp_path / "run", f"in use by process {pid} of ", f" on {socket.gethostname()}, since "):
            assert str(part) in str(refused.value)
    finally:
        holder.kill()
        holder.join()
    assert f"process {pid}" in (tmp_path / "run" / "LOCK").read_text()
    lock = FolderLock(tmp_path / "run")
    lock.acquire()
    lock.acquire()  # keeps it
    assert f"process {os.getpid()}" in (tmp_path / "run" / "LOCK").read_text()
    lock.release()


def test_a_fork_does_not_keep_the_lock(tmp_path: Path) -> None:
    """Loaders' workers outlive their process by seconds."""
    context = multiprocessing.get_context("fork")
    lock = FolderLock(tmp_path)
    lock.acquire()
    ours, theirs = context.Pipe()
    worker = context.Process(target=theirs.recv)
    worker.start()
    lock.release()
    try:
        other = context.Process(target=hold, args=(tmp_path, theirs))
        other.start()
        assert ours.poll(30) and ours.recv() == other.pid
    finally:
        for process in (worker, other):
            process.kill()
            process.join()
