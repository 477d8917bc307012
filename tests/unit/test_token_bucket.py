"""The token bucket on a clock of its own."""

from __future__ import annotations

import asyncio

import pytest

from executions.adapters.token_bucket import BucketEmpty, TokenBucket


class Time:
    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))


@pytest.fixture
def time() -> Time:
    return Time()


def bucket_on(time: Time, burst: int = 100, per_second: float = 20) -> TokenBucket:
    return TokenBucket(burst, per_second, clock=time.clock, sleep=time.sleep)


async def take(bucket: TokenBucket, times: int = 1, *, longest_wait_seconds: float = 3600) -> None:
    for _ in range(times):
        await bucket.take(longest_wait_seconds=longest_wait_seconds)


@pytest.mark.parametrize(("burst", "per_second"), [(1, 1), (1, 50), (10, 4), (100, 20), (100, 40)])
async def test_a_burst_is_free_and_then_the_rate_holds(time: Time, burst: int, per_second: float) -> None:
    bucket = bucket_on(time, burst, per_second)
    await take(bucket, burst)
    assert time.slept == []
    await take(bucket, 3)
    assert time.slept == [round(number / per_second, 6) for number in (1, 2, 3)]


async def test_tokens_come_back_with_time_and_never_more_than_the_burst(time: Time) -> None:
    bucket = bucket_on(time, 10, 5)
    await take(bucket, 10)
    time.now += 0.5
    await take(bucket, 2)
    assert time.slept == []
    time.now += 3600
    await take(bucket, 11)
    assert time.slept == [0.2]


async def test_whoever_would_wait_too_long_is_told_at_once_and_takes_nothing(time: Time) -> None:
    bucket = bucket_on(time, 1, 1)
    await take(bucket)
    for _ in range(3):
        with pytest.raises(BucketEmpty):
            await take(bucket, longest_wait_seconds=0.5)
    time.now += 0.6
    await take(bucket, longest_wait_seconds=0.5)
    assert time.slept == [0.4]


async def test_a_throttled_service_is_left_alone_twice_as_long_each_time(time: Time) -> None:
    bucket = bucket_on(time, 10, 5)
    waits = []
    for _ in range(8):
        bucket.throttled()
        time.slept.clear()
        await take(bucket)
        waits += time.slept
        time.now += time.slept[0]
    assert waits == [0.5, 1, 2, 4, 8, 16, 20, 20]


async def test_calls_that_are_refused_together_count_once(time: Time) -> None:
    bucket = bucket_on(time, 10, 5)
    for _ in range(8):
        bucket.throttled()
    await take(bucket)
    assert time.slept == [0.5]


async def test_whoever_waits_when_the_service_begins_to_throttle_does_not_call(time: Time) -> None:
    bucket = TokenBucket(1, 1, clock=time.clock, sleep=lambda _: asyncio.sleep(0))
    await take(bucket)
    waiting = asyncio.create_task(take(bucket))
    await asyncio.sleep(0)
    bucket.throttled()
    with pytest.raises(BucketEmpty):
        await waiting


async def test_an_answer_makes_the_next_pause_short_again(time: Time) -> None:
    bucket = bucket_on(time, 10, 5)
    for _ in range(5):
        bucket.throttled()
        time.now += 60
    bucket.answered()
    bucket.throttled()
    await take(bucket)
    assert time.slept == [0.5]


async def test_after_a_pause_the_burst_is_not_given_at_once(time: Time) -> None:
    bucket = bucket_on(time, 100, 20)
    bucket.throttled()
    await take(bucket, 3)
    assert time.slept == [0.5, 0.55, 0.6]


async def test_buckets_are_independent(time: Time) -> None:
    launching, looking = bucket_on(time), bucket_on(time)
    launching.throttled()
    await take(looking, 100)
    assert time.slept == []


async def test_waiting_on_the_real_clock_keeps_the_order() -> None:
    bucket, order = TokenBucket(1, 200), list[int]()

    async def one(number: int) -> None:
        await bucket.take(longest_wait_seconds=5)
        order.append(number)

    await asyncio.gather(*(one(number) for number in range(10)))
    assert order == list(range(10))
