"""Instants as people write them."""

import pytest

from utils.exposure_times import parse_times
from utils.user_error import UserError


def test_ranges_and_lists() -> None:
    assert parse_times("0:1:1/16") == [index / 16 for index in range(17)]
    assert parse_times("0.5:1:0.25") == [0.5, 0.75, 1.0]
    assert parse_times("0:1:0.4") == [0.0, 0.4, 0.8]
    assert parse_times("0,1/4,0.5") == [0.0, 0.25, 0.5]
    assert parse_times("1/3") == [1 / 3]


@pytest.mark.parametrize("text", ["", "a", "0:1", "0:1:0", "0:1:-1", "1:0:1/4", "0:1:1e-9", "0,0", "1/2,1/4", "2"])
def test_mistakes(text: str) -> None:
    with pytest.raises(UserError, match="times: "):
        parse_times(text)
