"""Data sets on disk for the tests of this folder."""

from pathlib import Path

import pytest

from tests.data.trees import GoproTree, make_gopro_tree


@pytest.fixture
def tree(tmp_path: Path) -> GoproTree:
    """Two clips of seven 48x64 frames with spikes of 24x32; a test may change it."""
    return make_gopro_tree(tmp_path)
