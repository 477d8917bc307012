"""ECS for tests: a thin HTTP proxy before a moto server that adds what moto leaves out.

moto keeps clusters and task definitions and checks RunTask against them; those calls pass through. The shim keeps the
tasks themselves, because moto ignores client tokens, advances a task each time it is described, knows no stop codes
and never fails. What it adds, after AWS's API model and its page on idempotency:

- ``clientToken``: a table per cluster with the parameters; a repeat gets the same task, other parameters get
  ConflictException with the task's ARN; forgotten after 24 hours or one hour after the task stopped, on a clock that
  the test moves (``advance``);
- MISSING for the first looks at a task (``missing_looks``) and for tasks that stopped an hour ago;
- limits: 100 ids per DescribeTasks, ``startedBy`` as the only filter of ListTasks, lengths of token, tag, overrides;
- faults told beforehand (``fail``): lost requests and replies, no reply at all, throttling, server errors, refusals,
  ``failures[]``, and ``failures[]`` for a task that did start;
- tasks change only when the test says so (``become``, ``finish``) or when they are stopped.

``launches`` is its own log of every task that was really started, ``calls`` counts the requests by operation.
It serves on the event loop of the test, which therefore must not block.
"""

from __future__ import annotations

import asyncio
import copy
import json
import re
import secrets
import uuid
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import aiohttp
from aiohttp import web

DAY_SECONDS, HOUR_SECONDS = 86_400.0, 3_600.0
_PAGE = 100
_TIMES = frozenset({"createdAt", "startedAt", "stoppedAt"})
_GONE = ("STOPPED", "DELETED")


class Fault(StrEnum):
    """What happens to one call."""

    LOSE_REQUEST = "lose request"
    """Nothing is done; the connection is closed."""
    LOSE_REPLY = "lose reply"
    """The call is carried out; the connection is closed."""
    NO_REPLY = "no reply"
    """The call is carried out; the connection stays open and silent until the shim ends."""
    THROTTLE = "throttle"
    SERVER_ERROR = "server error"
    SERVER_ERROR_AFTER = "server error after"
    """The call is carried out and answered with HTTP 500."""
    FAILURES = "failures"
    """RunTask: HTTP 200 with ``failures[]``, nothing started."""
    FAILURES_AFTER = "failures after"
    """RunTask: HTTP 200 with ``failures[]``, although the task starts."""
    NOT_LISTED = "not listed"
    """ListTasks: an empty list, as shortly after a task started."""


@dataclass(frozen=True)
class Refusal:
    """A declared exception of the API."""

    code: str
    message: str = "no"
    status: int = 400
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Started:
    """One task that was really started."""

    arn: str
    token: str
    started_by: str
    at_seconds: float
    request: dict[str, Any]


