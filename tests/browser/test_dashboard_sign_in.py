"""Signing in with Google on the page: what is asked of Google, what happens when a token ends, and who is let in.

The API is the real application with the real verifier; the keys are the test's, and a script of the test's stands in
for Google's, at Google's address.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import redis as redis_client
import uvicorn
from playwright.sync_api import Page, Request, expect

from api.context import open_context
from api.main import create_app
from devstack.ports import HOST
from devstack.redis import RedisServer
from executions.adapters.google_identity import Certs, GoogleIdentity
from executions.adapters.redis_epoch import create_epoch
from executions.adapters.redis_store import open_store
from executions.adapters.settings import Settings
from tests.support.browser import Watch
from tests.support.fake_identity import AUDIENCE, SigningKey
from tests.support.memory_tracking import tracked

KEY = SigningKey("key-1")
GOOGLE = "accounts.google.com"
SCRIPT = f"https://{GOOGLE}/gsi/client"
GOOGLES_SCRIPT = """
window.google = { accounts: { id: {
  initialize(options) { window.initialized = { client_id: options.client_id }; this.callback = options.callback; },
  prompt() { window.prompted = (window.prompted ?? 0) + 1; },
  disableAutoSelect() {},
  renderButton(element) {
    const button = document.createElement("button");
    button.textContent = "Continue with Google";
    button.onclick = async () => this.callback({ credential: await window.credential() });
    element.append(button);
  },
} } };
"""


@dataclass
class Site:
    """The API on a thread of its own, and what is on its stream."""

    url: str
    redis: redis_client.Redis
    stream: str
    tokens: list[str] = field(default_factory=list)
    """Given out by "Google" one after the other."""

    def happens(self, name: str, **fields: Any) -> None:
        now_ms = time.time_ns() // 1_000_000
        self.redis.xadd(self.stream, {"event": json.dumps(tracked(name, at_ms=now_ms, **fields))})


@pytest.fixture
def serve(redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Site]]:
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    ends: list[Callable[[], None]] = []

    def served(**chosen: Any) -> Site:
        settings = Settings(
            redis_url=redis_server.url,
            executions_redis_key_prefix=prefix,
            task_tracking_redis_stream_key=f"{prefix}:events",
            task_tracking_redis_key_prefix=f"{prefix}:",
            sqs_queue_url="http://nowhere/q",
            task_dashboard_google_client_ids=AUDIENCE,
            **chosen,
        )
        identity = GoogleIdentity([AUDIENCE], fetch=lambda: Certs({KEY.key_id: KEY.pem}, 3600))
        context = replace(open_context(settings), identity=identity)
        config = uvicorn.Config(create_app(context), host=HOST, port=0, log_config=None, access_log=False)
        server, loop = uvicorn.Server(config), asyncio.new_event_loop()

        async def run() -> None:
            store = open_store(settings)
            await create_epoch(store.redis, prefix)
            await store.close()
            await server.serve()

        thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
        thread.start()

        def end() -> None:
            context.live.end()
            server.should_exit = True
            thread.join(20)
            loop.close()
            client.close()

        client = redis_client.Redis.from_url(redis_server.url)
        ends.append(end)
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = int(server.servers[0].sockets[0].getsockname()[1])
        return Site(f"http://localhost:{port}", client, f"{prefix}:events")

    yield served
    for end in ends:
        end()


def opened(watched_page: Watch, site: Site, query: str = "") -> Page:
    page, _ = watched_page(site.url, allow=[GOOGLE])
    page.route(SCRIPT, lambda route: route.fulfill(body=GOOGLES_SCRIPT, content_type="text/javascript"))
    page.expose_function("credential", lambda: site.tokens.pop(0))
    page.goto(f"/dashboard{query}")
    return page


def continue_with_google(page: Page) -> None:
    page.get_by_role("button", name="Continue with Google").click()


def test_google_is_asked_for_the_first_client_id_and_the_token_goes_into_the_header_only(
    serve: Callable[..., Site], watched_page: Watch
) -> None:
    site = serve()
    token = KEY.token()
    site.tokens = [token]
    page = opened(watched_page, site)
    sent: list[Request] = []
    page.on("request", lambda request: sent.append(request))
    expect(page.get_by_label("E-mail")).to_have_count(0)
    continue_with_google(page)
    expect(page.locator(".line")).to_have_text("Live")
    expect(page.locator(".person")).to_have_text("jane@example.org")
    assert page.evaluate("window.initialized") == {"client_id": AUDIENCE}
    asked = [request for request in sent if "/assets/" not in request.url]
    assert {request.url.partition("?")[0].rsplit("/", 1)[-1] for request in asked} >= {"stream", "tasks"}
    assert {request.headers.get("authorization") for request in asked} == {f"Bearer {token}"}
    assert not [request.url for request in sent if token in request.url]
    kept = page.evaluate("JSON.stringify({...localStorage, ...sessionStorage}) + document.cookie")
    assert token not in kept


def test_a_token_that_ends_keeps_the_page_and_a_new_one_goes_on_without_a_gap(
    serve: Callable[..., Site], watched_page: Watch
) -> None:
    site = serve()
    site.tokens = [KEY.token({"exp": int(time.time()) + 8}), KEY.token()]
    page = opened(watched_page, site, "?text=kept")
    continue_with_google(page)
    expect(page.locator(".line")).to_have_text("Live")
    site.happens("kept-1")
    row = page.locator(".window .row")
    expect(row).to_have_count(1)
    expect(page.get_by_text("Your sign-in has ended")).to_be_visible(timeout=30_000)
    # What was there is there, with the filters; what happens meanwhile is not known yet.
    expect(row).to_have_count(1)
    expect(page.locator(".line")).to_have_text("Not signed in")
    site.happens("kept-2")
    assert page.evaluate("window.prompted") >= 2, "Google was asked whether it knows who this is"
    expect(row).to_have_count(1)
    continue_with_google(page)
    expect(row).to_have_count(2)
    expect(page.get_by_text("Your sign-in has ended")).to_have_count(0)
    expect(page.get_by_role("searchbox")).to_have_value("kept")
    site.happens("kept-3")
    expect(row).to_have_count(3)


def test_who_is_not_let_in_is_told_what_to_do(serve: Callable[..., Site], watched_page: Watch) -> None:
    site = serve(task_dashboard_allowed_users="john@example.org")
    site.tokens = [KEY.token()]
    page, guard = watched_page(site.url, allow=[GOOGLE])
    guard.expects("error status", "403 GET")
    page.route(SCRIPT, lambda route: route.fulfill(body=GOOGLES_SCRIPT, content_type="text/javascript"))
    page.expose_function("credential", lambda: site.tokens.pop(0))
    page.goto("/dashboard")
    continue_with_google(page)
    expect(page.locator(".empty")).to_contain_text("You are not let in")
    expect(page.locator(".empty")).to_contain_text("jane@example.org")


def test_google_away_is_told(serve: Callable[..., Site], watched_page: Watch) -> None:
    page, guard = watched_page(serve().url, allow=[GOOGLE])
    guard.expects("failed request", "ERR_FAILED")
    page.route(SCRIPT, lambda route: route.abort())
    page.goto("/dashboard")
    expect(page.get_by_role("alert")).to_contain_text("Google's sign-in cannot be loaded")
