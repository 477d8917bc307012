"""The Kubernetes launcher on a real API server with the real Job controller; kwok makes the pods run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from devstack.kubernetes import ControlPlane
from devstack.workloads import Workloads
from executions.adapters.kube_connection import open_connection
from executions.cluster import NotFound
from executions.errors import LaunchRefused, LaunchUnclear
from executions.evidence import Observation, WorkerState
from executions.names import resource_name
from executions.ports import LaunchIntent
from executions.record import Rung
from tests.support.kubernetes_world import KubernetesWorld, settings_document, terminated
from tests.support.launcher_contract import (
    SECRET,
    LauncherContract,
    ListingContract,
    an_intent,
    an_order,
    state_of,
    stop_until_gone,
    until,
)


@pytest.fixture
async def world(
    kube: ControlPlane, workloads: Workloads, namespace: str, tmp_path: Path
) -> AsyncIterator[KubernetesWorld]:
    world = KubernetesWorld(kube.kubeconfig, namespace, tmp_path)
    yield world
    await world.close()


class TestKubernetesLauncher(LauncherContract, ListingContract):
    pass


async def launched(world: KubernetesWorld, task_id: str = "task-1") -> str:
    return (await world.launcher.launch(an_intent(world, task_id))).worker_id


async def seen(world: KubernetesWorld, worker_id: str) -> Observation:
    (observation,) = await world.launcher.observe([worker_id])
    return observation


async def stopped(world: KubernetesWorld, worker_id: str) -> Observation:
    """What a look shows once the worker is gone."""
    found: list[Observation] = []

    async def is_gone() -> bool:
        found[:] = [await seen(world, worker_id)]
        return found[0].state is WorkerState.STOPPED

    await until(is_gone, f"{worker_id} is gone")
    return found[0]


# What is launched


async def test_a_launch_is_a_job_that_runs_once_and_fails_at_once(world: KubernetesWorld) -> None:
    order = an_order(world.task(), "Task_1:x", attempt=2, launch_try=3)
    intent = LaunchIntent(order, world.launcher.prepare(order))
    job = await world.job((await world.launcher.launch(intent)).worker_id)
    spec = job["spec"]
    assert (spec["backoffLimit"], spec["completions"], spec["parallelism"]) == (0, 1, 1)
    assert (spec["activeDeadlineSeconds"], spec["podReplacementPolicy"]) == (86_400, "Failed")
    assert spec["ttlSecondsAfterFinished"] >= 3600
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert pod["automountServiceAccountToken"] is False
    (worker,) = pod["containers"]
    assert worker["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    variables = {item["name"]: item["value"] for item in worker["env"]}
    assert variables["ALAKAI_TASK_ID"] == "Task_1:x"
    assert (variables["ALAKAI_ATTEMPT"], variables["ALAKAI_LAUNCH_TRY"]) == ("2", "3")
    assert variables["ALAKAI_CLAIM_URL"] == "https://alakai.example/task-claim"
    assert variables["ALAKAI_TRACE_ID"] == "trace-Task_1:x"
    assert job["metadata"]["labels"]["alakai.dev/execution"] == resource_name("Task_1:x")
    assert job["metadata"]["annotations"]["alakai.dev/task-id"] == "Task_1:x"
    assert job["metadata"]["name"].startswith("task-1-x-")


async def test_the_attempt_timeout_bounds_the_jobs_deadline(world: KubernetesWorld) -> None:
    world.settings = world.settings.model_copy(update={"attempt_timeout_seconds": 100.5, "start_timeout_seconds": 60})
    request = world.reopened().prepare(an_order(world.task()))
    assert request["spec"]["activeDeadlineSeconds"] == 161 + 60
    await world.rewrite(settings_document(activeDeadlineSeconds=90))
    assert world.launcher.prepare(an_order(world.task()))["spec"]["activeDeadlineSeconds"] == 90


async def test_the_secret_is_in_the_job_and_the_payload_is_laid_down(world: KubernetesWorld) -> None:
    order = replace(an_order(world.task()), callback_token=SECRET)
    answer = await world.launcher.launch(LaunchIntent(order, world.launcher.prepare(order)))
    (worker,) = (await world.job(answer.worker_id))["spec"]["template"]["spec"]["containers"]
    assert {"name": "ALAKAI_CALLBACK_TOKEN", "value": SECRET} in worker["env"]
    assert world.payloads.kept["task-1"]["taskId"] == "task-1"
    world.payloads.is_away = True
    with pytest.raises(LaunchUnclear, match="laid down"):
        await world.launcher.launch(an_intent(world, "task-2"))
    assert len(await world.jobs()) == 1


async def test_a_task_type_without_a_template_is_refused_for_good(world: KubernetesWorld) -> None:
    document = settings_document()
    await world.rewrite({"taskTypes": {"digest": document["taskTypes"]["default"]}})
    with pytest.raises(LaunchRefused, match="no entry for task type 'implementation'") as refused:
        world.launcher.prepare(an_order(world.task()))
    assert (refused.value.code, refused.value.permanent) == ("LAUNCH_REJECTED", True)


# Owner


def an_execution(namespace: str, task_id: str) -> dict[str, Any]:
    return {
        "apiVersion": "alakai.dev/v1alpha1",
        "kind": "WorkerExecution",
        "metadata": {"name": resource_name(task_id), "namespace": namespace},
        "spec": {"taskId": task_id, "taskType": "implementation"},
    }


async def test_a_job_is_owned_by_its_execution_and_goes_with_it(world: KubernetesWorld) -> None:
    path = f"/apis/alakai.dev/v1alpha1/namespaces/{world.namespace}/workerexecutions"
    owner = await world.api.send("POST", path, an_execution(world.namespace, "task-1"))
    worker_id = await launched(world)
    (reference,) = (await world.job(worker_id))["metadata"]["ownerReferences"]
    assert (reference["kind"], reference["name"], reference["uid"]) == (
        "WorkerExecution",
        "task-1",
        owner["metadata"]["uid"],
    )
    await world.delete(f"{path}/task-1")
    assert (await stopped(world, worker_id)).code == "WORKER_STOPPED_EXTERNALLY"


async def test_a_disowned_worker_outlives_its_execution(world: KubernetesWorld) -> None:
    path = f"/apis/alakai.dev/v1alpha1/namespaces/{world.namespace}/workerexecutions"
    await world.api.send("POST", path, an_execution(world.namespace, "task-1"))
    await world.api.send("POST", path, an_execution(world.namespace, "task-2"))
    kept, goes = [await launched(world, task_id) for task_id in ("task-1", "task-2")]
    launcher = world.reopened()
    for _ in range(2):
        await launcher.disown(kept)
    for unknown in ("nonsense", kept[:-1] + ("0" if kept[-1] != "0" else "1")):
        await launcher.disown(unknown)
    await launcher.close()
    for name in ("task-1", "task-2"):
        await world.delete(f"{path}/{name}")
    await stopped(world, goes)  # so the garbage collector has been there
    assert await state_of(world.launcher, kept) in (WorkerState.STARTING, WorkerState.RUNNING)


@pytest.mark.parametrize("which", ["none", "of another task", "on its way out"])
async def test_an_owner_that_is_not_certain_is_none(world: KubernetesWorld, which: str) -> None:
    path = f"/apis/alakai.dev/v1alpha1/namespaces/{world.namespace}/workerexecutions"
    if which != "none":
        body = an_execution(world.namespace, "task-1")
        if which == "of another task":
            body["spec"]["taskId"] = "another"
        body["metadata"]["finalizers"] = ["alakai.dev/execution"]
        await world.api.send("POST", path, body)
    if which == "on its way out":
        await world.delete(f"{path}/task-1")
    assert "ownerReferences" not in (await world.job(await launched(world)))["metadata"]


# What a look shows


async def test_a_worker_without_a_node_is_starting_and_never_started_when_it_is_stopped(
    world: KubernetesWorld,
) -> None:
    await world.rewrite(settings_document({"nodeName": None}))
    launcher = world.launcher
    changes: list[str] = []
    watching = asyncio.create_task(launcher.watch(changes.append))  # type: ignore[attr-defined]
    await asyncio.sleep(0.5)
    worker_id = await launched(world)
    await world.pod(worker_id, phase="Pending")
    await until(_has(changes, "task-1"), "the watch tells of the pod")
    assert (await seen(world, worker_id)).state is WorkerState.STARTING
    changes.clear()
    await stop_until_gone(launcher, worker_id)
    await until(_has(changes, "task-1"), "the watch tells of its end")
    observation = await stopped(world, worker_id)
    assert observation.never_started
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


def _has(changes: list[str], task_id: str) -> Callable[[], Any]:
    async def has() -> bool:
        return task_id in changes

    return has


@pytest.mark.parametrize(
    ("status", "code", "exit_code", "never_started"),
    [
        ({"container": terminated(exitCode=137, reason="OOMKilled"), "phase": "Failed"}, "WORKER_OOM", 137, False),
        ({"container": terminated(exitCode=3, reason="Error"), "phase": "Failed"}, "WORKER_FAILED", 3, False),
        (
            {"container": terminated(exitCode=0, reason="Completed"), "phase": "Succeeded"},
            "COMPLETED_UNREPORTED",
            0,
            False,
        ),
        (
            {
                "container": terminated(exitCode=143, reason="Error"),
                "phase": "Failed",
                "reason": "Evicted",
                "message": "The node was low on resource: memory.",
                "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}],
            },
            "WORKER_PREEMPTED",
            143,
            False,
        ),
        (
            {"phase": "Failed", "reason": "OutOfcpu", "message": "Pod was rejected: Node didn't have enough cpu"},
            "WORKER_NEVER_STARTED",
            None,
            True,
        ),
    ],
)
async def test_how_a_pod_ended_is_told_also_after_the_pod_is_gone(
    world: KubernetesWorld, status: dict[str, Any], code: str, exit_code: int | None, never_started: bool
) -> None:
    worker_id = await launched(world)
    await world.end_pod(worker_id, status.pop("container", None), **status)
    observation = await stopped(world, worker_id)
    assert (observation.code, observation.exit_code, observation.never_started) == (code, exit_code, never_started)

    async def is_over() -> bool:
        return (
            await world.workers((await world.job(worker_id))["metadata"]["annotations"]["alakai.dev/launch-token"]) == 0
        )

    await until(is_over, "the Job controller has counted it")
    (pod,) = await world.pods()
    await world.delete(f"/api/v1/namespaces/{world.namespace}/pods/{pod['metadata']['name']}")

    async def has_gone() -> bool:
        return await world.pods() == []

    await until(has_gone, "the pod is gone")
    assert (await seen(world, worker_id)).code == code
    if code in ("WORKER_OOM", "WORKER_FAILED", "WORKER_PREEMPTED", "COMPLETED_UNREPORTED"):
        # Somebody who did not see it end reads the same out of the Job.
        other = world.reopened()
        (observation,) = await other.observe([worker_id])
        await other.close()
        assert observation.code == code
    assert await world.launcher.stop(worker_id, "it is over") is True
    assert await world.job(worker_id), "the Job stays: it is the evidence"


async def test_an_image_that_will_never_be_there_is_told_while_the_pod_waits(world: KubernetesWorld) -> None:
    worker_id = await launched(world)
    waiting = {"reason": "ErrImagePull", "message": 'failed to pull "worker:1": manifest unknown'}
    status = {"ready": False, "restartCount": 0, "state": {"waiting": waiting, "running": None}}
    await world.end_pod(worker_id, status, phase="Pending")
    observation = await seen(world, worker_id)
    assert (observation.state, observation.code) == (WorkerState.STARTING, "IMAGE_ERROR")
    assert "manifest unknown" in observation.detail


async def test_a_pod_that_the_api_server_refuses_is_told_of(world: KubernetesWorld) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    quota["status"] = {"hard": {"pods": "0"}, "used": {"pods": "0"}}
    made = await world.api.send("POST", f"/api/v1/namespaces/{world.namespace}/resourcequotas", quota)
    await world.api.send(
        "PUT",
        f"/api/v1/namespaces/{world.namespace}/resourcequotas/none/status",
        {**made, "status": quota["status"]},
    )
    worker_id = await launched(world)

    async def is_told() -> bool:
        observation = await seen(world, worker_id)
        assert observation.state is WorkerState.STARTING
        return "exceeded quota" in observation.detail

    await until(is_told, "the look says why there is no pod")
    await stop_until_gone(world.launcher, worker_id)
    observation = await stopped(world, worker_id)
    assert observation.never_started


async def test_a_job_that_somebody_deletes_was_stopped_by_somebody(world: KubernetesWorld) -> None:
    worker_id = await launched(world)
    await world.pod(worker_id)
    name = worker_id.rsplit("/", 1)[-1]
    await world.api.send(
        "DELETE",
        f"/apis/batch/v1/namespaces/{world.namespace}/jobs/{name}",
        {"propagationPolicy": "Background"},
    )
    assert (await stopped(world, worker_id)).code == "WORKER_STOPPED_EXTERNALLY"


# Stopping


async def test_while_the_pod_terminates_the_worker_is_not_gone(world: KubernetesWorld) -> None:
    worker_id = await launched(world)
    pod = await world.pod(worker_id)
    await world.patch_pod(pod, "", {"metadata": {"finalizers": [*pod["metadata"]["finalizers"], "test.example/slow"]}})
    for _ in range(3):
        assert await world.launcher.stop(worker_id, "a test") is False
    job = await world.job(worker_id)
    assert job["metadata"]["finalizers"] == ["foregroundDeletion"]
    assert (await seen(world, worker_id)).state is WorkerState.RUNNING

    async def has_ended() -> bool:
        (pod,) = await world.pods()
        return bool(pod["status"]["phase"] == "Failed")

    await until(has_ended, "the pod has ended")
    (pod,) = await world.pods()
    await world.patch_pod(pod, "", {"metadata": {"finalizers": None}})
    await stop_until_gone(world.launcher, worker_id)
    with pytest.raises(NotFound):
        await world.job(worker_id)


async def test_who_saw_a_worker_end_calls_it_gone_although_its_job_lingers(world: KubernetesWorld) -> None:
    watching = asyncio.create_task(world.launcher.watch(lambda _: None))  # type: ignore[attr-defined]
    await asyncio.sleep(0.5)
    worker_id = await launched(world)
    await world.pod(worker_id)
    path = f"/apis/batch/v1/namespaces/{world.namespace}/jobs/{worker_id.rsplit('/', 1)[-1]}"
    held = {"metadata": {"finalizers": ["test.example/held"]}}
    await world.api.send("PATCH", path, held, content_type="application/merge-patch+json")
    await stop_until_gone(world.launcher, worker_id)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)

    async def has_no_pod() -> bool:
        return await world.pods() == []

    await until(has_no_pod, "the pod is gone, and the Job is not")
    assert (await seen(world, worker_id)).state is WorkerState.STOPPED
    # Who did not see it cannot know that the Job gets no other pod.
    other = world.reopened()
    (observation,) = await other.observe([worker_id])
    assert observation.state is WorkerState.STARTING
    await world.api.send("PATCH", path, {"metadata": {"finalizers": None}}, content_type="application/merge-patch+json")
    await stop_until_gone(other, worker_id)
    (observation,) = await other.observe([worker_id])
    assert observation.state is WorkerState.STOPPED
    await other.close()


# Trouble


async def test_a_job_of_that_name_that_is_not_ours_is_left_alone(world: KubernetesWorld) -> None:
    intent = an_intent(world)
    manifest = json.loads(json.dumps(intent.request))
    manifest["metadata"]["annotations"] = {}
    await world.api.send("POST", f"/apis/batch/v1/namespaces/{world.namespace}/jobs", manifest)
    with pytest.raises(LaunchRefused, match="not of this launch") as refused:
        await world.launcher.launch(intent)
    assert refused.value.permanent
    assert await world.launcher.find(intent) is None


async def test_a_template_that_the_api_server_refuses_is_refused_for_good(world: KubernetesWorld) -> None:
    await world.rewrite(settings_document({"containers": [{"name": "Not_A_Label", "image": "worker:1"}]}))
    with pytest.raises(LaunchRefused) as refused:
        await world.launcher.launch(an_intent(world))
    assert (refused.value.code, refused.value.permanent) == ("LAUNCH_REJECTED", True)
    assert "correct the launcher's settings file" in str(refused.value)


async def test_a_refusal_after_a_sending_that_had_its_effect_finds_the_job(world: KubernetesWorld) -> None:
    intent = an_intent(world)
    worker_id = (await world.launcher.launch(intent)).worker_id
    broken = json.loads(json.dumps(intent.request))
    broken["metadata"]["namespace"] = world.namespace
    broken["spec"]["completions"] = -1
    answer = await world.launcher.launch(LaunchIntent(intent.order, broken))
    assert (answer.worker_id, answer.rung) == (worker_id, Rung.VERIFIED)


async def test_without_rights_a_launch_is_refused_and_a_look_is_no_evidence(
    world: KubernetesWorld, kube: ControlPlane
) -> None:
    worker_id = await launched(world)
    launcher = world.reopened(open_connection(kube.write_kubeconfig("viewer")))
    intent = an_intent(world, "task-2")
    with pytest.raises(LaunchUnclear):  # it may not look whether the refusal is true either
        await launcher.launch(intent)
    with pytest.raises(LaunchUnclear, match="cannot list"):
        await launcher.observe([worker_id])
    with pytest.raises(LaunchUnclear):
        await launcher.find(intent)
    with pytest.raises(LaunchUnclear):
        await launcher.stop(worker_id, "a test")
    await launcher.close()


async def test_an_api_server_that_is_away_is_no_evidence(world: KubernetesWorld, tmp_path: Path) -> None:
    path = tmp_path / "nowhere"
    path.write_text(json.dumps(_nowhere()))
    launcher = world.reopened(open_connection(path))
    intent = an_intent(world)
    for call in (
        launcher.launch(intent),
        launcher.find(intent),
        launcher.observe([f"job/{world.namespace}/task-{'0' * 20}"]),
        launcher.stop(f"job/{world.namespace}/task-{'0' * 20}", "a test"),
        launcher.disown(f"job/{world.namespace}/task-{'0' * 20}"),
    ):
        with pytest.raises(LaunchUnclear):
            await call
    await launcher.close()


def _nowhere() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "x", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "x", "user": {"token": "x"}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "current-context": "x",
    }