class EcsShim:
    """``async with EcsShim(moto_url) as shim``; clients use ``shim.url``."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self.url = ""
        self.now_seconds = 1_700_000_000.0
        self.first_status = "RUNNING"
        self.missing_looks = 0
        self.stops_at_once = True
        """Otherwise a stopped task stays STOPPING until ``finish``."""
        self.failure_reason = "RESOURCE:MEMORY"
        self.launches: list[Started] = []
        self.calls = Counter[str]()
        self.requests: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.tasks: dict[str, dict[str, Any]] = {}
        self._faults: dict[str, deque[Fault | Refusal]] = defaultdict(deque)
        self._tokens: dict[tuple[str, str], Started] = {}
        self._looks = Counter[str]()
        self._starting = asyncio.Lock()
        self._ending = asyncio.Event()

    async def __aenter__(self) -> EcsShim:
        app = web.Application(client_max_size=2**22)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._session = aiohttp.ClientSession()
        self._runner = web.AppRunner(app, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ending.set()
        await self._runner.cleanup()
        await self._session.close()

    def fail(self, operation: str, fault: Fault | Refusal, times: int = 1) -> None:
        """The next calls of that operation (``RunTask``, …) meet this fault, in the order told."""
        self._faults[operation].extend([fault] * times)

    def heal(self) -> None:
        """Forget the faults that are still to come."""
        self._faults.clear()

    def advance(self, seconds: float) -> None:
        """Move the clock that tokens and stopped tasks are forgotten by."""
        self.now_seconds += seconds

    def become(self, arn: str, status: str, **fields: Any) -> None:
        """Set a task's ``lastStatus`` and any other field of it; counts as a change (``version``)."""
        task = self.tasks[arn]
        task.update(lastStatus=status, version=task["version"] + 1, **fields)
        if status == "RUNNING":
            task.setdefault("startedAt", self.now_seconds)
        if status in _GONE:
            task.update(desiredStatus="STOPPED", stoppedAt=self.now_seconds)

    def finish(
        self,
        arn: str,
        *,
        stop_code: str = "EssentialContainerExited",
        exit_code: int | None = 1,
        reason: str = "Essential container in task exited",
        container_reason: str | None = None,
    ) -> None:
        """Stop a task by itself, as its worker's end or the platform does."""
        for container in self.tasks[arn]["containers"]:
            container["lastStatus"] = "STOPPED"
            container.pop("exitCode", None)
            container |= {"exitCode": exit_code} if exit_code is not None else {}
            container |= {"reason": container_reason} if container_reason else {}
        self.become(arn, "STOPPED", stopCode=stop_code, stoppedReason=reason)

    def alive(self, token: str) -> list[str]:
        """ARNs of the tasks of one launch that are not stopped, from the launch log."""
        started = (item.arn for item in self.launches if item.token == token)
        return [arn for arn in started if self.tasks[arn]["lastStatus"] not in _GONE]

    def event(self, arn: str) -> dict[str, Any]:
        """What EventBridge sends of a task as it is now: ISO times, no tags, ``version`` as in DescribeTasks."""
        task = {name: value for name, value in self.tasks[arn].items() if name not in ("tags", "healthStatus")}
        times = {
            name: f"{datetime.fromtimestamp(task[name], UTC):%Y-%m-%dT%H:%M:%S.%fZ}" for name in _TIMES & set(task)
        }
        return {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": "ECS Task State Change",
            "source": "aws.ecs",
            "account": arn.split(":")[4],
            "time": f"{datetime.fromtimestamp(self.now_seconds, UTC):%Y-%m-%dT%H:%M:%SZ}",
            "region": arn.split(":")[3],
            "resources": [arn],
            "detail": task | times,
        }

    def seed(self, arn: str, count: int) -> list[str]:
        """Copies of a task under new ids, as if launched by somebody else; returns their ARNs."""
        made = [f"{arn.rpartition('/')[0]}/{secrets.token_hex(16)}" for _ in range(count)]
        self.tasks |= {other: {**copy.deepcopy(self.tasks[arn]), "taskArn": other} for other in made}
        return made

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        operation = request.headers.get("x-amz-target", "").rpartition(".")[2]
        raw = await request.read()
        if operation not in _OURS:
            return _answer(*await self._forward(request, raw))
        body: dict[str, Any] = json.loads(raw)
        self.calls[operation] += 1
        self.requests[operation].append(body)
        fault = self._faults[operation].popleft() if self._faults[operation] else None
        if fault is not None and fault not in _CARRIED_OUT:
            return await self._faulty(request, fault)
        match operation:
            case "RunTask":
                async with self._starting:
                    done = await self._run_task(request, body)
            case "DescribeTasks":
                done = self._describe_tasks(body)
            case "ListTasks":
                done = self._list_tasks(body)
            case _:
                done = self._stop_task(body)
        if fault is not None:
            return await self._faulty(request, fault)
        return _refused(done) if isinstance(done, Refusal) else _answer(200, done)

    async def _faulty(self, request: web.Request, fault: Fault | Refusal) -> web.Response:
        match fault:
            case Refusal():
                return _refused(fault)
            case Fault.THROTTLE:
                return _refused(Refusal("ThrottlingException", "Rate exceeded"))
            case Fault.SERVER_ERROR | Fault.SERVER_ERROR_AFTER:
                return _refused(Refusal("ServerException", "try later", 500))
            case Fault.FAILURES | Fault.FAILURES_AFTER:
                return _answer(200, {"tasks": [], "failures": [{"reason": self.failure_reason}]})
            case Fault.NOT_LISTED:
                return _answer(200, {"taskArns": []})
            case Fault.NO_REPLY:
                await self._ending.wait()
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    async def _forward(self, request: web.Request, raw: bytes) -> tuple[int, dict[str, Any]]:
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        url = self._upstream + request.path_qs
        async with self._session.request(request.method, url, data=raw, headers=headers) as got:
            return got.status, json.loads(await got.read() or b"{}")

    async def _run_task(self, request: web.Request, body: dict[str, Any]) -> dict[str, Any] | Refusal:
        token, tag = str(body.get("clientToken", "")), str(body.get("startedBy", ""))
        overrides = json.dumps(body.get("overrides"))
        if len(token) > 64 or not _TAG.fullmatch(tag) or len(overrides) > 8192 or body.get("count", 1) != 1:
            return Refusal("InvalidParameterException", "not one task, or a parameter is too long or malformed")
        known = self._tokens.get(key := (str(body.get("cluster", "default")), token))
        if known is not None and not self._is_forgotten(known):
            if known.request != body:
                message = "The clientToken is already in use with different parameters."
                return Refusal("ConflictException", message, 400, {"resourceIds": [known.arn]})
            return {"tasks": [self.tasks[known.arn]], "failures": []}
        status, got = await self._forward(request, json.dumps(body).encode())
        if status != 200:
            code = str(got.get("__type", "ServerException")).rpartition("#")[2]
            return Refusal(code, str(got.get("message")), status)
        task = got["tasks"][0]
        for container in task["containers"]:
            container |= {"lastStatus": self.first_status, "runtimeId": f"{task['taskArn'][-12:]}-1"}
            container.pop("exitCode", None)
        arn = task["taskArn"]
        self.tasks[arn] = {**task, "version": 1, "createdAt": self.now_seconds, "desiredStatus": "RUNNING"}
        self.become(arn, self.first_status)
        self._tokens[key] = Started(arn, token, tag, self.now_seconds, body)
        self.launches.append(self._tokens[key])
        return {"tasks": [self.tasks[arn]], "failures": []}

    def _is_forgotten(self, known: Started) -> bool:
        hour_after: float = self.tasks[known.arn].get("stoppedAt", float("inf")) + HOUR_SECONDS
        return self.now_seconds >= min(known.at_seconds + DAY_SECONDS, hour_after)

    def _is_kept(self, arn: str) -> bool:
        task = self.tasks.get(arn)
        return task is not None and self.now_seconds < task.get("stoppedAt", self.now_seconds) + HOUR_SECONDS

    def _describe_tasks(self, body: dict[str, Any]) -> dict[str, Any] | Refusal:
        asked = body.get("tasks", [])
        if not 1 <= len(asked) <= _PAGE or not all(":task/" in arn for arn in asked):
            return Refusal("InvalidParameterException", "Invalid identifier, or not 1 to 100 of them.")
        tasks, failures = [], []
        for arn in asked:
            self._looks[arn] += 1
            is_elsewhere = f"/{str(body.get('cluster', 'default')).rpartition('/')[2]}/" not in arn
            if not self._is_kept(arn) or is_elsewhere or self._looks[arn] <= self.missing_looks:
                failures.append({"arn": arn, "reason": "MISSING"})
            else:
                tasks.append(self.tasks[arn])
        return {"tasks": tasks, "failures": failures}

    def _list_tasks(self, body: dict[str, Any]) -> dict[str, Any] | Refusal:
        tag, wanted = body.get("startedBy"), body.get("desiredStatus", "RUNNING")
        if tag is not None and set(body) - {"cluster", "startedBy", "nextToken", "maxResults"}:
            return Refusal("InvalidParameterException", "startedBy must be the only filter.")
        kept = {arn: task for arn, task in self.tasks.items() if self._is_kept(arn) and task["desiredStatus"] == wanted}
        found = [arn for arn, task in kept.items() if tag in (None, task.get("startedBy"))]
        start = int(body.get("nextToken", 0))
        more = {"nextToken": str(start + _PAGE)} if len(found) > start + _PAGE else {}
        return {"taskArns": found[start : start + _PAGE], **more}

    def _stop_task(self, body: dict[str, Any]) -> dict[str, Any] | Refusal:
        arn = body["task"]
        if not self._is_kept(arn):
            return Refusal("InvalidParameterException", "The referenced task was not found.")
        if self.tasks[arn]["lastStatus"] not in _GONE:
            code, reason = "UserInitiated", body.get("reason", "Task stopped by user")
            if self.stops_at_once:
                self.finish(arn, stop_code=code, exit_code=143, reason=reason)
            else:
                self.become(arn, "STOPPING", desiredStatus="STOPPED", stopCode=code, stoppedReason=reason)
        return {"task": self.tasks[arn]}


_PASSED_ON = ("authorization", "content-type", "x-amz-date", "x-amz-target")
_OURS = ("RunTask", "DescribeTasks", "ListTasks", "StopTask")
_CARRIED_OUT = (Fault.LOSE_REPLY, Fault.NO_REPLY, Fault.SERVER_ERROR_AFTER, Fault.FAILURES_AFTER)
_TAG = re.compile(r"[A-Za-z0-9/_-]{0,128}")


def _answer(status: int, body: dict[str, Any]) -> web.Response:
    return web.json_response(body, status=status, content_type="application/x-amz-json-1.1")


def _refused(refusal: Refusal) -> web.Response:
    return _answer(refusal.status, {"__type": refusal.code, "message": refusal.message, **refusal.more})
