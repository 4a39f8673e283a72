"""What can go wrong on a batch's way: unreadable samples, dead workers, no shared memory; each told in one line."""

import os
import signal
import time
from contextlib import closing
from unittest import mock

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from data import loader
from data.loader import Batches, Reported, Unreadable, collate
from data.sampler import init_worker
from utils.user_error import UserError


class Faulty(Dataset):
    """Six samples; the fault is met at the fourth."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == 3:
            if self.fault == "vanished":
                open("/nowhere/000003.png")
            if self.fault == "damaged":
                raise UserError("clip/000003.png: damaged")
            if self.fault == "a bug":
                raise KeyError("bug")
            if self.fault == "killed":
                time.sleep(1)  # the batch before is on its way
                os.kill(os.getpid(), signal.SIGKILL)
            if self.fault == "hangs":
                time.sleep(1000)
        return torch.full((4,), index)


def batches(fault: str, workers: int) -> Batches:
    dataset = Reported(Faulty(fault))
    return Batches(
        DataLoader(dataset, batch_size=2, collate_fn=collate, num_workers=workers, worker_init_fn=init_worker)
    )


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    "fault, message",
    [
        ("vanished", "/nowhere/000003.png: No such file or directory; check the path and its permissions"),
        ("damaged", "clip/000003.png: damaged"),
    ],
)
def test_a_file_at_fault_is_one_line(fault: str, message: str, workers: int) -> None:
    with closing(batches(fault, workers)) as stream:
        assert next(stream)[:, 0].tolist() == [0, 1]
        with pytest.raises(UserError) as raised:
            next(stream)
    assert str(raised.value) == message


def test_a_bug_keeps_its_traceback() -> None:
    with closing(batches("a bug", 0)) as stream, pytest.raises(KeyError):
        list(stream)


def test_a_killed_worker_is_noticed_when_its_batch_is_due() -> None:
    list(DataLoader([1, 2], num_workers=1))  # leaves PyTorch's handler, as any loader outside `Batches` does
    with closing(batches("killed", 1)) as stream:
        assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL
        next(stream)
        time.sleep(2)  # PyTorch's handler would raise in here
        with pytest.raises(UserError, match=r"A worker that reads data was ended by SIGKILL; .*memory ran out"):
            next(stream)


def test_a_worker_that_hangs_is_ended() -> None:
    stream = batches("hangs", 1)
    next(stream)
    time.sleep(0.5)
    stream.close()
    assert [worker.is_alive() for worker in stream.workers] == [False]


def test_no_room_in_shared_memory() -> None:
    full = RuntimeError("unable to write to file </torch_1_2>: No space left on device (28)")
    with mock.patch.object(loader, "default_collate", side_effect=full):
        found = collate([torch.ones(2)])
    assert isinstance(found, Unreadable)
    for part in ("/dev/shm (", "MiB", "No space left", "--shm-size", "dataloader_num_workers"):
        assert part in found.message
    with mock.patch.object(loader, "default_collate", side_effect=RuntimeError("a bug")), pytest.raises(RuntimeError):
        collate([torch.ones(2)])
