"""The client against a real API server: its promises, and what it makes of answers that are none."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from devstack.kubernetes import ControlPlane
from executions.adapters import kube_client
from executions.adapters.kube_client import KubeClient
from executions.adapters.kube_connection import KubeConnection, open_connection
from executions.cluster import Forbidden, TooManyRequests, Unavailable
from executions.errors import InvalidSettings
from executions.resource import manifest_from_execution
from tests.support.builders import pending
from tests.support.cluster_contract import ClusterContract


@pytest.fixture
async def cluster(kube: ControlPlane, namespace: str) -> AsyncIterator[KubeClient]:
    client = KubeClient(open_connection(kube.kubeconfig), namespace)
    yield client
    await client.close()


class TestKubeClient(ClusterContract):
    @pytest.fixture
    def namespace_name(self, namespace: str) -> str:
        return namespace

    async def test_a_long_list_comes_in_pages(
        self, cluster: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(kube_client, "_PAGE", 2)
        for number in range(5):
            await self.create(cluster, namespace, f"task-{number}")
        names = [body["metadata"]["name"] async for body in cluster.list()]
        assert names == [f"task-{number}" for number in range(5)]

    async def test_a_pod_whose_identity_may_nothing_is_told_so(self, kube: ControlPlane, namespace: str) -> None:
        client = KubeClient(open_connection(kube.write_kubeconfig("viewer")), namespace)
        try:
            with pytest.raises(Forbidden, match="viewer"):
                await client.create(manifest_from_execution(pending(), namespace))
            # Who may not look at the definition is not told that it leaves: nothing is cancelled or kept for that.
            assert await client.definition_is_leaving() is False
        finally:
            await client.close()

    async def test_credentials_that_are_not_accepted_make_the_api_server_unavailable(
        self, kube: ControlPlane, namespace: str, tmp_path: Path
    ) -> None:
        path = kube.write_kubeconfig("stranger", tmp_path / "kubeconfig", token="wrong")
        client = KubeClient(open_connection(path), namespace)
        try:
            with pytest.raises(Unavailable) as caught:
                await client.check()
            assert "wrong" not in str(caught.value)
        finally:
            await client.close()

    async def test_a_credential_plugin_is_asked_again_after_a_401(
        self, kube: ControlPlane, namespace: str, tmp_path: Path
    ) -> None:
        tokens = tmp_path / "token"
        tokens.write_text("expired")
        path = kube.write_kubeconfig("rotating", tmp_path / "kubeconfig", token="unused")
        plugin = tmp_path / "plugin"
        plugin.write_text(
            '#!/bin/sh\nprintf \'{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential",\'\n'
            'printf \'"status":{"expirationTimestamp":"2020-01-01T00:00:00Z","token":"%s"}}\' '
            f'"$(cat {tokens})"\n'
        )
        plugin.chmod(0o700)
        text = path.read_text().replace('"token": "unused"', f'"exec": {_exec(plugin)}')
        path.write_text(text)
        client = KubeClient(open_connection(path), namespace)
        try:
            with pytest.raises(Unavailable):
                await client.check()
            tokens.write_text(kube.token("admin"))
            await client.check()
        finally:
            await client.close()


def _exec(plugin: Path) -> str:
    return (
        f'{{"apiVersion": "client.authentication.k8s.io/v1", "command": "{plugin}", "interactiveMode": "Never",'
        ' "provideClusterInfo": false}'
    )


class TestAnswers:
    """Against a server that answers whatever the test says."""

    @pytest.fixture
    async def answer(self) -> AsyncIterator[dict[str, object]]:
        """What the server at ``url`` answers: ``status``, ``headers``, ``text``, ``pause`` in seconds."""
        said: dict[str, object] = {"status": 200, "text": "{}"}

        async def handle(_: web.Request) -> web.Response:
            await asyncio.sleep(float(str(said.get("pause", 0))))
            headers = said.get("headers")
            return web.Response(
                status=int(str(said["status"])),
                text=str(said["text"]),
                headers=headers if isinstance(headers, dict) else None,
            )

        application = web.Application()
        application.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        said["url"] = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield said
        await runner.cleanup()

    @pytest.fixture
    async def client(self, answer: dict[str, object], tmp_path: Path) -> AsyncIterator[KubeClient]:
        client = KubeClient(_connection(str(answer["url"]), tmp_path), "default", request_timeout_seconds=0.3)
        yield client
        await client.close()

    async def test_a_throttled_request_says_how_long_to_wait(
        self, client: KubeClient, answer: dict[str, object]
    ) -> None:
        answer |= {"status": 429, "headers": {"Retry-After": "7"}, "text": "Too many requests"}
        with pytest.raises(TooManyRequests) as caught:
            await client.read("task-1")
        assert caught.value.retry_after_seconds == 7

    @pytest.mark.parametrize(
        ("status", "text"),
        [
            (500, '{"kind":"Status","message":"etcdserver: request timed out"}'),
            (503, "apiserver is shutting down"),
            (502, "<html>bad gateway</html>"),
            (404, "404 page not found"),
            (404, '{"kind":"Status","reason":"NotFound","message":"no such resource","details":{}}'),
            (401, '{"kind":"Status","reason":"Unauthorized"}'),
        ],
    )
    async def test_an_answer_that_says_nothing_of_the_object_is_none(
        self, client: KubeClient, answer: dict[str, object], status: int, text: str
    ) -> None:
        answer |= {"status": status, "text": text}
        with pytest.raises(Unavailable):
            await client.read("task-1")

    async def test_a_late_answer_is_none(self, client: KubeClient, answer: dict[str, object]) -> None:
        answer["pause"] = 2
        with pytest.raises(Unavailable, match="TimeoutError"):
            await client.read("task-1")

    async def test_a_closed_port_is_no_answer(self, tmp_path: Path) -> None:
        client = KubeClient(_connection("http://127.0.0.1:1", tmp_path), "default")
        with pytest.raises(Unavailable):
            await client.check()
        await client.close()

    async def test_an_expired_page_begins_the_list_anew(self, client: KubeClient, answer: dict[str, object]) -> None:
        pages = [
            (200, '{"metadata":{"continue":"old"},"items":[{"metadata":{"name":"a"}}]}'),
            (410, '{"kind":"Status","reason":"Expired","message":"the continue parameter is too old"}'),
            (200, '{"metadata":{},"items":[{"metadata":{"name":"a"}},{"metadata":{"name":"b"}}]}'),
        ]
        answer["status"], answer["text"] = pages.pop(0)
        names = []
        async for body in client.list():
            names.append(body["metadata"]["name"])
            if pages:
                answer["status"], answer["text"] = pages.pop(0)
                if answer["status"] == 410:
                    # The next request is answered 410, and the one after it with the last page.
                    asyncio.get_running_loop().call_later(0.05, lambda: answer.update(_page(pages.pop(0))))
        assert names == ["a", "a", "b"]


def _page(page: tuple[int, str]) -> dict[str, object]:
    return {"status": page[0], "text": page[1]}


def _connection(url: str, folder: Path) -> KubeConnection:
    path = folder / "kubeconfig"
    path.write_text(
        '{"apiVersion":"v1","kind":"Config","current-context":"x","contexts":[{"name":"x","context":{"cluster":"x",'
        f'"user":"x","namespace":"mine"}}}}],"clusters":[{{"name":"x","cluster":{{"server":"{url}"}}}}],'
        '"users":[{"name":"x","user":{"token":"secret-token"}}]}'
    )
    return open_connection(path)


def test_the_namespace_is_that_of_the_context(tmp_path: Path) -> None:
    assert _connection("http://127.0.0.1:1", tmp_path).namespace == "mine"


def test_a_missing_kubeconfig_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="KUBECONFIG"):
        open_connection(tmp_path / "none")


async def test_an_object_made_with_kubectl_is_seen(kube: ControlPlane, namespace: str, cluster: KubeClient) -> None:
    manifest = (
        '{"apiVersion":"alakai.dev/v1alpha1","kind":"WorkerExecution","metadata":{"name":"by-hand"},'
        '"spec":{"taskType":"digest"}}'
    )
    subprocess.run(  # noqa: ASYNC221 -- kubectl answers in milliseconds and nothing else runs here
        [kube.kubectl, "--kubeconfig", kube.kubeconfig, "-n", namespace, "create", "-f", "-"],
        input=manifest.encode(),
        check=True,
        capture_output=True,
        timeout=60,
    )
    assert (await cluster.read("by-hand"))["spec"]["taskType"] == "digest"
