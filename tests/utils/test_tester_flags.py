"""Which published rules a folder of clips is tested by: its own name says it, not where it lies."""

import pytest

from utils.options.tester_flags import set_name


@pytest.mark.parametrize(
    "folder, name",
    [
        ("testsets/vimeo90k", "vimeo90k"),
        ("/home/vimeo/davis/clips", "clips"),
        ("/data/UCF101/", "ucf101"),
        ("testsets/Vid4/GT", "vid4"),
        ("vimeo_septuplet/sequences", "vimeo_septuplet"),
    ],
)
def test_the_folders_own_name(folder: str, name: str) -> None:
    assert set_name(folder) == name
