"""The ECS launcher on moto behind the shim: its contract, what it sends, what it finds again, how it starts up."""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from devstack.aws import AwsServer
from executions.adapters.ecs_client import EcsClient
from executions.adapters.ecs_launcher import EcsLauncher, create, create_from_file
from executions.adapters.launchers import LauncherContext
from executions.errors import InvalidSettings, LaunchRefused, LaunchUnclear
from executions.evidence import WorkerState
from executions.ports import LaunchIntent
from executions.record import Rung
from tests.support.ecs_shim import DAY_SECONDS, HOUR_SECONDS, EcsShim, Fault, Refusal
from tests.support.ecs_world import (
    ACCESS_DENIED,
    ENVIRONMENT,
    FOREIGN_VARIABLES,
    REGION,
    SETTINGS,
    EcsWorld,
    make_cluster,
)
from tests.support.launcher_contract import LauncherContract, ListingContract, an_intent, an_order, state_of


@pytest.fixture(scope="module")
def cluster(aws: AwsServer) -> dict[str, Any]:
    return make_cluster(aws.url)


@pytest.fixture
async def world(
    aws: AwsServer, cluster: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[EcsWorld]:
    for name in FOREIGN_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    async with EcsShim(aws.url) as shim:
        world = EcsWorld(shim, cluster, tmp_path)
        yield world
        await world.launcher.close()


class TestEcsLauncher(LauncherContract, ListingContract):
    """ECS as its API describes it."""


async def test_a_launch_sends_exactly_what_was_frozen(world: EcsWorld) -> None:
    intent = an_intent(world)
    worker_id = (await world.launcher.launch(intent)).worker_id
    (sent,) = world.shim.requests["RunTask"]
    assert sent == {
        **intent.request,
        "count": 1,
        "clientToken": intent.order.token,
        "startedBy": f"alakai-{intent.order.token[:32]}",
    }
    (override,) = sent["overrides"]["containerOverrides"]
    assert override["name"] == "worker"
    assert {item["name"]: item["value"] for item in override["environment"]} == {
        "ALAKAI_TASK_ID": "task-1",
        "ALAKAI_TASK_TYPE": "implementation",
        "ALAKAI_ATTEMPT": "1",
        "ALAKAI_LAUNCH_TRY": "1",
        "ALAKAI_CLAIM_URL": "https://alakai.example/task-claim",
        "ALAKAI_CALLBACK_URL": "https://alakai.example/task-complete",
        "ALAKAI_TRACE_ID": "trace-task-1",
        "LOG_LEVEL": "info",
    }
    assert world.payloads.kept["task-1"] == intent.order.task
    assert "add retries" not in json.dumps(sent)
    assert world.shim.launches[0].arn == worker_id


async def test_the_callback_token_is_added_when_the_launch_is_sent_and_is_the_same_in_every_replay(
    world: EcsWorld,
) -> None:
    order = replace(an_order(world.task()), callback_token="t" * 150)
    intent = LaunchIntent(order, world.launcher.prepare(order))
    frozen = copy.deepcopy(intent.request)
    world.shim.fail("RunTask", Fault.LOSE_REPLY)
    with pytest.raises(LaunchUnclear):
        await world.launcher.launch(intent)
    answer = await world.launcher.launch(intent)
    assert (answer.rung, answer.worker_id) == (Rung.SENT, world.shim.launches[0].arn), "ECS saw one request"
    (override,) = world.shim.launches[0].request["overrides"]["containerOverrides"]
    assert {"name": "ALAKAI_CALLBACK_TOKEN", "value": "t" * 150} in override["environment"]
    assert intent.request == frozen, "what is stored was changed"


async def test_the_longest_variables_still_have_room_for_a_callback_token(world: EcsWorld) -> None:
    order = replace(an_order(world.task()), callback_token="t" * 150)
    spare = 8192 - 200 - len(json.dumps(world.launcher.prepare(replace(order, trace_id=""))["overrides"]))
    longest = replace(order, trace_id="i" * spare)
    await world.launcher.launch(LaunchIntent(longest, world.launcher.prepare(longest)))
    with pytest.raises(LaunchRefused, match="ECS allows 7992 beside the callback token"):
        world.launcher.prepare(replace(order, trace_id="i" * (spare + 1)))


async def test_metaflow_1326_a_payload_of_any_size_goes_by_reference(world: EcsWorld) -> None:
    """Overrides stop at 8,192 characters."""
    order = an_order({**world.task(), "payload": {"prompt": "x" * 500_000}})
    intent = LaunchIntent(order, world.launcher.prepare(order))
    assert len(json.dumps(intent.request)) < 2000
    await world.launcher.launch(intent)
    assert world.payloads.kept["task-1"]["payload"]["prompt"] == "x" * 500_000


async def test_variables_that_are_too_long_are_refused_before_the_intent_is_written(world: EcsWorld) -> None:
    order = replace(an_order(world.task()), trace_id="t" * 8000)
    with pytest.raises(LaunchRefused, match="beside the callback token; shorten the trace id") as refused:
        world.launcher.prepare(order)
    assert (refused.value.code, refused.value.permanent) == ("LAUNCH_REJECTED", True)


async def test_a_task_type_without_an_entry_is_refused_for_good(world: EcsWorld) -> None:
    world.rewrite(taskTypes={"digest": json.loads(world.path.read_text())["taskTypes"]["default"]})
    launcher = world.reopened()
    with pytest.raises(LaunchRefused, match="no entry for task type 'implementation'") as refused:
        launcher.prepare(an_order(world.task()))
    assert (refused.value.code, refused.value.permanent) == ("LAUNCH_REJECTED", True)
    assert launcher.prepare(an_order({**world.task(), "taskType": "digest"}))["cluster"]
    await launcher.close()


async def test_a_launch_without_redis_is_unclear_and_starts_nothing(world: EcsWorld) -> None:
    world.payloads.is_away = True
    with pytest.raises(LaunchUnclear, match="Redis does not answer"):
        await world.launcher.launch(an_intent(world))
    assert world.shim.calls["RunTask"] == 0


@pytest.mark.parametrize("fault", [Fault.LOSE_REPLY, Fault.SERVER_ERROR_AFTER, Fault.LOSE_REQUEST, Fault.SERVER_ERROR])
async def test_a_launch_whose_answer_was_lost_is_sent_again_and_starts_once(world: EcsWorld, fault: Fault) -> None:
    """A controller that dies between the intent and the answer leaves no orphan, and the repeat no second task."""
    intent = an_intent(world)
    world.shim.fail("RunTask", fault, 2)
    for _ in range(2):
        with pytest.raises(LaunchUnclear):
            await world.launcher.launch(intent)
    assert world.shim.calls["RunTask"] == 2, "a call was repeated on its own"
    worker_id = (await world.launcher.launch(intent)).worker_id
    assert [item.arn for item in world.shim.launches] == [worker_id]


async def test_a_launch_that_is_never_answered_is_unclear_after_the_time_out(world: EcsWorld) -> None:
    intent, launcher = an_intent(world), world.reopened(answer_seconds=0.3)
    world.shim.fail("RunTask", Fault.NO_REPLY)
    with pytest.raises(LaunchUnclear, match="ReadTimeoutError"):
        await launcher.launch(intent)
    assert (await launcher.launch(intent)).worker_id == world.shim.launches[0].arn
    assert len(world.shim.launches) == 1
    await launcher.close()


async def test_nobody_listening_is_unclear(world: EcsWorld) -> None:
    client = EcsClient(region=REGION, endpoint_url="http://127.0.0.1:1")
    launcher = EcsLauncher(world.ecs_settings, client, SETTINGS, world.payloads)
    worker_id = f"arn:aws:ecs:{REGION}:000000000000:task/c/{'0' * 32}"
    for call in (launcher.launch(an_intent(world)), launcher.observe([worker_id]), launcher.stop(worker_id, "x")):
        with pytest.raises(LaunchUnclear, match="EndpointConnectionError"):
            await call
    await launcher.close()
    with pytest.raises(LaunchUnclear, match="the launcher is closed"):
        await launcher.observe([worker_id])


async def test_another_request_with_the_same_token_adopts_the_task_that_runs(world: EcsWorld) -> None:
    intent = an_intent(world)
    worker_id = (await world.launcher.launch(intent)).worker_id
    family = str(intent.request["taskDefinition"]).partition(":")[0]
    drifted = LaunchIntent(intent.order, {**intent.request, "taskDefinition": f"{family}:2"})
    answer = await world.launcher.launch(drifted)
    assert (answer.worker_id, answer.rung) == (worker_id, Rung.CONFLICT)
    assert "other parameters" in answer.detail
    assert len(world.shim.launches) == 1


async def test_a_conflict_that_names_no_task_is_looked_up_also_among_the_stopped(world: EcsWorld) -> None:
    intent = an_intent(world)
    worker_id = (await world.launcher.launch(intent)).worker_id
    world.shim.finish(worker_id)
    world.shim.fail("RunTask", Refusal("ConflictException"), 2)
    assert (await world.launcher.launch(intent)).worker_id == worker_id
    with pytest.raises(LaunchUnclear, match="no task of this launch is found"):
        await world.launcher.launch(an_intent(world, "task-2"))


async def test_new_settings_do_not_change_a_launch_that_was_written_down(world: EcsWorld) -> None:
    intent = an_intent(world)
    world.shim.fail("RunTask", Fault.LOSE_REPLY)
    with pytest.raises(LaunchUnclear):
        await world.launcher.launch(intent)
    world.rewrite(cluster="another-cluster")
    restarted = world.reopened()
    worker_id = (await restarted.launch(intent)).worker_id
    assert [item.arn for item in world.shim.launches] == [worker_id]
    # Nor does it lose the workers of the former cluster.
    assert await state_of(restarted, worker_id) is WorkerState.RUNNING
    assert await restarted.stop(worker_id, "enough") is True
    await restarted.close()


# Old launches


async def test_aistudio_1420_stopped_tasks_are_found_by_their_tag_although_ecs_cannot_filter_by_it(
    world: EcsWorld,
) -> None:
    """ListTasks refuses ``startedBy`` beside ``desiredStatus``, which left every lost answer ambiguous."""
    intent, other, restarted = an_intent(world), an_intent(world, "task-2"), world.reopened()
    worker_id = (await world.launcher.launch(intent)).worker_id
    world.shim.seed((await world.launcher.launch(other)).worker_id, 150)
    for arn in list(world.shim.tasks):
        if arn != worker_id:
            world.shim.finish(arn)
    assert await restarted.find(intent) == worker_id
    world.shim.finish(worker_id)
    assert await restarted.find(intent) == worker_id
    assert await restarted.find(an_intent(world, "task-3")) is None
    world.shim.fail("ListTasks", Fault.THROTTLE)
    with pytest.raises(LaunchUnclear, match="could not be listed"):
        await restarted.find(intent)
    await restarted.close()


@pytest.mark.parametrize("stops", [True, False])
async def test_tokens_are_forgotten_as_aws_forgets_them(world: EcsWorld, stops: bool) -> None:
    """The limit that the rule "never replay an old launch blindly" comes from."""
    intent = an_intent(world)
    worker_id = (await world.launcher.launch(intent)).worker_id
    if stops:
        world.shim.finish(worker_id)
    world.shim.advance((HOUR_SECONDS if stops else DAY_SECONDS) - 1)
    assert (await world.launcher.launch(intent)).worker_id == worker_id
    world.shim.advance(1)
    assert (await world.launcher.launch(intent)).worker_id != worker_id


# Stops


async def test_a_stop_is_repeated_until_the_task_is_gone_and_is_recognised_as_ours(world: EcsWorld) -> None:
    world.shim.stops_at_once = False
    worker_id = (await world.launcher.launch(an_intent(world))).worker_id
    reason = "cancelled by somebody " + "x" * 300
    assert await world.launcher.stop(worker_id, reason) is False
    assert world.shim.requests["StopTask"][0]["reason"] == f"alakai: {reason}"[:255]
    (observation,) = await world.launcher.observe([worker_id])
    assert (observation.state, "is to stop" in observation.detail) == (WorkerState.RUNNING, True)
    assert await world.launcher.stop(worker_id, reason) is False
    world.shim.finish(worker_id, stop_code="UserInitiated", exit_code=143, reason="alakai: cancelled")
    assert await world.launcher.stop(worker_id, reason) is True
    (observation,) = await world.launcher.observe([worker_id])
    assert observation.detail.startswith("STOPPED, UserInitiated, alakai: cancelled")
    world.shim.advance(HOUR_SECONDS)
    world.now_seconds = HOUR_SECONDS
    assert await world.launcher.stop(worker_id, reason) is True


@pytest.mark.parametrize(
    "fault", [Fault.LOSE_REPLY, Fault.THROTTLE, Fault.SERVER_ERROR, ACCESS_DENIED, Refusal("ClusterNotFoundException")]
)
async def test_a_stop_that_failed_proves_nothing(world: EcsWorld, fault: Fault | Refusal) -> None:
    worker_id = (await world.launcher.launch(an_intent(world))).worker_id
    world.shim.fail("StopTask", fault)
    with pytest.raises(LaunchUnclear):
        await world.launcher.stop(worker_id, "enough")


# Start-up


async def test_the_entry_point_makes_the_launcher_of_the_file(world: EcsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_ECS", world.shim.url)
    launcher = create_from_file(LauncherContext(SETTINGS, world.payloads), str(world.path))
    assert await state_of(launcher, (await launcher.launch(an_intent(world))).worker_id) is WorkerState.RUNNING
    await launcher.close()


def test_start_up_says_what_is_missing(world: EcsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    context = LauncherContext(SETTINGS, world.payloads)
    with pytest.raises(InvalidSettings, match=r"ECS_LAUNCHER_FILE is not set.*examples/ecs/launcher.yaml"):
        create(context)
    with pytest.raises(InvalidSettings, match="cannot be read: No such file"):
        create_from_file(context, "/no/such/file.yaml")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:4566")
    with pytest.raises(InvalidSettings, match="AWS_ENDPOINT_URL is not a URL"):
        create_from_file(context, str(world.path))
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    world.rewrite(region=None)
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/no/such/file")
    with pytest.raises(InvalidSettings, match="AWS_REGION is not set"):
        create_from_file(context, str(world.path))
