"""Instants of an exposure in options: shares of it, 0 at its first spike frame and 1 at its last.

parse_times("0:1:1/16")     # begin:end:step, both ends included: 17 instants
parse_times("0,1/4,0.5")    # a list
"""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from utils.user_error import UserError
from utils.utils_registry import Faults, raise_faults

MOST = 1024  # instants of an exposure; more are taken for a mistyped step


def parse_times(text: str) -> list[float]:
    """
    Raises:
        UserError: another form, or not ascending within [0, 1].
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
    shares = [float(time) for time in times]
    raise_faults("", times_faults(shares))
    return shares


def times_faults(times: Sequence[float]) -> Faults:
    """Faults of instants, as ("times", sentence)."""
    ascending = all(before < after for before, after in pairwise(times))
    if not times or not ascending or not 0 <= times[0] <= times[-1] <= 1:
        yield "times", f"ascending shares of the exposure, from 0 (its beginning) to 1 (its end); got {list(times)}"
