"""``GET /dashboard/stream``: every event once, wherever the reader was; who sees what, who is dropped, its end."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from api.limits import RateLimit
from api.live import Limits
from api.main import bind
from executions.ports import Identity
from executions.visibility import Visibility
from tests.support.builders import NOW_MS
from tests.support.fake_identity import JANES_TOKEN
from tests.support.memory_tracking import tracked
from tests.support.sse import Event, StreamCall
from tests.unit.api.harness import Api

STREAM = "/dashboard/stream"
QUICK = Limits(heartbeat_seconds=0.05, send_seconds=0.2)


@asynccontextmanager
async def following(api: Api) -> AsyncIterator[None]:
    """The process' own reader of the stream runs."""
    task = asyncio.create_task(api.context.live.run())
    try:
        yield
    finally:
        task.cancel()


def called(api: Api, *, after: str | None = None, query: str = "", token: str = JANES_TOKEN) -> StreamCall:
    headers = {"authorization": f"Bearer {token}"}
    if after is not None:
        headers["last-event-id"] = after
    return StreamCall(api.app, STREAM, query=query, headers=headers)


async def taken(call: StreamCall, count: int) -> list[Event]:
    return [await call.next() for _ in range(count)]


def names(found: list[Event]) -> list[str]:
    return [event.data["executionId"] for event in found]


def dropped(reason: str) -> float:
    return REGISTRY.get_sample_value("alakai_streams_dropped_total", {"reason": reason}) or 0.0


def open_streams() -> float:
    return REGISTRY.get_sample_value("alakai_streams_open") or 0.0


async def test_a_new_reader_starts_from_the_newest_rows_and_follows(api: Api) -> None:
    api.tasks.put(tracked("a"), tracked("b", at_ms=NOW_MS + 1))
    last = api.log.add(tracked("b"))
    async with following(api), called(api) as call:
        start = await call.next()
        assert (start.kind, start.entry_id) == ("reset", last)
        assert [row["executionId"] for row in start.data["tasks"]] == ["b", "a"]
        assert start.data["lastEventId"] == last
        added = api.log.add(tracked("c"))
        event = await call.next()
        assert (event.kind, event.entry_id, event.data) == ("task", added, tracked("c"))
    assert call.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert call.headers["cache-control"] == "no-store"
    assert call.headers["x-accel-buffering"] == "no"
    assert call.parser.retry_ms == 2000


@pytest.mark.parametrize("in_the_address", [False, True])
async def test_a_reader_that_comes_back_gets_what_it_missed_and_then_what_follows(
    api: Api, in_the_address: bool
) -> None:
    ids = [api.log.add(tracked(f"e{number}")) for number in range(1200)]
    query, after = (f"lastEventId={ids[99]}", None) if in_the_address else ("", ids[99])
    async with following(api), called(api, after=after, query=query) as call:
        found = await taken(call, 1100)
        ids.append(api.log.add(tracked("live")))
        found += await taken(call, 1)
    assert [event.entry_id for event in found] == ids[100:]
    assert {event.kind for event in found} == {"task"}


async def test_events_that_come_while_a_reader_catches_up_are_neither_lost_nor_doubled(api: Api) -> None:
    ids = [api.log.add(tracked(f"e{number}")) for number in range(700)]
    async with following(api), called(api, after=ids[0]) as call:
        for number in range(300):
            ids.append(api.log.add(tracked(f"later{number}")))
            if number % 20 == 0:
                await asyncio.sleep(0)
        found = await taken(call, 999)
    assert [event.entry_id for event in found] == ids[1:]


@pytest.mark.parametrize(
    ("case", "after"),
    [
        ("trimmed", "10-0"),
        ("of another Redis", "999999-7"),
        ("not an id", "canary"),
        ("empty", ""),
        ("larger than Redis counts", f"{2**64}-0"),
    ],
)
async def test_a_reader_whose_place_is_not_known_begins_anew(api: Api, case: str, after: str) -> None:
    ids = [api.log.add(tracked(f"e{number}")) for number in range(5)]
    api.log.trim(3)
    async with following(api), called(api, after=after) as call:
        start = await call.next()
        assert (start.kind, start.entry_id) == ("reset", ids[-1])
        api.log.add(tracked("next"))
        assert names(await taken(call, 1)) == ["next"]


