"""Gaussian noise of a clip, drawn in blocks of frames: equal to one `torch.randn` of (T,C,H,W), with less memory.

torch draws normal numbers in groups of 16, so blocks whose size is a multiple of 16 continue the sequence; with the
generator's state before each block, any block can be drawn again.
Test: `python -m pytest tests/data/test_noise.py`.
"""

import math
import threading

import torch
from torch import Tensor

LANES = 16  # torch.randn draws its normal numbers in groups of 16


class ClipNoise:
    """Standard normal noise of a clip, seeded with 0 as in KAIR.

    Args:
        shape: (T,C,H,W) of the clip.
    """

    def __init__(self, shape: tuple[int, int, int, int]) -> None:
        self.frames, self.frame = shape[0], shape[1:]
        numbers = math.prod(self.frame)
        least = LANES // math.gcd(LANES, numbers)
        # torch draws fewer than 16 numbers by another method, so blocks must not be smaller.
        self._length = least if numbers >= LANES else self.frames
        self._states = [torch.Generator().manual_seed(0).get_state()]
        self._drawn: tuple[int, Tensor] | None = None
        self._lock = threading.Lock()

    def part(self, begin: int, end: int) -> Tensor:
        """Noise of frames [begin, end), (t,C,H,W)."""
        with self._lock:
            return torch.stack([self._block(k // self._length)[k % self._length] for k in range(begin, end)])

    def _block(self, number: int) -> Tensor:
        if self._drawn is None or self._drawn[0] != number:
            for index in range(min(number, len(self._states) - 1), number + 1):
                generator = torch.Generator()
                generator.set_state(self._states[index])
                length = min(self._length, self.frames - index * self._length)
                self._drawn = index, torch.randn((length, *self.frame), generator=generator)
                if index + 1 == len(self._states):
                    self._states.append(generator.get_state())
        assert self._drawn is not None
        return self._drawn[1]
