"""A bare client of the API server: requests as bytes, answers unread but for their status.

It is both the yardstick (the fastest that Python gets these writes done) and the independent eye that sees what the
controller wrote. It shares no code with the controller's own client.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any

import aiohttp
import orjson

from bench.errors import BenchError
from devstack.kubernetes import ADMIN, ControlPlane
from executions.names import GROUP, PLURAL, VERSION

WRITES = ("POST", "PUT", "PATCH", "APPLY", "DELETE")
"""The verbs that change something, as `apiserver_request_total` spells them."""
_JSON = {"Content-Type": "application/json"}
_MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}
_REQUESTS = re.compile(rb"^apiserver_request_total\{([^}]*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


class ApiServer:
    """One session of the admin's with at most `connections` connections; closed with the `async with` block."""

    def __init__(self, plane: ControlPlane, *, connections: int = 32) -> None:
        self._session = aiohttp.ClientSession(
            base_url=plane.url,
            connector=aiohttp.TCPConnector(
                limit=connections, ssl=ssl.create_default_context(cadata=plane.certificate_authority)
            ),
            headers={"Authorization": f"Bearer {plane.token(ADMIN)}"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
        )

    async def __aenter__(self) -> ApiServer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def version(self) -> str:
        return str(orjson.loads(await self._get("/version"))["gitVersion"])

    async def create_namespace(self, name: str) -> None:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        await self._write("POST", "/api/v1/namespaces", orjson.dumps(body), _JSON)

    async def create(self, namespace: str, manifest: bytes) -> None:
        await self._write("POST", _resources(namespace), manifest, _JSON)

    async def patch_status(self, namespace: str, name: str, status: bytes) -> None:
        """`status` is the whole merge patch."""
        await self._write("PATCH", f"{_resources(namespace)}/{name}/status", status, _MERGE_PATCH)

    async def writes(self) -> Counter[str]:
        """How many writes of our resource each verb has had since the API server started, refused ones included."""
        counted: Counter[str] = Counter()
        for labels, value in _REQUESTS.findall(await self._get("/metrics")):
            found = dict(_LABEL.findall(labels.decode()))
            if found.get("resource") == PLURAL and found.get("verb") in WRITES:
                subresource = found.get("subresource")
                counted[f"{found['verb']} {subresource}" if subresource else found["verb"]] += int(float(value))
        return counted

    async def items(self, namespace: str, **query: str) -> list[dict[str, Any]]:
        """All objects of a namespace, or those that a selector in `query` names."""
        found = orjson.loads(await self._get(_resources(namespace), query))
        items: list[dict[str, Any]] = found["items"]
        return items

    @asynccontextmanager
    async def watching(self, namespace: str, seen: Callable[[bytes], None], **query: str) -> AsyncIterator[None]:
        """Hand each line of a watch to `seen`, from the present state on, while the block runs."""
        listed = orjson.loads(await self._get(_resources(namespace), {"limit": "1"}))
        parameters = {"watch": "1", "resourceVersion": listed["metadata"]["resourceVersion"], **query}
        async with self._session.get(_resources(namespace), params=parameters) as response:
            await _require_success(response)
            reading = asyncio.create_task(_read_lines(response, seen))
            try:
                yield
                if reading.done():
                    raise BenchError("the API server ended a watch of the benchmark")
            finally:
                reading.cancel()
                with suppress(asyncio.CancelledError):
                    await reading

    async def _get(self, path: str, query: dict[str, str] | None = None) -> bytes:
        async with self._session.get(path, params=query) as response:
            await _require_success(response)
            return await response.read()

    async def _write(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> None:
        async with self._session.request(method, path, data=body, headers=headers) as response:
            await _require_success(response)
            await response.read()


def _resources(namespace: str) -> str:
    return f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}"


async def _require_success(response: aiohttp.ClientResponse) -> None:
    if response.status >= 400:
        text = (await response.text())[:300]
        raise BenchError(f"{response.method} {response.url.path} was answered {response.status}: {text}")


async def _read_lines(response: aiohttp.ClientResponse, seen: Callable[[bytes], None]) -> None:
    rest = b""
    async for chunk in response.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            seen(line)
