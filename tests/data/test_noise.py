"""Noise drawn in parts is the noise drawn at once, bit for bit."""

import pytest
import torch

from data.noise import ClipNoise


@pytest.mark.parametrize(
    "shape", [(7, 3, 16, 20), (7, 3, 5, 7), (40, 3, 5, 6), (33, 3, 3, 3), (5, 3, 1, 2), (1, 3, 9, 9), (16, 3, 17, 23)]
)
def test_parts_are_those_of_the_whole(shape: tuple[int, int, int, int]) -> None:
    entire = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    noise = ClipNoise(shape)
    for k in [*range(shape[0]), 0, shape[0] - 1, shape[0] // 2]:
        assert torch.equal(noise.part(k, k + 1)[0], entire[k]), k
    assert torch.equal(ClipNoise(shape).part(0, shape[0]), entire)
    assert torch.equal(ClipNoise(shape).part(shape[0] - 1, shape[0])[0], entire[-1])
