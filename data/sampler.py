"""Assigns samples to batches, as a pure function of the seed and the number of samples consumed so far.

The stream of samples is endless: epoch e is a permutation of the data set seeded by (seed, e), and the epochs follow
each other without a gap, so a batch may begin in one epoch and end in the next, and no sample is dropped.
Batch n is samples [n * global_batch, (n+1) * global_batch) of the stream, of which rank r takes the r-th share. So the
samples of a step don't depend on the number of ranks or workers, nor on resuming.

    sampler = GlobalBatchSampler(len(dataset), global_batch=8, rank=rank, world_size=world, seed=seed, consumed=seen)
    loader = DataLoader(dataset, batch_sampler=sampler, num_workers=4, worker_init_fn=init_worker)

`training_batches` creates both from the options' `datasets.train`.
"""

import signal
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from data.loader import Batches, Reported, collate
from utils.user_error import UserError
from utils.utils_signal import SIGNALS

GRACE_SECONDS = 30  # longer than a step, so that the main process can finish its step


class SampleIndex(NamedTuple):
    """Index of a sample of a training set; random draws depend on the epoch too."""

    epoch: int
    index: int  # type: ignore[assignment]  # hides the method tuple.index, which is not used


class GlobalBatchSampler(Sampler[list[SampleIndex]]):
    """Endless batches of one rank, for `DataLoader(batch_sampler=...)`.

    The sampler has no state to save: as workers fetch in advance, the trainer counts the samples it has used
    (`global_batch` per step) and passes their number as `consumed` to resume.

    Args:
        dataset_len: number of items of the data set.
        global_batch: samples per step, over all ranks.
        rank: this process, 0 <= rank < world_size.
        world_size: number of processes.
        seed: seed of the order; not negative.
        consumed: number of samples used by earlier steps, over all ranks.
        shuffle: False: every epoch has the order of the data set.

    Raises:
        UserError: the data set is empty, or the batch is not a multiple of the number of ranks.
    """

    def __init__(
        self,
        dataset_len: int,
        global_batch: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        consumed: int = 0,
        shuffle: bool = True,
    ) -> None:
        assert 0 <= rank < world_size and consumed >= 0 and seed >= 0
        if dataset_len < 1:
            raise UserError("The data set has no samples.")
        if global_batch < 1 or global_batch % world_size:
            below = global_batch // world_size * world_size
            near = " or ".join(str(size) for size in (below, below + world_size) if size > 0)
            raise UserError(
                f"datasets.train.dataloader_batch_size: {global_batch} samples per step can't be shared equally by "
                f"{world_size} processes; it counts the samples of all of them. Nearest: {near}."
            )
        self.dataset_len = dataset_len
        self.global_batch = global_batch
        self.local_batch = global_batch // world_size
        self.rank = rank
        self.seed = seed
        self.consumed = consumed
        self.shuffle = shuffle
        self._order_epoch = -1
        self._order = np.empty(0, np.int64)

    def sample(self, position: int) -> SampleIndex:
        """The sample at `position` of the endless stream."""
        epoch, offset = divmod(position, self.dataset_len)
        if not self.shuffle:
            return SampleIndex(epoch, offset)
        if epoch != self._order_epoch:
            self._order, self._order_epoch = epoch_order(self.seed, epoch, self.dataset_len), epoch
        return SampleIndex(epoch, int(self._order[offset]))

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        position = self.consumed + self.rank * self.local_batch
        while True:
            yield [self.sample(position + i) for i in range(self.local_batch)]
            position += self.global_batch


class LoaderSection(Protocol):
    """The keys of `datasets.train` for the loader."""

    dataloader_batch_size: int
    dataloader_shuffle: bool
    dataloader_num_workers: int
    dataloader_prefetch_factor: int
    dataloader_persistent_workers: bool


def training_batches(
    dataset: Any, section: LoaderSection, *, rank: int, world_size: int, seed: int, consumed: int, pin_memory: bool
) -> Batches:
    """Endless iterator of this rank's shares of the global batches; it must be closed.

    Args:
        section: `datasets.train`. As in KAIR, batch size and number of workers are totals over all ranks.
        consumed: number of samples used so far, over all ranks.
        pin_memory: pin batches in memory, for faster copies to a GPU.

    Raises:
        UserError: the batch is not a multiple of the number of ranks.
    """
    sampler = GlobalBatchSampler(
        len(dataset),
        section.dataloader_batch_size,
        rank=rank,
        world_size=world_size,
        seed=seed,
        consumed=consumed,
        shuffle=section.dataloader_shuffle,
    )
    workers = -(-section.dataloader_num_workers // world_size)
    loader: DataLoader[dict[str, Any]] = DataLoader(
        Reported(dataset),
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=init_worker,
        pin_memory=pin_memory,
        prefetch_factor=section.dataloader_prefetch_factor if workers else None,
        persistent_workers=section.dataloader_persistent_workers and workers > 0,
    )
    return Batches(loader)


def epoch_order(seed: int, epoch: int, length: int) -> np.ndarray:
    """Permutation of range(length) for one epoch, (length,) int64."""
    # Without the spawn key this stream would equal `sample_rng(seed, epoch, 0)`, as SeedSequence pads with zeros.
    return np.random.default_rng(np.random.SeedSequence([seed, epoch], spawn_key=(0,))).permutation(length)


def sample_rng(seed: int, sample: SampleIndex) -> np.random.Generator:
    """The random generator of one sample; the same in every process."""
    return np.random.default_rng(np.random.SeedSequence([seed, sample.epoch, sample.index]))


def init_worker(worker_id: int) -> None:
    """`worker_init_fn` of every loader: limits a worker to one thread, and lets only the main process handle signals.

    torchrun and schedulers signal whole process groups, while the main process may be waiting for a batch. So a worker
    ends only `GRACE_SECONDS` after SIGTERM, unless the main process ends it before, and ignores other signals.
    """
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    for number in SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "SIGALRM"):  # not on Windows, where a SIGTERM can't be handled either
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        # SIGTERM must end workers eventually, as an exiting main process sends it to workers of an unclosed loader.
        signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(GRACE_SECONDS))
