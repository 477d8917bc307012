"""Versions side by side: what another version wrote is read, worked on by every door, and loses nothing on the way.

The recordings, and how they are made at a release, are in ``tests/skew``.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import orjson
import pytest
from fastapi import FastAPI

from controller.loops.feed_reader import FeedReader
from devstack.kubernetes import ControlPlane
from executions.adapters.kube_client import KubeClient
from executions.adapters.kube_connection import open_connection
from executions.adapters.redis_feed import RedisFeed
from executions.adapters.redis_store import RedisStore
from executions.admission import Standing
from executions.answer import Reply
from executions.cluster import Invalid
from executions.errors import LaunchUnclear
from executions.explanation import Surroundings, explain
from executions.rebuild import execution_from_resource
from executions.record import RecordUnreadable
from executions.resource import observed_from_body, status_from_execution, task_from_resource
from executions.task import task_from_document
from tests.skew.__main__ import POLICY, message
from tests.skew.recorded import LATER, Recorded, every_recording, objects_in, of_later_version, unknown_in
from tests.skew.world import ACTS, World, world_of
from tests.support.builders import NOW_MS
from tests.unit.api.harness import made

RECORDED = every_recording()
LATER_ONES = [of_later_version(recorded) for recorded in RECORDED]


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return made().app


def named(name: str) -> Recorded:
    return next(recorded for recorded in RECORDED if recorded.name == name)


LOOKS = ("it is shown",)


async def act(world: World, what: str) -> None:
    with suppress(LaunchUnclear):  # which the caller logs, and tries again
        await ACTS[what](world)


# Earlier versions


@pytest.mark.parametrize("recorded", RECORDED, ids=str)
async def test_what_an_earlier_version_kept_shows_as_it_did(
    recorded: Recorded, redis_store: RedisStore, app: FastAPI
) -> None:
    world = await world_of(recorded, redis_store, app)
    execution = (await world.store.read(recorded.task_id)).execution
    assert execution is not None
    status = status_from_execution(execution, POLICY, observed_generation=1, unknown_ms=0)
    # What it had a null for, or no word at all, a later version may have something to say of.
    said = {name: value for name, value in recorded.resource["status"].items() if value is not None}
    assert {name: status[name] for name in said} == said
    assert list(explain(execution, POLICY, Surroundings(None, [], Standing({}, {}, {}), [])))


@pytest.mark.parametrize("what", ACTS)
async def test_what_an_earlier_version_kept_is_worked_on(what: str, redis_store: RedisStore, app: FastAPI) -> None:
    changed = []
    for recorded in RECORDED:
        world = await world_of(recorded, redis_store, app)
        before = await world.documents()
        await act(world, what)
        assert (await world.store.read(recorded.task_id)).execution is not None, recorded
        changed += [recorded.name] if await world.documents() != before else []
    assert changed or what in LOOKS, "it does nothing to any of them"


async def test_a_message_that_an_earlier_version_acted_on_is_acted_on_once(
    redis_store: RedisStore, app: FastAPI
) -> None:
    world = await world_of(named("failed"), redis_store, app)
    before = await world.documents()
    answer = await world.commands.dispatch(task_from_document(message()), message_id="first")
    assert (answer.reply, answer.attempt) == (Reply.CLAIMED, 1), "the answer that was given then"
    assert await world.documents() == before


# Later versions


@pytest.mark.parametrize("what", ACTS)
async def test_what_only_a_later_version_knows_stays_as_it_was(
    what: str, redis_store: RedisStore, app: FastAPI
) -> None:
    for recorded in LATER_ONES:
        world = await world_of(recorded, redis_store, app)
        before = await world.documents()
        await act(world, what)
        after = await world.documents()
        there, kept = set(objects_in(after)), set(unknown_in(after))
        assert set(unknown_in(before)), "there is something to lose"
        # A document that ended as a whole, such as a suspicion, takes along what stood in it, and nothing else does.
        lost = [item for item in unknown_in(before) if item[0] in there and item not in kept]
        assert lost == [], recorded


async def test_a_look_at_what_a_later_version_wrote_writes_nothing(redis_store: RedisStore, app: FastAPI) -> None:
    for recorded in LATER_ONES:
        world = await world_of(recorded, redis_store, app)
        before = await world.raw()
        await world.show()
        writes = world.cluster.writes.total()
        await world.show()
        assert world.cluster.writes.total() == writes, recorded
        assert await world.raw() == before, recorded


NEW_WORDS: dict[str, tuple[str, dict[str, Any]]] = {
    "what told of the worker": ("running", {"launch__rung": "guessed"}),
    "a deadline": ("running", {"stop": {"code": "QUOTA_SPENT", "askedAt": "2026-01-01T00:00:00.000Z"}}),
    "how sure a verdict is": ("lost-and-reported-late", {"verdict__grade": "certain"}),
    "a kind of verdict": ("lost-and-reported-late", {"verdict__kind": "hibernated"}),
    "a code of a loss": ("lost-and-reported-late", {"error_code": "WORKER_HIBERNATED"}),
    "a reason to wait": ("pending-on-hold", {"waiting__reason": "QuotaSpent"}),
    "a way to begin a retry": ("failed", {"codexTransientFallbackMode": "yet_another"}),
    "a launcher": ("failed", {"launcher": "quantum"}),
}


@pytest.mark.parametrize("word", NEW_WORDS)
async def test_a_word_that_only_a_later_version_knows_keeps_nobody_from_working(
    word: str, redis_store: RedisStore, app: FastAPI
) -> None:
    name, change = NEW_WORDS[word]
    ((path, new),) = change.items()
    for what in ACTS:
        world = await world_of(of_later_version(named(name), **change), redis_store, app)
        await act(world, what)
        found: Any = (await world.documents())["attempt 1"]
        for part in path.split("__"):
            found = found.get(part) if isinstance(found, dict) else None
        # Nobody waits any more once it is launched.
        assert found == new or (what, word) == ("it is reconciled", "a reason to wait"), what


async def test_a_grade_that_only_a_later_version_knows_is_not_told_to_a_definition_that_refuses_it(
    redis_store: RedisStore, app: FastAPI
) -> None:
    world = await world_of(
        of_later_version(named("lost-and-reported-late"), verdict__grade="certain"), redis_store, app
    )
    await world.show()
    (attempt,) = world.cluster.objects["task-1"]["status"]["attempts"]
    assert "verdict" not in attempt
    assert attempt["reason"] == "WorkerLost"


@pytest.mark.parametrize("what", ACTS)
async def test_a_record_in_a_status_that_only_a_later_version_knows_is_left_as_it_is(
    what: str, redis_store: RedisStore, app: FastAPI
) -> None:
    world = await world_of(of_later_version(named("running"), status="hibernating"), redis_store, app)
    before = await world.raw(), await world.documents()
    with suppress(RecordUnreadable):  # which the caller logs
        await act(world, what)
    assert (await world.raw(), await world.documents()) == before


async def test_the_api_says_of_such_a_record_that_it_cannot_work_on_it(redis_store: RedisStore, app: FastAPI) -> None:
    world = await world_of(of_later_version(named("running"), status="hibernating"), redis_store, app)
    assert await world.control("retry") == 502
    assert await world.control("cancel", reason="enough") == 502


async def test_an_answer_that_a_later_version_gave_counts_as_given(redis_store: RedisStore, app: FastAPI) -> None:
    world = await world_of(named("failed"), redis_store, app)
    answer = {"reply": "postponed", "task_id": "task-1", "attempt": 1, "status": "failed", "detail": None, "until": 1}
    await world.store.redis.set(world.store.keys.operation("message:first"), orjson.dumps(answer))
    before = await world.documents()
    given = await world.commands.dispatch(task_from_document(message()), message_id="first")
    assert given.reply is Reply.NOTHING_TO_DO
    assert await world.documents() == before


# The change feed


class Woken:
    """What the feed wakes."""

    api_is_away = False

    def __init__(self) -> None:
        self.mirrored: list[str] = []
        self.reconciled: list[str] = []

    def add(self, task_id: str) -> None:
        self.mirrored.append(task_id)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(LATER, id="fields"),
        pytest.param({"transition": "hibernated"}, id="a transition"),
        pytest.param({**LATER, "transition": "hibernated"}, id="both"),
    ],
)
async def test_a_feed_entry_of_a_later_version_wakes_who_is_to_look(
    change: dict[str, Any], redis_store: RedisStore
) -> None:
    feed = RedisFeed(redis_store.redis, redis_store.keys.prefix, group="mirror", consumer="test")
    entry = {"task_id": "a", "incarnation": "i", "sequence": 1, "attempt": 1, "transition": "updated", "occurred_ms": 1}
    for document in (entry, {**entry, **change, "task_id": "b"}, {**entry, "task_id": "c"}):
        await redis_store.redis.xadd(redis_store.keys.feed, {"change": orjson.dumps(document)})
    woken = Woken()
    await FeedReader(feed, woken, woken.reconciled.append).turn()
    assert woken.mirrored == ["a", "b", "c"]
    assert woken.reconciled == ["a", "b", "c"]


async def test_the_feed_of_another_version_is_read(redis_store: RedisStore, app: FastAPI) -> None:
    for recorded in [*RECORDED, *LATER_ONES]:
        world = await world_of(recorded, redis_store, app)
        (_, entries) = recorded.keys.get("/feed", ["stream", []])
        written = [json.loads(fields["change"]) for fields in entries]
        feed = RedisFeed(world.store.redis, world.store.keys.prefix, group="mirror", consumer="test")
        found = await feed.read(block_ms=1)
        assert [(item.sequence, item.transition) for item in found] == [
            (item["sequence"], item["transition"]) for item in written
        ], recorded
        await world.store.redis.delete(world.store.keys.feed)


# The custom resource


@pytest.fixture
async def cluster(kube: ControlPlane, namespace: str) -> AsyncIterator[KubeClient]:
    client = KubeClient(open_connection(kube.kubeconfig), namespace)
    yield client
    await client.close()


async def shown(cluster: KubeClient, recorded: Recorded, number: int) -> dict[str, Any]:
    """The recording's resource as the API server keeps it, under a name of its own."""
    manifest, name = recorded.resource["manifest"], f"task-{number}"
    metadata = {**manifest["metadata"], "name": name, "namespace": cluster.namespace}
    await cluster.create({**manifest, "metadata": metadata, "spec": {**manifest["spec"], "taskId": name}})
    return dict(await cluster.patch_status(name, recorded.resource["status"]))