async def test_a_reader_that_comes_from_a_faster_replica_gets_nothing_again(api: Api) -> None:
    api.log.add(tracked("a"))
    await api.context.live.turn()
    ids = [api.log.add(tracked(name)) for name in ("b", "c", "d")]
    async with called(api, after=ids[1]) as call:
        await asyncio.sleep(0.05)
        async with following(api):
            ids.append(api.log.add(tracked("e")))
            assert [event.entry_id for event in await taken(call, 2)] == ids[2:]
            await asyncio.sleep(0.05)
        assert call.waiting == 0


async def test_a_reader_from_before_the_first_event_misses_none(api: Api) -> None:
    async with following(api), called(api) as call:
        start = await call.next()
        ids = [api.log.add(tracked("a")), api.log.add(tracked("b"))]
        assert names(await taken(call, 2)) == ["a", "b"]
    async with following(api), called(api, after=start.entry_id) as call:
        assert [event.entry_id for event in await taken(call, 2)] == ids


async def test_what_is_not_projected_yet_is_in_what_a_reader_starts_from(api: Api) -> None:
    api.tasks.put(tracked("a"), tracked("b"))
    api.log.lag = api.log.add(tracked("a"))
    api.log.add(tracked("a", 2, at_ms=NOW_MS + 5, status="success", phase="Succeeded"))
    api.log.add(tracked("a", 3, at_ms=NOW_MS - 5, status="error"))
    last = api.log.add(tracked("c"))
    async with following(api), called(api) as call:
        start = await call.next()
    assert start.entry_id == last
    assert {row["executionId"]: row["status"] for row in start.data["tasks"]} == {
        "a": "success",
        "b": "in_progress",
        "c": "in_progress",
    }


async def test_entries_that_nothing_can_be_made_of_are_left_out(api: Api) -> None:
    first = api.log.add(tracked("a"))
    api.log.add(b"no json")
    deep = b'{"a":' * 300 + b"1" + b"}" * 300
    api.log.add(json.dumps(tracked("deep")).encode()[:-1] + b', "x": ' + deep + b"}")
    async with following(api), called(api, after=first) as call:
        await asyncio.sleep(0.05)
        api.log.add(b"[]")
        api.log.add(json.dumps(tracked("lines"), indent=1).encode())
        assert names(await taken(call, 1)) == ["lines"]


async def test_nobody_gets_what_is_not_theirs_to_see(api: Api) -> None:
    api.identity.people["johns"] = Identity("1002", "John@Example.org")
    theirs = {"visibility": {"responsibleUsers": ["john@example.org"]}}
    api.tasks.put(tracked("secret", **theirs), tracked("open"))
    api.log.add(tracked("secret", **theirs))
    async with following(api), called(api) as jane, called(api, token="johns") as john:
        assert [row["executionId"] for row in (await jane.next()).data["tasks"]] == ["open"]
        assert len((await john.next()).data["tasks"]) == 2
        unreadable: list[object] = [{"responsibleUsers": "x"}, {"responsibleUsers": [7]}, "x", []]
        for number, visibility in enumerate([theirs["visibility"], *unreadable, {"responsibleUsers": []}]):
            api.log.add(tracked(f"e{number}", visibility=visibility))
        api.log.add(tracked("last"))
        assert names(await taken(jane, 2)) == ["e5", "last"]
        assert names(await taken(john, 3)) == ["e0", "e5", "last"]


async def test_an_event_without_a_word_of_visibility_is_seen_as_the_file_says(make_api: Callable[..., Api]) -> None:
    api = make_api(visibility=Visibility({"my-org/*": ["john@example.org"]}))
    async with following(api), called(api) as call:
        await call.next()
        api.log.add(tracked("hidden"))
        api.log.add(tracked("hidden too", visibility=None))
        api.log.add(tracked("open", project="other/repo"))
        assert names(await taken(call, 1)) == ["open"]


