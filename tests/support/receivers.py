"""Receivers of notifications that fail as real ones do: a webhook, GitHub's and Slack's API, on loopback.

What they have taken is what they remember, also where the answer to it was lost.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """An HTTP server that can be stopped and started again on its port."""

    def __init__(self, *, host: str = "127.0.0.1") -> None:
        self.host = host
        self.port = 0
        self.ssl_context: ssl.SSLContext | None = None
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        raise NotImplementedError

    async def start(self) -> None:
        application = web.Application(client_max_size=2**20)
        application.router.add_route("*", "/{path:.*}", self.handle)
        self._runner = web.AppRunner(application, shutdown_timeout=0.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port, reuse_address=True, ssl_context=self.ssl_context)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


def cut(request: web.Request) -> web.Response:
    """The connection is reset; no answer arrives."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


@dataclass(frozen=True)
class Taken:
    """A request that the webhook's receiver accepted, whether or not the sender got to know."""

    key: str
    task_id: str
    attempt: int
    body: bytes
    headers: dict[str, str]


class FlakyWebhook(Server):
    """Accepts some requests, and fails in every other way; ``trouble`` is the part that fails."""

    def __init__(self, *, trouble: float = 0.0, hangs_seconds: float = 1.0, seed: int = 1) -> None:
        super().__init__()
        self.trouble = trouble
        self.taken: list[Taken] = []
        self.asked = 0
        self._hangs_seconds = hangs_seconds
        self._random = random.Random(seed)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        body = await request.read()
        if self._random.random() < self.trouble:
            match self._random.randrange(6):
                case 0:
                    return web.Response(status=500)
                case 1:
                    return web.Response(status=503, headers={"Retry-After": "0.05"})
                case 2:
                    return await self.hang()
                case 3:
                    return cut(request)
                case 4:
                    await self._take(request, body)
                    return cut(request)
                case 5:
                    await self._take(request, body)
                    await asyncio.sleep(self._hangs_seconds)
        else:
            await self._take(request, body)
        return web.Response(status=204)

    async def hang(self) -> web.Response:
        """Longer than anybody waits."""
        await asyncio.sleep(self._hangs_seconds)
        return web.Response(status=504)

    async def _take(self, request: web.Request, body: bytes) -> None:
        document: dict[str, Any] = await request.json()
        key = request.headers["Idempotency-Key"]
        headers = {name: text for name, text in request.headers.items() if name.startswith("X-Alakai")}
        self.taken.append(Taken(key, document["taskId"], document["attempt"], body, headers))


@dataclass
class FakeGitHub(Server):
    """Issues with comments. ``loses`` answers after it has acted, ``limits`` requests before that."""

    comments: dict[int, dict[str, Any]] = field(default_factory=dict)
    loses: int = 0
    limits: int = 0
    requests: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path))
        if request.headers.get("Authorization") != "Bearer github-token":
            return web.json_response({}, status=401)
        if self.limits:
            self.limits -= 1
            return web.json_response({}, status=403, headers={"Retry-After": "0.2"})
        answer = await self._acted(request)
        if request.method != "GET" and self.loses:
            self.loses -= 1
            return cut(request)
        return answer

    async def _acted(self, request: web.Request) -> web.StreamResponse:
        _, _, owner, repo, _, *rest = request.path.split("/")
        if request.method == "GET":
            size, page = int(request.query["per_page"]), int(request.query["page"])
            found = [item for item in self.comments.values() if item["issue"] == (f"{owner}/{repo}", rest[0])]
            return web.json_response(found[(page - 1) * size : page * size])
        body = (await request.json())["body"]
        if request.method == "POST":
            number = 1000 + len(self.comments)
            self.comments[number] = {"id": number, "issue": (f"{owner}/{repo}", rest[0]), "body": body}
            return web.json_response({"id": number}, status=201)
        if int(rest[1]) not in self.comments:
            return web.json_response({}, status=404)
        self.comments[int(rest[1])]["body"] = body
        return web.json_response({"id": int(rest[1])})


@dataclass
class FakeSlack(Server):
    """Channels with messages. ``loses`` answers after it has acted; ``is_blind`` has no right to read."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    loses: int = 0
    is_blind: bool = False
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        method = request.path.removeprefix("/")
        self.requests.append(method)
        if request.headers.get("Authorization") != "Bearer slack-token":
            return web.json_response({"ok": False, "error": "invalid_auth"})
        if request.method == "GET":
            if self.is_blind:
                return web.json_response({"ok": False, "error": "missing_scope"})
            thread = request.query.get("ts")
            found = [
                item
                for item in self.messages
                if item["channel"] == request.query["channel"] and item.get("thread_ts") == thread
            ]
            return web.json_response({"ok": True, "messages": found[::-1]})
        answer = self._acted(method, await request.json())
        if self.loses:
            self.loses -= 1
            return cut(request)
        return web.json_response(answer)

    def _acted(self, method: str, document: dict[str, Any]) -> dict[str, Any]:
        if method == "chat.postMessage":
            at = f"1700000000.{len(self.messages):06}"
            self.messages.append({**document, "ts": at})
            return {"ok": True, "channel": document["channel"], "ts": at}
        for item in self.messages:
            if (item["channel"], item["ts"]) == (document["channel"], document["ts"]):
                item["text"] = document["text"]
                return {"ok": True, "channel": item["channel"], "ts": item["ts"]}
        return {"ok": False, "error": "message_not_found"}
