"""Workers as ECS tasks. ``ports.Launcher`` by way of ``ecs_client``.

A launch is sent as often as its caller likes, always as it was frozen and always with the same client token, so ECS
starts it once. A refusal is believed only after ECS was asked what it started: ``failures[]`` have been seen for
tasks that did start. Never judges a worker: that is ``evidence``, from what ``ecs_evidence`` reads out of a look.
"""

from __future__ import annotations

import asyncio
import copy
import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from executions.adapters.aws_client import endpoint_is_configured, region_from_environment
from executions.adapters.ecs_client import (
    DESCRIBE_BATCH,
    SEND_WITHIN_SECONDS,
    EcsClient,
    EcsConflict,
    EcsRefused,
    EcsUnclear,
)
from executions.adapters.ecs_settings import EXAMPLE, EcsSettings, TaskType, ecs_settings_from_file
from executions.adapters.launchers import (
    CALLBACK_TOKEN_VARIABLE,
    LauncherContext,
    found_worker,
    lay_down,
    worker_variables,
)
from executions.adapters.settings import Settings
from executions.ecs_evidence import OUR_STOP, SOURCE, observation_from_task, observation_of_failure
from executions.errors import InvalidSettings, LaunchRefused, LaunchUnclear
from executions.evidence import Observation, WorkerState
from executions.plan import REPLAY_LIMIT_MS
from executions.ports import FoundWorker, Launched, LaunchIntent, LaunchOrder, Payloads
from executions.record import Rung

OVERRIDES_LIMIT = 8192
"""Characters of the overrides' JSON (botocore service model); therefore no payload ever stands in them."""
_TOKEN_RESERVE = 200
"""Characters of the overrides that are left for the callback token, which is added when the launch is sent."""
_REASON_LIMIT = 255
_LOOK_AGAIN_SECONDS = 2.0
"""ECS is eventually consistent, from "a couple of seconds" on: a task that started may not be in the first list."""
_YOUNG_SECONDS = 60.0
"""For so long ECS not knowing a task that this process launched does not mean that the task is gone."""
_YOUNG_REMEMBERED = 10_000
_TASK = re.compile(
    r"arn:aws[a-z-]*:ecs:(?P<region>[a-z0-9-]+):\d{12}:task/(?:(?P<cluster>[A-Za-z0-9_-]{1,255})/)?[0-9a-f-]{32,36}",
    re.ASCII,
)
_PERMANENT = frozenset(
    {
        "AccessDeniedException",
        "BlockedException",
        "ClusterNotFoundException",
        "InvalidParameterException",
        "PlatformTaskDefinitionIncompatibilityException",
        "PlatformUnknownException",
        "UnsupportedFeatureException",
    }
)
_BAD_DEFINITION = re.compile(r"task ?definition", re.IGNORECASE)
_NO_ROOM = re.compile(r"capacity|quota|limit", re.IGNORECASE)
_NO_INSTANCES = re.compile(r"no container instances", re.IGNORECASE)
"""ClientException is what ECS answers for a quota that is reached (to be tried again), but also for a task definition
that is inactive or does not exist (never works); and InvalidParameterException is also what a cluster answers that has
been scaled to no instances. Only the text tells them apart."""

_log = structlog.get_logger(__name__)


def create(context: LauncherContext) -> EcsLauncher:
    """The entry point. Raises InvalidSettings."""
    return create_from_file(context, context.settings.ecs_launcher_file)


def create_from_file(context: LauncherContext, path: str) -> EcsLauncher:
    """The launcher of a settings file. Raises InvalidSettings with one line that says what to do."""
    if not path:
        raise InvalidSettings(f"ECS_LAUNCHER_FILE is not set; set it to the launcher's settings file (see {EXAMPLE})")
    settings = ecs_settings_from_file(Path(path))
    endpoint_is_configured("ecs")  # boto3 uses it by itself; asked here because an unusable one ends start-up
    client = EcsClient(region=settings.region or region_from_environment())
    return EcsLauncher(settings, client, context.settings, context.payloads)


