"""Firing rates at every spike frame from the charge interpolated between spikes, without the noise of counting.

    rate(t) = 1 / (t of the first spike after t  -  t of the last spike before t)

A spike is at the middle of its frame. A pixel that fires every d frames has the rate 1/d in all of them, however few
of its spikes a Gaussian over time includes: such a mean is as sharp as one over the spikes themselves, and has a
fraction of its noise.

The first and the last interval of a stream are cut: each is at least as long as what is seen of it, and is taken to be
as long as its neighbour if that is longer. A pixel that never fires has the rate of one spike in the whole stream.
Test: `python -m pytest tests/utils/test_charge.py`.
"""

import torch
from torch import Tensor


def interpolated_rates(spikes: Tensor, stream: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Rates between spikes, in spikes per frame.

    Args:
        spikes: (T,...), T below 2^14, of any type; above 0 where a pixel fired.
        stream: its first frame and the frame after its last one, int16, each of a shape that broadcasts with a frame;
            the frames outside are padding. None: all frames.

    Returns:
        (T,...) float32; without meaning in padding.
    """
    frames = len(spikes)
    time = torch.arange(frames + 1, dtype=torch.int16, device=spikes.device).view(-1, *[1] * (spikes.ndim - 1))
    begin, end = (time[0], time[-1]) if stream is None else stream
    silent = (spikes <= 0).to(torch.int16)
    # Padding ends an interval, as a spike does.
    inside = silent if stream is None else silent * ((time[:-1] >= begin) & (time[:-1] < end))
    rates = _lengths(inside, begin, end, time).float().reciprocal_()  # (T+1,...)
    # A frame with a spike belongs half to the interval before it and half to the one after it.
    halves = (1 - silent).float().mul_(0.5)
    return halves.mul_(rates.diff(dim=0)).add_(rates[:-1])


def _lengths(inside: Tensor, begin: Tensor, end: Tensor, time: Tensor) -> Tensor:
    """(T,...) int16, 0 where an interval ends, else 1, to (T+1,...): frames from the last end before t to the next."""
    frames = len(inside)
    since = torch.ones((frames + 1, *inside.shape[1:]), dtype=torch.int16, device=inside.device)
    until = torch.zeros_like(since)
    for t in range(frames):
        torch.mul(since[t], inside[t], out=since[t + 1]).add_(1)
    for t in reversed(range(frames)):
        torch.add(until[t + 1], 1, out=until[t]).mul_(inside[t])
    first, last = begin + _at(until, begin), end - _at(since, end)  # (1,...): end and begin - 1 where none fired
    lengths = since.add_(until)
    fires = (first < end).to(torch.int16)
    for cut, neighbour in ((time <= first, first + 1), (time > last, last)):
        least = fires * _at(lengths, neighbour.clamp(0, frames))  # (1,...)
        torch.maximum(lengths, cut.to(torch.int16).mul_(least), out=lengths)
    return lengths


def _at(values: Tensor, time: Tensor) -> Tensor:
    """(1,...) of (T,...), each pixel's at its time."""
    return values.gather(0, time.long().expand_as(values[:1]))
