"""The steps of `python -m scripts.gpu_check` in their order, what they are given, and what they report.

Nothing slow is imported here, so that the command itself starts at once; the steps are in `gpu_steps.py`.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """What was measured, or found right or wrong.

    Attributes:
        what: the work. variant: how it was done.
        milliseconds, gigabytes: time and peak memory, where they are measured.
        note: more, in words. fault: what is wrong; None where nothing is.
    """

    what: str
    variant: str
    milliseconds: float | None = None
    gigabytes: float | None = None
    note: str = ""
    fault: str | None = None


@dataclass(frozen=True)
class Setting:
    """How the steps run.

    Attributes:
        device: "cuda" or "cpu". tiny: the smallest sizes. folder: where they write.
        end: of the step's time, by `time.monotonic`, which all processes of a machine share.
    """

    device: str
    tiny: bool
    folder: Path
    end: float = math.inf

    @property
    def in_time(self) -> bool:
        """Whether there is time for more."""
        return time.monotonic() < self.end


Rows = Iterator[Row]


@dataclass(frozen=True)
class Step:
    """A step.

    Attributes:
        name: the work (`gpu_steps.WORK`), for some with a back end's name behind it.
        share: of all the time, at most.
        must_end: one that takes longer hangs; others are measurements, of which what is done is kept.
    """

    name: str
    share: float
    must_end: bool = False


# By device, the back ends for it, what matters most first.
BACKENDS = {"cuda": ("triton", "triton_fused", "sdpa"), "cpu": ("native", "sdpa")}


def steps_for(device: str, tiny: bool) -> list[Step]:
    """All steps in their order: right or wrong, then training and testing, then time."""
    own = ("sdpa",) if tiny else BACKENDS[device]
    # FlexAttention compiles for long, and eager is what nobody trains by: they come last.
    compared = own if tiny else ("auto", *own, *(("flex", "eager") if device == "cuda" else ()))
    return [
        Step("versions", 0.15, must_end=True),
        # The first one's kernels are compiled, and kept for the others.
        *(Step(f"kernels {name}", 0.15 if i else 0.3, must_end=True) for i, name in enumerate(own)),
        Step("demo", 0.4, must_end=True),
        Step("rank", 0.1, must_end=True),
        *(Step(f"speed {name}", 0.15) for name in compared),
        Step("memory", 0.15),
        Step("tiles", 0.12),
        Step("light", 0.08),
        Step("loader", 0.12),
        *([Step("kernels flex", 0.3)] if device == "cuda" else []),
        *(Step(f"more {name}", 0.3) for name in compared),
    ]
