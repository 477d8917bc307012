"""Google ID tokens: who signed in to the dashboard.

Verifies signature, issuer, audience, time and that the e-mail address is verified. Grants no rights, and writes no
token and no part of one into a log. What a route does with the person is ``api/identity.py``.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson
import structlog
from google.auth import jwt
from google.auth.transport.requests import Request

from executions.errors import InvalidSettings
from executions.ports import Identity, IdentityUnavailable

CERTS_URL = "https://www.googleapis.com/oauth2/v1/certs"
"""Google's X.509 certificates by key id, in PEM."""
ISSUERS = ("accounts.google.com", "https://accounts.google.com")
CLOCK_SKEW_SECONDS = 10
MAX_TOKEN_CHARS = 8_192

_FETCH_SECONDS = 3
_DEFAULT_AGE_SECONDS = 300.0
_MAX_AGE_SECONDS = 86_400.0
_STALE_SECONDS = 86_400.0
"""How long past their age certificates still serve when Google cannot be reached; keys are withdrawn within days."""
_UNKNOWN_KEY_SECONDS = 60.0
"""Tokens with made-up key ids must not make us ask Google more often than this."""
_FAILED_FETCH_SECONDS = 5.0
_MAX_AGE = re.compile(r"(?:^|[\s,])max-age=(\d{1,9})(?:$|[\s,])", re.ASCII | re.IGNORECASE)
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Certs:
    """Certificates (PEM) by key id, and for how many seconds they may be kept."""

    by_key_id: Mapping[str, str]
    max_age_seconds: float


class GoogleIdentity:
    """``ports.IdentityVerifier`` for ID tokens that Google issued to one of ``audiences``.

    ``fetch`` gets the certificates; it may block (it runs in a thread) and may raise anything. ``clock`` gives seconds
    that never go back, for the age of the certificates; a token's own times are held against the wall clock.
    """

    def __init__(
        self,
        audiences: Sequence[str],
        *,
        fetch: Callable[[], Certs] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not audiences or not all(audiences):
            # The library checks no audience at all when it is given none: any Google token would do.
            raise InvalidSettings("TASK_DASHBOARD_GOOGLE_CLIENT_IDS is empty; set it to the dashboard's client ids")
        self._audiences = list(audiences)
        self._certs = _CachedCerts(fetch or fetch_certs, clock)

    async def verify(self, token: str) -> Identity | None:
        """The person behind the token, None for a bad one. Raises IdentityUnavailable."""
        try:
            certs = await self._certs.including(_key_id(token))
            return await asyncio.to_thread(self._verified, token, certs)
        except _BadToken as reason:
            _log.debug("Sign-in refused", reason=str(reason))
            return None

    def _verified(self, token: str, certs: Mapping[str, str]) -> Identity:
        with _decoding():
            claims = jwt.decode(  # type: ignore[no-untyped-call]
                token, certs=certs, audience=self._audiences, clock_skew_in_seconds=CLOCK_SKEW_SECONDS
            )
        return _identity(claims)


class _BadToken(Exception):
    """Why a token proves nobody. Its text never holds a part of the token."""


class _CachedCerts:
    """The certificates, fetched by one caller at a time and served stale while Google cannot be reached."""

    def __init__(self, fetch: Callable[[], Certs], clock: Callable[[], float]) -> None:
        self._fetch = fetch
        self._clock = clock
        self._certs: Mapping[str, str] = {}
        self._fetching: asyncio.Task[None] | None = None
        self._is_failing = False
        self._fresh_until = self._usable_until = self._next_fetch_at = self._next_unknown_at = float("-inf")

    async def including(self, key_id: str | None) -> Mapping[str, str]:
        """Usable certificates; asks again for a key id that is not among them. Raises IdentityUnavailable."""
        if self._wants_fetch(key_id):
            if self._fetching is None:
                self._fetching = asyncio.create_task(self._refresh())
            # Others wait for the same fetch; a caller that is cancelled must not end it for them.
            await asyncio.shield(self._fetching)
        is_unknown = key_id is not None and key_id not in self._certs
        if self._clock() >= self._usable_until or (is_unknown and self._is_failing):
            raise IdentityUnavailable("Google's certificates cannot be fetched; try again")
        return self._certs

    def _wants_fetch(self, key_id: str | None) -> bool:
        now = self._clock()
        if now >= self._fresh_until:
            return self._fetching is not None or now >= self._next_fetch_at
        if key_id is None or key_id in self._certs:
            return False
        if self._fetching is not None:
            return True
        due = now >= self._next_unknown_at
        if due:
            self._next_unknown_at = now + _UNKNOWN_KEY_SECONDS
        return due

    async def _refresh(self) -> None:
        try:
            found = await asyncio.to_thread(self._fetch)
        except Exception as error:
            self._is_failing = True
            self._next_fetch_at = self._clock() + _FAILED_FETCH_SECONDS
            _log.warning("Google's certificates could not be fetched", error_type=type(error).__name__)
        else:
            self._is_failing = False
            self._certs = dict(found.by_key_id)
            self._fresh_until = self._clock() + found.max_age_seconds
            self._usable_until = self._fresh_until + _STALE_SECONDS
        finally:
            self._fetching = None


def fetch_certs() -> Certs:
    """Fetch Google's certificates; blocks for a few seconds at most. Raises TransportError or ValueError."""
    response = Request()(CERTS_URL, method="GET", timeout=_FETCH_SECONDS)
    if response.status != 200:
        raise ValueError(f"Google answered {response.status}")
    return certs_from_response(response.data, {name.lower(): value for name, value in response.headers.items()})


def certs_from_response(body: bytes, headers: Mapping[str, str]) -> Certs:
    """Certificates from an answer's body and its headers (lower-case names). Raises ValueError."""
    document = orjson.loads(body)
    if not isinstance(document, dict) or not document or not all(isinstance(pem, str) for pem in document.values()):
        raise ValueError("not certificates by key id")
    found = _MAX_AGE.search(headers.get("cache-control", ""))
    age = headers.get("age", "")
    left = float(found[1]) - (float(age) if age.isdecimal() else 0.0) if found else _DEFAULT_AGE_SECONDS
    return Certs(document, min(max(left, 1.0), _MAX_AGE_SECONDS))


@contextmanager
def _decoding() -> Iterator[None]:
    """Whatever an unproven token makes the decoder raise, it is a bad token; the decoder's own text may quote it."""
    try:
        yield
    except Exception as error:
        raise _BadToken(type(error).__name__) from None


def _key_id(token: str) -> str | None:
    if len(token) > MAX_TOKEN_CHARS:
        raise _BadToken("too long")
    with _decoding():
        key_id = jwt.decode_header(token).get("kid")  # type: ignore[no-untyped-call]
    if key_id is not None and not isinstance(key_id, str):
        raise _BadToken("the key id is not text")
    return key_id


def _identity(claims: Mapping[str, Any]) -> Identity:
    subject, email = claims.get("sub"), claims.get("email")
    if claims.get("iss") not in ISSUERS:
        raise _BadToken("wrong issuer")
    if claims.get("email_verified") is not True:
        raise _BadToken("the e-mail address is not verified")
    if not isinstance(subject, str) or not subject or not isinstance(email, str) or not email:
        raise _BadToken("no subject or no e-mail address")
    domain, expires = claims.get("hd"), claims.get("exp")
    return Identity(
        subject,
        email,
        domain if isinstance(domain, str) and domain else None,
        int(expires) if isinstance(expires, int | float) else None,
    )
