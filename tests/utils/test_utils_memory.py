"""Amounts of memory, errors that mean too much, and a CPU's limit."""

import pytest
import torch
from torch import Tensor, nn

from tests.fresh_memory import fresh_ones
from utils.utils_memory import (
    OverLimit,
    free_memory,
    is_out_of_memory,
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
    network = nn.Sequential(Block(), nn.Identity())
    with pytest.raises(OverLimit, match="GB are used"), memory_limit(used_memory(CPU) + 25_000_000, CPU):
        network(torch.zeros(1))
    with memory_limit(used_memory(CPU) + 150_000_000, CPU):
        assert network(torch.zeros(1)).numel() == 12_500_000
    with memory_limit(None, CPU):
        network(torch.zeros(1))
    # Outside nothing is left of it.
    network(torch.zeros(1))
