"""Learning rate as a pure function of the step, so that no state of it is saved or restored.

KAIR's two schedules, with one fault fixed: with `G_scheduler_periods == total_iter`, KAIR's cosine restarts on the
very last step, so the final checkpoint is written after a step at full learning rate. Here the last step of a period
has `G_scheduler_eta_min`, and the next period starts with the following step.
"""

import math
from typing import Protocol

from utils.user_error import UserError


class ScheduleOptions(Protocol):
    """The keys of `train` that the schedules use."""

    @property
    def G_scheduler_type(self) -> str: ...
    @property
    def G_scheduler_milestones(self) -> list[int]: ...
    @property
    def G_scheduler_gamma(self) -> float: ...
    @property
    def G_scheduler_periods(self) -> int | list[int] | None: ...
    @property
    def G_scheduler_restart_weights(self) -> float | list[float]: ...
    @property
    def G_scheduler_eta_min(self) -> float: ...
    @property
    def G_scheduler_warmup_iter(self) -> int: ...
    @property
    def total_iter(self) -> int: ...


def learning_rate(step: int, base: float, options: ScheduleOptions) -> float:
    """Learning rate of one optimizer step.

    Args:
        step: number of the step, 1 for the first.
        base: learning rate of the parameter group at the start.
        options: the `train` section.
    """
    if options.G_scheduler_type == "MultiStepLR":
        rate = base * options.G_scheduler_gamma ** sum(
            step >= milestone for milestone in options.G_scheduler_milestones
        )
    else:
        rate = _cosine(step, base, options)
    if step < options.G_scheduler_warmup_iter:
        rate *= step / options.G_scheduler_warmup_iter
    return rate


def _cosine(step: int, base: float, options: ScheduleOptions) -> float:
    """Cosine from `base` to eta_min over each period.

    Without `G_scheduler_periods` the run is one period. A number is the length of the first period; each further one is
    `G_scheduler_restart_weights` times as long (PyTorch's T_mult, as KAIR passes it). A list holds the length of each
    period; a list of weights then scales the peak of each, as in BasicSR.
    """
    eta_min = options.G_scheduler_eta_min
    begin, index = 0.0, 0
    while True:
        length, scale = _period(index, options)
        if step <= begin + length:
            break
        if isinstance(options.G_scheduler_periods, list) and index + 1 == len(options.G_scheduler_periods):
            return eta_min
        begin, index = begin + length, index + 1
    return eta_min + (base * scale - eta_min) * (1 + math.cos(math.pi * (step - begin) / length)) / 2


def _period(index: int, options: ScheduleOptions) -> tuple[float, float]:
    """Length in steps and peak weight of period `index`, counted from 0."""
    periods, weights = options.G_scheduler_periods or options.total_iter, options.G_scheduler_restart_weights
    if isinstance(periods, list):
        return periods[index], weights[index] if isinstance(weights, list) else 1.0
    if isinstance(weights, list):
        raise UserError(
            "train.G_scheduler_restart_weights: a list needs a list of G_scheduler_periods of the same length"
        )
    return periods * weights**index, 1.0
