"""Counted where it is committed, and served to Prometheus."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client import REGISTRY

from executions.adapters.metrics import serve_metrics
from executions.adapters.redis_store import RedisStore
from executions.answer import Answer, Reply
from executions.errors import InvalidSettings
from executions.operations.commands import Commands
from executions.operations.transact import alter
from executions.record import Execution
from tests.support.builders import POLICY, running
from tests.support.memory_queue import MemoryQueue
from tests.unit.domain.states import outcome
from tests.unit.test_metrics import judgement, lost

HOST = "127.0.0.1"


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody else listens."""
    with socket.create_server((HOST, 0)) as listener:
        yield int(listener.getsockname()[1])


async def test_racing_verdicts_count_once_and_so_does_a_repeated_late_report(redis_store: RedisStore) -> None:
    """Counted are commits: neither decisions that lost their race nor repeats."""
    snapshot = await redis_store.read("task-1")
    await redis_store.commit(snapshot, running(), Answer(Reply.CLAIMED, "task-1"))
    labels = {"grade": "confirmed", "code": "WORKER_OOM", "launcher": "local"}
    lost_before = value("alakai_lost_workers_total", **labels)
    false_before = value("alakai_false_losses_total", grade="confirmed")

    def judged(found: Execution, _: int) -> Execution:
        return lost(found, judgement())

    await asyncio.gather(*(alter(redis_store, "task-1", judged) for _ in range(10)))
    assert value("alakai_lost_workers_total", **labels) == lost_before + 1
    commands = Commands(redis_store, MemoryQueue(), POLICY, "local")
    for _ in range(3):
        assert (await commands.complete(outcome(succeeded=True))).reply is Reply.ALREADY_FINISHED
    assert value("alakai_false_losses_total", grade="confirmed") == false_before + 1


def test_the_page_holds_our_metrics_and_those_of_the_process() -> None:
    server = serve_metrics(0, default_port=9090, host=HOST)
    try:
        page = httpx.get(f"http://{HOST}:{server.port}/metrics", trust_env=False).text
    finally:
        server.stop()
    for name in ("alakai_lost_workers", "alakai_false_losses", "alakai_loss_detection_seconds", "alakai_launch_tries"):
        assert f"# HELP {name}" in page
    assert "process_resident_memory_bytes" in page
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://{HOST}:{server.port}/metrics", trust_env=False)


def test_a_chosen_port_that_is_taken_is_named_with_its_variable_and_the_remedy(taken: int) -> None:
    with pytest.raises(InvalidSettings, match=rf"METRICS_PORT is {taken}, .*in use.* set it to a free port, or to 0"):
        serve_metrics(taken, default_port=9090, host=HOST)


def test_a_default_port_that_is_taken_keeps_no_process_from_starting(taken: int) -> None:
    server = serve_metrics(None, default_port=taken, host=HOST)
    try:
        assert server.port not in (0, taken)
        assert httpx.get(f"http://{HOST}:{server.port}/metrics", trust_env=False).status_code == 200
    finally:
        server.stop()
