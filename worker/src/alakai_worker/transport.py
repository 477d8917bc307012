"""One HTTP POST. Follows no redirect and uses no proxy: the control plane is a neighbour, and a redirected POST would
silently become a GET. Never decides what an answer means: that is ``client``.
"""

from __future__ import annotations

from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

_BODY_LIMIT = 4 * 1024 * 1024
"""A claim's answer holds a task message, at most 1 MiB before it is escaped."""


class NoReply(Exception):
    """There was no whole answer: the call may or may not have had its effect."""


@dataclass(frozen=True)
class Reply:
    """An answer as received; ``retry_after`` is the header's text."""

    status: int
    body: bytes = b""
    retry_after: str | None = None


def post(url: str, body: bytes, *, timeout_seconds: float) -> Reply:
    """POST a JSON body. Raises NoReply."""
    parts = urlsplit(url)
    connect = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = connect(parts.hostname or "", parts.port, timeout=timeout_seconds)
    try:
        connection.request("POST", target, body, {"content-type": "application/json", "connection": "close"})
        response = connection.getresponse()
        content = response.read(_BODY_LIMIT + 1)
        if len(content) > _BODY_LIMIT:
            raise NoReply("the answer is too large")
        return Reply(response.status, content, response.getheader("retry-after"))
    except (OSError, HTTPException) as error:
        raise NoReply(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()
