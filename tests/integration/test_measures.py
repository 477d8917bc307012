"""The figures that have to be asked for, on a real Redis and a real queue; and they are gone with the leadership."""

from __future__ import annotations

import asyncio

from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from controller.loops.measures import Measures
from controller.loops.sweep import Sweep
from controller.work_queue import WorkQueue
from devstack import infra
from devstack.aws import AwsServer
from executions.adapters.redis_feed import RedisFeed
from executions.adapters.redis_store import RedisStore
from executions.adapters.settings import Settings
from executions.adapters.sqs_queue import SqsQueue, open_queue
from executions.answer import Answer, Reply
from executions.record import Execution
from tests.support.builders import POLICY, pending, running
from tests.support.waiting import until


def told(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def fill(aws: AwsServer, name: str) -> None:
    """Three messages, and one that is dead."""
    sqs = infra.sqs_client({"AWS_ENDPOINT_URL": aws.url, "AWS_REGION": "us-east-1"})
    url, dead = (sqs.get_queue_url(QueueName=item)["QueueUrl"] for item in (name, f"{name}-dlq"))
    for number in range(3):
        sqs.send_message(QueueUrl=url, MessageBody=str(number))
    sqs.send_message(QueueUrl=dead, MessageBody="poison")
    sqs.close()


async def put(store: RedisStore, execution: Execution) -> None:
    await store.commit(await store.read(execution.task_id), execution, Answer(Reply.ACCEPTED, execution.task_id))


async def test_what_is_asked_for_is_told_and_forgotten_with_the_leadership(
    redis_store: RedisStore, task_queue: SqsQueue, prefix: str, aws: AwsServer
) -> None:
    fill(aws, prefix)
    feed = RedisFeed(redis_store.redis, prefix, group="mirror", consumer="test")
    await feed.read(block_ms=1)
    await put(redis_store, pending("waits", now_ms=await redis_store.now_ms() - 60_000))
    await put(redis_store, running("runs"))
    work = WorkQueue("mirror", lambda _: asyncio.sleep(0))
    work.add("a")
    work.add_after("b", 100)
    measures = Measures(
        store=redis_store,
        feed=feed,
        sweep=Sweep(redis_store, {}, POLICY, lambda _: None),
        work={"mirror": work},
        queues={"tasks": task_queue},
    )
    running_measures = asyncio.create_task(measures.run(0.05))
    await until(lambda: told("alakai_dead_letters", queue="tasks") == 1, seconds=20)
    assert told("alakai_leader") == 1
    assert told("alakai_queue_messages", queue="tasks") == 3
    assert told("alakai_attempts_live") == 1
    assert 59 < (told("alakai_oldest_waiting_seconds") or 0) < 120
    assert told("alakai_feed_lag") == 2
    assert (told("alakai_redis_used_bytes") or 0) > 100_000
    assert told("alakai_work_queue_depth", queue="mirror", state="ready") == 1
    assert told("alakai_work_queue_depth", queue="mirror", state="postponed") == 1
    running_measures.cancel()
    await asyncio.gather(running_measures, return_exceptions=True)
    assert told("alakai_leader") == 0
    assert told("alakai_dead_letters", queue="tasks") is None
    assert told("alakai_oldest_waiting_seconds") == 0


async def test_a_question_that_fails_is_told_once_and_keeps_no_other_from_its_answer(
    redis_store: RedisStore, task_queue: SqsQueue, prefix: str
) -> None:
    missing = open_queue("http://localhost:1/000000000000/nowhere", Settings(), answer_seconds=0.5)
    measures = Measures(
        store=redis_store,
        feed=RedisFeed(redis_store.redis, prefix, group="mirror", consumer="test"),
        sweep=Sweep(redis_store, {}, POLICY, lambda _: None),
        work={},
        queues={"nowhere": missing, "tasks": task_queue},
    )
    with capture_logs() as logs:
        for _ in range(2):
            await measures.turn()
    assert [item["of"] for item in logs if item["event"] == "A figure cannot be told"] == ["nowhere"]
    assert told("alakai_queue_messages", queue="tasks") == 0
    await missing.close()
