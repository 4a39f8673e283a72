"""Memory for tests that measure a process's memory."""

import mmap

import numpy as np


def fresh_ones(count: int) -> np.ndarray:
    """Ones, (count,) float32, in memory that this process did not have: malloc may hand out what earlier tests left."""
    ones = np.frombuffer(mmap.mmap(-1, 4 * count), np.float32)
    ones[:] = 1
    return ones
