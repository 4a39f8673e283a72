"""Batches of a `DataLoader`, and what can go wrong on their way, each told in one line.

A sample that can't be read comes from its worker as a value: an exception would arrive as the text of a traceback.
That a worker has died is noticed when its batch is due, never in the middle of a step or a save, where PyTorch's
handler of SIGCHLD would raise. So the state of a training is whole whenever `next` raises, and can be saved.

    batches = Batches(DataLoader(Reported(dataset), collate_fn=collate, ...))
    with closing(batches):
        batch = next(batches)

Test: `python -m pytest tests/data/test_loader.py`.
"""

import shutil
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset, default_collate
from torch.utils.data._utils import signal_handling

from utils.user_error import UserError
from utils.utils_cli import user_message

SHARED_MEMORY = Path("/dev/shm")
SHARED_MEMORY_REMEDY = (
    "give the container more (docker run --shm-size=8g or --ipc=host), or lower datasets.train.dataloader_num_workers, "
    "dataloader_prefetch_factor or dataloader_batch_size"
)


@dataclass(frozen=True)
class Unreadable:
    """In the place of a sample or a batch: what is wrong, for the user."""

    message: str


class Reported(Dataset[Any]):
    """A data set whose samples are `Unreadable` where the files are at fault; other errors pass."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        try:
            return self.dataset[index]
        except (UserError, OSError) as error:
            message = user_message(error)
            if message is None:
                raise
            return Unreadable(message)


def collate(samples: Sequence[Any]) -> Any:
    """The samples as one batch, or the first `Unreadable` among them."""
    unreadable = next((sample for sample in samples if isinstance(sample, Unreadable)), None)
    if unreadable is not None:
        return unreadable
    try:
        return default_collate(list(samples))
    except RuntimeError as error:
        if "/torch_" not in str(error):  # the name of PyTorch's files of shared memory
            raise
        return Unreadable(f"{shared_memory()} can't hold a worker's batches ({error}); {SHARED_MEMORY_REMEDY}")


def _is_pytorchs(handler: Any) -> bool:
    """Whether a signal's handler is the one that PyTorch installs with the first loader that has workers."""
    return getattr(handler, "__module__", None) == signal_handling.__name__


class Batches(Iterator[Any]):
    """One batch after another; to be closed.

    Args:
        loader: over a `Reported` data set, with `collate`.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        heeded = getattr(signal, "SIGCHLD", None)
        before = None if heeded is None else signal.getsignal(heeded)
        self._iterator: Iterator[Any] = iter(loader)
        if heeded is not None and _is_pytorchs(signal.getsignal(heeded)):
            # Of an earlier loader of this process, if it was there before.
            signal.signal(heeded, signal.SIG_DFL if _is_pytorchs(before) else before)
        self.workers: list[Any] = list(getattr(self._iterator, "_workers", []))

    def __next__(self) -> Any:
        """
        Raises:
            UserError: a sample can't be read, or a worker has died; the message says which.
        """
        try:
            batch = next(self._iterator)
        except RuntimeError as error:
            codes = {worker.exitcode for worker in self.workers} - {None, 0}
            if not codes:
                raise
            raise UserError(_epitaph(min(codes))) from error
        if isinstance(batch, Unreadable):
            raise UserError(batch.message)
        return batch

    def close(self) -> None:
        """Ends the workers, also those that hang in a read."""
        self._iterator = iter(())
        for worker in self.workers:
            if worker.is_alive():
                worker.kill()
                worker.join()


def shared_memory() -> str:
    """The place through which workers send batches, and how large it is."""
    if not SHARED_MEMORY.is_dir():
        return "the shared memory"
    usage = shutil.disk_usage(SHARED_MEMORY)
    return f"{SHARED_MEMORY} ({usage.total / 2**20:.0f} MiB, {usage.free / 2**20:.0f} free)"


def _epitaph(code: int) -> str:
    """Explains the exit code of a worker that died."""
    if code >= 0:
        return f"A worker that reads data ended with code {code}; what it said stands above"
    name = signal.Signals(-code).name
    if name == "SIGBUS":
        return (
            f"A worker that reads data was ended by {name}: {shared_memory()} is too small for its batches, or a file "
            f"became shorter while it was read; {SHARED_MEMORY_REMEDY}"
        )
    return (
        f"A worker that reads data was ended by {name}; after SIGKILL look whether memory ran out (dmesg), and lower "
        "datasets.train.dataloader_num_workers or set cache_data to false"
    )
