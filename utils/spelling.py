"""Suggests known names for an unknown one."""

import difflib
import re
from collections.abc import Iterable

SIMILAR = 0.7
"""Ratio (difflib's) from which a word may be a misspelling: "itr" and "iter" have 0.86, "dcn" and "net" 0.33."""

SAME_BEGINNING = 0.6
"""Ratio for words with the same first two letters: "flesh" and "flex" have 0.67, but so do "swanlab" and "wandb"."""

JOINED = 0.9
"""Ratio for names with unequal word counts: "numframe" and "num_frame" have 1, "Frames" and "VideoFrames" 0.71."""


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice of which `word` is most likely a misspelling; None if there is none.

    Case does not matter. A choice with a different word in it (`wandb_name` for `swanlab_name`) is not suggested.
    """
    candidates = [choice for choice in choices if _may_be(_words(word), _words(choice))]
    return max(candidates, key=lambda choice: _ratio(word.lower(), choice.lower()), default=None)


def _words(name: str) -> list[str]:
    """Words of a name: VideoRecurrentRGBSpike gives video, recurrent, rgb, spike; num_frame gives num, frame."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name)]


def _may_be(word: list[str], choice: list[str]) -> bool:
    if len(word) == len(choice):
        return all(map(_alike, word, choice))
    return _ratio("".join(word), "".join(choice)) >= JOINED


def _alike(first: str, second: str) -> bool:
    """Whether one word may be a misspelling of the other: similar, letters swapped ("tpf"), or one letter of three or
    more wrong."""
    wrong = sum(a != b for a, b in zip(first, second, strict=False))
    one_wrong = len(first) == len(second) >= 3 and wrong == 1
    needed = SAME_BEGINNING if first[:2] == second[:2] else SIMILAR
    return one_wrong or sorted(first) == sorted(second) or _ratio(first, second) >= needed


def _ratio(first: str, second: str) -> float:
    return difflib.SequenceMatcher(None, first, second).ratio()
