"""Who is asking? The dependency of every dashboard route, and of the stream that browsers cannot send headers to.

Checks no rights beyond "a verified person". Tokens are verified by an ``IdentityVerifier``
(``executions/adapters/google_identity.py``) and are never logged.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Annotated, Protocol

from fastapi import Depends, Request

from api.dependencies import Context
from api.errors import FORBIDDEN, UNAUTHORIZED, Refused, try_again_later
from executions.adapters.settings import Settings
from executions.ports import Identity, IdentityUnavailable, IdentityVerifier

MAX_AUTHORIZATION_CHARS = 8_192
_BEARER = re.compile(r"Bearer +([!-~]+) *", re.IGNORECASE | re.ASCII)
_EMAIL = re.compile(r"[\w.%+-]{1,64}@[\w.-]{1,189}", re.ASCII)


class SignIn(Protocol):
    """A way to find out who sent a request."""

    async def person(self, request: Request, authorization: Sequence[str]) -> Identity | None:
        """None when nobody is proven; ``authorization`` is every such header there is. Raises IdentityUnavailable."""
        ...


class GoogleSignIn:
    """``Authorization: Bearer <Google ID token>``, exactly one."""

    def __init__(self, verifier: IdentityVerifier) -> None:
        self._verifier = verifier

    async def person(self, _: Request, authorization: Sequence[str]) -> Identity | None:
        if len(authorization) != 1 or len(authorization[0]) > MAX_AUTHORIZATION_CHARS:
            return None
        bearer = _BEARER.fullmatch(authorization[0])
        return await self._verifier.verify(bearer[1]) if bearer else None


class LocalSignIn:
    """``x-dev-user: <email>`` for a developer's own machine, else what would be asked anywhere."""

    def __init__(self, otherwise: SignIn | None) -> None:
        self._otherwise = otherwise

    async def person(self, request: Request, authorization: Sequence[str]) -> Identity | None:
        email = request.headers.get("x-dev-user")
        if email is not None:
            return Identity(f"dev:{email}", email) if _EMAIL.fullmatch(email) else None
        return await self._otherwise.person(request, authorization) if self._otherwise else None


def sign_in_for(settings: Settings, verifier: IdentityVerifier | None) -> SignIn | None:
    """How people sign in under these settings; None when nobody can, so that there is no route to protect.

    The only place where the bypass comes into being: without ``ENV=local`` no code reads its header.
    """
    google = GoogleSignIn(verifier) if verifier else None
    return LocalSignIn(google) if settings.is_local else google


def is_let_in(person: Identity, settings: Settings) -> bool:
    """Whether a proven person may use the dashboard's routes.

    A domain is the token's own word for the account's organisation and never the end of an address, which anybody can
    have who owns such an address elsewhere.
    """
    allowed, domains = settings.allowed_users, settings.google_domains
    is_named = not allowed or bool({person.subject.lower(), person.email.lower()} & allowed)
    return is_named and (not domains or (person.domain or "").lower() in domains)


async def signed_in(request: Request) -> Identity:
    """The person who asks.

    Raises Refused: 401 for nobody, 403 for somebody who is not let in, 429 for who asks too often, 503 when the
    identity provider's keys cannot be had.
    """
    return await _known(request, request.headers.getlist("authorization"))


async def signed_in_to_stream(request: Request) -> Identity:
    """The same where a browser cannot set a header: the token may stand in the address, as ``?authToken=``.

    Addresses are logged by whatever stands in between; here none is. A header makes the parameter count for nothing.
    """
    headers = request.headers.getlist("authorization")
    return await _known(
        request, headers or [f"Bearer {token}" for token in request.query_params.getlist("authToken")], of="stream "
    )


async def _known(request: Request, authorization: Sequence[str], *, of: str = "") -> Identity:
    context: Context = request.app.state.context
    # Before anything is verified: a token that proves nobody costs as much as one that does.
    if authorization:
        context.per_person.take(of + hashlib.sha256(authorization[0].encode()).hexdigest())
    sign_in: SignIn = request.app.state.sign_in
    try:
        person = await sign_in.person(request, authorization)
    except IdentityUnavailable as error:
        raise try_again_later("the identity provider cannot be reached; try again") from error
    if person is None:
        raise Refused(401, UNAUTHORIZED, headers={"WWW-Authenticate": "Bearer"})
    # Streams that come back after a restart must not use up what the buttons beside them need.
    context.per_person.take(of + person.subject)
    if not is_let_in(person, context.settings):
        raise Refused(403, FORBIDDEN)
    return person


Person = Annotated[Identity, Depends(signed_in)]
StreamPerson = Annotated[Identity, Depends(signed_in_to_stream)]
