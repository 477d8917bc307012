"""Who is let in at the dashboard's door, and who is not; the developer's bypass exists under ENV=local only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from api.identity import GoogleSignIn, LocalSignIn, sign_in_for
from executions.adapters.settings import Settings
from executions.ports import Identity
from tests.support.fake_identity import JANE, JANES_TOKEN, FakeIdentity
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


# Who of those who prove who they are is let in

EXAMPLE = replace(JANE, domain="example.org")


@pytest.mark.parametrize(
    ("person", "settings", "expected"),
    [
        (JANE, {}, 202),
        (JANE, {"task_dashboard_google_domains": "example.org"}, 403),
        (EXAMPLE, {"task_dashboard_google_domains": "example.com, Example.org"}, 202),
        (replace(JANE, domain="evil-example.org"), {"task_dashboard_google_domains": "example.org"}, 403),
        (replace(JANE, domain="sub.example.org"), {"task_dashboard_google_domains": "example.org"}, 403),
        (JANE, {"task_dashboard_allowed_users": "Jane@Example.org"}, 202),
        (JANE, {"task_dashboard_allowed_users": JANE.subject}, 202),
        (JANE, {"task_dashboard_allowed_users": "joe@example.org,other"}, 403),
        (EXAMPLE, {"task_dashboard_google_domains": "example.org", "task_dashboard_allowed_users": "joe@x.org"}, 403),
        (JANE, {"task_dashboard_google_domains": "x.org", "task_dashboard_allowed_users": "jane@example.org"}, 403),
    ],
)
async def test_a_person_who_is_proven_may_still_not_be_let_in(
    make_api: Callable[..., Api], person: Identity, settings: dict[str, str], expected: int
) -> None:
    api = make_api(**settings)
    api.identity.people[JANES_TOKEN] = person
    await api.fail("task-1")
    response = await api.send("POST", RETRY, headers={"authorization": f"Bearer {JANES_TOKEN}"})
    assert response.status_code == expected
    if expected == 403:
        assert response.json() == {"error": "dashboard_forbidden"}
        assert api.retries.sent == []
    await api.http.aclose()