class EcsLauncher:
    """``ports.Launcher`` on one cluster. A worker's id is its task's ARN."""

    name = "ecs"
    replay_limit_ms: int | None = REPLAY_LIMIT_MS
    """ECS may forget a client token an hour after its task stopped."""

    def __init__(
        self,
        ecs_settings: EcsSettings,
        client: EcsClient,
        settings: Settings,
        payloads: Payloads,
        *,
        clock: Callable[[], float] = time.monotonic,
        look_again_seconds: float = _LOOK_AGAIN_SECONDS,
    ) -> None:
        self._ecs_settings = ecs_settings
        self._client = client
        self._settings = settings
        self._payloads = payloads
        self._clock = clock
        self._look_again_seconds = look_again_seconds
        self._launched_at: dict[str, float] = {}

    def prepare(self, order: LaunchOrder) -> dict[str, Any]:
        """The RunTask request without what follows from the token. Settings that change later do not change it."""
        task_type = self._ecs_settings.for_task_type(order.task_type)
        if task_type is None:
            raise _rejected(f"the ECS launcher has no entry for task type {order.task_type!r}; add it or a default")
        overrides = {"containerOverrides": [self._container_override(order, task_type)]}
        length = len(json.dumps(overrides))
        limit = OVERRIDES_LIMIT - _TOKEN_RESERVE
        if length > limit:
            raise _rejected(
                f"the launch's variables take {length} characters, ECS allows {limit} beside the callback token; "
                "shorten the trace id or the environment of the task type"
            )
        return {
            "cluster": self._ecs_settings.cluster,
            "taskDefinition": task_type.task_definition,
            "overrides": overrides,
            **task_type.placement(),
        }

    async def launch(self, intent: LaunchIntent) -> Launched:
        order, request, began = intent.order, _with_callback_token(intent), self._clock()
        await lay_down(self._payloads, order)
        try:
            answer = await self._client.run_task(
                request,
                token=order.token,
                started_by=started_by(order.token),
                send_within_seconds=SEND_WITHIN_SECONDS - (self._clock() - began),
            )
        except EcsUnclear as error:
            raise LaunchUnclear(str(error)) from error
        except EcsConflict as conflict:
            return await self._adopted(intent, conflict)
        except EcsRefused as error:
            return await self._verified(intent, _refusal(error))
        if tasks := answer.get("tasks"):
            return self._launched(tasks[0]["taskArn"], Rung.SENT)
        if failures := answer.get("failures"):
            said = ", ".join(f"{item.get('reason', 'no reason')} {item.get('detail', '')}".strip() for item in failures)
            return await self._verified(
                intent, LaunchRefused(f"RunTask placed no task: {said}", code="LAUNCH_CAPACITY", permanent=False)
            )
        raise LaunchUnclear("RunTask answered with neither a task nor a failure")

    async def find(self, intent: LaunchIntent) -> str | None:
        """The task that a launch started, live or stopped within about an hour, without sending the launch again.

        For launches so old that their token may be forgotten (24 hours, or one after the task stopped), where sending
        again would start a second worker. None is proof that no task lives, and that none stopped within the hour.
        Raises LaunchUnclear.
        """
        # A launch whose request was lost with Redis is looked for where launches go now.
        cluster = str(intent.request.get("cluster") or self._ecs_settings.cluster)
        tag = started_by(intent.order.token)
        try:
            found = await self._live_tasks(cluster, tag) or await self._client.stopped_tasks(cluster, tag)
        except EcsUnclear as error:
            raise LaunchUnclear(f"what the launch started could not be listed: {error}") from error
        except EcsRefused as error:
            if error.code == "ClusterNotFoundException":
                return None
            raise LaunchUnclear(
                f"what the launch started could not be listed: {error}; permit ecs:ListTasks"
            ) from error
        return found[0] if found else None

    async def observe(self, worker_ids: Sequence[str]) -> list[Observation]:
        observations, by_cluster = list[Observation](), defaultdict[str, list[str]](list)
        for worker_id in worker_ids:
            match = _TASK.fullmatch(worker_id)
            if match is None:
                # Asked about, a malformed id would fail the whole batch.
                observations.append(Observation(worker_id, WorkerState.MISSING, SOURCE, "not the ARN of an ECS task"))
            elif match["region"] == self._client.region:
                # By the ARN's own cluster: after a change of the settings, workers of the former one are no losses.
                by_cluster[match["cluster"] or self._ecs_settings.cluster].append(worker_id)
        batches = [
            (cluster, ids[start : start + DESCRIBE_BATCH])
            for cluster, ids in by_cluster.items()
            for start in range(0, len(ids), DESCRIBE_BATCH)
        ]
        looks = await asyncio.gather(*(self._look(*batch) for batch in batches))
        failed = [look for look in looks if isinstance(look, LaunchUnclear)]
        if failed and len(failed) == len(looks):
            raise failed[0]
        return observations + [item for look in looks if isinstance(look, list) for item in look]

    async def stop(self, worker_id: str, reason: str) -> bool:
        match = _TASK.fullmatch(worker_id)
        if match is None:
            return True
        cluster = match["cluster"] or self._ecs_settings.cluster
        try:
            status = await self._client.stop_task(cluster, worker_id, f"{OUR_STOP}{reason}"[:_REASON_LIMIT])
        except EcsUnclear as error:
            raise LaunchUnclear(str(error)) from error
        except EcsRefused as error:
            # "Not found" comes as InvalidParameterException; whether it is that, a look tells better than the text.
            seen = await self.observe([worker_id]) if error.code == "InvalidParameterException" else []
            if not seen:
                raise LaunchUnclear(str(error)) from error
            is_missing = seen[0].state is WorkerState.MISSING
            return seen[0].state is WorkerState.STOPPED or (is_missing and not self._is_young(worker_id))
        return status == "STOPPED"

    async def workers(self) -> list[FoundWorker]:
        """By the variables that they were started with."""
        try:
            tasks = await self._client.running_tasks(self._ecs_settings.cluster)
        except (EcsUnclear, EcsRefused) as error:
            raise LaunchUnclear(f"the tasks of the cluster could not be listed: {error}") from error
        found = (found_worker(task["taskArn"], _variables(task), self._settings) for task in tasks)
        return [worker for worker in found if worker is not None]

    async def close(self) -> None:
        """The workers run on."""
        await self._client.close()

    def _container_override(self, order: LaunchOrder, task_type: TaskType) -> dict[str, Any]:
        variables = {**task_type.environment, **worker_variables(order, self._settings)}
        environment = [{"name": name, "value": variables[name]} for name in sorted(variables)]
        return {"name": task_type.container, "environment": environment}

    def _launched(self, worker_id: str, rung: Rung, detail: str = "") -> Launched:
        self._launched_at[worker_id] = self._clock()
        if len(self._launched_at) > _YOUNG_REMEMBERED:
            del self._launched_at[next(iter(self._launched_at))]
        return Launched(worker_id, rung, detail)

    def _is_young(self, worker_id: str) -> bool:
        at = self._launched_at.get(worker_id)
        return at is not None and self._clock() - at < _YOUNG_SECONDS

    async def _adopted(self, intent: LaunchIntent, conflict: EcsConflict) -> Launched:
        """The token started a task with other parameters: it is this launch's, whatever changed since."""
        worker_id = conflict.tasks[0] if conflict.tasks else await self.find(intent)
        if worker_id is None:
            raise LaunchUnclear(f"{conflict}, but no task of this launch is found")
        _log.error(
            "Launch adopted a task that was started with other parameters",
            task_id=intent.order.task_id,
            worker_id=worker_id,
            remedy="the request of a launch must not change; report this with both versions",
        )
        return self._launched(worker_id, Rung.CONFLICT, f"{conflict}; adopted what it started")

    async def _verified(self, intent: LaunchIntent, refusal: LaunchRefused) -> Launched:
        """Raise the refusal, unless the launch, or an earlier sending of it, has a task after all.

        After a refusal that is verified the next launch try has a token of its own, and not this one again: a token's
        repeat gets the token's first answer, so it could be refused for as long as ECS remembers it, whatever room
        there is by then. What the refused try may still start is refused at its claim. An answer that was lost or
        throttled is not a refusal: then the same token is sent again.
        """
        cluster, tag = str(intent.request["cluster"]), started_by(intent.order.token)
        try:
            found = await self._live_tasks(cluster, tag)
        except EcsUnclear as error:
            raise LaunchUnclear(f"{refusal}; not verified: {error}") from error
        except EcsRefused as error:
            if error.code == "ClusterNotFoundException":
                raise refusal from None
            raise LaunchUnclear(f"{refusal}; not verified: {error}; permit ecs:ListTasks") from error
        if found:
            _log.warning("Refused launch started all the same", task_id=intent.order.task_id, said=str(refusal))
            return self._launched(found[0], Rung.VERIFIED, f"{refusal}; ListTasks shows that it started")
        raise LaunchRefused(
            f"{refusal} (ListTasks shows no task of this launch)", code=refusal.code, permanent=refusal.permanent
        )

    async def _live_tasks(self, cluster: str, tag: str) -> list[str]:
        """None only after a second look, a little later. Raises EcsUnclear and EcsRefused."""
        found = await self._client.live_tasks(cluster, tag)
        if not found:
            await asyncio.sleep(self._look_again_seconds)
            found = await self._client.live_tasks(cluster, tag)
        return found

    async def _look(self, cluster: str, worker_ids: list[str]) -> list[Observation] | LaunchUnclear:
        """An error is returned, not raised, so that one batch does not hide the others."""
        try:
            answer = await self._client.describe_tasks(cluster, worker_ids)
        except (EcsUnclear, EcsRefused) as error:
            return LaunchUnclear(str(error))
        tasks = {item["taskArn"]: item for item in answer.get("tasks", [])}
        failures = {item.get("arn", ""): item for item in answer.get("failures", [])}
        seen = list[Observation | None]()
        for worker_id in worker_ids:
            task: Mapping[str, Any] | None = tasks.get(worker_id)
            if task is not None:
                seen.append(observation_from_task(task, worker_id))
            elif worker_id in failures:
                seen.append(observation_of_failure(failures[worker_id], worker_id))
        return [item for item in seen if item is not None]