def told(status: dict[str, Any]) -> dict[str, Any]:
    """What is left of it where a null removes."""
    return {
        name: told(value) if isinstance(value, dict) else value for name, value in status.items() if value is not None
    }


async def test_the_definition_takes_what_an_earlier_version_shows(cluster: KubeClient) -> None:
    for number, recorded in enumerate(RECORDED):
        body = await shown(cluster, recorded, number)
        assert body["status"] == told(recorded.resource["status"]), recorded


async def test_the_definition_prunes_what_only_a_later_version_shows(cluster: KubeClient) -> None:
    for number, (earlier, recorded) in enumerate(zip(RECORDED, LATER_ONES, strict=True)):
        body = await shown(cluster, recorded, number)
        assert list(unknown_in(body)) == []
        assert body["status"] == told(earlier.resource["status"]), recorded


async def test_the_definition_refuses_a_phase_that_only_a_later_version_knows(cluster: KubeClient) -> None:
    body = await shown(cluster, named("running"), 1)
    with pytest.raises(Invalid):
        await cluster.patch_status(body["metadata"]["name"], {"phase": "Hibernating"})
    assert (await cluster.read(body["metadata"]["name"]))["status"] == body["status"]


async def test_a_users_task_keeps_what_nobody_here_knows(cluster: KubeClient) -> None:
    task = {**message(taskId="of-a-user"), **LATER, "payload": {**LATER, "deep": LATER}}
    manifest = {
        "apiVersion": "alakai.dev/v1alpha1",
        "kind": "WorkerExecution",
        "metadata": {"name": "of-a-user"},
        "spec": {"task": task, **LATER},
    }
    body = await cluster.create(manifest)
    assert body["spec"]["task"] == task
    assert task_from_resource(body).snapshot() == task
    assert not LATER.keys() & body["spec"].keys()


@pytest.mark.parametrize("grade", ["probable", "certain"])
def test_a_record_is_rebuilt_from_what_a_later_version_shows(grade: str) -> None:
    """Also where its definition is there, so that nothing is pruned."""
    for recorded in LATER_ONES:
        manifest, status = recorded.resource["manifest"], told(recorded.resource["status"])
        for attempt in status["attempts"]:
            if "verdict" in attempt:
                attempt["verdict"] = {**attempt["verdict"], "grade": grade}
        body = {**manifest, "status": status}
        execution = execution_from_resource(
            body, observed_from_body(body), token_prefix="p", policy=POLICY, launcher="local", now_ms=NOW_MS
        )
        assert execution is not None
        assert execution.latest.number == status["attempt"]
        assert execution.latest.verdict is None or execution.latest.verdict.grade == grade