async def test_a_silent_stream_is_kept_open_by_heartbeats(make_api: Callable[..., Api]) -> None:
    api = make_api(limits=QUICK, visibility=Visibility({"*": ["john@example.org"]}))
    async with following(api), called(api) as call:
        await call.next()
        for number in range(12):  # Events that this person does not see are no sign of life.
            api.log.add(tracked(f"e{number}"))
            await asyncio.sleep(0.02)
        assert call.parser.heartbeats >= 2
        assert call.waiting == 0


async def test_while_redis_is_away_streams_stay_open_and_then_go_on(make_api: Callable[..., Api]) -> None:
    api = make_api(limits=QUICK)
    first = api.log.add(tracked("a"))
    async with following(api), called(api) as old:
        await old.next()
        api.log.unavailable = True
        async with called(api, after=first) as new:
            await asyncio.sleep(0.2)
            assert old.parser.heartbeats >= 1
            assert new.parser.heartbeats >= 1
            assert new.status == 200
            api.log.unavailable = False
            ids = [api.log.add(tracked("b")), api.log.add(tracked("c"))]
            for call in (old, new):
                assert [event.entry_id for event in await taken(call, 2)] == ids


async def test_a_reader_of_a_process_that_never_reached_redis_waits_for_it(make_api: Callable[..., Api]) -> None:
    api = make_api(limits=QUICK)
    api.log.unavailable = True
    async with following(api), called(api) as call:
        await asyncio.sleep(0.1)
        api.log.unavailable = False
        assert (await call.next()).kind == "reset"


@pytest.mark.parametrize("loss", ["trimmed", "lost"])
async def test_what_went_before_it_was_read_makes_readers_begin_anew(make_api: Callable[..., Api], loss: str) -> None:
    api = make_api(limits=QUICK)
    api.log.add(tracked("a"))
    async with following(api), called(api) as call:
        start = await call.next()
        api.log.unavailable = True
        await asyncio.sleep(0.05)
        if loss == "lost":
            api.log.lose_everything()
        for name in ("b", "c", "d"):
            last = api.log.add(tracked(name))
        api.log.trim(1)
        api.log.unavailable = False
        await call.ended()
        assert call.is_complete
    async with following(api), called(api, after=start.entry_id) as again:
        begun = await again.next()
        assert (begun.kind, begun.entry_id) == ("reset", last)


async def test_a_reader_that_takes_nothing_is_dropped_and_the_others_are_not_kept_waiting(
    make_api: Callable[..., Api],
) -> None:
    api = make_api(limits=QUICK)
    before = dropped("stalled")
    async with following(api), called(api) as slow, called(api) as quick:
        await slow.next(), await quick.next()
        slow.taking.clear()
        for number in range(50):
            api.log.add(tracked(f"e{number}"))
        assert len(await taken(quick, 50)) == 50
        assert not slow.was_aborted
        await slow.ended()
        assert slow.was_aborted
        assert not slow.is_complete
    assert dropped("stalled") == before + 1


async def test_a_reader_that_falls_behind_what_is_kept_is_dropped(api: Api) -> None:
    before = dropped("behind")
    async with following(api), called(api) as call:
        await call.next()
        call.taking.clear()
        api.log.add(tracked("first"))
        await asyncio.sleep(0.05)
        for number in range(2_500):
            api.log.add(tracked(f"e{number}"))
        await asyncio.sleep(0.2)
        call.taking.set()
        await call.ended()
        assert call.is_complete
        assert names(await taken(call, 1)) == ["first"]
        assert call.waiting == 0
    assert dropped("behind") == before + 1


