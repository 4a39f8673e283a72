"""The fixture `browser`: a headless Chromium, or a skip with the reason where there is none."""

from collections.abc import Iterator

import pytest

from scripts.browser import Browser, headless_chromium
from utils.user_error import UserError

__all__ = ["Browser", "browser"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A Chromium that reaches no network."""
    try:
        with headless_chromium() as chromium:
            yield chromium
    except UserError as error:
        pytest.skip(str(error))
