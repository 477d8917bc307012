"""A real redis-server with an append-only file, so that a killed one comes back with its data."""

from __future__ import annotations

from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from devstack import binaries
from devstack.ports import HOST
from devstack.processes import Daemon

PING_TIMEOUT_SECONDS = 2.0


class RedisServer:
    """The Redis of one data folder, whether it runs or not; `start` makes it run."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.absolute()
        self.daemon = Daemon("redis", self.data_dir)

    @classmethod
    def start(cls, data_dir: Path, port: int | None = None, append_only: bool = True) -> RedisServer:
        """Start it unless it runs, and return once it answers and has loaded its data.

        Without `port` it is the one it had before, else a free one. Raises DevstackError.
        """
        server = cls(data_dir)
        if not server.daemon.adopt(port):
            port = server.daemon.choose_port(port)
            command: list[str | Path] = [
                binaries.redis()["redis-server"],
                *("--port", str(port)),
                *("--bind", HOST),
                *("--dir", str(server.data_dir)),
                *("--appendonly", "yes" if append_only else "no"),
                *("--save", ""),
                *("--daemonize", "no"),
            ]
            server.daemon.start(command, port=port)
        server.daemon.wait_until(server.is_ready)
        return server

    @property
    def port(self) -> int | None:
        """None before the first start."""
        return self.daemon.port

    @property
    def url(self) -> str:
        return f"redis://localhost:{self.port}"

    @property
    def cli(self) -> Path:
        """A redis-cli of the same release."""
        return binaries.redis()["redis-cli"]

    @property
    def is_running(self) -> bool:
        return self.daemon.is_running

    def is_ready(self) -> bool:
        """Whether it answers a ping; while it loads its file it answers an error."""
        once = Retry(NoBackoff(), 0)  # our caller polls; the client's own back-off would slow it down
        client = redis.Redis(host=HOST, port=self.port or 0, socket_timeout=PING_TIMEOUT_SECONDS, retry=once)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()

    def kill(self) -> None:
        """End it as a crash would; `start` with the same folder brings it back."""
        self.daemon.kill()

    def stop(self) -> bool:
        """End it. Returns whether it ran."""
        return self.daemon.stop()
