"""Fixtures of the API's unit tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from tests.unit.api.harness import Api, made


@pytest.fixture
def make_api() -> Callable[..., Api]:
    return made


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    """An application in production settings with Google sign-in."""
    found = made()
    yield found
    await found.http.aclose()
