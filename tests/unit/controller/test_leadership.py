"""Leadership: work runs while the lease is held, and only then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from controller.leadership import Leadership
from executions.errors import StoreUnavailable
from tests.support.waiting import until

pytestmark = pytest.mark.looptime
"""The loop's time passes as soon as nobody has anything to do, so that waits cost none."""

TTL_SECONDS = 0.06


class FakeLease:
    """Answers what it is told to; counts."""

    def __init__(self, answer: int | None = 1) -> None:
        self.answer = answer
        self.is_away = False
        self.asked = 0
        self.released = 0

    async def hold(self) -> int | None:
        self.asked += 1
        if self.is_away:
            raise StoreUnavailable("away (test)")
        return self.answer

    async def release(self) -> None:
        if self.is_away:
            raise StoreUnavailable("away (test)")
        self.released += 1


class Work:
    """What a leader does: notes when it begins and ends."""

    def __init__(self) -> None:
        self.began: list[int] = []
        self.ended: list[int] = []
        self.fails = 0
        self.returns = 0

    async def __call__(self, fence: int) -> None:
        self.began.append(fence)
        if len(self.began) <= self.fails:
            raise RuntimeError("a defect")
        if len(self.began) <= self.returns:
            return
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.append(fence)


@pytest.fixture
def lease() -> FakeLease:
    return FakeLease()


@pytest.fixture
def work() -> Work:
    return Work()


@asynccontextmanager
async def leading(lease: FakeLease, work: Work, ttl_seconds: float = TTL_SECONDS) -> AsyncIterator[Leadership]:
    leadership = Leadership(lease, work, ttl_seconds=ttl_seconds)
    running = asyncio.create_task(leadership.run())
    try:
        yield leadership
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_the_holder_of_the_lease_works_once_and_prolongs_it(lease: FakeLease, work: Work) -> None:
    async with leading(lease, work) as leadership:
        await until(lambda: lease.asked >= 5)
        assert leadership.is_leader
        assert (work.began, work.ended) == ([1], [])


async def test_who_does_not_hold_the_lease_waits_for_it(lease: FakeLease, work: Work) -> None:
    lease.answer = None
    async with leading(lease, work) as leadership:
        await until(lambda: lease.asked >= 3)
        assert not leadership.is_leader
        assert work.began == []
        lease.answer = 4
        await until(lambda: work.began == [4])
        assert leadership.is_leader


async def test_the_work_ends_when_the_lease_is_lost(lease: FakeLease, work: Work) -> None:
    async with leading(lease, work) as leadership:
        await until(lambda: work.began == [1])
        lease.answer = None
        await until(lambda: work.ended == [1])
        assert not leadership.is_leader


async def test_a_new_fencing_number_begins_the_work_anew(lease: FakeLease, work: Work) -> None:
    async with leading(lease, work):
        await until(lambda: work.began == [1])
        lease.answer = 2
        await until(lambda: work.began == [1, 2])
        assert work.ended == [1]


async def test_a_short_outage_of_the_store_does_not_end_the_work(lease: FakeLease, work: Work) -> None:
    async with leading(lease, work, ttl_seconds=1.5) as leadership:
        await until(lambda: work.began == [1])
        lease.is_away = True
        asked = lease.asked
        await until(lambda: lease.asked > asked)
        assert leadership.is_leader
        lease.is_away = False
        asked = lease.asked
        await until(lambda: lease.asked > asked)
        assert (work.began, work.ended) == ([1], [])


async def test_an_outage_longer_than_the_lease_ends_the_work(lease: FakeLease, work: Work) -> None:
    async with leading(lease, work) as leadership:
        await until(lambda: work.began == [1])
        lease.is_away = True
        await until(lambda: work.ended == [1])
        assert not leadership.is_leader
        lease.is_away = False
        await until(lambda: work.began == [1, 1])


async def test_who_never_led_does_not_begin_during_an_outage(lease: FakeLease, work: Work) -> None:
    lease.is_away = True
    async with leading(lease, work) as leadership:
        await until(lambda: lease.asked >= 4)
        assert not leadership.is_leader
        assert work.began == []


@pytest.mark.parametrize("way", ["fails", "returns"])
async def test_work_that_ends_by_itself_is_begun_again(lease: FakeLease, work: Work, way: str) -> None:
    setattr(work, way, 2)
    async with leading(lease, work) as leadership:
        await until(lambda: work.began == [1, 1, 1])
        assert leadership.is_leader
        assert work.ended == []


@pytest.mark.parametrize("is_away", [pytest.param(False, id="handed over"), pytest.param(True, id="left to run out")])
async def test_a_stop_ends_the_work_before_the_lease_is_given_up(lease: FakeLease, work: Work, is_away: bool) -> None:
    order: list[str] = []
    release = lease.release

    async def noted() -> None:
        order.append(f"released after {len(work.ended)} ended")
        await release()

    lease.release = noted  # type: ignore[method-assign]
    async with leading(lease, work) as leadership:
        await until(lambda: work.began == [1])
        lease.is_away = is_away
    assert order == ["released after 1 ended"]
    assert lease.released == (0 if is_away else 1)
    assert not leadership.is_leader
