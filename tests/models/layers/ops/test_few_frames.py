"""A few frames at a time give what all give at once, and no call takes more than is allowed."""

import pytest
import torch
from torch import Tensor

from models.layers.ops import few_frames as module
from models.layers.ops.few_frames import at_once, few_frames, joined, plus
from models.layers.ops.processor import laid_out_for


@pytest.mark.parametrize(("allowed", "calls"), [(1, [1] * 6), (2, [2, 2, 2]), (4, [4, 2]), (6, [6]), (99, [6])])
def test_frames_go_as_many_at_a_time_as_allowed(
    allowed: int, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(2, 3, 4, 5)
    seen: list[int] = []

    def function(part: Tensor) -> Tensor:
        seen.append(part.shape[0] * part.shape[1])
        return torch.cat((part, part.square()), -1).half()

    # The result is twice as wide as the input.
    monkeypatch.setattr(module, "_BYTES", {"cpu": allowed * 2 * 4 * 5 * 4})
    with torch.no_grad():
        result = few_frames(function, x, widening=2)
    assert seen == calls
    assert result.dtype is torch.half
    assert torch.equal(result, torch.cat((x, x.square()), -1).half())
    seen.clear()
    assert torch.equal(few_frames(function, x, widening=2), result) and seen == [6]


def test_other_devices_are_given_more() -> None:
    x = torch.zeros(1)
    assert at_once(x, 1 << 20) == 4
    with laid_out_for("cuda"):
        assert at_once(x, 1 << 20) == 256
    assert at_once(x, 1 << 40) == 1


def test_parts_are_joined_along_any_dimension() -> None:
    x = torch.randn(3, 5, 2)
    for dim in range(3):
        assert torch.equal(joined(iter(x.split(2, dim)), x.shape[dim], dim), x)


def test_a_sum_takes_the_place_of_its_first_part_only_without_gradients_and_in_the_same_type() -> None:
    x, y = torch.ones(3), torch.full((3,), 2.0)
    assert plus(x, y) is not x
    with torch.no_grad():
        half = x.half()
        total = plus(half, y)
        assert total.dtype is torch.float32 and half[0] == 1
        assert plus(x, y) is x
    assert x.tolist() == [3, 3, 3] and y.tolist() == [2, 2, 2]
