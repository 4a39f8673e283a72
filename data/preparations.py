"""Which preparation makes the data set that a folder's name tells, and what to say where a folder is missing.

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
    """A data set that a script of `scripts/data_preparation` lays out.

    Attributes:
        name: for people.
        command: the script.
    """

    name: str
    command: str


GOPRO = Preparation("GoPro", "prepare_gopro_spike_dataset")
PREPARATIONS = {
    "gopro": GOPRO,
    "dvd": Preparation("DVD", "prepare_dvd"),
    "reds": Preparation("REDS", "prepare_reds"),
    "davis": Preparation("DAVIS", "prepare_davis"),
    "vimeo": Preparation("Vimeo-90K", "prepare_vimeo90k"),
}
"""By how the names of their folders begin: GOPRO_Large, DVD10, REDS4, DAVIS-test, vimeo90k."""
TEST_SETS = ("Set8", "Vid4", "UCF101")
"""Test sets that are downloaded as they are used: testset_<name>.tar.gz of the VRT release."""


def preparation_of(root: str | Path) -> Preparation | None:
    """The preparation of the data set that a path names, by the folder nearest to its end; None where none does."""
    for part in reversed(Path(root).parts):
        match = re.match("|".join(PREPARATIONS), part.lower())
        if match and not part[match.end() : match.end() + 1].isalpha():
            return PREPARATIONS[match[0]]
    return None


def remedies(roots: Iterable[str | Path]) -> list[str]:
    """How to come by missing data: a sentence for each data set that the roots name.

    A root without a known name is taken for GoPro, as `scripts.data_preparation.prepare` does.
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
            f"`./launch_train.sh 1 OPTION_FILE --prepare-data` lays out a downloaded {preparation.name} set, as does "
            f"`python -m scripts.data_preparation.{preparation.command} --opt OPTION_FILE`."
        ] = None
    return [*sentences, "`./launch_train.sh 1 --demo` makes a small data set and trains on it."]
