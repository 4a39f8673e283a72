"""Finds the preparation script of a data set from its folder's name, and the remedies for missing folders.

    preparation_of("trainsets/REDS/train_sharp_with_val.lmdb").command      # "prepare_reds"

Test: `python -m pytest tests/data/test_missing_files.py`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from utils.utils_download import RELEASE_PAGE


@dataclass(frozen=True)
class Preparation:
    """A data set and the script of `scripts/data_preparation` that prepares it.

    Attributes:
        name: name of the data set, for messages.
        command: name of the script.
    """

    name: str
    command: str


GOPRO = Preparation("GoPro", "prepare_gopro_spike_dataset")  # also assumed for unknown names
PREPARATIONS = {
    "gopro": GOPRO,
    "dvd": Preparation("DVD", "prepare_dvd"),
    "reds": Preparation("REDS", "prepare_reds"),
    "davis": Preparation("DAVIS", "prepare_davis"),
    "vimeo": Preparation("Vimeo-90K", "prepare_vimeo90k"),
}
"""By the beginning of their folders' names: GOPRO_Large, DVD10, REDS4, DAVIS-test, vimeo90k."""
TEST_SETS = ("Set8", "Vid4", "UCF101")
"""Test sets that need no preparation after the download: testset_<name>.tar.gz of the VRT release."""


def preparation_of(root: str | Path) -> Preparation | None:
    """The preparation for a path, by its last folder with a known name; None without one."""
    for part in reversed(Path(root).parts):
        match = re.match("|".join(PREPARATIONS), part.lower())
        if match and not part[match.end() : match.end() + 1].isalpha():
            return PREPARATIONS[match[0]]
    return None


def remedies(roots: Iterable[str | Path]) -> list[str]:
    """How to obtain missing data: a sentence for each data set among the roots.

    A root without a known name counts as GoPro, as in `scripts.data_preparation.prepare`.
    """
    sentences: dict[str, None] = {}
    for root in roots:
        parts = {part.lower() for part in Path(root).parts}
        test_set = next((name for name in TEST_SETS if name.lower() in parts), None)
        if test_set is not None:
            sentences[f"{test_set}: testset_{test_set}.tar.gz of {RELEASE_PAGE}, unpacked in testsets/."] = None
            continue
        preparation = preparation_of(root) or GOPRO
        sentences[
            f"`./launch_train.sh 1 OPTION_FILE --prepare-data` prepares a downloaded {preparation.name} set, as does "
            f"`python -m scripts.data_preparation.{preparation.command} --opt OPTION_FILE`."
        ] = None
    return [*sentences, "`./launch_train.sh 1 --demo` makes a small data set and trains on it."]
