"""Workers as Kubernetes Jobs, one per launch. ``ports.Launcher`` by way of ``job_client``.

A Job's name follows from its launch, so a launch that is sent again finds its Job there, and so does everything that
comes later. Jobs are looked at by label in the API server's own truth; the watch only says when to look, and remembers
how pods ended that are gone by then. Never judges a worker: that is ``evidence``, from what ``kubernetes_evidence``
reads out of a look.
"""

from __future__ import annotations

import asyncio
import copy
import math
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import structlog

from executions.adapters.job_client import JobClient
from executions.adapters.kube_connection import open_connection
from executions.adapters.kubernetes_settings import EXAMPLE, KubernetesSettings, kubernetes_settings_from_file
from executions.adapters.launchers import (
    CALLBACK_TOKEN_VARIABLE,
    LauncherContext,
    found_worker,
    lay_down,
    worker_variables,
)
from executions.adapters.settings import Settings
from executions.cluster import AlreadyExists, Body, ClusterError, Conflict, Forbidden, Invalid, NotFound
from executions.errors import InvalidSettings, LaunchRefused, LaunchUnclear
from executions.evidence import Observation, WorkerState
from executions.kubernetes_evidence import SOURCE, is_over, observation_from_look
from executions.names import GROUP, KIND, VERSION, resource_name
from executions.plan import REPLAY_LIMIT_MS
from executions.ports import FoundWorker, Launched, LaunchIntent, LaunchOrder, Payloads
from executions.record import Rung

_MANAGED_BY = "app.kubernetes.io/managed-by"
_LAUNCH = f"{GROUP}/launch"
_TASK_ID, _TOKEN, _OWNER = f"{GROUP}/task-id", f"{GROUP}/launch-token", f"{GROUP}/execution"
_LAUNCH_DIGITS = 20
_SLUG_LENGTH = 63 - _LAUNCH_DIGITS - 1
_KEPT_SECONDS = 3600
"""A finished Job is kept for so long at least: it is the evidence."""
_MARGIN_SECONDS = 60
_ENDS_REMEMBERED = 10_000
_WORKER_ID = re.compile(r"job/(?P<namespace>[a-z0-9-]{1,63})/(?P<name>[a-z0-9-]{1,42}-(?P<launch>[0-9a-f]{20}))")
_QUOTA = re.compile(r"exceeded quota|being terminated", re.IGNORECASE)
"""Refusals of the API server that pass: everything else that is forbidden stays so."""

_NO_POD: Body = {"metadata": {"name": "that was never created"}, "spec": {}, "status": {"phase": "Pending"}}
"""Stands for the pod of a Job that is stopped before it had one."""

_log = structlog.get_logger(__name__)


def create(context: LauncherContext) -> KubernetesLauncher:
    """The entry point. Raises InvalidSettings with one line that says what to do."""
    path = context.settings.kubernetes_launcher_file
    if not path:
        raise InvalidSettings(
            f"KUBERNETES_LAUNCHER_FILE is not set; set it to the launcher's settings file (see {EXAMPLE})"
        )
    connection = open_connection()
    home = context.settings.executions_namespace or connection.namespace
    settings = kubernetes_settings_from_file(Path(path))
    return KubernetesLauncher(settings, JobClient(connection), context.settings, context.payloads, home=home)


