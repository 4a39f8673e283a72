"""Suggests known names for an unknown one."""

import difflib
import re
from collections.abc import Iterable

SIMILAR = 0.7
"""Words as alike as this (difflib's ratio) may be one misspelt: "itr" and "iter" are 0.86, "dcn" and "net" 0.33."""

SAME_BEGINNING = 0.6
"""Enough where the first two letters agree ("flesh" and "flex" are 0.67, as are "swanlab" and "wandb")."""

JOINED = 0.9
"""The same for names of another number of words: "numframe" and "num_frame" are 1, "Frames" and "VideoFrames" 0.71."""


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that `word` is most likely a misspelling of; None where there is none.

    Case does not matter. A choice in which a whole word is another one (`wandb_name` for `swanlab_name`) is another
    thing and no misspelling.
    """
    candidates = [choice for choice in choices if _may_be(_words(word), _words(choice))]
    return max(candidates, key=lambda choice: _ratio(word.lower(), choice.lower()), default=None)


def _words(name: str) -> list[str]:
    """["video", "recurrent", "rgb", "spike"] of VideoRecurrentRGBSpike, ["num", "frame"] of num_frame."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name)]


def _may_be(word: list[str], choice: list[str]) -> bool:
    if len(word) == len(choice):
        return all(map(_alike, word, choice))
    return _ratio("".join(word), "".join(choice)) >= JOINED


def _alike(first: str, second: str) -> bool:
    """Whether one word may be the other: alike, its letters in another order ("tpf"), or one of three or more wrong."""
    wrong = sum(a != b for a, b in zip(first, second, strict=False))
    one_wrong = len(first) == len(second) >= 3 and wrong == 1
    needed = SAME_BEGINNING if first[:2] == second[:2] else SIMILAR
    return one_wrong or sorted(first) == sorted(second) or _ratio(first, second) >= needed


def _ratio(first: str, second: str) -> float:
    return difflib.SequenceMatcher(None, first, second).ratio()
