"""Which messages of the events queue are a hint, which are somebody else's, and which are no events at all."""

from __future__ import annotations

import json
from typing import Any

import pytest

from executions.ecs_events import WorkerChanged, worker_changed_from_body
from executions.errors import InvalidEvent

ARN = "arn:aws:ecs:eu-west-1:111122223333:task/default/0123456789abcdef0123456789abcdef"


def an_event(**detail: Any) -> dict[str, Any]:
    variables = [{"name": "LOG_LEVEL", "value": "info"}, {"name": "ALAKAI_TASK_ID", "value": "task-1"}]
    return {
        "version": "0",
        "id": "9bcdac79-b31f-4d3d-9410-fbd727c29fab",
        "detail-type": "ECS Task State Change",
        "source": "aws.ecs",
        "resources": [ARN],
        "detail": {
            "taskArn": ARN,
            "lastStatus": "STOPPED",
            "desiredStatus": "STOPPED",
            "overrides": {
                "containerOverrides": [{"name": "sidecar"}, {"name": "worker", "environment": variables}],
            },
            "version": 4,
            **detail,
        },
    }


def overriding(*variables: object) -> dict[str, Any]:
    return {"containerOverrides": [{"name": "worker", "environment": list(variables)}]}


def test_an_event_of_our_worker_is_a_hint_whatever_status_it_tells() -> None:
    for status in ("PROVISIONING", "RUNNING", "DEPROVISIONING", "STOPPED", "NEVER HEARD OF", None):
        assert worker_changed_from_body(json.dumps(an_event(lastStatus=status))) == WorkerChanged("task-1", ARN, 4)


@pytest.mark.parametrize(
    "event",
    [
        pytest.param({**an_event(), "source": "aws.s3"}, id="of another service"),
        pytest.param({**an_event(), "detail-type": "ECS Service Action", "detail": {}}, id="of another kind"),
        pytest.param({**an_event(), "detail-type": "ECS Deployment State Change"}, id="of a deployment"),
        pytest.param(an_event(overrides={}), id="of a task without overrides"),
        pytest.param(an_event(overrides={"containerOverrides": [{"name": "web"}]}), id="of a service's task"),
        pytest.param(an_event(overrides=overriding({"name": "TASK_ID", "value": "7"})), id="of somebody else's task"),
        pytest.param(an_event(overrides=overriding({"name": "ALAKAI_TASK_ID", "value": "no task id"})), id="no id"),
        pytest.param(an_event(overrides=overriding({"name": "ALAKAI_TASK_ID"})), id="without the id's value"),
        pytest.param(an_event(overrides="none"), id="with overrides of another shape"),
        pytest.param(an_event(overrides={"containerOverrides": {}}), id="with overrides that are no list"),
        pytest.param(an_event(overrides=overriding("ALAKAI_TASK_ID")), id="with variables of another shape"),
    ],
)
def test_an_event_that_is_none_of_ours_is_no_hint(event: object) -> None:
    assert worker_changed_from_body(json.dumps(event)) is None


@pytest.mark.parametrize(
    ("body", "text"),
    [
        pytest.param("", "is not JSON", id="nothing"),
        pytest.param("hush", "is not JSON", id="text"),
        pytest.param("[]", "not an EventBridge event", id="a list"),
        pytest.param('{"taskId": "task-1", "taskType": "digest"}', "not an EventBridge event", id="a task message"),
        pytest.param('{"source": 1, "detail-type": 2}', "not an EventBridge event", id="a source that is none"),
        pytest.param(json.dumps({**an_event(), "detail": None}), "no taskArn or no version", id="no detail"),
        pytest.param(json.dumps(an_event(taskArn=None)), "no taskArn or no version", id="no ARN"),
        pytest.param(json.dumps(an_event(version="4")), "no taskArn or no version", id="a version in words"),
        pytest.param(json.dumps(an_event(version=True)), "no taskArn or no version", id="a version that is none"),
    ],
)
def test_what_is_no_event_is_refused_without_repeating_it(body: str, text: str) -> None:
    with pytest.raises(InvalidEvent, match=text) as refused:
        worker_changed_from_body(body)
    assert "hush" not in str(refused.value)
