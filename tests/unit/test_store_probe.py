"""What Redis says to the probes' ping, and what counts as an answer."""

from __future__ import annotations

import pytest
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,
)

from executions.adapters.health import Look
from executions.adapters.store_probe import RedisProbe


class FakeRedis:
    def __init__(self, error: Exception | None) -> None:
        self.error = error

    async def ping(self) -> bool:
        if self.error:
            raise self.error
        return True

    def register_script(self, script: str) -> None:
        """The store registers its scripts when it is made."""


def redis_probe(error: Exception | None) -> RedisProbe:
    return RedisProbe(FakeRedis(error), "prefix")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "error",
    [
        None,
        BusyLoadingError("LOADING"),
        ReadOnlyError("READONLY"),
        AuthenticationError("NOAUTH"),
        AuthorizationError("NOPERM"),
        OutOfMemoryError("OOM"),
        ResponseError("BUSY"),
    ],
)
async def test_a_redis_that_refuses_has_answered(error: Exception | None) -> None:
    assert await Look(redis_probe(error).answers).problem() is None


@pytest.mark.parametrize("error", [ConnectionError("gone"), TimeoutError("late"), OSError("no route")])
async def test_a_redis_that_is_gone_has_not(error: Exception) -> None:
    assert await Look(redis_probe(error).answers).problem() is not None
