"""Redis as people run it: behind sentinels, with a failover under load; with TLS and a user of ours."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TypeVar

import pytest
import redis

from devstack.aws import AwsServer
from devstack.kubernetes import ControlPlane
from devstack.redis import RedisServer
from executions.adapters.redis_connection import connect
from executions.adapters.redis_epoch import create_epoch
from executions.adapters.redis_feed import FeedCursor
from executions.adapters.redis_store import RedisStore, Wait
from executions.answer import Answer, Reply
from executions.errors import InvalidSettings, StoreUnavailable
from executions.ports import Committed, Operation
from tests.e2e.installation import Installation, message
from tests.e2e.test_redis_acl import FILE
from tests.support.builders import pending
from tests.support.redis_group import RedisGroup, TlsEnd

TASKS = 30
T = TypeVar("T")


@pytest.mark.timeout(240)
def test_a_failover_under_load_loses_no_task_and_repeats_none(
    redis_server: RedisServer, aws: AwsServer, kube: ControlPlane, tmp_path: Path
) -> None:
    settings = {"REDIS_WAIT_REPLICAS": "1"}
    with (
        RedisGroup(tmp_path / "group") as group,
        Installation(redis_server, aws, kube, tmp_path / "site", REDIS_URL=group.url, **settings) as site,
    ):
        site.worker_logs.mkdir(parents=True)
        site.start_both()
        tasks = [f"task-{number}" for number in range(TASKS)]
        site.send(*(message(task_id, "slow", seconds=1) for task_id in tasks))
        site.wait_until(lambda: len(site.resources()) >= TASKS // 3, 60, "a third is claimed")
        old = group.kill_master()
        site.wait_until(lambda: group.master != old, 30, "a replica is the master")
        # With its only replica promoted there is nobody to wait for until the old one is back as a replica.
        group.servers[old].start(group.server_command(old), port=old)
        site.wait_until(
            lambda: list(site.resources().values()) == [(1, "Succeeded")] * TASKS, 120, "all succeed in one attempt"
        )
        for task_id in tasks:
            assert [final for _, final in site.work_done(task_id)].count("completed") == 1


@pytest.mark.timeout(120)
def test_tls_and_a_user_of_ours_at_once(
    redis_server: RedisServer, aws: AwsServer, kube: ControlPlane, tmp_path: Path
) -> None:
    tls_folder = tmp_path / "tls"
    tls_folder.mkdir()
    with TlsEnd(redis_server.port or 0, tls_folder) as tls:
        with Installation(redis_server, aws, kube, tmp_path / "site") as site:
            site.worker_logs.mkdir(parents=True)
            line = next(item for item in FILE.read_text().splitlines() if item.startswith("user "))
            digest = hashlib.sha256(b"hush").hexdigest()
            rules = line.replace("PASSWORD_SHA256", digest).replace("alakai-executions", site.prefix).split()[1:]
            site.redis.execute_command("ACL", "SETUSER", *rules)
            file = tmp_path / "url"
            file.write_text(f"rediss://alakai:hush@localhost:{tls.port}/0?ssl_ca_certs={tls.authority}")
            del site.env["REDIS_URL"]
            site.env["REDIS_URL_FILE"] = str(file)
            site.start_both()
            site.send(message("works"), message("fails", "fail"))
            site.wait_for("works", 1, "succeeded")
            site.wait_for("fails", 1, "failed")
            assert site.retry("fails")[0] == 202
            site.wait_for("fails", 2, "succeeded")
            assert "hush" not in site.logs()
        site_admin = redis.Redis.from_url(redis_server.url)
        site_admin.acl_deluser("alakai")
        site_admin.close()


async def test_a_server_whose_certificate_is_not_trusted_is_not_spoken_to(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    with TlsEnd(redis_server.port or 0, tmp_path) as tls:
        store = RedisStore(connect(f"rediss://localhost:{tls.port}/0"), "test")
        try:
            with pytest.raises(StoreUnavailable):
                await store.ping()
        finally:
            await store.close()


async def test_a_commit_counts_once_the_replicas_have_it(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        group = stack.enter_context(RedisGroup(tmp_path))
        store = RedisStore(connect(group.url), "test", wait=Wait(1, 1_000))
        stack.push_async_callback(store.close)
        await create_epoch(store.redis, "test")
        answer, operation = Answer(Reply.CLAIMED, "task-1"), Operation("message-1")
        seen = await store.read("task-1")
        assert (await store.commit(seen, pending(), answer, operation=operation)).committed is Committed.WRITTEN
        (replica,) = [port for port in group.servers if port != group.master]
        group.servers[replica].kill()
        other = await store.read("task-2")
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="only 0 of 1 replicas have it"):
            await store.commit(other, pending("task-2"), answer, operation=Operation("message-2"))
        assert time.monotonic() - began < 5
        # Whoever asks again gets the first answer, and not before a replica has what was written.
        with pytest.raises(StoreUnavailable):
            await store.commit(other, pending("task-2"), answer, operation=Operation("message-2"))
        # It can be read, and nobody else is told of it: a failover now would take it away.
        assert (await store.read("task-2")).execution is not None
        with pytest.raises(StoreUnavailable, match="only 0 of 1 replicas have it"):
            await store.secure()
        with pytest.raises(StoreUnavailable):
            await FeedCursor(store, group="tracking").read(block_ms=1)
        group.servers[replica].start(group.server_command(replica, of=group.master), port=replica)
        again = await _once_replicated(
            lambda: store.commit(other, pending("task-2"), answer, operation=Operation("message-2"))
        )
        assert again.committed is Committed.REPEATED
        await _once_replicated(store.secure)
        cursor = FeedCursor(store, group="tracking")
        assert len(await _once_replicated(lambda: cursor.read(block_ms=1))) == 2


async def _once_replicated(ask: Callable[[], Awaitable[T]]) -> T:
    """What the store answers once its replica confirms in time, which one that has just come back does not always."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return await ask()
        except StoreUnavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    "url",
    [
        "localhost:6379",
        "http://localhost:6379",
        "redis+sentinel://localhost:26379",
        "redis+sentinel://localhost/service",
        "redis+sentinel:///service",
    ],
)
def test_a_url_that_is_none_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(InvalidSettings, match=r"REDIS_URL is not a URL of Redis; set it to redis://HOST:PORT"):
        connect(url)
