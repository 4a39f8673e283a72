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


def interpolated_rates(
    spikes: Tensor,
    stream: tuple[Tensor, Tensor] | None = None,
    longest: int | None = None,
    asked: slice = slice(None),
) -> Tensor:
    """Rates between spikes, in spikes per frame.

    Args:
        spikes: (T,...), T below 2^14, of any type; above 0 where a pixel fired.
        stream: its first frame and the frame after its last one, int16, each of a shape that broadcasts with a frame;
            the frames outside are padding. None: all frames.
        longest: intervals of more frames have the rate 0, as have pixels without a spike. The rate of a frame then
            depends on `longest` frames on either side; near an end of the stream, on the 2 `longest` + 1 frames there.
            None: no limit.
        asked: the frames whose rates are returned.

    Returns:
        (T,...) float32, or as many frames as are asked for; without meaning in padding.
    """
    frames = len(spikes)
    time = torch.arange(frames + 1, dtype=torch.int16, device=spikes.device).view(-1, *[1] * (spikes.ndim - 1))
    begin, end = (time[0], time[-1]) if stream is None else stream
    silent = (spikes <= 0).to(torch.int16)
    # Padding ends an interval, as a spike does.
    inside = silent if stream is None else silent * ((time[:-1] >= begin) & (time[:-1] < end))
    first, behind, _ = asked.indices(frames)
    lengths = _lengths(inside, begin, end, time, slice(first, behind + 1))  # (T+1,...), of the frames asked for
    rates = lengths.float().reciprocal_()
    if longest is not None:
        rates.mul_(lengths <= longest).mul_(silent.amin(0) == 0)
    # A frame with a spike belongs half to the interval before it and half to the one after it.
    halves = (1 - silent[asked]).float().mul_(0.5)
    # All products are exact, so that time reversed gives the same bits.
    return (rates[1:] * halves).addcmul_(rates[:-1], 1 - halves)


def _lengths(inside: Tensor, begin: Tensor, end: Tensor, time: Tensor, asked: slice) -> Tensor:
    """Frames from the last end before t to the next one, (T+1,...) int16, of the times t asked for.

    Args:
        inside: (T,...) int16, 0 where an interval ends, else 1.
    """
    frames = len(inside)
    since = torch.ones((frames + 1, *inside.shape[1:]), dtype=torch.int16, device=inside.device)
    until = torch.zeros_like(since)
    for t in range(frames):
        torch.mul(since[t], inside[t], out=since[t + 1]).add_(1)
    for t in reversed(range(frames)):
        torch.add(until[t + 1], 1, out=until[t]).mul_(inside[t])
    first, last = begin + _at(until, begin), end - _at(since, end)  # (1,...): end and begin - 1 where none fired
    second, second_last = (  # (1,...): the intervals beside those that are cut
        _at(since, place) + _at(until, place) for place in ((first + 1).clamp(0, frames), last.clamp(0, frames))
    )
    fires = (first < end).to(torch.int16)
    lengths, time = since[asked].add_(until[asked]), time[asked]
    for cut, least in ((time <= first, second), (time > last, second_last)):
        torch.maximum(lengths, cut.to(torch.int16).mul_(fires * least), out=lengths)
    return lengths


def _at(values: Tensor, time: Tensor) -> Tensor:
    """(1,...) of (T,...), each pixel's at its time."""
    return values.gather(0, time.long().expand_as(values[:1]))
