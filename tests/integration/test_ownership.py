"""Two installations on one queue or key prefix: the second is refused with a line that says what to do."""

from __future__ import annotations

import asyncio

import pytest

from controller.ownership import Owned, Ownership
from executions.adapters.redis_owner import PrefixOwner
from executions.adapters.redis_store import RedisStore
from executions.adapters.sqs_queue import SqsQueue
from executions.errors import StoreUnavailable
from tests.support.waiting import until


class Elsewhere:
    """Something whose owner can be told only sometimes."""

    what, remedy = "the thing", "find another one"

    def __init__(self, *answers: str | Exception | None) -> None:
        self.answers = list(answers)

    async def owner(self, name: str) -> str | None:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_the_first_installation_keeps_its_prefix_and_its_queue(
    redis_store: RedisStore, task_queue: SqsQueue
) -> None:
    prefix = PrefixOwner(redis_store.redis, redis_store.keys.prefix)
    for _ in range(2):
        assert await Ownership("one/alakai", [prefix, task_queue]).refusal() is None
    by_prefix = await Ownership("two/alakai", [prefix]).refusal()
    by_queue = await Ownership("two/alakai", [task_queue]).refusal()
    assert by_prefix is not None
    assert by_queue is not None
    assert f"the key prefix {redis_store.keys.prefix} belongs to the installation one/alakai" in by_prefix
    assert "this one is two/alakai; set EXECUTIONS_REDIS_KEY_PREFIX to another one" in by_prefix
    assert "belongs to the installation one/alakai" in by_queue
    assert "set SQS_QUEUE_URL to another one" in by_queue


async def test_without_a_name_nothing_is_asked() -> None:
    assert await Ownership("", [Elsewhere(AssertionError())]).refusal() is None


async def test_what_cannot_be_told_is_held_against_nobody() -> None:
    assert await Ownership("one", [Elsewhere(None), Elsewhere("one")]).refusal() is None


async def test_it_waits_and_goes_on_when_the_other_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.ownership._AGAIN_SECONDS", 0.01)
    answers: list[str | None] = []
    thing: Owned = Elsewhere(StoreUnavailable("away"), "two", "two", "one")
    ownership = Ownership("one", [thing], on_answer=answers.append)
    running = asyncio.create_task(ownership.run())
    await until(ownership.granted.is_set, seconds=10)
    await running
    refusal = "the thing belongs to the installation two, this one is one; find another one"
    assert answers == [refusal, refusal, None]