async def test_a_stream_ends_when_the_sign_in_does(api: Api) -> None:
    api.identity.people["soon"] = Identity("1003", "soon@example.org", None, api.store.now // 1000 + 1)
    async with following(api), called(api, token="soon") as call:
        assert (await call.next()).kind == "reset"
        assert (await call.next()).kind == "expired"
        await call.ended()
        assert call.is_complete
    api.identity.people["over"] = Identity("1003", "soon@example.org", None, api.store.now // 1000 - 5)
    async with following(api), called(api, token="over") as call:
        assert (await call.next()).kind == "expired"


async def test_a_stop_ends_all_streams_at_once_and_opens_no_more(api: Api) -> None:
    before = open_streams()
    async with following(api), called(api) as one, called(api) as stalled:
        await one.next(), await stalled.next()
        assert open_streams() == before + 2
        stalled.taking.clear()
        api.log.add(tracked("a"))
        await asyncio.sleep(0.05)
        api.context.live.end()
        await one.ended(0.5)
        assert one.is_complete
        await stalled.ended(2)
        assert stalled.was_aborted
        async with called(api) as late:
            await late.ended()
        assert late.status == 503
        assert int(late.headers["retry-after"]) > 0
    assert open_streams() == before


async def test_a_reader_that_leaves_frees_its_seat(make_api: Callable[..., Api]) -> None:
    api = make_api(limits=Limits(streams=3, per_person=2))
    api.identity.people["johns"] = Identity("1002", "john@example.org")
    api.identity.people["jims"] = Identity("1004", "jim@example.org")
    async with following(api), called(api) as one, called(api) as two, called(api, token="johns") as three:
        for call in (one, two, three):
            await call.next()
        async with called(api) as more:
            await more.ended()
        assert (more.status, more.headers["retry-after"]) == (429, "30")
        async with called(api, token="jims") as more:
            await more.ended()
        assert more.status == 503
        one.leave()
        await one.ended()
        async with called(api) as more:
            assert (await more.next()).kind == "reset"


async def test_a_token_in_the_address_is_accepted_here_and_never_written_anywhere(
    make_api: Callable[..., Api], caplog: pytest.LogCaptureFixture
) -> None:
    api = make_api()
    secret = "header.canary-in-the-address.signature"
    api.identity.people[secret] = Identity("1001", "jane@example.org")
    with capture_logs() as logs, caplog.at_level(logging.DEBUG):
        async with following(api), StreamCall(api.app, STREAM, query=f"authToken={secret}") as call:
            await call.next()
            api.log.unavailable = True
            await asyncio.sleep(0.05)
        for query in (f"authToken={secret}x", f"authToken={secret}&authToken={secret}", f"authToken={secret}%20x"):
            async with StreamCall(api.app, STREAM, query=query) as call:
                await call.ended()
            assert call.status == 401
            assert b"canary" not in call.body
        both = StreamCall(api.app, STREAM, query=f"authToken={secret}", headers={"authorization": "Bearer other"})
        async with both:
            await both.ended()
        assert both.status == 401
        for path in ("/dashboard/tasks", "/dashboard/tasks/a", "/dashboard/executions/a"):
            async with StreamCall(api.app, path, query=f"authToken={secret}") as call:
                await call.ended()
            assert call.status == 401
    labels = [str(sample.labels) for metric in REGISTRY.collect() for sample in metric.samples]
    assert "canary" not in f"{logs}{caplog.text}{labels}{api.events}"


async def test_streams_and_requests_of_a_person_are_counted_apart(make_api: Callable[..., Api]) -> None:
    api = make_api()
    bind(api.app, replace(api.context, per_person=RateLimit(0.001, 2)))
    async with following(api), called(api) as call:
        await call.next()
        assert (await api.get("/dashboard/tasks")).status_code == 200
        assert (await api.get("/dashboard/tasks")).status_code == 200
        assert (await api.get("/dashboard/tasks")).status_code == 429


async def test_a_parameter_that_is_no_id_by_its_length_is_refused(api: Api) -> None:
    async with called(api, query=f"lastEventId={'1' * 300}") as call:
        await call.ended()
    assert call.status == 422


async def test_a_fault_of_ours_does_not_end_the_following(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fault(_: str) -> bool:
        raise ZeroDivisionError

    async with following(api), called(api) as call:
        await call.next()
        with monkeypatch.context() as patched:
            patched.setattr(api.log, "holds", fault)
            added = api.log.add(tracked("a"))
            await asyncio.sleep(0.05)
        assert (await call.next()).entry_id == added
