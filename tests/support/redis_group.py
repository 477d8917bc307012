"""A master, its replicas and three sentinels, as real servers; and a TLS end in front of one, which has none itself."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Coroutine
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from devstack import binaries
from devstack.ports import HOST, free_port
from devstack.processes import Daemon

SERVICE = "tasks"
_DOWN_MS = 1000


class RedisGroup(AbstractContextManager["RedisGroup"]):
    """Started on entry. ``master`` is the port of the one that is it now, by the sentinels' word."""

    def __init__(self, folder: Path, *, replicas: int = 1) -> None:
        self.folder = folder
        self.servers = {free_port(): Daemon(f"redis-{number}", folder) for number in range(replicas + 1)}
        self.sentinels = {free_port(): Daemon(f"sentinel-{number}", folder) for number in range(3)}

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'{HOST}:{port}' for port in self.sentinels)}/{SERVICE}"

    @property
    def master(self) -> int:
        with self._client(next(iter(self.sentinels))) as sentinel:
            found: Any = sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
            return int(found[1])

    def kill_master(self) -> int:
        """As a crash would; returns its port."""
        port = self.master
        self.servers[port].kill()
        return port

    def __enter__(self) -> RedisGroup:
        first = next(iter(self.servers))
        for port, daemon in self.servers.items():
            daemon.start(self.server_command(port, of=None if port == first else first), port=port)
        for port, daemon in self.servers.items():
            daemon.wait_until(lambda port=port: self._is_ready(port, linked=port != first))  # type: ignore[misc]
        for port, daemon in self.sentinels.items():
            config = self.folder / f"sentinel-{port}.conf"
            config.write_text(
                f"port {port}\nbind {HOST}\nsentinel monitor {SERVICE} {HOST} {first} 2\n"
                f"sentinel down-after-milliseconds {SERVICE} {_DOWN_MS}\nsentinel failover-timeout {SERVICE} 5000\n"
            )
            daemon.start([binaries.redis()["redis-server"], config, "--sentinel"], port=port)
        for daemon in self.sentinels.values():
            daemon.wait_until(self._all_know_each_other)
        return self

    def __exit__(self, *_: object) -> None:
        for daemon in [*self.sentinels.values(), *self.servers.values()]:
            daemon.stop()

    def server_command(self, port: int, *, of: int | None = None) -> list[str | Path]:
        """Starts the server of that port, with its data, as a master or as the replica of another."""
        folder = self.folder / f"data-{port}"
        folder.mkdir(parents=True, exist_ok=True)
        options = {
            "--port": port,
            "--bind": HOST,
            "--dir": folder,
            "--appendonly": "yes",
            "--save": "",
            "--repl-diskless-sync": "yes",
            "--repl-diskless-sync-delay": 0,
        }
        copies = [] if of is None else ["--replicaof", HOST, str(of)]
        return [binaries.redis()["redis-server"], *(str(item) for pair in options.items() for item in pair), *copies]

    def _is_ready(self, port: int, *, linked: bool) -> bool:
        try:
            with self._client(port) as client:
                return bool(client.ping()) and (not linked or client.info("replication")["master_link_status"] == "up")
        except redis.RedisError:
            return False

    def _all_know_each_other(self) -> bool:
        try:
            for port in self.sentinels:
                with self._client(port) as sentinel:
                    raw: Any = sentinel.execute_command("SENTINEL", "MASTER", SERVICE)
                    found = raw if isinstance(raw, dict) else dict(zip(raw[::2], raw[1::2], strict=True))
                    others, copies = found["num-other-sentinels"], found["num-slaves"]
                    if (int(others), int(copies)) != (2, len(self.servers) - 1):
                        return False
        except (redis.RedisError, KeyError):
            return False
        return True

    def _client(self, port: int) -> redis.Redis:
        return redis.Redis(host=HOST, port=port, decode_responses=True, socket_timeout=2)


class TlsEnd(AbstractContextManager["TlsEnd"]):
    """Takes TLS connections and passes what comes in the clear to a port; ``authority`` is its certificate."""

    def __init__(self, target_port: int, folder: Path) -> None:
        self._target_port = target_port
        self.authority = folder / "ca.crt"
        key = folder / "tls.key"
        write_certificate(self.authority, key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.authority, key)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tls-end", daemon=True)
        self._thread.start()
        self._server: asyncio.Server = self._call(asyncio.start_server(self._serve, HOST, 0, ssl=context))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def __exit__(self, *_: object) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _end(self) -> None:
        self._server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            answers, upstream = await asyncio.open_connection(HOST, self._target_port)
            ends.append(upstream)
            pumps = [asyncio.create_task(_pump(reader, upstream)), asyncio.create_task(_pump(answers, writer))]
            _, others = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for other in others:
                other.cancel()
        finally:
            for end in ends:
                end.transport.abort()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
    except OSError:
        return


def write_certificate(certificate: Path, key_file: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address(HOST))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
