"""Degrades spikes, to measure their effect on a restoration and its robustness to faults of a camera.

    {"kind": "zero"}                      no spikes
    {"kind": "shuffle"}                   the file's spike frames in random order: rates remain, times are lost
    {"kind": "shift", "amount": 8}        all spikes delayed by 8 spike frames, the last 8 moved to the start
    {"kind": "drop", "amount": 0.5}       each spike is removed with probability 0.5
    {"kind": "noise", "amount": 0.01}     a spike is added where there is none with probability 0.01
    {"kind": "threshold", "amount": 2}    a camera of twice the threshold: every second spike of each pixel

The option `spike_perturb` of test data sets takes such a section, with an optional "seed". Spikes are changed before
representation and hot-pixel filter. Random draws depend on seed, file and spike frame only, so that whole streams,
blocks and crops are consistent.

"threshold" is exact: a pixel of threshold m fires its n-th spike when its accumulated light reaches n m, and one of
threshold k m at every k-th of these times. The first kept spike, one of k, is drawn per pixel like an initial charge.
Test: `python -m pytest tests/data/spike/test_perturb.py`.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utils.spike_loader import SpikeStream
from utils.user_error import UserError

ORDERS: dict[str, Callable[[int, float, np.random.Generator], np.ndarray]] = {
    "shuffle": lambda length, amount, rng: rng.permutation(length),
    "shift": lambda length, amount, rng: (np.arange(length) - int(amount)) % length,
}
"""Kinds that move whole spike frames: functions from the stream's length to the index of the frame at each time."""

CHANGES: dict[str, Callable[[np.ndarray, float, np.ndarray], np.ndarray]] = {
    "zero": lambda spikes, amount, chance: np.zeros_like(spikes),
    "drop": lambda spikes, amount, chance: spikes & (chance >= amount),
    "noise": lambda spikes, amount, chance: spikes | (chance < amount),
}
"""Kinds that change single spikes: functions from a spike frame (h, w) and random numbers in [0, 1), (h, w), to the new
spike frame."""

THRESHOLD = "threshold"  # the kind that counts the spikes of each pixel from the file's beginning
KINDS = sorted([*ORDERS, *CHANGES, THRESHOLD])  # all kinds, for checks and messages
SHARES = ("drop", "noise")  # kinds whose amount is a probability
WITHOUT_AMOUNT = ("zero", "shuffle")  # kinds without an amount
COUNTED = 256  # spike frames counted at a time, to limit the memory


@dataclass(frozen=True)
class Perturbation:
    """A change of spikes.

    Attributes:
        kind: one of `KINDS`.
        amount: spike frames for "shift", a probability for "drop" and "noise", a factor for "threshold"; not used by
            the others.
        seed: seed of the random draws; not used by "zero" and "shift".
    """

    kind: str
    amount: float = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"spike_perturb: kind {self.kind!r}; choices: {', '.join(KINDS)}.")
        if self.kind == "shift" and int(self.amount) != self.amount:
            raise UserError(f"spike_perturb: shift by {self.amount}; a whole number of spike frames is needed.")
        if self.kind in SHARES and not 0 <= self.amount <= 1:
            raise UserError(f"spike_perturb: {self.kind} {self.amount}; a probability in [0, 1] is needed.")
        if self.kind == THRESHOLD and not (self.amount >= 1 and int(self.amount) == self.amount):
            raise UserError(
                f"spike_perturb: threshold times {self.amount:g}; from recorded spikes, only those of a camera with a "
                "whole multiple of the threshold, 2, 3, ..., can be computed."
            )

    def generator(self, name: str, *key: int) -> np.random.Generator:
        """The random generator of a stream called `name`, or of one of its spike frames."""
        return np.random.default_rng([self.seed, zlib.crc32(name.encode()), *key])


def build_perturbation(section: Mapping[str, Any] | None) -> Perturbation | None:
    """The perturbation of the option `spike_perturb`; None for None.

    Raises:
        UserError: unknown kind or key, or an amount that is missing, not allowed or out of range.
    """
    if section is None:
        return None
    unknown = sorted(set(section) - {"kind", "amount", "seed"})
    kind, amount, seed = section.get("kind", ""), section.get("amount"), section.get("seed", 0)
    if unknown:
        raise UserError(f"spike_perturb: unknown {', '.join(unknown)}; it has kind, amount and seed.")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UserError(f"spike_perturb: seed is {seed!r}; a whole number, 0 or more, is needed.")
    if kind not in KINDS:
        return Perturbation(str(kind))  # raises UserError with the choices
    if kind in WITHOUT_AMOUNT:
        if amount is not None:
            raise UserError(f'spike_perturb: {kind} takes no amount; leave out "amount": {amount!r}.')
        return Perturbation(str(kind), seed=seed)
    if isinstance(amount, bool) or not isinstance(amount, int | float):
        raise UserError(f"spike_perturb: {kind} needs an amount, a number; it is {amount!r}.")
    return Perturbation(str(kind), amount, seed)


class PerturbedStream(SpikeStream):
    """A spike stream that returns perturbed spikes, the same ones for whole streams, blocks and crops.

    Args:
        perturbation: the change.
        name: name of clip and file, on which random draws depend; without the path, so that machines agree.
        filepath, spike_h, spike_w, flipud: as in `SpikeStream`.
    """

    def __init__(
        self,
        perturbation: Perturbation,
        name: str,
        filepath: str | Path,
        spike_h: int | None = None,
        spike_w: int | None = None,
        flipud: bool = True,
    ) -> None:
        super().__init__(filepath, spike_h, spike_w, flipud)
        self.perturbation = perturbation
        self.name = name

    def crop(
        self, begin: int, length: int, top: int, left: int, h: int, w: int, flipud: bool | None = None
    ) -> np.ndarray:
        """Like `SpikeStream.crop`, with perturbed spikes."""
        begin, end = self._checked_range("frames", begin, length, len(self))
        kind, amount = self.perturbation.kind, self.perturbation.amount
        if kind in ORDERS:
            shown = ORDERS[kind](len(self), amount, self.perturbation.generator(self.name))[begin:end]
            first, last = int(shown.min()), int(shown.max())
            result: np.ndarray = super().crop(first, last - first + 1, top, left, h, w, flipud)[shown - first]
            return result
        flip = self.flipud if flipud is None else flipud
        if kind == THRESHOLD:
            return self._thinned(begin, end, (top, left, h, w), flip)
        spikes = super().crop(begin, length, top, left, h, w, flip)
        for frame, plane in zip(range(begin, end), spikes, strict=True):
            chance = self.perturbation.generator(self.name, frame).random((self.spike_h, self.spike_w), np.float32)
            displayed = chance[::-1] if flip else chance
            plane[:] = CHANGES[kind](plane, amount, displayed[top : top + h, left : left + w])
        return spikes

    def _thinned(self, begin: int, end: int, box: tuple[int, int, int, int], flip: bool) -> np.ndarray:
        """Every k-th spike of each pixel in frames [begin, end), counted from the file's beginning."""
        top, left, h, w = box
        factor = int(self.perturbation.amount)
        start = self.perturbation.generator(self.name).integers(factor, size=(self.spike_h, self.spike_w))
        count = (start[::-1] if flip else start)[top : top + h, left : left + w].copy()
        for first in range(0, begin, COUNTED):
            earlier = super().crop(first, min(COUNTED, begin - first), *box, flip)
            count += earlier.sum(axis=0, dtype=np.int64)
        spikes = super().crop(begin, end - begin, *box, flip)
        for plane in spikes:
            count += plane
            plane &= count % factor == 0
        return spikes
