"""HTTP requests to places that a task's message may name: nothing inside our network can be reached by them.

The address is checked when the socket is made, with the very address that it then connects to, so that a name which
answers otherwise the second time (DNS rebinding) gains nothing. Redirects are not followed, proxies of the environment
not used, answers read up to a limit. Never repeats a request by itself and knows no channel.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from executions.automatic_retry import not_before_from
from executions.errors import NotDelivered

_CONNECTIONS = 64
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
"""Where networks without IPv4 reach it (RFC 6052); the last 32 bits are the address that is meant."""
_UNICAST = ipaddress.IPv6Network("2000::/3")
_PLATFORMS = tuple(ipaddress.IPv4Network(network) for network in ("168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24"))
"""Counted as global by Python (some only by older ones) and yet services of clouds for their machines, or relays."""
_BUSY_STATUSES = frozenset({408, 409, 423, 425, 429})
"""Of the 4xx, those that ask to come again."""


class AddressRefused(PermissionError):
    """The address is one that nothing outside may lead us to."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: ``body`` is what was asked to be kept of it."""

    status: int
    headers: Mapping[str, str]
    """Of a real answer without regard to case: proxies write them as they like."""
    body: bytes = b""

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet: no loopback, link-local, private or translated private."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv4Address):
        return found.is_global and not found.is_multicast and not any(found in network for network in _PLATFORMS)
    if found.ipv4_mapped is not None:
        return is_public(str(found.ipv4_mapped))
    if found in _TRANSLATED:
        return is_public(str(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)))
    # What is wrapped in 6to4 and Teredo nobody here needs, and either may hide a private address.
    return found in _UNICAST and found.is_global and found.sixtofour is None and found.teredo is None


def place_of(text: str, *, permits_http: bool = False) -> str:
    """``host:port`` of an URL that we would send to. Raises ValueError with what is wrong with it.

    Read by what aiohttp itself reads URLs with: two parsers that differ are how a host passes for another one.
    """
    try:
        url = URL(text)
        host, port = url.host, url.port
    except (ValueError, TypeError):
        raise ValueError("is no URL") from None
    if url.scheme != "https" and not (permits_http and url.scheme == "http"):
        raise ValueError("must begin with https://")
    if not host or port is None:
        raise ValueError("names no host")
    if url.user is not None or url.password is not None:
        raise ValueError("holds a user or password, which would be shown and logged")
    return f"{host.rstrip('.').lower()}:{port}"


class Outbound:
    """One pool of connections. ``permits_loopback`` is for a developer's machine."""

    def __init__(self, *, timeout_seconds: float, permits_loopback: bool = False) -> None:
        self._timeout_seconds = timeout_seconds
        self._permits_loopback = permits_loopback
        self._session: aiohttp.ClientSession | None = None

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        query: Mapping[str, str] | None = None,
        keep: int = 0,
    ) -> Reply:
        """Whatever was answered, its body up to ``keep`` bytes. Raises NotDelivered when nobody knows."""
        try:
            async with self._opened().request(
                method, url, data=body, params=query, headers=headers, allow_redirects=False
            ) as response:
                kept = await _kept(response, keep) if keep else b""
                return Reply(response.status, response.headers, kept)
        except TimeoutError:
            raise NotDelivered(f"no answer within {self._timeout_seconds:g} s") from None
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, PermissionError):
                raise NotDelivered(f"{error.host} is not at a public address", is_refusal=True) from None
            raise NotDelivered(f"{error.host} cannot be reached ({type(error.os_error).__name__})") from None
        except aiohttp.InvalidURL:
            raise NotDelivered("the URL cannot be sent to", is_refusal=True) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NotDelivered(f"the connection failed ({type(error).__name__})") from None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _opened(self) -> aiohttp.ClientSession:
        """Made at the first request: it belongs to the loop that runs by then."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=_CONNECTIONS, socket_factory=self._socket_to),
                timeout=aiohttp.ClientTimeout(total=self._timeout_seconds),
                headers={"User-Agent": "alakai", "Accept-Encoding": "identity"},
                cookie_jar=aiohttp.DummyCookieJar(),
                # A small answer could be a large one when it is unpacked.
                auto_decompress=False,
                trust_env=False,
            )
        return self._session

    def _socket_to(self, info: tuple[Any, Any, int, str, tuple[Any, ...]]) -> socket.socket:
        family, kind, protocol, _, address = info
        if not self._may_reach(str(address[0])):
            raise AddressRefused(f"{address[0]} is not a public address")
        return socket.socket(family, kind, protocol)

    def _may_reach(self, address: str) -> bool:
        if is_public(address):
            return True
        return self._permits_loopback and ipaddress.ip_address(address.partition("%")[0]).is_loopback


async def _kept(response: aiohttp.ClientResponse, limit: int) -> bytes:
    kept = bytearray()
    async for chunk in response.content.iter_chunked(65_536):
        kept += chunk
        if len(kept) > limit:
            raise NotDelivered(f"the answer is larger than {limit} bytes")
    return bytes(kept)


def failure_of(reply: Reply, *, now_ms: int, who: str, is_shared: bool = False) -> NotDelivered:
    """What an answer that is no success means. ``is_shared``: a limit of that place counts for all that goes there."""
    asked_ms = not_before_from(reply.headers.get("Retry-After"), now_ms)
    retry_after_ms = None if asked_ms is None else max(asked_ms - now_ms, 0)
    if 300 <= reply.status < 400:
        return NotDelivered(f"{who} redirects ({reply.status}), which is not followed", is_refusal=True)
    if reply.status in _BUSY_STATUSES or not 400 <= reply.status < 500:
        is_limit = is_shared and reply.status == 429
        return NotDelivered(f"{who} answered {reply.status}", retry_after_ms=retry_after_ms, is_for_all=is_limit)
    return NotDelivered(f"{who} answered {reply.status}", is_refusal=True, retry_after_ms=retry_after_ms)
