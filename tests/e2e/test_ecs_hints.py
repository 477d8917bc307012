"""A controller that is told by EventBridge of a worker that stopped looks at once, long before its sweep would."""

from __future__ import annotations

import json

import pytest

from tests.crash.ecs import EcsServer
from tests.e2e.installation import Installation, message
from tests.support.ecs_world import make_cluster


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
