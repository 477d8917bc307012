"""Google ID tokens, signed with keys of our own: who gets in, who does not, and when Google is asked for its keys."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import pytest
import structlog
from structlog.testing import capture_logs

from executions.adapters import google_identity
from executions.adapters.google_identity import Certs, GoogleIdentity, certs_from_response
from executions.errors import InvalidSettings
from executions.ports import Identity, IdentityUnavailable
from tests.support.fake_identity import AUDIENCE, JANE, SigningKey, encoded

KEY, OTHER_KEY = SigningKey("key-1"), SigningKey("key-2")


class Google:
    """The place where certificates come from. ``away`` makes it fail; ``calls`` counts."""

    def __init__(self, *keys: SigningKey, max_age_seconds: float = 3600) -> None:
        self.keys = list(keys)
        self.max_age_seconds = max_age_seconds
        self.away = False
        self.calls = 0

    def __call__(self) -> Certs:
        self.calls += 1
        if self.away:
            raise ConnectionError("no route (test)")
        return Certs({key.key_id: key.pem for key in self.keys}, self.max_age_seconds)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def verifier(google: Google, clock: Clock | None = None) -> GoogleIdentity:
    return GoogleIdentity(["another-audience", AUDIENCE], fetch=google, clock=clock or Clock())


async def verified(token: str) -> Identity | None:
    return await verifier(Google(KEY)).verify(token)


def token_of(claims: dict[str, Any]) -> str:
    """A token with these claims; a time difference becomes a time counted from now."""
    now = int(time.time())
    return KEY.token(
        {
            name: now + int(value.total_seconds()) if isinstance(value, timedelta) else value
            for name, value in claims.items()
        }
    )


GOOD: dict[str, dict[str, Any]] = {
    "as Google issues it": {},
    "the other form of the issuer": {"iss": "accounts.google.com"},
    "the other audience": {"aud": "another-audience"},
    "issued a moment ahead of our clock": {"iat": timedelta(seconds=5)},
    "expired a moment ago": {"exp": timedelta(seconds=-3)},
    "with claims that we do not know": {"azp": "x", "nested": {"a": [1]}},
}
BAD: dict[str, dict[str, Any]] = {
    "expired": {"iat": timedelta(seconds=-7200), "exp": timedelta(seconds=-60)},
    "issued in the future": {"iat": timedelta(seconds=120)},
    "no expiry": {"exp": None},
    "no time of issue": {"iat": None},
    "expiry that is text": {"exp": "never"},
    "expiry that is a list": {"exp": [1]},
    "foreign issuer": {"iss": "https://accounts.example.org"},
    "issuer with something behind it": {"iss": "https://accounts.google.com.example.org"},
    "issuer with a slash": {"iss": "https://accounts.google.com/"},
    "no issuer": {"iss": None},
    "issuer that is a list": {"iss": ["https://accounts.google.com"]},
    "foreign audience": {"aud": "someone-else"},
    "audiences as a list": {"aud": [AUDIENCE]},
    "no audience": {"aud": None},
    "empty audience": {"aud": ""},
    "e-mail not verified": {"email_verified": False},
    "e-mail verified as text": {"email_verified": "true"},
    "e-mail verified as a number": {"email_verified": 1},
    "e-mail verification missing": {"email_verified": None},
    "no e-mail": {"email": None},
    "empty e-mail": {"email": ""},
    "e-mail that is a list": {"email": ["jane@example.org"]},
    "no subject": {"sub": None},
    "subject that is a number": {"sub": 1001},
}


@pytest.mark.parametrize("claims", GOOD.values(), ids=GOOD.keys())
async def test_a_token_that_is_good(claims: dict[str, Any]) -> None:
    assert await verified(token_of(claims)) == JANE


@pytest.mark.parametrize(("hd", "domain"), [("example.org", "example.org"), ("", None), (["example.org"], None)])
async def test_the_domain_of_an_account_is_what_the_token_says(hd: object, domain: str | None) -> None:
    assert await verified(token_of({"hd": hd})) == replace(JANE, domain=domain)


async def test_a_person_is_known_until_the_token_ends() -> None:
    ends = int(time.time()) + 1234
    person = await verified(KEY.token({"exp": ends}))
    assert person is not None
    assert person.expires_at == ends


@pytest.mark.parametrize("claims", BAD.values(), ids=BAD.keys())
async def test_a_token_with_a_bad_claim(claims: dict[str, Any]) -> None:
    assert await verified(token_of(claims)) is None


def unsigned(header: dict[str, Any], signature: str = "") -> str:
    return f"{encoded(orjson.dumps(header))}.{KEY.token().split('.')[1]}.{signature}"


def with_header(raw: bytes) -> str:
    return f"{encoded(raw)}.{KEY.token().split('.')[1]}.{encoded(b'x' * 256)}"


FORGED = {
    "empty": "",
    "one word": "canary",
    "two segments": "a.b",
    "four segments": "a.b.c.d",
    "empty segments": "..",
    "not base64": "*.*.*",
    "no JSON inside": f"{encoded(b'{')}.{encoded(b'{')}.{encoded(b'x')}",
    "header that is a list": with_header(b"[]"),
    "header that is a number": with_header(b"1"),
    "header nested deeply": with_header(b"[" * 5000 + b"]" * 5000)[:8000],
    "header of many open brackets": with_header(b'{"kid":' + b"[" * 4000),
    "header with invalid UTF-8": with_header(b'{"alg":"RS256","kid":"\xff"}'),
    "algorithm none": unsigned({"alg": "none"}),
    "algorithm None with our key id": unsigned({"alg": "None", "kid": "key-1"}),
    "algorithm HS256 keyed with the certificate": unsigned({"alg": "HS256", "kid": "key-1"}, encoded(b"x" * 32)),
    "algorithm ES256 with an RSA key": unsigned({"alg": "ES256", "kid": "key-1"}, encoded(b"x" * 64)),
    "algorithm that is a list": unsigned({"alg": ["RS256"], "kid": "key-1"}, encoded(b"x" * 256)),
    "no algorithm": unsigned({"kid": "key-1"}, encoded(b"x" * 256)),
    "key id that is an object": unsigned({"alg": "RS256", "kid": {"a": 1}}, encoded(b"x" * 256)),
    "key id that is a number": unsigned({"alg": "RS256", "kid": 1}, encoded(b"x" * 256)),
    "no key id and a made-up signature": unsigned({"alg": "RS256"}, encoded(b"x" * 256)),
    "made-up signature": f"{KEY.token().rpartition('.')[0]}.{encoded(b'x' * 256)}",
    "empty signature": f"{KEY.token().rpartition('.')[0]}.",
    "signed by another key": OTHER_KEY.token(header={"kid": "key-1"}),
    "claims of another token": ".".join([*KEY.token({"sub": "x"}).split(".")[:2], KEY.token().split(".")[2]]),
    "not ASCII": "ä.ö.ü",
    "lone surrogate": "\ud800.a.b",
    "NUL": "\0.\0.\0",
    "too long": KEY.token({"filler": "x" * 9000}),
}


@pytest.mark.parametrize("token", FORGED.values(), ids=FORGED.keys())
async def test_a_forged_or_broken_token(token: str) -> None:
    assert await verified(token) is None


async def test_a_token_without_key_id_is_held_against_every_key() -> None:
    assert await verified(KEY.token(header={"kid": None})) == JANE


@pytest.mark.parametrize("audiences", [[], [""], ["a", ""]])
def test_without_an_audience_there_is_no_verifier(audiences: list[str]) -> None:
    with pytest.raises(InvalidSettings, match="TASK_DASHBOARD_GOOGLE_CLIENT_IDS"):
        GoogleIdentity(audiences)


async def test_keys_are_fetched_once_for_their_age() -> None:
    google, clock = Google(KEY, max_age_seconds=100), Clock()
    people = verifier(google, clock)
    for _ in range(3):
        assert await people.verify(KEY.token()) == JANE
    assert google.calls == 1
    clock.now += 101
    assert await people.verify(KEY.token()) == JANE
    assert google.calls == 2


async def test_many_at_once_share_one_fetch() -> None:
    google = Google(KEY)
    people = verifier(google)
    token = KEY.token()
    assert set(await asyncio.gather(*(people.verify(token) for _ in range(40)))) == {JANE}
    assert google.calls == 1


async def test_a_new_key_is_found_at_once() -> None:
    google = Google(KEY)
    people = verifier(google)
    assert await people.verify(KEY.token()) == JANE
    google.keys.append(OTHER_KEY)
    assert await people.verify(OTHER_KEY.token()) == JANE
    assert google.calls == 2


async def test_made_up_key_ids_ask_google_once_a_minute() -> None:
    google, clock = Google(KEY), Clock()
    people = verifier(google, clock)
    for number in range(50):
        assert await people.verify(KEY.token(header={"kid": f"made-up-{number}"})) is None
    assert google.calls == 2  # the first one found no keys at all, the second one none of its own
    clock.now += 61
    await people.verify(KEY.token(header={"kid": "made-up"}))
    assert google.calls == 3


async def test_old_keys_serve_while_google_is_away() -> None:
    google, clock = Google(KEY, max_age_seconds=100), Clock()
    people = verifier(google, clock)
    assert await people.verify(KEY.token()) == JANE
    google.away = True
    clock.now += 101
    assert await people.verify(KEY.token()) == JANE
    clock.now += 86_400
    with pytest.raises(IdentityUnavailable):
        await people.verify(KEY.token())


async def test_without_keys_nobody_is_told_that_the_token_is_bad() -> None:
    google, clock = Google(KEY), Clock()
    google.away = True
    people = verifier(google, clock)
    for _ in range(5):
        with pytest.raises(IdentityUnavailable):
            await people.verify(KEY.token())
    assert google.calls == 1  # not one per request
    google.away = False
    clock.now += 6
    assert await people.verify(KEY.token()) == JANE


async def test_a_key_that_could_not_be_looked_up_is_not_a_bad_token() -> None:
    google = Google(KEY)
    people = verifier(google)
    assert await people.verify(KEY.token()) == JANE
    google.keys.append(OTHER_KEY)
    google.away = True
    with pytest.raises(IdentityUnavailable):
        await people.verify(OTHER_KEY.token())
    assert await people.verify(KEY.token()) == JANE


async def test_a_caller_that_gives_up_does_not_end_the_fetch_for_others() -> None:
    google = Google(KEY)
    people = verifier(google)
    impatient = asyncio.create_task(people.verify(KEY.token()))
    patient = asyncio.create_task(people.verify(KEY.token()))
    await asyncio.sleep(0)
    impatient.cancel()
    assert await patient == JANE
    assert google.calls == 1


async def test_no_part_of_a_token_enters_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(google_identity, "_log", structlog.get_logger("test"))
    tokens = [*FORGED.values(), *(token_of(claims) for claims in BAD.values())]
    with capture_logs() as logs:
        for token in tokens:
            assert await verified(token) is None
    assert len(logs) == len(tokens)
    for entry, token in zip(logs, tokens, strict=True):
        assert set(entry) == {"event", "reason", "log_level"}
        assert not any(part in entry["reason"] for part in token.split(".") if len(part) > 3)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"cache-control": "public, max-age=21000, must-revalidate"}, 21000),
        ({"cache-control": "max-age=100", "age": "40"}, 60),
        ({"cache-control": "max-age=100", "age": "400"}, 1),
        ({"cache-control": "max-age=0"}, 1),
        ({"cache-control": "max-age=999999999"}, 86_400),
        ({"cache-control": "s-max-age=5, x-max-age=7"}, 300),
        ({"cache-control": "no-store"}, 300),
        ({}, 300),
    ],
)
def test_how_long_keys_may_be_kept(headers: dict[str, str], seconds: float) -> None:
    assert certs_from_response(b'{"a":"pem"}', headers) == Certs({"a": "pem"}, seconds)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"keys":[{"kid":"a"}]}', b"<html>", b"null"])
def test_an_answer_that_is_no_certificates(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        certs_from_response(body, {})
