"""Amounts of memory, errors that mean too much, and a CPU's limit."""

import ctypes
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.fresh_memory import fresh_ones
from tests.tiny import environment
from utils.user_error import UserError
from utils.utils_memory import (
    MALLOC,
    OverLimit,
    free_memory,
    is_out_of_memory,
    keep_freed_memory,
    memory_limit,
    parse_memory,
    peak_memory,
    reset_peak,
    used_memory,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize("text, amount", [("10GB", 10**10), ("800 MB", 8 * 10**8), ("1.5gib", 3 * 2**29)])
def test_amounts(text: str, amount: int) -> None:
    assert parse_memory(text) == amount


@pytest.mark.parametrize("text", ["", "10", "ten GB", "-1GB", "0GB", "10 G"])
def test_no_amounts(text: str) -> None:
    with pytest.raises(ValueError, match=r"max_memory: .* write it like 10GB, 800MB or 4GiB"):
        parse_memory(text)


def test_errors_that_mean_too_much() -> None:
    for error in (
        torch.OutOfMemoryError(),
        MemoryError(),
        OverLimit(),
        RuntimeError("[enforce] can't allocate memory"),
    ):
        assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("sizes do not match")) and not is_out_of_memory(
        ValueError("out of memory")
    )


def test_use_and_peak_are_those_of_the_process() -> None:
    before = used_memory(CPU)
    block = fresh_ones(12_500_000)
    assert 40e6 < used_memory(CPU) - before < 80e6 and free_memory(CPU) > 0
    del block
    reset_peak(CPU)
    assert peak_memory(CPU) < before + 40e6
    block = fresh_ones(12_500_000)
    del block
    assert peak_memory(CPU) > before + 40e6


class Block(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(fresh_ones(12_500_000))


def test_a_cpus_limit() -> None:
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)  # memory that earlier tests have freed would be used again, unnoticed
    network = nn.Sequential(Block(), nn.Identity())
    with pytest.raises(OverLimit, match="GB are used"), memory_limit(used_memory(CPU) + 25_000_000, CPU):
        network(torch.zeros(1))
    with memory_limit(used_memory(CPU) + 150_000_000, CPU):
        assert network(torch.zeros(1)).numel() == 12_500_000
    with memory_limit(None, CPU):
        network(torch.zeros(1))
    # Outside nothing is left of it.
    network(torch.zeros(1))


TEMPORARIES = """
import resource, sys, torch
from utils.utils_memory import keep_freed_memory
print(keep_freed_memory())
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    (torch.ones(16 << 20) + 1).sum()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(min(faults() for _ in range(10)))  # the first ones find no freed block that is large enough
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.parametrize(
    ("variables", "kept"), [({}, True), ({MALLOC: "stock"}, False), ({"MALLOC_ARENA_MAX": 2}, False)]
)
def test_freed_memory_is_kept_unless_told_otherwise(variables: dict[str, object], kept: bool, repository: Path) -> None:
    """Two temporaries of 64 MiB have 32768 pages of 4 KiB, and 64 where the system has huge ones."""
    done = subprocess.run(
        [sys.executable, "-c", TEMPORARIES], cwd=repository, capture_output=True, text=True, check=True,
        env=environment(**variables),
    )  # fmt: skip
    said, faults = done.stdout.split()
    assert said == str(kept)
    assert (int(faults) < 30) == kept


def test_another_choice_of_allocator_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MALLOC, "jemalloc")
    with pytest.raises(UserError, match="S_VRT_MALLOC: tuned or stock, not 'jemalloc'"):
        keep_freed_memory()
