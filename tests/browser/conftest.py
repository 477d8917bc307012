"""Pages in a real Chromium for the browser tests; see `tests/support/browser.py` for what they are watched for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.support.browser import Watch, chromium, watching


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One per module, not per run: asynchronous tests of other modules could not run beside it."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def watched_page(browser: Browser) -> Iterator[Watch]:
    """``page, guard = watched_page(url)``, as often as the test wants; what goes wrong on any of them fails it."""
    with watching(browser) as watch:
        yield watch
