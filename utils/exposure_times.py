"""Instants of an exposure as people write them: shares of it, 0 at its first spike frame and 1 at its last.

parse_times("0:1:1/16")     # begin:end:step, both ends included: 17 instants
parse_times("0,1/4,0.5")    # one by one
"""

from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise

from utils.user_error import UserError

MOST = 1024  # instants of an exposure; more are a mistyped step


def parse_times(text: str) -> list[float]:
    """
    Raises:
        UserError: not written so, or not ascending from 0 to 1.
    """
    try:
        if ":" in text:
            begin, end, step = (Fraction(part) for part in text.split(":"))
            if step <= 0 or (end - begin) / step >= MOST:
                raise ValueError
            times = [begin + index * step for index in range(int((end - begin) / step) + 1)]
        else:
            times = [Fraction(part) for part in text.split(",")]
    except (ValueError, ZeroDivisionError):
        raise UserError(
            f"times: {text!r}; begin:end:step such as 0:1:1/16, or instants such as 0,1/4,1/2 are needed"
        ) from None
    return check_times([float(time) for time in times])


def check_times(times: Iterable[float]) -> list[float]:
    """The instants as a list.

    Raises:
        UserError: none, or not ascending from 0 to 1.
    """
    instants = list(times)
    ascending = all(before < after for before, after in pairwise(instants))
    if not instants or not ascending or not 0 <= instants[0] <= instants[-1] <= 1:
        raise UserError(
            f"times: {instants}; ascending shares of the exposure, from 0 (its beginning) to 1 (its end), are needed"
        )
    return instants
