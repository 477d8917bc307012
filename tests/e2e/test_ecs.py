"""Controllers on ECS: an event is looked into at once, and launches that fail again and again are held back."""

from __future__ import annotations

import json
import time

import pytest

from tests.crash.ecs import EcsServer
from tests.e2e.installation import Installation, message
from tests.support.ecs_shim import Fault
from tests.support.ecs_world import make_cluster


@pytest.mark.timeout(120)
def test_launches_that_fail_are_held_back_tried_one_by_one_and_go_on_by_themselves(installation: Installation) -> None:
    moto_url = installation.env["AWS_ENDPOINT_URL"]
    settings = installation.folder / "launcher.json"
    settings.write_text(json.dumps(make_cluster(moto_url)))
    tasks = [f"task-{number}" for number in range(8)]
    with EcsServer(moto_url, installation.worker_logs) as ecs:
        ecs.fail("RunTask", Fault.FAILURES, 10_000)
        installation.start_both(
            LAUNCHER="ecs",
            ECS_LAUNCHER_FILE=str(settings),
            AWS_ENDPOINT_URL_ECS=ecs.url,
            MAX_LAUNCH_TRIES="50",
            BREAKER_FAILURES="3",
            BREAKER_PAUSE_SECONDS="3",
        )
        installation.send(*(message(task_id, "succeed") for task_id in tasks))
        held = installation.wait_until(
            lambda: [name for name, item in installation.statuses().items() if item.get("reason") == "BreakerOpen"],
            30,
            "somebody is shown to wait for the breaker",
        )
        assert "fail with LAUNCH_CAPACITY" in installation.statuses()[held[0]]["message"]
        assert "BreakerOpen" in installation.kubectl("get", "events")
        before, began = ecs.calls("RunTask"), time.monotonic()
        time.sleep(5)
        # One in each pause; those that were on their way when it opened are over by now.
        assert ecs.calls("RunTask") - before <= (time.monotonic() - began) / 3 + 1
        ecs.heal()
        installation.wait_until(
            lambda: {installation.status(task_id) for task_id in tasks} == {(1, "succeeded")}, 60, "all succeed"
        )
    assert installation.redis.keys(f"{installation.prefix}/breaker*") == []


@pytest.mark.timeout(120)
def test_an_event_of_ecs_is_looked_into_at_once(installation: Installation) -> None:
    moto_url, name = installation.env["AWS_ENDPOINT_URL"], f"{installation.name}-events"
    events = installation.sqs.create_queue(QueueName=name)["QueueUrl"]
    settings = installation.folder / "launcher.json"
    settings.write_text(json.dumps(make_cluster(moto_url)))
    with EcsServer(moto_url, installation.worker_logs) as ecs:
        installation.start_both(
            LAUNCHER="ecs",
            ECS_LAUNCHER_FILE=str(settings),
            AWS_ENDPOINT_URL_ECS=ecs.url,
            ECS_EVENTS_SQS_QUEUE_URL=events,
            SWEEP_INTERVAL_SECONDS="3600",
        )
        installation.send(message("dies", "die"))
        installation.wait_until(
            lambda: [item for item in ecs.containers() if item.until_seconds is not None], 30, "its worker has died"
        )
        installation.wait_for("dies", 1, "running")
        assert "suspicion" not in installation.record("dies")[1]
        (container,) = ecs.containers()
        installation.sqs.send_message(QueueUrl=events, MessageBody=json.dumps(ecs.event(container.started.arn)))
        suspicion = installation.wait_until(
            lambda: installation.record("dies")[1].get("suspicion"), 30, "it is looked at without a sweep"
        )
        assert suspicion["hasStopped"] is True
        installation.wait_until(
            lambda: not installation.sqs.receive_message(QueueUrl=events).get("Messages"), 10, "the event is deleted"
        )
