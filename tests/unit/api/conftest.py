"""Fixtures of the API's unit tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
from fastapi import FastAPI

from tests.unit.api.harness import Api, made


@pytest.fixture
def make_api() -> Callable[..., Api]:
    return made


@pytest.fixture(scope="session")
def application() -> FastAPI:
    """FastAPI works out its routes at their first request, in a tenth of a second: once is enough."""
    return made().app


@pytest.fixture
async def api(application: FastAPI) -> AsyncIterator[Api]:
    """An application in production settings with Google sign-in."""
    found = made(application)
    yield found
    await found.http.aclose()
