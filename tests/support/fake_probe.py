"""The probes' look at the store, as a test wants it."""

from __future__ import annotations


class FakeProbe:
    """Stands for ``RedisProbe``: raises what it is given; counts."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.trust_error: Exception | None = None
        self.asked = 0

    async def answers(self) -> None:
        self.asked += 1
        if self.error:
            raise self.error

    async def is_trusted(self) -> None:
        if self.error or self.trust_error:
            raise self.error or self.trust_error or AssertionError
