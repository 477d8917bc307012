"""Loopback ports: finding a free one, and telling a taken one before a server fails on it."""

from __future__ import annotations

import socket

from devstack.errors import PortTaken

HOST = "127.0.0.1"


def free_port() -> int:
    """A port that nobody listens on now; the kernel picks it at random, so two runs rarely get the same."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def require_free(port: int) -> None:
    """Raise PortTaken when somebody listens on it, on loopback or on all addresses."""
    with socket.socket() as client:
        answered = client.connect_ex((HOST, port)) == 0
        # A client whose own random port is this one connects to itself.
        if answered and client.getsockname() != client.getpeername():
            raise PortTaken(port)
    with socket.socket() as server:
        # As servers do it, so that connections of an earlier server that are still closing do not count.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((HOST, port))
        except OSError as error:
            raise PortTaken(port) from error
