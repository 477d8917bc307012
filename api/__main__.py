"""``python -m api``: settings, logs, then uvicorn until SIGTERM or Ctrl-C.

Exit codes: 0 after an orderly stop, 2 for settings that cannot work, with one line that says what to do.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from types import FrameType

import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.context import open_context
from api.dependencies import Context
from api.event_stream import ABORT
from api.live import Live
from api.main import create_app
from executions.adapters.health import Health
from executions.adapters.logging import also_trace, configure_logging
from executions.adapters.metrics import serve_metrics, tell_build
from executions.adapters.otel import open_tracing
from executions.adapters.probes import serve_probes
from executions.adapters.settings import Settings, settings_from_environment
from executions.errors import InvalidSettings

_DRAIN_SECONDS = 20
_KEEP_ALIVE_SECONDS = 75
"""Longer than load balancers keep an idle connection (60 s): it is they who close it, never we under a request."""
_MAX_CONNECTIONS = 2_000
_log = structlog.get_logger("api")


class _Protocol(HttpToolsProtocol):
    """Lets a response end its connection at once: one whose other side takes nothing cannot be closed in order."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {ABORT: {"call": self.transport.abort}}


class _Server(uvicorn.Server):
    """Tells the readiness probe as soon as it is asked to stop, and ends in order instead of by the signal."""

    def __init__(self, config: uvicorn.Config, health: Health, live: Live) -> None:
        super().__init__(config)
        self._health = health
        self._live = live

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._live.end()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn's own handler would raise the signal again afterwards: an orderly stop would look like a crash.
        self._health.is_draining = True
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def main() -> int:
    """Run the API. Returns the exit code."""
    try:
        settings = settings_from_environment()
        configure_logging(settings)
        also_trace(open_tracing("alakai-core"))
        context = open_context(settings)
        listener = _listener(settings)
        tell_build("api")
        metrics = serve_metrics(settings.metrics_port, default_port=9091, host=settings.host)
        # Before the loop begins and until it has ended: whoever asks is answered.
        probes = serve_probes(
            context.health, settings.api_probe_port, variable="API_PROBE_PORT", host=settings.host, default_port=8081
        )
    except InvalidSettings as error:
        sys.stderr.write(f"api: {error}\n")
        return 2
    try:
        _serve(context, listener, probes_port=probes.port, metrics_port=metrics.port)
    finally:
        probes.stop()
        metrics.stop()
    return 0


def _listener(settings: Settings) -> socket.socket:
    try:
        return socket.create_server((settings.host, settings.port), backlog=1024)
    except OSError as error:
        raise InvalidSettings(
            f"PORT {settings.port} cannot be listened on ({os.strerror(error.errno or 0)}); set PORT to a free port"
        ) from error


def _serve(context: Context, listener: socket.socket, **ports: int) -> None:
    config = uvicorn.Config(
        create_app(context),
        loop="uvloop",
        http=_Protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )
    host, port = listener.getsockname()[:2]
    _log.info("API listening", host=host, port=port, **ports)
    _Server(config, context.health, context.live).run(sockets=[listener])
    _log.info("API stopped")


if __name__ == "__main__":
    sys.exit(main())
