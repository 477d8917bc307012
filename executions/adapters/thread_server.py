"""Small HTTP servers on threads of their own, for those who watch us: probes and metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from socketserver import TCPServer
from threading import Thread

import structlog

from executions.errors import InvalidSettings

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ThreadServer:
    """A server that answers until ``stop``, which waits for its thread: not for the event loop's."""

    port: int
    stop: Callable[[], None]


def serve_on_thread(
    start: Callable[[int], tuple[TCPServer, Thread]], port: int | None, *, variable: str, default_port: int
) -> ThreadServer:
    """Start a server at a port; 0 is one that the system chooses. Raises InvalidSettings when the port is taken.

    Where nobody chose a port and the default one is taken, any other will do: to be watched is no reason not to start.
    """
    try:
        server, thread = start(default_port if port is None else port)
    except OSError as error:
        if port is not None:
            raise InvalidSettings(
                f"{variable} is {port}, where nothing can listen ({error.strerror}); set it to a free port, or to 0 "
                "for one that the system chooses"
            ) from error
        _log.warning(f"The default port is taken, another one is used; set {variable}", port=default_port)
        server, thread = start(0)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return ThreadServer(int(server.server_address[1]), stop)
