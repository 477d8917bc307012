"""Task tracking on a real Redis and a real S3 (moto): published once, projected in any order, archived once."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from redis.asyncio import Redis

from controller.loops.archiver import Archiver
from controller.loops.projector import Projector
from controller.loops.publisher import Publisher
from controller.loops.stream_reader import StreamReader
from devstack.aws import AwsServer
from devstack.kubernetes import ControlPlane
from devstack.redis import RedisServer
from executions.adapters.archive_ledger import ArchiveLedger
from executions.adapters.redis_connection import connect
from executions.adapters.redis_feed import FeedCursor, RedisFeed
from executions.adapters.redis_store import RedisStore
from executions.adapters.s3_archive import S3Archive
from executions.adapters.tracking_keys import TrackingKeys
from executions.adapters.tracking_projection import TrackingProjection
from executions.adapters.tracking_stream import TrackingStream
from executions.answer import Answer, Reply
from executions.errors import ArchiveUnavailable, InvalidSettings
from executions.moment import iso_from_ms
from executions.record import Execution
from executions.rows import Place
from executions.tracking import event_from_text
from executions.visibility import Visibility
from tests.support.builders import NOW_MS, pending, running

BUCKET = "tracking-test"
PROJECTORS, ARCHIVERS = "projectors", "archivers"
MANY = 20_000 if os.environ.get("ALAKAI_E2E_SCALE") == "full" else 4_000
EXECUTIONS = MANY // 30


@dataclass(frozen=True, slots=True)
class World:
    """Everything of one test, under keys of its own."""

    redis: Redis
    keys: TrackingKeys
    stream: TrackingStream
    projection: TrackingProjection
    ledger: ArchiveLedger
    archive: S3Archive
    bucket: Any

    def projector(self, *, idle_seconds: float = 0.0, tries: int = 3) -> Projector:
        return Projector(self.reader("projector", PROJECTORS, idle_seconds, tries), self.projection)

    def archiver(self, *, idle_seconds: float = 30.0, batch_events: int = 100) -> Archiver:
        reader = self.reader("archiver", ARCHIVERS, idle_seconds, 3)
        return Archiver(
            reader,
            ARCHIVERS,
            self.ledger,
            self.archive,
            batch_seconds=0.05,
            batch_events=batch_events,
            others_seconds=0,
        )

    def reader(self, what: str, group: str, idle_seconds: float, tries: int) -> StreamReader:
        return StreamReader(
            what, self.stream.group(group, secrets.token_hex(4)), idle_seconds=idle_seconds, tries=tries
        )

    async def put(self, *documents: dict[str, Any]) -> None:
        """As any writer may: also twice, and in any order."""
        pipeline = self.redis.pipeline(transaction=False)
        for document in documents:
            pipeline.xadd(self.keys.stream, {"event": json.dumps(document)})
        await pipeline.execute()

    def objects(self) -> dict[str, list[dict[str, Any]]]:
        """What an analyst finds in the bucket, by name."""
        pages = self.bucket.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{self.keys.prefix}/")
        names = [item["Key"] for page in pages for item in page.get("Contents", [])]
        bodies = {name: self.bucket.get_object(Bucket=BUCKET, Key=name)["Body"].read() for name in names}
        return {name: [json.loads(line) for line in body.splitlines()] for name, body in bodies.items()}

    def archived(self) -> Counter[str]:
        return Counter(line["eventId"] for lines in self.objects().values() for line in lines)


@pytest.fixture
async def world(
    redis_server: RedisServer, aws: AwsServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    for name, value in aws_environment(aws).items():
        monkeypatch.setenv(name, value)
    bucket = boto3.client("s3", region_name="us-east-1")
    bucket.create_bucket(Bucket=BUCKET)
    redis = connect(redis_server.url)
    keys = TrackingKeys(f"{prefix}:events", prefix)
    archive = S3Archive(BUCKET, prefix, region="us-east-1")
    yield World(
        redis,
        keys,
        TrackingStream(redis, keys),
        TrackingProjection(redis, keys),
        ArchiveLedger(redis, keys),
        archive,
        bucket,
    )
    await archive.close()
    await redis.aclose()
    bucket.close()


def aws_environment(aws: AwsServer) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": aws.url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }


def event(execution_id: str, sequence: int, *, at_ms: int = NOW_MS, **fields: Any) -> dict[str, Any]:
    return {
        "eventId": f"of-{execution_id}.{at_ms}.{sequence}",
        "executionId": execution_id,
        "occurredAt": iso_from_ms(at_ms),
        "taskName": "Fix",
        "status": "in_progress",
        "project": "my-org/my-repo",
        **fields,
    }


# The publisher


async def commit(store: RedisStore, execution: Execution) -> Execution:
    seen = await store.read(execution.task_id)
    done = await store.commit(seen, execution, Answer(Reply.ACCEPTED, execution.task_id))
    assert done.following is not None
    assert done.following.execution is not None
    return done.following.execution


async def published(world: World) -> list[dict[str, Any]]:
    entries = await world.redis.xrange(world.keys.stream)
    return [json.loads(fields[b"event"]) for _, fields in entries]


async def test_every_step_of_a_record_is_on_the_stream_in_its_order(
    world: World, redis_store: RedisStore, prefix: str
) -> None:
    visibility = Visibility({"my-org/*": ["lead@example.com"]})
    publisher = Publisher(FeedCursor(redis_store, group="tracking"), world.stream, visibility)
    claimed = await commit(redis_store, pending())
    await commit(redis_store, replace(claimed, attempts=running().attempts))
    await publisher.turn()
    found = await published(world)
    assert [item["phase"] for item in found] == ["Pending", "Running"]
    assert [item["visibility"] for item in found] == [{"responsibleUsers": ["lead@example.com"]}] * 2
    stored = await redis_store.read("task-1")
    assert stored.execution is not None
    assert stored.execution.state.told_event == found[-1]["eventId"]


async def test_a_publisher_that_crashed_before_it_went_on_publishes_nothing_twice(
    world: World, redis_store: RedisStore, prefix: str
) -> None:
    class Crash(Exception):
        pass

    class Dying(FeedCursor):
        async def advance(self) -> None:
            raise Crash

    await commit(redis_store, pending())
    dying = Publisher(Dying(redis_store, group="tracking"), world.stream, Visibility())
    with pytest.raises(Crash):
        await dying.turn()
    next_one = Publisher(FeedCursor(redis_store, group="tracking"), world.stream, Visibility())
    await next_one.turn()
    await commit(redis_store, pending("task-2"))
    await next_one.turn()
    assert [item["taskId"] for item in await published(world)] == ["task-1", "task-2"]


async def test_an_entry_of_the_feed_that_nobody_can_read_keeps_no_other_from_being_published(
    world: World, redis_store: RedisStore, prefix: str
) -> None:
    publisher = Publisher(FeedCursor(redis_store, group="tracking"), world.stream, Visibility())
    for fields in ({"else": "1"}, {"change": "no JSON"}, {"change": "[]"}, {"change": "{}"}):
        await redis_store.redis.xadd(f"{prefix}/feed", fields)  # type: ignore[arg-type]
    await commit(redis_store, pending())
    await publisher.turn()
    assert [item["taskId"] for item in await published(world)] == ["task-1"]


async def test_the_feed_is_not_trimmed_before_it_is_published(
    world: World, redis_store: RedisStore, prefix: str
) -> None:
    publisher = Publisher(FeedCursor(redis_store, group="tracking"), world.stream, Visibility())
    await publisher.turn()
    mirror = RedisFeed(redis_store.redis, prefix, group="mirror", consumer="test")
    for number in range(300):
        await commit(redis_store, pending(f"task-{number}"))
    while await mirror.read(block_ms=1):
        await mirror.trim()
    while len(await published(world)) < 300:
        await publisher.turn()
    assert len({item["eventId"] for item in await published(world)}) == 300


# The projection


async def test_an_older_event_that_comes_late_changes_nothing(world: World) -> None:
    await world.put(event("a", 2, at_ms=NOW_MS + 5, status="success"), event("a", 1, status="in_progress"))
    await world.projector().turn()
    (found,) = await world.projection.read(["a"])
    assert found["status"] == "success"
    assert await world.redis.zscore(world.keys.project("my-org/my-repo"), "a") == NOW_MS + 5


async def test_within_a_millisecond_the_sequence_decides(world: World) -> None:
    await world.put(event("a", 10, status="success"), event("a", 9))
    await world.projector().turn()
    assert (await world.projection.read(["a"]))[0]["status"] == "success"


async def test_fields_that_a_newer_event_does_not_have_go(world: World) -> None:
    await world.put(event("a", 1, errorCode="WORKER_LOST"), event("a", 2, at_ms=NOW_MS + 1))
    await world.projector().turn()
    assert "errorCode" not in (await world.projection.read(["a"]))[0]


async def test_an_execution_that_moves_leaves_its_old_project(world: World) -> None:
    await world.put(event("a", 1), event("a", 2, at_ms=NOW_MS + 1, project="my-org/other"))
    await world.projector().turn()
    assert await world.redis.zrange(world.keys.project("my-org/my-repo"), 0, -1) == []
    assert await world.redis.zrange(world.keys.project("my-org/other"), 0, -1) == [b"a"]


async def test_the_list_is_read_in_pages_from_the_newest_on(world: World) -> None:
    events = [event(f"e{number:03}", 1, at_ms=NOW_MS + number // 10) for number in range(95)]
    await world.put(*random.Random(1).sample(events, len(events)))
    await world.projector().turn()
    expected = [
        Place(NOW_MS + number // 10, f"e{number:03}")
        for number in sorted(range(95), key=lambda number: (number // 10, number), reverse=True)
    ]
    found: list[Place] = []
    while page := await world.projection.newest(project=None, before=found[-1] if found else None, limit=7):
        found += page
    assert found == expected


async def test_a_key_that_is_no_hash_hides_no_other_one(world: World) -> None:
    await world.put(event("a", 1), event("b", 1))
    await world.projector().turn()
    await world.redis.set(world.keys.execution("b"), "somebody's own string")
    found = await world.projection.read(["b", "a", "c"])
    assert [item.get("executionId") for item in found] == [None, "a", None]


async def test_what_nothing_can_be_made_of_is_set_aside_and_holds_nobody_up(world: World) -> None:
    await world.redis.set(world.keys.execution("broken"), "somebody's own string")
    await world.redis.xadd(world.keys.stream, {"event": "no json"})
    await world.redis.xadd(world.keys.stream, {"else": "no event at all"})
    await world.put(event("broken", 1), event("good", 1))
    projector = world.projector(tries=3)
    for _ in range(4):
        await projector.turn()
    assert (await world.projection.read(["good"]))[0]["status"] == "in_progress"
    aside = await world.redis.xrange(world.keys.poison(PROJECTORS))
    reasons = [fields[b"reason"].decode() for _, fields in aside]
    assert reasons[:2] == ["not JSON", "not JSON"]
    assert "WRONGTYPE" in reasons[2]
    assert (await world.redis.xpending(world.keys.stream, PROJECTORS))["pending"] == 0


async def test_what_a_dead_reader_had_in_hand_is_handled_by_another(world: World) -> None:
    dead = world.reader("projector", PROJECTORS, 30, 3)
    await world.put(event("a", 1))
    assert len(await dead.take(count=10, block_ms=1)) == 1
    await world.projector().turn()
    assert await world.projection.read(["a"]) != [{}]
    assert (await world.redis.xpending(world.keys.stream, PROJECTORS))["pending"] == 0


# Trimming


async def fill(world: World, count: int) -> None:
    await world.put(*(event(f"e{number}", 1, at_ms=NOW_MS + number) for number in range(count)))


async def test_the_newest_entries_stay(world: World) -> None:
    await fill(world, 60)
    await world.projector().turn()
    assert await world.stream.trim([PROJECTORS], keep=25) == 35
    assert await world.redis.xlen(world.keys.stream) == 25
    assert await world.stream.trim([PROJECTORS], keep=25) == 0


async def test_nothing_goes_that_a_group_has_not_acknowledged(world: World) -> None:
    await fill(world, 60)
    archiving = world.stream.group(ARCHIVERS, "one")
    taken = await archiving.read(count=60, block_ms=1)
    await world.projector().turn()
    await archiving.acknowledge([item.entry_id for item in taken[:10]])
    await archiving.acknowledge([item.entry_id for item in taken[11:]])
    assert await world.stream.trim([PROJECTORS, ARCHIVERS], keep=0) == 10
    assert await world.redis.xlen(world.keys.stream) == 50
    assert await world.stream.trim([PROJECTORS], keep=0) == 50, "the archive was switched off: it holds nothing up"


async def test_a_group_that_has_not_begun_has_read_nothing(world: World) -> None:
    await fill(world, 10)
    await world.projector().turn()
    assert await world.stream.trim([PROJECTORS, ARCHIVERS], keep=0) == 0
    await world.stream.group(ARCHIVERS, "one").ensure()
    assert await world.stream.trim([PROJECTORS, ARCHIVERS], keep=0) == 0


# The archive


async def archive_all(archiver: Archiver, world: World) -> None:
    async def is_done() -> bool:
        await archiver.collect()
        await archiver.put_open()
        groups = await world.redis.xinfo_groups(world.keys.stream)
        last = (await world.redis.xinfo_stream(world.keys.stream))["last-generated-id"]
        is_read = any(item["name"] == ARCHIVERS.encode() and item["last-delivered-id"] == last for item in groups)
        pending = (await world.redis.xpending(world.keys.stream, ARCHIVERS))["pending"]
        return is_read and not pending and not await world.ledger.open_count()

    deadline = time.monotonic() + 60
    while not await is_done():
        assert time.monotonic() < deadline, "the archive never came to an end"


async def test_each_event_is_in_one_object_of_its_project_and_day(world: World) -> None:
    day = 24 * 3600 * 1000
    await world.put(event("a", 1), event("b", 1, project="my-org/other"), event("c", 1, at_ms=NOW_MS + day))
    await world.put(event("a", 1), event("a", 1))
    await archive_all(world.archiver(), world)
    objects = world.objects()
    assert sorted(name.rsplit("/", 1)[0].removeprefix(f"{world.keys.prefix}/") for name in objects) == [
        "my-org/my-repo/2023-11-14",
        "my-org/my-repo/2023-11-15",
        "my-org/other/2023-11-14",
    ]
    assert set(world.archived().values()) == {1}
    receipts = [receipt async for receipt in world.ledger.all_receipts()]
    assert {f"{world.keys.prefix}/{receipt.name}" for receipt in receipts} == set(objects)
    assert await world.ledger.archived([("a", f"of-a.{NOW_MS}.1"), ("a", "another"), ("z", "z")]) == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("moment", ["sealing", "putting", "writing the receipt"])
@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
async def test_a_crash_makes_neither_a_second_object_nor_a_lost_event(
    world: World, moment: str, is_done: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(Exception):
        pass

    owner, name = {
        "sealing": (ArchiveLedger, "seal"),
        "putting": (S3Archive, "put"),
        "writing the receipt": (ArchiveLedger, "stored"),
    }[moment]
    real = getattr(owner, name)

    async def crash(*arguments: Any) -> None:
        if is_done:
            await real(*arguments)
        raise Crash

    await fill(world, 10)
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, crash)
        with pytest.raises(Crash):
            await archive_all(world.archiver(), world)
    await archive_all(world.archiver(idle_seconds=0.01), world)
    assert world.archived() == Counter({f"of-e{number}.{NOW_MS + number}.1": 1 for number in range(10)})
    assert len(world.objects()) == 1


async def test_a_batch_that_two_archivers_put_at_once_is_one_object(world: World) -> None:
    await fill(world, 10)
    first = world.archiver(batch_events=10)
    await first.collect()
    others = [world.archiver(), world.archiver()]
    for other in others:
        await other.put_open()  # which is the first look: it puts nothing yet
    assert world.objects() == {}
    await asyncio.gather(first.put_open(), *(other.put_open() for other in others))
    assert len(world.objects()) == 1
    assert await world.ledger.open_names() == []


async def test_an_object_of_somebody_else_under_the_name_is_never_overwritten(world: World) -> None:
    await world.archive.put("a/b/2026-01-01/events-1-x.jsonl", b"theirs\n")
    await world.archive.put("a/b/2026-01-01/events-1-x.jsonl", b"theirs\n")
    with pytest.raises(ArchiveUnavailable, match="with another content"):
        await world.archive.put("a/b/2026-01-01/events-1-x.jsonl", b"ours\n")
    assert await world.archive.read("a/b/2026-01-01/events-1-x.jsonl") == b"theirs\n"
    assert await world.archive.names("a/b") == ["a/b/2026-01-01/events-1-x.jsonl"]


async def test_a_bucket_that_is_not_there_stops_the_start(world: World) -> None:
    missing = S3Archive("nobody-made-this", "x", region="us-east-1")
    with pytest.raises(InvalidSettings, match="the bucket nobody-made-this does not exist"):
        await missing.check()
    assert await world.archive.read("nothing") is None
    await missing.close()


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"TASK_TRACKING_S3_BUCKET": "nobody-made-this"},
            "controller: the bucket nobody-made-this does not exist; create it or correct TASK_TRACKING_S3_BUCKET\n",
        ),
        (
            {},
            "controller: TASK_TRACKING_S3_BUCKET is not set; set it to the bucket of the archive, "
            "or unset TASK_TRACKING_S3_ARCHIVE_ENABLED\n",
        ),
    ],
    ids=["a missing bucket", "no bucket"],
)
def test_an_archive_that_cannot_be_stops_the_start_with_one_line(
    settings: dict[str, str], line: str, redis_server: RedisServer, aws: AwsServer, kube: ControlPlane
) -> None:
    environment = {
        **{name: text for name, text in os.environ.items() if name in ("PATH", "HOME", "LANG")},
        **aws_environment(aws),
        "ENV": "local",
        "REDIS_URL": redis_server.url,
        "SQS_QUEUE_URL": f"{aws.url}/000000000000/unused",
        "KUBECONFIG": str(kube.kubeconfig),
        "TASK_TRACKING_S3_ARCHIVE_ENABLED": "true",
        **settings,
    }
    done = subprocess.run(
        [sys.executable, "-m", "controller"],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (2, line)


# Many at once


def random_events(rng: random.Random) -> Iterator[dict[str, Any]]:
    """Of each execution some steps, at times that often are the same."""
    count = itertools.count(1)
    for number in range(MANY):
        execution = f"e{rng.randrange(EXECUTIONS)}"
        yield event(
            execution,
            next(count),
            at_ms=NOW_MS + rng.randrange(2000) * 60_000,
            status=rng.choice(["in_progress", "success", "error"]),
            project=f"my-org/repo-{rng.randrange(2)}" if number % 50 else None,
        )


async def test_many_events_in_any_order_with_repeats_through_three_projectors_and_two_archivers(
    world: World, redis_server: RedisServer, aws: AwsServer, tmp_path: Path
) -> None:
    rng = random.Random(7)
    events = list(random_events(rng))
    written = events + rng.sample(events, MANY // 10)
    rng.shuffle(written)
    environment = {
        **{name: text for name, text in os.environ.items() if name in ("PATH", "HOME", "LANG")},
        **aws_environment(aws),
        "ENV": "local",
        "REDIS_URL": redis_server.url,
        "SQS_QUEUE_URL": f"{aws.url}/000000000000/unused",
        "TASK_TRACKING_REDIS_STREAM_KEY": world.keys.stream,
        "TASK_TRACKING_REDIS_KEY_PREFIX": world.keys.prefix,
        "TASK_TRACKING_REDIS_PROJECTOR_CONSUMER_GROUP": PROJECTORS,
        "TASK_TRACKING_REDIS_ARCHIVER_CONSUMER_GROUP": ARCHIVERS,
        "TASK_TRACKING_S3_ARCHIVE_ENABLED": "true",
        "TASK_TRACKING_S3_BUCKET": BUCKET,
        "TASK_TRACKING_S3_PREFIX": world.keys.prefix,
        "TASK_TRACKING_S3_BATCH_SECONDS": "1",
        "TASK_TRACKING_STREAM_KEEP": "100",
        "CONTROLLER_PORT": "0",
        "METRICS_PORT": "0",
    }
    for group in (PROJECTORS, ARCHIVERS):
        await world.stream.group(group, "nobody").ensure()
    started: list[subprocess.Popen[bytes]] = []

    def start(part: str) -> subprocess.Popen[bytes]:
        with (tmp_path / f"{part}-{len(started)}.log").open("wb") as log:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "controller", "--only", part],
                    env=environment,
                    cwd=Path(__file__).parents[2],
                    stdout=log,
                    stderr=log,
                )
            )
        return started[-1]

    try:
        victims = [start("projector"), start("projector"), start("archiver")]
        for part in ("projector", "archiver", "trimmer"):
            start(part)
        for at in range(0, len(written), 1000):
            await world.put(*written[at : at + 1000])
            if at == MANY // 2000 * 1000:
                await until_handled(world)
                for victim in victims:
                    victim.send_signal(signal.SIGKILL)
                start("projector"), start("projector"), start("archiver")
        await until_settled(world)
    finally:
        for process in started:
            process.kill()
            process.wait()
    newest: dict[str, dict[str, Any]] = {}
    for document in events:
        known = newest.get(document["executionId"])
        if known is None or order_of(document) > order_of(known):
            newest[document["executionId"]] = document
    found = await world.projection.read(list(newest))
    assert found == [{name: value for name, value in item.items() if value is not None} for item in newest.values()]
    for project in ("my-org/repo-0", "my-org/repo-1"):
        members = {member.decode() for member in await world.redis.zrange(world.keys.project(project), 0, -1)}
        assert members == {item["executionId"] for item in newest.values() if item["project"] == project}
    assert world.archived() == Counter(document["eventId"] for document in events)
    assert await world.redis.xlen(world.keys.stream) <= 100


def order_of(document: dict[str, Any]) -> tuple[int, int, str]:
    return event_from_text(json.dumps(document).encode()).order


async def until_handled(world: World) -> None:
    """Much of it is projected already."""
    deadline = time.monotonic() + 60
    while await world.redis.zcard(world.keys.executions) < EXECUTIONS * 0.6:
        assert time.monotonic() < deadline, "nothing is projected"
        await asyncio.sleep(0.05)


async def until_settled(world: World) -> None:
    """Both groups have acknowledged everything, S3 has every batch, and the stream is trimmed."""
    deadline = time.monotonic() + 180
    while True:
        pending = [
            (await world.redis.xpending(world.keys.stream, group))["pending"] for group in (PROJECTORS, ARCHIVERS)
        ]
        last = (await world.redis.xinfo_stream(world.keys.stream))["last-generated-id"]
        groups = await world.redis.xinfo_groups(world.keys.stream)
        is_read = all(group["last-delivered-id"] == last for group in groups)
        if (
            is_read
            and not any(pending)
            and not await world.ledger.open_count()
            and await world.redis.xlen(world.keys.stream) <= 100
        ):
            return
        assert time.monotonic() < deadline, (
            f"never settled: {pending} pending, {await world.redis.xlen(world.keys.stream)} entries"
        )
        await asyncio.sleep(0.1)
