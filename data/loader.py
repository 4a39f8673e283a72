"""Batches of a `DataLoader`, with one-line messages for unreadable samples and ended workers.

A worker returns an unreadable sample as a value, because an exception would arrive as the text of a traceback. An ended
worker is reported when its batch is due, not by PyTorch's handler of SIGCHLD, which would raise in the middle of a step
or a save. So when `next` raises, the state of the training is consistent and can be saved.

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

SHARED_MEMORY = Path("/dev/shm")  # Linux's shared memory, through which workers send batches
SHARED_MEMORY_REMEDY = (  # part of two messages
    "give the container more (docker run --shm-size=8g or --ipc=host), or lower datasets.train.dataloader_num_workers, "
    "dataloader_prefetch_factor or dataloader_batch_size"
)


@dataclass(frozen=True)
class Unreadable:
    """Replaces a sample or batch that can't be read; `message` is for the user."""

    message: str


class Reported(Dataset[Any]):
    """A data set that returns `Unreadable` for faults of files; other exceptions are raised."""

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
        if "/torch_" not in str(error):  # prefix of PyTorch's files in shared memory
            raise
        return Unreadable(f"{shared_memory()} can't hold a worker's batches ({error}); {SHARED_MEMORY_REMEDY}")


def _is_pytorchs(handler: Any) -> bool:
    """Whether a signal's handler is the one that PyTorch installs for the first loader with workers."""
    return getattr(handler, "__module__", None) == signal_handling.__name__


class Batches(Iterator[Any]):
    """An iterator of batches, which must be closed.

    Args:
        loader: a loader of a `Reported` data set, with `collate`.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        heeded = getattr(signal, "SIGCHLD", None)
        before = None if heeded is None else signal.getsignal(heeded)
        self._iterator: Iterator[Any] = iter(loader)
        if heeded is not None and _is_pytorchs(signal.getsignal(heeded)):
            # If PyTorch's handler was there before, an earlier loader of this process had installed it.
            signal.signal(heeded, signal.SIG_DFL if _is_pytorchs(before) else before)
        self.workers: list[Any] = list(getattr(self._iterator, "_workers", []))

    def __next__(self) -> Any:
        """The next batch.

        Raises:
            UserError: a sample can't be read, or a worker has ended.
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
        """Ends the workers, also those blocked in a read."""
        self._iterator = iter(())
        for worker in self.workers:
            if worker.is_alive():
                worker.kill()
                worker.join()


def shared_memory() -> str:
    """Description of the shared memory and its size."""
    if not SHARED_MEMORY.is_dir():
        return "the shared memory"
    usage = shutil.disk_usage(SHARED_MEMORY)
    return f"{SHARED_MEMORY} ({usage.total / 2**20:.0f} MiB, {usage.free / 2**20:.0f} free)"


def _epitaph(code: int) -> str:
    """Explains the exit code of an ended worker."""
    if code >= 0:
        return f"A worker that reads data ended with code {code}; its message is above"
    name = signal.Signals(-code).name
    if name == "SIGBUS":
        return (
            f"A worker that reads data was ended by {name}: {shared_memory()} is too small for its batches, or a file "
            f"became shorter while it was read; {SHARED_MEMORY_REMEDY}"
        )
    return (
        f"A worker that reads data was ended by {name}; after SIGKILL check whether memory ran out (dmesg), and lower "
        "datasets.train.dataloader_num_workers or set cache_data to false"
    )