class KubernetesLauncher:
    """``ports.Launcher`` on one cluster. A worker's id is ``job/NAMESPACE/NAME``."""

    name = "kubernetes"
    replay_limit_ms: int | None = REPLAY_LIMIT_MS
    """A finished Job is kept for an hour at least, and while it is there a replay finds it."""

    def __init__(
        self,
        kubernetes_settings: KubernetesSettings,
        client: JobClient,
        settings: Settings,
        payloads: Payloads,
        *,
        home: str,
    ) -> None:
        """``home`` is the namespace of the WorkerExecutions."""
        self._kubernetes_settings = kubernetes_settings
        self._client = client
        self._settings = settings
        self._payloads = payloads
        self._home = home
        self._namespace = kubernetes_settings.namespace or home
        self._ends: dict[str, Body] = {}
        """By launch: its pod as it was last seen, ended or deleted. Only sharpens verdicts, so it may be lost."""

    def prepare(self, order: LaunchOrder) -> dict[str, Any]:
        """The Job without what is only known when it is sent: the callback token and the owner."""
        task_type = self._kubernetes_settings.for_task_type(order.task_type)
        if task_type is None:
            raise _rejected(f"the Kubernetes launcher has no entry for task type {order.task_type!r}; add it")
        labels, annotations = _labels(order), {_TASK_ID: order.task_id, _TOKEN: order.token}
        template = copy.deepcopy(task_type.template)
        metadata = template.setdefault("metadata", {})
        metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
        metadata["annotations"] = {**(metadata.get("annotations") or {}), **annotations}
        (worker,) = template["spec"]["containers"]
        variables = worker_variables(order, self._settings)
        worker["env"] = [*(worker.get("env") or []), *({"name": key, "value": variables[key]} for key in variables)]
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": _job_name(order),
                "namespace": self._namespace,
                "labels": labels,
                "annotations": annotations,
            },
            "spec": {
                "parallelism": 1,
                "completions": 1,
                "backoffLimit": 0,
                "activeDeadlineSeconds": self._deadline_seconds(task_type.active_deadline_seconds),
                "ttlSecondsAfterFinished": max(_KEPT_SECONDS, math.ceil(self._settings.finished_ttl_seconds)),
                "podReplacementPolicy": "Failed",
                "podFailurePolicy": _failure_policy(str(worker["name"])),
                "template": template,
            },
        }

    async def launch(self, intent: LaunchIntent) -> Launched:
        await lay_down(self._payloads, intent.order)
        manifest = await self._complete(intent)
        namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
        try:
            await self._client.create_job(namespace, manifest)
        except AlreadyExists:
            await self._check_is_ours(intent, namespace, name)
        except (Forbidden, Invalid, NotFound) as error:
            return await self._verified(intent, _refusal(error))
        except ClusterError as error:
            raise LaunchUnclear(f"the Job may or may not have been created: {error}") from error
        return Launched(f"job/{namespace}/{name}", Rung.SENT)

    async def find(self, intent: LaunchIntent) -> str | None:
        """The Job of a launch, whether it runs or ended, as long as it is kept. None is proof that there is none."""
        # A launch whose request was lost with Redis is looked for where launches go now.
        namespace = str((intent.request.get("metadata") or {}).get("namespace") or self._namespace)
        try:
            jobs = await self._client.jobs(namespace, f"{_LAUNCH}={_launch_label(intent.order.token)}")
        except ClusterError as error:
            raise LaunchUnclear(f"the Job of the launch could not be looked for: {error}") from error
        ours = [job for job in jobs if _is_of(job, intent.order.token)]
        return f"job/{namespace}/{ours[0]['metadata']['name']}" if ours else None

    async def observe(self, worker_ids: Sequence[str]) -> list[Observation]:
        observations, by_namespace = list[Observation](), defaultdict[str, dict[str, str]](dict)
        for worker_id in worker_ids:
            if (match := _WORKER_ID.fullmatch(worker_id)) is None:
                observations.append(Observation(worker_id, WorkerState.MISSING, SOURCE, "not a Job of this launcher"))
            else:
                by_namespace[match["namespace"]][match["launch"]] = worker_id
        looks = await asyncio.gather(*(self._look(*item) for item in by_namespace.items()), return_exceptions=True)
        for look in looks:
            if isinstance(look, BaseException) and not isinstance(look, LaunchUnclear | ClusterError):
                raise look  # A defect or a cancellation is not an answer of the cluster.
        failed = [look for look in looks if isinstance(look, BaseException)]
        if failed and len(failed) == len(looks):
            raise LaunchUnclear(f"the Jobs could not be looked at: {failed[0]}") from failed[0]
        return observations + [item for look in looks if not isinstance(look, BaseException) for item in look]

    async def stop(self, worker_id: str, reason: str) -> bool:
        match = _WORKER_ID.fullmatch(worker_id)
        if match is None:
            return True
        namespace, name, launch = match["namespace"], match["name"], match["launch"]
        try:
            jobs, pods = await self._jobs_and_pods(namespace, f"{_LAUNCH}={launch}")
            job = next(iter(jobs), None)
            if self._is_gone(launch, job, pods):
                return True  # A finished Job stays: it is the evidence.
            if job is not None and "deletionTimestamp" not in job["metadata"]:
                if not pods:
                    self._ends.setdefault(launch, _NO_POD)
                _log.info("Job deleted", namespace=namespace, job=name, reason=reason)
                await self._client.delete_job(namespace, name, uid=job["metadata"]["uid"])
        except (NotFound, Conflict):
            return False  # Somebody else was faster: the next look tells.
        except ClusterError as error:
            raise LaunchUnclear(f"the Job could not be deleted: {error}") from error
        return False

    async def workers(self) -> list[FoundWorker]:
        """Jobs of ours that are not over, by the variables of their template."""
        try:
            jobs, pods = await self._jobs_and_pods(self._namespace, f"{_MANAGED_BY}=alakai,{_LAUNCH}")
        except ClusterError as error:
            raise LaunchUnclear(f"the Jobs could not be listed: {error}") from error
        pods_of = defaultdict[str, list[Body]](list)
        for pod in pods:
            pods_of[pod["metadata"]["labels"][_LAUNCH]].append(pod)
        found = (
            found_worker(f"job/{self._namespace}/{job['metadata']['name']}", _variables(job), self._settings)
            for job in jobs
            if not self._is_gone(launch := job["metadata"]["labels"][_LAUNCH], job, pods_of[launch])
        )
        return [worker for worker in found if worker is not None]

    async def disown(self, worker_id: str) -> None:
        """Let a worker outlive the WorkerExecution that owns its Job. Raises LaunchUnclear."""
        match = _WORKER_ID.fullmatch(worker_id)
        if match is None or match["namespace"] != self._home:
            return
        try:
            await self._client.disown_job(match["namespace"], match["name"])
        except (NotFound, Invalid):
            return  # No such Job, or it has no owner.
        except ClusterError as error:
            raise LaunchUnclear(f"the Job could not be parted from its owner: {error}") from error

    async def watch(self, changed: Callable[[str], None]) -> None:
        """Until cancelled: call ``changed(task_id)`` when a worker of ours changed. Raises ClusterError."""
        selector = f"{_MANAGED_BY}=alakai,{_LAUNCH}"
        while True:
            async for kind, pod in self._client.watch_pods(self._namespace, selector):
                self._remember(kind, pod)
                if task_id := (pod["metadata"].get("annotations") or {}).get(_TASK_ID):
                    changed(task_id)

    async def close(self) -> None:
        """The workers run on."""
        await self._client.close()

    async def _look(self, namespace: str, workers: dict[str, str]) -> list[Observation]:
        jobs, pods = await self._jobs_and_pods(namespace, f"{_LAUNCH} in ({','.join(sorted(workers))})")
        job_of = {job["metadata"]["labels"][_LAUNCH]: job for job in jobs}
        pods_of = defaultdict[str, list[Body]](list)
        for pod in pods:
            pods_of[pod["metadata"]["labels"][_LAUNCH]].append(pod)
        without_pod = [launch for launch, job in job_of.items() if not pods_of[launch] and not is_over(job, [])]
        trouble = await self._trouble(namespace) if without_pod else {}
        return [
            observation_from_look(
                worker_id,
                job_of.get(launch),
                pods_of[launch],
                last=self._end_of(launch, job_of.get(launch)),
                trouble=trouble.get(worker_id.rsplit("/", 1)[-1], ""),
            )
            for launch, worker_id in workers.items()
        ]

    async def _jobs_and_pods(self, namespace: str, selector: str) -> tuple[list[Body], list[Body]]:
        """The Jobs first: one that was found and has no pod in the later list has none that we do not know of."""
        jobs = await self._client.jobs(namespace, selector)
        pods = await self._client.pods(namespace, selector)
        for pod in pods:
            self._remember("SEEN", pod)
        return jobs, pods

    async def _trouble(self, namespace: str) -> dict[str, str]:
        """What keeps Jobs from getting a pod, by name of the Job; nothing where we may not read Events."""
        try:
            events = await self._client.failed_creates(namespace)
        except ClusterError:
            return {}
        return {event["involvedObject"]["name"]: str(event.get("message") or "") for event in events}

    def _is_gone(self, launch: str, job: Body | None, pods: list[Body]) -> bool:
        """Whether nothing of it runs or will. A Job may linger when its pod is gone, whose end was seen."""
        end = self._ends.get(launch)
        return is_over(job, pods) or (job is not None and not pods and end is not None and is_over(None, [end]))

    def _end_of(self, launch: str, job: Body | None) -> Body | None:
        end = self._ends.get(launch)
        # A Job that is still there may have got a pod since, however it was stopped.
        return None if end is _NO_POD and job is not None else end

    def _remember(self, kind: str, pod: Body) -> None:
        launch = pod["metadata"]["labels"][_LAUNCH]
        if kind == "DELETED" or is_over(None, [pod]):
            self._ends.pop(launch, None)
            self._ends[launch] = pod
            if len(self._ends) > _ENDS_REMEMBERED:
                del self._ends[next(iter(self._ends))]

    async def _complete(self, intent: LaunchIntent) -> dict[str, Any]:
        """The Job as it is sent: with the worker's secret, and with its owner when that is known for certain."""
        order, manifest = intent.order, copy.deepcopy(dict(intent.request))
        if order.callback_token is not None:
            (worker,) = manifest["spec"]["template"]["spec"]["containers"]
            worker["env"].append({"name": CALLBACK_TOKEN_VARIABLE, "value": order.callback_token})
        if manifest["metadata"]["namespace"] == self._home and (owner := await self._owner(order)):
            manifest["metadata"]["ownerReferences"] = [owner]
        return manifest

    async def _owner(self, order: LaunchOrder) -> dict[str, Any] | None:
        """Only an owner that is there: the garbage collector ends whatever names one that is not."""
        name = resource_name(order.task_id)
        try:
            found = await self._client.read_execution(self._home, name)
        except ClusterError:
            return None
        if found is None or "deletionTimestamp" in found["metadata"]:
            return None
        if found["spec"].get("taskId", name) != order.task_id:
            return None
        return {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": KIND,
            "name": name,
            "uid": found["metadata"]["uid"],
            "controller": True,
            "blockOwnerDeletion": False,
        }

    async def _check_is_ours(self, intent: LaunchIntent, namespace: str, name: str) -> None:
        try:
            job = await self._client.read_job(namespace, name)
        except ClusterError as error:
            raise LaunchUnclear(f"the Job is there and could not be looked at: {error}") from error
        if not _is_of(job, intent.order.token):
            raise _rejected(f"a Job named {name} is there in {namespace} and is not of this launch; remove it")

    async def _verified(self, intent: LaunchIntent, refusal: LaunchRefused) -> Launched:
        """Raise the refusal, unless an earlier sending of the launch has made its Job after all."""
        found = await self.find(intent)
        if found is None:
            raise refusal
        _log.warning("Refused launch started all the same", task_id=intent.order.task_id, said=str(refusal))
        return Launched(found, Rung.VERIFIED, f"{refusal}; its Job is there all the same")

    def _deadline_seconds(self, limit: int) -> int:
        attempt_seconds = self._settings.attempt_timeout_seconds
        if attempt_seconds is None:
            return limit
        return min(limit, math.ceil(self._settings.start_timeout_seconds + attempt_seconds) + _MARGIN_SECONDS)


