"""The order of samples is a function of seed and position alone."""

import multiprocessing
import os
import signal
from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from data.sampler import (
    GRACE_SECONDS,
    GlobalBatchSampler,
    SampleIndex,
    epoch_order,
    init_worker,
    sample_rng,
    training_batches,
)


def stream(steps: int, world: int, *, consumed: int = 0, **options: Any) -> list[list[SampleIndex]]:
    """The global batches of `steps` steps, put together from all ranks."""
    arguments = {"dataset_len": 10, "global_batch": 4, "seed": 3, **options}
    ranks = [GlobalBatchSampler(rank=r, world_size=world, consumed=consumed, **arguments) for r in range(world)]
    shares = [list(islice(sampler, steps)) for sampler in ranks]
    return [[sample for share in shares for sample in share[step]] for step in range(steps)]


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_the_same_global_batches(world: int) -> None:
    assert stream(9, world) == stream(9, 1)


@pytest.mark.parametrize("step", [1, 2, 3, 7])
@pytest.mark.parametrize("world", [1, 2])
def test_resuming_anywhere_continues_the_stream(step: int, world: int) -> None:
    assert stream(9, world)[step:] == stream(9 - step, world, consumed=4 * step)


def test_every_epoch_sees_every_sample_once_and_batches_cross_epochs() -> None:
    batches = stream(5, 1)  # 20 samples: two epochs of ten
    samples = [sample for batch in batches for sample in batch]
    assert [sample.epoch for sample in batches[2]] == [0, 0, 1, 1]
    for epoch in (0, 1):
        assert sorted(sample.index for sample in samples if sample.epoch == epoch) == list(range(10))


def test_orders_differ_by_epoch_and_seed() -> None:
    orders = {tuple(epoch_order(seed, epoch, 50)) for seed in (0, 1) for epoch in range(4)}
    assert len(orders) == 8


def test_order_is_pinned() -> None:
    """A change of the order would change what a resumed run sees."""
    assert epoch_order(3, 0, 8).tolist() == [0, 1, 5, 6, 4, 3, 2, 7]
    assert sample_rng(3, SampleIndex(0, 5)).integers(0, 1000, 3).tolist() == [736, 724, 612]


def test_without_shuffling_the_order_is_the_data_sets() -> None:
    assert [sample.index for batch in stream(3, 1, shuffle=False) for sample in batch] == [*range(10), 0, 1]


def test_batch_larger_than_the_data_set() -> None:
    samples = stream(1, 1, dataset_len=3, global_batch=8)[0]
    assert [sample.epoch for sample in samples] == [0, 0, 0, 1, 1, 1, 2, 2]


def test_indivisible_batch_names_the_option_and_the_nearest_sizes() -> None:
    with pytest.raises(ValueError, match=r"dataloader_batch_size: 6 .* 4 processes.*Nearest: 4 or 8"):
        GlobalBatchSampler(10, 6, rank=1, world_size=4)
    with pytest.raises(ValueError, match=r"Nearest: 4\."):
        GlobalBatchSampler(10, 3, rank=1, world_size=4)
    with pytest.raises(ValueError, match="no samples"):
        GlobalBatchSampler(0, 4)


def test_sample_rngs_are_distinct() -> None:
    draws = {
        sample_rng(seed, SampleIndex(epoch, index)).integers(2**62)
        for seed in range(3)
        for epoch in range(3)
        for index in range(3)
    }
    assert len(draws) == 27


def outlive_a_signal() -> None:
    init_worker(0)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM):
        os.kill(os.getpid(), number)
    assert 0 < signal.alarm(0) <= GRACE_SECONDS


def test_workers_outlive_a_signal_to_the_process_group_for_a_while() -> None:
    """A worker that dies makes the loader raise while the main process saves."""
    worker = multiprocessing.get_context("fork").Process(target=outlive_a_signal)
    worker.start()
    worker.join()
    assert worker.exitcode == 0


class Echo(Dataset[dict]):
    """Returns its index and one draw."""

    def __getitem__(self, sample: SampleIndex) -> dict:
        return {"key": f"clip/{sample.index:03d}", "draw": sample_rng(0, sample).random(2).astype(np.float32)}


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_collates_keys_and_draws(workers: int) -> None:
    sampler = GlobalBatchSampler(10, 4, seed=3, consumed=8)
    loader = DataLoader(Echo(), batch_sampler=sampler, num_workers=workers, worker_init_fn=init_worker)
    batches = [next(iterator) for iterator in [iter(loader)] for _ in range(3)]
    expected = stream(3, 1, consumed=8)
    assert [batch["key"] for batch in batches] == [[f"clip/{s.index:03d}" for s in batch] for batch in expected]
    draws = [[sample_rng(0, sample).random(2).astype(np.float32) for sample in batch] for batch in expected]
    assert np.array_equal(np.array(draws), np.stack([batch["draw"].numpy() for batch in batches]))


def test_the_options_loader_counts_over_all_ranks() -> None:
    """Three workers on two ranks are two each; the ranks' shares are those of the stream."""

    class Ten(Echo):
        def __len__(self) -> int:
            return 10

    section = SimpleNamespace(
        dataloader_batch_size=4,
        dataloader_shuffle=True,
        dataloader_num_workers=3,
        dataloader_prefetch_factor=2,
        dataloader_persistent_workers=False,
    )
    place: dict[str, Any] = {"world_size": 2, "seed": 3, "consumed": 8, "pin_memory": False}
    shares = [training_batches(Ten(), section, rank=rank, **place) for rank in (0, 1)]
    assert [len(share.workers) for share in shares] == [2, 2]
    keys = [[next(share)["key"] for share in shares] for _ in range(2)]
    expected = [[f"clip/{s.index:03d}" for s in batch] for batch in stream(2, 1, consumed=8)]
    for share in shares:
        share.close()
    assert [first + second for first, second in keys] == expected
    section.dataloader_batch_size = 3
    with pytest.raises(ValueError, match="can't be shared equally by 2 processes"):
        training_batches(Ten(), section, rank=0, **place)
