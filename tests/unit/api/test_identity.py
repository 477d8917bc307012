"""Who is let in at the dashboard's door, and who is not; the developer's bypass exists under ENV=local only."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from api.identity import GoogleSignIn, LocalSignIn, sign_in_for
from executions.adapters.settings import Settings
from tests.support.fake_identity import JANES_TOKEN, FakeIdentity
from tests.unit.api.harness import Api

RETRY = "/dashboard/executions/task-1/retry"
Headers = list[tuple[str, str]]


async def status(api: Api, headers: Headers) -> int:
    return (await api.send("POST", RETRY, headers=headers)).status_code


ACCEPTED: dict[str, Headers] = {
    "a bearer token": [("authorization", f"Bearer {JANES_TOKEN}")],
    "the scheme in small letters": [("authorization", f"bearer {JANES_TOKEN}")],
    "more than one space": [("authorization", f"Bearer   {JANES_TOKEN}")],
}
REFUSED: dict[str, Headers] = {
    "nothing": [],
    "an empty header": [("authorization", "")],
    "a scheme alone": [("authorization", "Bearer")],
    "a scheme and a space": [("authorization", "Bearer ")],
    "a token alone": [("authorization", JANES_TOKEN)],
    "another scheme": [("authorization", f"Basic {JANES_TOKEN}")],
    "an unknown token": [("authorization", "Bearer canary")],
    "two tokens": [("authorization", f"Bearer {JANES_TOKEN} {JANES_TOKEN}")],
    "a token and a comma": [("authorization", f"Bearer {JANES_TOKEN},")],
    "two headers": [("authorization", f"Bearer {JANES_TOKEN}"), ("authorization", f"Bearer {JANES_TOKEN}")],
    "a header of 9 kB": [("authorization", f"Bearer {'x' * 9000}")],
    "a developer's header": [("x-dev-user", "jane@example.org")],
    "a cookie": [("cookie", f"authToken={JANES_TOKEN}")],
    "a header of a proxy": [("x-goog-authenticated-user-email", "jane@example.org")],
}


@pytest.mark.parametrize("headers", ACCEPTED.values(), ids=ACCEPTED.keys())
async def test_a_person_is_let_in(api: Api, headers: Headers) -> None:
    await api.fail("task-1")
    assert await status(api, headers) == 202


@pytest.mark.parametrize("headers", REFUSED.values(), ids=REFUSED.keys())
async def test_nobody_else_is_let_in(api: Api, headers: Headers) -> None:
    await api.fail("task-1")
    assert await status(api, headers) == 401
    assert api.retries.sent == []


async def test_a_token_in_the_url_is_not_accepted(api: Api) -> None:
    await api.fail("task-1")
    assert (await api.send("POST", f"{RETRY}?authToken={JANES_TOKEN}")).status_code == 401
    assert api.identity.asked == []


async def test_a_header_that_is_too_long_is_not_even_looked_at(api: Api) -> None:
    await status(api, [("authorization", f"Bearer {'x' * 9000}")])
    assert api.identity.asked == []


async def test_without_keys_the_answer_is_try_again(api: Api) -> None:
    api.identity.unavailable = True
    response = await api.send("POST", RETRY, headers={"authorization": f"Bearer {JANES_TOKEN}"})
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0


async def test_under_local_a_developer_is_let_in(make_api: Callable[..., Api]) -> None:
    api = make_api(env="local", with_identity=False)
    await api.fail("task-1")
    assert await status(api, [("x-dev-user", "you@local")]) == 202
    mark = (await api.found("task-1")).state.retry
    assert mark is not None
    assert mark.requested_by == "you@local"


@pytest.mark.parametrize(
    "user", ["", "you", "@", "you@", "@local", "a@b c", "a b@c", "<a@b>", "a@b\tc", "x" * 300 + "@b"]
)
async def test_under_local_a_developer_has_an_address(make_api: Callable[..., Api], user: str) -> None:
    api = make_api(env="local", with_identity=False)
    await api.fail("task-1")
    assert await status(api, [("x-dev-user", user)]) == 401


async def test_under_local_google_works_too_where_it_is_configured(make_api: Callable[..., Api]) -> None:
    api = make_api(env="local")
    await api.fail("task-1")
    assert await status(api, [("authorization", "Bearer canary")]) == 401
    assert await status(api, [("authorization", f"Bearer {JANES_TOKEN}")]) == 202


@pytest.mark.parametrize("env", ["production", "staging", "LOCAL", "Local", "local ", "test"])
def test_the_bypass_is_not_even_made_elsewhere(env: str) -> None:
    assert isinstance(sign_in_for(Settings(env="local"), None), LocalSignIn)
    assert sign_in_for(Settings(env=env), None) is None
    assert isinstance(sign_in_for(Settings(env=env), FakeIdentity()), GoogleSignIn)