def _labels(order: LaunchOrder) -> dict[str, str]:
    return {
        _MANAGED_BY: "alakai",
        "app.kubernetes.io/name": "alakai-worker",
        f"{GROUP}/task-type": order.task_type.rstrip("._-"),
        f"{GROUP}/attempt": str(order.attempt),
        f"{GROUP}/launch-try": str(order.launch_try),
        _OWNER: resource_name(order.task_id),
        _LAUNCH: _launch_label(order.token),
    }


def _variables(job: Body) -> dict[str, str]:
    containers = job["spec"]["template"]["spec"].get("containers") or []
    return {item["name"]: item.get("value") or "" for container in containers for item in container.get("env") or []}


def _launch_label(token: str) -> str:
    return token[:_LAUNCH_DIGITS]


def _job_name(order: LaunchOrder) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", order.task_id.lower())[:_SLUG_LENGTH].strip("-")
    return f"{slug or 'task'}-{_launch_label(order.token)}"


def _is_of(job: Body, token: str) -> bool:
    return (job["metadata"].get("annotations") or {}).get(_TOKEN) == token


def _failure_policy(container: str) -> dict[str, Any]:
    """Fails the Job at its pod's first failure, and has the Job say why: that outlives the pod.

    Source: ``podFailurePolicy`` of batch/v1; the messages are those of the Job controller's pod_failure_policy.go.
    """
    return {
        "rules": [
            {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {
                "action": "FailJob",
                "onExitCodes": {"containerName": container, "operator": "NotIn", "values": [0]},
            },
        ]
    }


def _rejected(message: str) -> LaunchRefused:
    return LaunchRefused(message, code="LAUNCH_REJECTED", permanent=True)


def _refusal(error: ClusterError) -> LaunchRefused:
    text = f"the API server refuses the Job: {error}"
    if _QUOTA.search(text):
        return LaunchRefused(text, code="LAUNCH_CAPACITY", permanent=False)
    return _rejected(f"{text}; correct the launcher's settings file or the controller's rights")
