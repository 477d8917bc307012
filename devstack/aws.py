"""SQS, S3 and ECS for development: a moto server in a process of its own. Its state ends with the process."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from devstack.ports import HOST
from devstack.processes import Daemon

ACCOUNT_ID = "000000000000"
CONNECT_TIMEOUT_SECONDS = 2.0


class AwsServer:
    """The moto server of one data folder, whether it runs or not; `start` makes it run."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.absolute()
        self.daemon = Daemon("aws", self.data_dir)

    @classmethod
    def start(cls, data_dir: Path, port: int | None = None) -> AwsServer:
        """Start it unless it runs, and return once it listens.

        Without `port` it is the one it had before, else a free one. Raises DevstackError.
        """
        server = cls(data_dir)
        if not server.daemon.adopt(port):
            port = server.daemon.choose_port(port)
            command = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)]
            server.daemon.start(command, port=port, environ={"MOTO_ACCOUNT_ID": ACCOUNT_ID})
        server.daemon.wait_until(server.is_ready)
        return server

    @property
    def port(self) -> int | None:
        """None before the first start."""
        return self.daemon.port

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def is_running(self) -> bool:
        return self.daemon.is_running

    def is_ready(self) -> bool:
        """Whether it accepts connections, which it does once every service is loaded."""
        try:
            with socket.create_connection((HOST, self.port or 0), CONNECT_TIMEOUT_SECONDS):
                return True
        except OSError:
            return False

    def kill(self) -> None:
        """End it as a crash would."""
        self.daemon.kill()

    def stop(self) -> bool:
        """End it. Returns whether it ran."""
        return self.daemon.stop()
