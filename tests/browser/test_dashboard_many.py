"""Five thousand rows that change all the time: all of them are there, few are in the document, and nothing is missed.

How fluid that is: `make bench`, measurement `page`.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from bench.page import ROWS, change, event, fill
from devstack.redis import RedisServer
from executions.adapters.redis_connection import connect
from executions.adapters.tracking_keys import TrackingKeys
from tests.support.api_process import ApiProcess
from tests.support.browser import Watch

NAMES = [f"task-{number:05}" for number in range(ROWS)]


class Site:
    """An API whose Redis holds a row for each of the names."""

    def __init__(self, redis_server: RedisServer, folder: Path) -> None:
        prefix = f"many-{secrets.token_hex(4)}"
        self.keys = TrackingKeys(f"{prefix}:events", f"{prefix}:")
        self.api = ApiProcess(folder, redis_server.url, prefix)
        self._redis_url = redis_server.url

    def on_redis(self, work: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any, **named: Any) -> None:
        """Run a coroutine function with a client and the keys; in a thread, as Playwright's loop is in this one."""

        async def worked() -> None:
            redis = connect(self._redis_url)
            try:
                await work(redis, self.keys, *arguments, **named)
            finally:
                await redis.aclose()

        thread = threading.Thread(target=lambda: asyncio.run(worked()))
        thread.start()
        thread.join()


@pytest.fixture(scope="module")
def site(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(redis_server, tmp_path_factory.mktemp("many"))
    with site.api:
        site.api.start()
        site.on_redis(fill, NAMES)
        yield site


@pytest.fixture
def page(site: Site, watched_page: Watch) -> Page:
    page, _ = watched_page(f"http://localhost:{site.api.port}")
    page.goto("/dashboard")
    page.get_by_label("E-mail").fill("you@local")
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page.locator(".shown")).to_have_text(f"{ROWS:,} executions", timeout=30_000)
    return page


def test_all_are_there_and_few_are_in_the_document(page: Page) -> None:
    rows = page.locator(".window .row")
    assert rows.count() < 60
    expect(page.get_by_role("table")).to_have_attribute("aria-rowcount", str(ROWS + 1))
    expect(rows.first).to_contain_text("task-00000")
    page.locator(".rows a").first.focus()
    page.keyboard.press("End")
    last = page.locator('a[data-task="task-04999"]')
    expect(last).to_be_focused()
    expect(last).to_be_in_viewport()
    assert rows.count() < 60
    page.keyboard.press("Home")
    expect(page.locator('a[data-task="task-00000"]')).to_be_focused()
    page.get_by_role("searchbox").fill("task-0437")
    expect(rows).to_have_count(10)


def test_no_change_is_missed_and_no_row_moves_under_the_pointer(page: Page, site: Site) -> None:
    shown = page.locator(".window .row a")
    before = shown.all_inner_texts()
    site.on_redis(change, NAMES, per_second=50, seconds=3)

    async def mark(redis: Any, keys: TrackingKeys) -> None:
        """What each of the first hundred says last."""
        pipeline = redis.pipeline(transaction=False)
        for name in NAMES[:100]:
            document = event(name, 10_000, at_ms=2_000_000_000_000, phase=2)
            pipeline.xadd(keys.stream, {"event": json.dumps(document)})
        await pipeline.execute()

    site.on_redis(mark)
    for row in page.locator(".window .row").all():
        expect(row.locator(".badge")).to_have_class("badge Failed")
    assert shown.all_inner_texts() == before
    # Whoever wants the newest change first says so.
    page.get_by_role("button", name="Newest change first").click()
    expect(page.get_by_role("button", name="Newest change first")).to_have_count(0)


def test_all_of_them_can_be_selected_and_are_asked_for_in_pieces(page: Page) -> None:
    pieces: list[int] = []

    def answered(route: Any) -> None:
        task_ids = route.request.post_data_json["selector"]["taskIds"]
        pieces.append(len(task_ids))
        # The first piece takes the server too long, and the rest of it is asked for again.
        done = task_ids[:50] if len(pieces) == 1 else task_ids
        results = [{"taskId": name, "status": 202, "body": {"taskId": name, "attempt": 2}} for name in done]
        left = task_ids[len(done) :]
        route.fulfill(json={"dryRun": True, "results": results, "left": left, "nextCursor": None})

    page.route("**/dashboard/executions/retry", answered)
    page.get_by_role("searchbox").fill("task-00")
    page.get_by_label("Select all that are listed").check()
    page.locator(".selection").get_by_role("button", name="Retry…").click()
    expect(page.get_by_role("dialog")).to_contain_text("1,000 executions will be queued again")
    assert pieces == [200, 200, 200, 200, 200, 150]
