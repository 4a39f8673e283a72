"""Chunks give what the whole input gives, and no call takes more than its budget allows."""

import pytest
import torch
from torch import Tensor

from models.layers.ops import chunks
from models.layers.ops.chunks import (
    Budget,
    add_to,
    in_chunks,
    laid_out_for,
    over_frames,
    over_rows,
    recomputing,
    slices,
)


@pytest.mark.parametrize(("allowed", "calls"), [(1, [1] * 6), (2, [2, 2, 2]), (4, [4, 2]), (6, [6]), (99, [6])])
def test_a_chunk_has_as_many_frames_as_allowed(allowed: int, calls: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 3, 4, 5)
    seen: list[int] = []

    def function(frames: Tensor) -> Tensor:
        seen.append(frames.shape[0] * frames.shape[1])
        return torch.cat((frames, frames.square()), -1).half()

    # The result is twice as wide as the input.
    monkeypatch.setattr(chunks, "FRAMES", Budget(cpu=allowed * 2 * 4 * 5 * 4, accelerator=1))
    with torch.no_grad():
        result = over_frames(function, x, widening=2)
    assert seen == calls
    assert result.dtype is torch.half
    assert torch.equal(result, torch.cat((x, x.square()), -1).half())
    seen.clear()
    assert torch.equal(over_frames(function, x, widening=2), result) and seen == [6]


def test_each_processor_has_its_budget() -> None:
    x, budget = torch.zeros(1), Budget(cpu=16, accelerator=1024)
    assert budget.items(x, 4) == 4
    with laid_out_for("cuda"):
        assert budget.items(x, 4) == 256
    assert budget.items(x, 4) == 4
    assert budget.items(x, 1 << 40) == 1


def test_chunks_are_joined_along_any_dimension() -> None:
    x = torch.randn(3, 5, 2)
    for dim in range(3):
        with torch.no_grad():
            assert torch.equal(
                in_chunks(lambda c, d=dim: x.narrow(d, c.start, c.stop - c.start), x.shape[dim], 2, dim), x
            )
        assert [list(range(s.start, s.stop)) for s in slices(5, 2)] == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("rows", [1, 4, 99])
def test_rows_may_be_written_into_an_input(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    seen: list[int] = []

    def function(x: Tensor, y: Tensor) -> Tensor:
        seen.append(x.numel() // 5)
        return x + 2 * y

    monkeypatch.setattr(chunks, "ROWS", Budget(cpu=rows * 7 * 4, accelerator=1))
    expected = function(x, y)
    assert torch.equal(over_rows(function, x, y, width=7, out=y), expected) and seen.pop() == 6
    with torch.no_grad():
        assert torch.equal(over_rows(function, x, y, width=7), expected)
        assert max(seen[1:]) == min(rows, 6)
        result = over_rows(function, x, y, width=7, out=y)
    assert result is y and torch.equal(y, expected)


def test_recomputing_keeps_the_input_alone() -> None:
    x = torch.randn(4, requires_grad=True)
    calls: list[int] = []

    def function(x: Tensor) -> Tensor:
        calls.append(1)
        return x.sin().exp()

    (plain,) = torch.autograd.grad(recomputing(function, False)(x).sum(), x)
    assert len(calls) == 1
    (again,) = torch.autograd.grad(recomputing(function, True)(x).sum(), x)
    assert len(calls) == 3 and torch.equal(again, plain)
    with torch.no_grad():
        recomputing(function, True)(x)
    assert len(calls) == 4


def test_a_sum_is_written_into_its_first_term_only_without_gradients_and_in_the_same_type() -> None:
    x, y = torch.ones(3), torch.full((3,), 2.0)
    assert add_to(x, y) is not x
    with torch.no_grad():
        half = x.half()
        total = add_to(half, y)
        assert total.dtype is torch.float32 and half[0] == 1
        assert add_to(x, y) is x
    assert x.tolist() == [3, 3, 3] and y.tolist() == [2, 2, 2]
