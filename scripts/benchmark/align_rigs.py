"""How well `scripts.align` finds random rigs whose truth is known.

    python -m scripts.benchmark.align_rigs --rigs 200

Each rig is two simulated cameras (`data/spike/simulation/rig.py`): offset up to 3 frames, scale 0.8 to 1.25, rotation
up to 3 degrees, perspective, threshold 1 to 8, noise, exposure 30 to 100 % of a frame's time. Prints one line per rig
with --each, then the table. A wrong answer is one that is told and off by more than its stated error and the goal.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.benchmark.flags import align_rigs_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(align_rigs_parser(__doc__ or ""))

import numpy as np

from data.spike.alignment.align import Found, align
from data.spike.alignment.geometry import farthest
from data.spike.simulation.canvas import Canvases
from data.spike.simulation.rig import Rig, random_rig
from utils.utils_cli import run_command

CANVAS_SIDE = 384
GOALS = {"offset": 0.5, "period": 0.5, "exposure": 5.0, "homography": 1.0, "threshold": 0.05}
"""Spike frames (offset; period over the clip; exposure), spike pixels, and a share."""


class ArrayStream:
    """Spikes (T,h,w) uint8 in memory, read as a file's."""

    def __init__(self, spikes: np.ndarray) -> None:
        self._spikes = spikes
        self.spike_h, self.spike_w = spikes.shape[1:]

    def __len__(self) -> int:
        return len(self._spikes)

    def crop(self, begin: int, length: int, top: int, left: int, h: int, w: int) -> np.ndarray:
        """(length, h, w) uint8."""
        return self._spikes[begin : begin + length, top : top + h, left : left + w]


@dataclass(frozen=True)
class Outcome:
    """A rig's errors and stated errors, by what was measured; absent where it cannot be told."""

    errors: dict[str, float]
    stated: dict[str, float]
    light: bool
    seconds: float


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    arguments = align_rigs_parser(__doc__ or "").parse_args(argv)

    def work() -> None:
        canvases = Canvases(CANVAS_SIDE, photographs=0.6)
        outcomes = []
        for seed in range(arguments.seed, arguments.seed + arguments.rigs):
            outcome = measure(random_rig(np.random.default_rng(seed), canvases))
            outcomes.append(outcome)
            if arguments.each:
                told = "  ".join(f"{k} {outcome.errors[k]:.2f} ({outcome.stated[k]:.2f})" for k in outcome.errors)
                print(f"{seed:4d} {outcome.seconds:.1f} s  {told or 'cannot be told'}", flush=True)
        for line in table(outcomes):
            print(line)

    return run_command(work)


def measure(rig: Rig) -> Outcome:
    """Aligns a rig and compares with its truth."""
    begun = time.process_time()
    found = align(lambda number: rig.frames[number], len(rig.frames), ArrayStream(rig.spikes))
    seconds = time.process_time() - begun
    truth, errors, stated = rig.truth, {}, {}
    if found.time.told:
        model = found.model
        center = truth.begin + model.middle * truth.period + truth.exposure / 2
        errors["offset"], stated["offset"] = abs(model.center - center), found.errors["center"]
        number = len(rig.frames)
        errors["period"] = abs(model.period - truth.period) * number / 2
        stated["period"] = found.errors["period"] * number / 2
        errors["exposure"], stated["exposure"] = abs(model.exposure - truth.exposure), found.errors["exposure"]
    if found.space.told:
        errors["homography"] = farthest(truth.homography, found.homography, rig.frames.shape[1:3])
        stated["homography"] = found.errors["homography"]
    if found.brightness is not None:
        errors["threshold"] = abs(found.brightness.threshold / truth.threshold - 1)
        stated["threshold"] = found.brightness.threshold_error / found.brightness.threshold
    return Outcome(errors, stated, _light_is_right(found, rig), seconds)


def _light_is_right(found: Found, rig: Rig) -> bool:
    return found.brightness is not None and found.brightness.linear == rig.truth.linear


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """The lines of the table, in Markdown."""
    count = len(outcomes)
    lines = [
        f"{count} rigs; kind of light right in {100 * np.mean([o.light for o in outcomes]):.0f}%; "
        f"{np.mean([o.seconds for o in outcomes]):.1f} s of processor time each",
        "",
        "| | goal | told | within the goal, of those told | of all | median error | wrong |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, goal in GOALS.items():
        told = [outcome for outcome in outcomes if name in outcome.errors]
        errors = np.array([outcome.errors[name] for outcome in told])
        limits = np.array([max(goal, outcome.stated[name]) for outcome in told])
        good, unit = int((errors <= goal).sum()), f"{goal:g}"
        of_told = f"{100 * good / max(1, len(told)):.0f}%"
        median = f"{np.median(errors):.2g}" if len(told) else ""
        lines.append(
            f"| {name} | {unit} | {100 * len(told) / count:.0f}% | {of_told} | {100 * good / count:.0f}% | {median} "
            f"| {int((errors > limits).sum())} |"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
