"""The application on fakes, called without a socket; every answer is held against what OpenAPI says of its route."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import httpx
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from starlette.routing import Match

from api.dependencies import Context
from api.live import Limits, Live
from api.main import bind, create_app
from api.routes import bulk, callbacks, dashboard, executions, health
from api.task_list import VisibleTasks
from executions.adapters.callback_keys import CallbackKeys
from executions.adapters.health import Health
from executions.adapters.settings import Settings
from executions.answer import Answer, Reply
from executions.operations.commands import Commands
from executions.outcome import outcome_from_document
from executions.record import Execution
from executions.visibility import Visibility
from tests.support.builders import POLICY, running
from tests.support.fake_identity import JANES_TOKEN, FakeIdentity
from tests.support.fake_probe import FakeProbe
from tests.support.memory_queue import MemoryQueue
from tests.support.memory_store import MemoryStore
from tests.support.memory_tracking import MemoryLog, MemoryTasks

ROUTES = [
    route
    for module in (health, callbacks, bulk, executions, dashboard)
    for route in module.router.routes
    if isinstance(route, APIRoute)
]
WRITTEN = Answer(Reply.CLAIMED, "", 1, "pending")


@dataclass
class Api:
    """An application and everything that it touches."""

    app: FastAPI
    http: httpx.AsyncClient
    context: Context
    store: MemoryStore
    retries: MemoryQueue
    outcomes: MemoryQueue
    identity: FakeIdentity
    probe: FakeProbe
    tasks: MemoryTasks
    log: MemoryLog
    events: list[dict[str, Any]] = field(default_factory=list)

    async def send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """One request. An answer that its route does not document, in code or in shape, fails the test."""
        response = await self.http.request(method, path, **arguments)
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["content-type"] == "application/json"
        route = route_of(method, httpx.URL(path).path)
        if route is None:
            assert response.status_code in (404, 405, 413), (path, response.status_code, response.text)
        else:
            assert response.status_code in route.responses, (path, response.status_code, response.text)
            TypeAdapter(route.responses[response.status_code]["model"]).validate_python(response.json(), strict=True)
        return response

    async def post(self, path: str, json: Any = None, **arguments: Any) -> httpx.Response:
        """A POST by Jane."""
        headers = {"authorization": f"Bearer {JANES_TOKEN}", **arguments.pop("headers", {})}
        return await self.send("POST", path, json=json, headers=headers, **arguments)

    async def get(self, path: str, *, person: str = JANES_TOKEN, **arguments: Any) -> httpx.Response:
        """A GET, by Jane unless somebody else's token is given."""
        return await self.send("GET", path, headers={"authorization": f"Bearer {person}"}, **arguments)

    async def retry(self, task_id: str, query: str = "") -> httpx.Response:
        return await self.post(f"/dashboard/executions/{task_id}/retry{query}")

    async def keep(self, execution: Execution) -> None:
        """Put an execution into the store."""
        task_id = execution.task_id
        await self.store.commit(await self.store.read(task_id), execution, WRITTEN)

    async def fail(self, task_id: str, **fields: Any) -> None:
        """An execution whose first attempt failed."""
        await self.keep(running(task_id, now_ms=self.store.now))
        body = {"taskId": task_id, "result": {"status": "error", "errorMessage": "no luck"}, **fields}
        assert (await self.context.commands.complete(outcome_from_document(body))).reply is Reply.RECORDED

    async def found(self, task_id: str) -> Execution:
        execution = (await self.store.read(task_id)).execution
        assert execution is not None
        return execution


def route_of(method: str, path: str) -> APIRoute | None:
    """The route of ours that serves a path."""
    scope = {"type": "http", "method": method, "path": path, "path_params": {}, "headers": [], "root_path": ""}
    return next((route for route in ROUTES if route.matches(scope)[0] is Match.FULL), None)


def made(
    app: FastAPI | None = None,
    *,
    with_identity: bool = True,
    callback_keys: CallbackKeys | None = None,
    visibility: Visibility | None = None,
    limits: Limits | None = None,
    **settings: Any,
) -> Api:
    """An application on fakes, with these settings; ``app`` is one made before, which is bound anew."""
    store, retries, outcomes, identity, probe = MemoryStore(), MemoryQueue(), MemoryQueue(), FakeIdentity(), FakeProbe()
    tasks, log = MemoryTasks(), MemoryLog()
    events: list[dict[str, Any]] = []
    context = Context(
        # What a developer's shell has set is not what is tested here.
        settings=Settings(**{"env": "production", "max_retries": POLICY.max_retries, **settings}),
        commands=Commands(store, retries, POLICY, "local"),
        store=store,
        outcomes=outcomes,
        identity=identity if with_identity else None,
        health=Health(probe.answers, is_trusted=probe.is_trusted),
        tasks=VisibleTasks(tasks, visibility or Visibility()),
        live=Live(log, limits, block_ms=20, pause_seconds=0.01),
        callback_keys=callback_keys,
        clock_ms=lambda: store.now,
        emit=events.append,
    )
    if app is None:
        app = create_app(context)
    else:
        bind(app, context)
    http = httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app, raise_app_exceptions=False), base_url="http://api.test"
    )
    return Api(app, http, context, store, retries, outcomes, identity, probe, tasks, log, events)
