"""utils/spike_interval.py: the rule on small sides of which the spikes and times are known, in numpy and torch."""

import numpy as np
import torch

from utils.spike_interval import doubled_spikes_and_time

SIDES = [  # frames from the instant outwards, k, spikes and time that the side contributes
    ([0, 1, 0, 1, 1], 2, 1.5, 3.5),  # up to the middle of the second spike's frame
    ([1, 0, 0], 1, 0.5, 0.5),
    ([0, 1, 0, 0], 2, 1, 4),  # fewer than k: all spikes and frames
    ([0, 0, 0], 1, 0, 3),
]


def test_spikes_and_time_of_a_side() -> None:
    for frames, order, spikes, time in SIDES:
        times = np.flatnonzero(frames)
        full = int(len(times) >= order)
        passed = times[order - 1] if full else 100  # any value
        seen, full, passed = np.array([[min(len(times), order)], [full], [passed]], np.int16)
        expected = ([2 * spikes], [2 * time])
        assert doubled_spikes_and_time(seen, full, passed, len(frames)) == expected
        tensors = [torch.from_numpy(counts) for counts in (seen, full, passed)]
        of_tensors = doubled_spikes_and_time(tensors[0], tensors[1], tensors[2], len(frames))
        assert tuple(part.tolist() for part in of_tensors) == expected
        assert all(part.dtype == torch.int16 for part in of_tensors)
