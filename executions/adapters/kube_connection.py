"""How the API server is reached and who we are there: from KUBECONFIG, from inside a cluster, or from ~/.kube/config.

The ``kubernetes`` package reads the configuration and renews credentials; requests go through aiohttp sessions made
here, one for the mirror (``kube_client.py``) and one for Kopf (``controller/kopf_operator.py``).
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from kubernetes.client import Configuration
from kubernetes.config import ConfigException, list_kube_config_contexts, load_incluster_config, load_kube_config

from executions.errors import InvalidSettings

DEFAULT_NAMESPACE = "default"
_POD_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_RENEW_SECONDS = 30.0
"""How long an Authorization header is used before the configuration is asked again: tokens in pods rotate."""


class KubeConnection:
    """One API server, one identity, and ``namespace``: the pod's, else that of the kubeconfig's context."""

    def __init__(self, configuration: Configuration, namespace: str) -> None:
        self.server: str = configuration.host.rstrip("/")
        self.namespace = namespace
        self._configuration = configuration
        self._authorization: str | None = None
        self._renewed_at: float | None = None
        self._renewing = asyncio.Lock()

    def session(self, *, connections: int) -> aiohttp.ClientSession:
        """A session that signs each request and opens at most ``connections`` connections; the caller closes it."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections, ssl=self._tls()),
            json_serialize=lambda document: orjson.dumps(document).decode(),
            proxy=self._configuration.proxy,
            middlewares=(self._signed,),
            headers={"User-Agent": "alakai"},
        )

    async def _signed(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Sign a request; one that is answered 401 is sent once more when renewing gave another header."""
        request.server_hostname = self._configuration.tls_server_name
        signed_at = await self._renew(unless_since=time.monotonic() - _RENEW_SECONDS)
        header = self._sign(request)
        response = await handler(request)
        if response.status != 401:
            return response
        await self._renew(unless_since=signed_at)
        if self._authorization == header:
            return response
        response.release()
        self._sign(request)
        return await handler(request)

    def _sign(self, request: aiohttp.ClientRequest) -> str | None:
        if self._authorization is not None:
            request.headers["Authorization"] = self._authorization
        return self._authorization

    async def _renew(self, *, unless_since: float) -> float:
        """Ask the configuration for the header unless that was done after then; returns when it was done last."""
        async with self._renewing:
            if self._renewed_at is None or self._renewed_at <= unless_since:
                # May read a token file or run a credential plugin: not on the event loop.
                self._authorization = await asyncio.to_thread(_authorization, self._configuration)
                self._renewed_at = time.monotonic()
            return self._renewed_at

    def _tls(self) -> ssl.SSLContext | bool:
        configuration = self._configuration
        if not self.server.startswith("https"):
            return False
        context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        if configuration.cert_file:
            context.load_cert_chain(configuration.cert_file, configuration.key_file)
        if not configuration.verify_ssl:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def open_connection(kubeconfig: Path | None = None) -> KubeConnection:
    """The connection of this process: ``kubeconfig`` or KUBECONFIG, else the pod's, else ~/.kube/config.

    Opens nothing yet. Raises InvalidSettings when there is no usable configuration.
    """
    configuration = Configuration()
    path = str(kubeconfig or os.environ.get("KUBECONFIG") or "") or None
    try:
        if path is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            namespace = _POD_NAMESPACE_FILE.read_text().strip()
        else:
            path = path or str(Path.home() / ".kube" / "config")
            load_kube_config(path, client_configuration=configuration, persist_config=False)  # type: ignore[no-untyped-call]
            namespace = _context_namespace(path)
    except (ConfigException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvalidSettings(
            f"KUBECONFIG gives no usable Kubernetes configuration ({reason}); set it to a kubeconfig file"
        ) from error
    return KubeConnection(configuration, namespace or DEFAULT_NAMESPACE)


def _context_namespace(path: str) -> str:
    _, active = list_kube_config_contexts(path)  # type: ignore[no-untyped-call]
    namespace: Any = active["context"].get("namespace") if active else None
    return str(namespace or DEFAULT_NAMESPACE)


def _authorization(configuration: Configuration) -> str | None:
    """The Authorization header, scheme included, after what had to be renewed was; None for client certificates."""
    try:
        header: str | None = configuration.get_api_key_with_prefix("BearerToken")
    except (ConfigException, OSError) as error:
        raise aiohttp.ClientConnectionError(f"the credentials could not be renewed: {error}") from error
    return header.strip() if header else None
