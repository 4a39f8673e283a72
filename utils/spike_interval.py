"""The k-interval: a pixel's firing rate from the time between its spikes.

    rate = (2 k - 1) / (t of the k-th spike at or after c  -  t of the k-th spike before c)

k = 1 is TFI ("texture from interval"), k = 2 the second-order interval of Spike2Flow's and BSF's DSFT. The interval
adapts to each pixel's brightness, so that bright pixels are sharp and dark ones have little noise.

The rule is here. What it needs, spikes and frames on either side of c, is counted in the way that is fastest in each
case: at one instant by NumPy's byte arithmetic (`interval_rate` in data/spike/frame_sums.py); at every frame of a
stream with a cost that does not grow with the reach (`KIntervalRate` in data/spike/reconstruction/methods.py); in a
network, on its device, with missing frames (`interval_rates` in models/layers/spike/rates.py). Tests compare the three.
"""

from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:  # commands on spikes start without PyTorch, whose import takes seconds
    from torch import Tensor

Counts = TypeVar("Counts", np.ndarray, "Tensor")


def doubled_spikes_and_time(seen: Counts, full: Counts, passed: Counts, frames: Counts | int) -> tuple[Counts, Counts]:
    """Twice the spikes and twice the time that one side of c contributes; doubled, they are whole numbers.

    With k spikes within reach a side contributes k - 1/2 spikes and the time to the middle of the k-th spike's frame;
    with fewer, all its spikes and frames. The rate is the spikes of both sides over the time of both: the formula above
    where both have k spikes, 0 for a pixel that did not fire.

    Args:
        seen: spikes within reach, at most k are counted.
        full: 1 where there are k spikes within reach, else 0, of the type of `seen`.
        passed: frames nearer to c than the k-th spike's; any value where there are fewer than k spikes.
        frames: frames within reach.
    """
    # Products instead of masked selections, which take many times as long on small integers.
    return 2 * seen - full, 2 * frames + full * (2 * passed + 1 - 2 * frames)