def _variables(task: Mapping[str, Any]) -> dict[str, str]:
    overrides = (task.get("overrides") or {}).get("containerOverrides") or []
    return {item["name"]: item["value"] for override in overrides for item in override.get("environment") or []}


def _with_callback_token(intent: LaunchIntent) -> Mapping[str, Any]:
    """The frozen request and the worker's secret, which is the same for every replay: so ECS sees no other request."""
    if intent.order.callback_token is None:
        return intent.request
    request = copy.deepcopy(dict(intent.request))
    (override,) = request["overrides"]["containerOverrides"]
    override["environment"].append({"name": CALLBACK_TOKEN_VARIABLE, "value": intent.order.callback_token})
    return request


def started_by(token: str) -> str:
    """The tag that a launch's task is found by: at most 128 of ``A-Za-z0-9_/-``."""
    return f"alakai-{token[:32]}"


def _rejected(message: str) -> LaunchRefused:
    return LaunchRefused(message, code="LAUNCH_REJECTED", permanent=True)


def _refusal(error: EcsRefused) -> LaunchRefused:
    text = str(error)
    never_works = error.code in _PERMANENT and not _NO_INSTANCES.search(text)
    if never_works or (_BAD_DEFINITION.search(text) and not _NO_ROOM.search(text)):
        return _rejected(f"{text}; correct the launcher's settings file or the controller's rights")
    return LaunchRefused(text, code="LAUNCH_CAPACITY", permanent=False)
