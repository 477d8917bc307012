"""The dashboard page in a real Chromium, on a whole installation: what people see of it and do with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from devstack.aws import AwsServer
from devstack.kubernetes import ControlPlane
from devstack.redis import RedisServer
from tests.e2e.installation import DEV_USER, Installation, message
from tests.support.accessibility import axe_violations
from tests.support.browser import Guard, Watch

PANEL = ".panel"
SLOW_MS = 40_000
PHONE = {"width": 390, "height": 800}


@pytest.fixture(scope="module")
def site(
    redis_server: RedisServer, aws: AwsServer, kube: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """One that the tests share, each with task ids of its own."""
    with Installation(redis_server, aws, kube, tmp_path_factory.mktemp("dashboard")) as site:
        site.start_both()
        yield site


@dataclass(frozen=True, slots=True)
class Dashboard:
    """The page, signed in; what goes wrong on it without being said before fails the test."""

    page: Page
    guard: Guard
    asked: list[str]
    """The requests that change something."""

    def row(self, task_id: str) -> Locator:
        return self.page.locator(".window .row", has=self.page.locator(f'a[data-task="{task_id}"]'))

    def state(self, task_id: str, phase: str) -> None:
        expect(self.row(task_id).locator(".badge")).to_have_class(f"badge {phase}", timeout=SLOW_MS)

    def open(self, task_id: str) -> Locator:
        self.row(task_id).locator("a").click()
        panel = self.page.locator(PANEL)
        expect(panel.locator("h3").first).to_be_visible()
        return panel

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)


@pytest.fixture
def dashboard(site: Installation, watched_page: Watch) -> Callable[..., Dashboard]:
    def opened(query: str = "", **options: object) -> Dashboard:
        page, guard = watched_page(f"http://localhost:{site.port}", **options)
        asked: list[str] = []
        page.on(
            "request",
            lambda sent: asked.append(sent.url) if sent.method == "POST" and "dryRun" not in sent.url else None,
        )
        page.add_init_script("window.loads = (window.loads ?? 0) + 1")
        page.goto(f"/dashboard{query}")
        sign_in(page)
        return Dashboard(page, guard, asked)

    return opened


def sign_in(page: Page, email: str = DEV_USER) -> None:
    page.get_by_label("E-mail").fill(email)
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page.locator(".line")).to_have_text("Live")


def failed(site: Installation, *task_ids: str) -> None:
    site.send(*(message(task_id, "fail") for task_id in task_ids))
    for task_id in task_ids:
        site.wait_for(task_id, 1, "failed")


def test_a_task_is_followed_from_queued_to_succeeded_without_reloading(
    dashboard: Callable[..., Dashboard], site: Installation
) -> None:
    shown = dashboard()
    site.send(message("followed", "slow", seconds=2))
    shown.state("followed", "Running")
    panel = shown.open("followed")
    expect(panel.locator(".stand .badge")).to_have_class("badge Running")
    shown.state("followed", "Succeeded")
    # The open panel follows by itself, too.
    expect(panel.locator(".stand .badge")).to_have_class("badge Succeeded")
    expect(panel.locator(".moments")).to_contain_text(re.compile("Claimed.*Started.*Succeeded", re.DOTALL))
    assert shown.page.evaluate("performance.getEntriesByType('navigation').length") == 1


def test_a_double_click_retries_once_and_says_before_what_is_left(
    dashboard: Callable[..., Dashboard], site: Installation
) -> None:
    failed(site, "clicked")
    shown = dashboard()
    panel = shown.open("clicked")
    expect(panel).to_contain_text("somebody retries it")
    shown.button("Retry…").click()
    dialog = shown.page.get_by_role("dialog")
    expect(dialog).to_contain_text("Attempt 2 will be queued with the same message.")
    expect(dialog).to_contain_text("1 retry left, 0 after this one.")
    assert shown.asked == []
    assert site.status("clicked") == (1, "failed")
    dialog.get_by_role("button", name="Retry", exact=True).dblclick()
    expect(shown.page.get_by_role("status").filter(has_text="Attempt 2 of clicked is queued.")).to_be_visible()
    shown.state("clicked", "Succeeded")
    assert len(shown.asked) == 1
    assert site.status("clicked") == (2, "succeeded")
    expect(panel.locator(".attempts > li")).to_have_count(2)
    expect(shown.button("Retry…")).to_be_disabled()


def test_a_lost_worker_is_explained(dashboard: Callable[..., Dashboard], site: Installation) -> None:
    shown = dashboard()
    site.send(message("vanished", "die"))
    shown.state("vanished", "Failed")
    panel = shown.open("vanished")
    expect(panel.locator(".story")).to_contain_text("WorkerLost")
    expect(panel.locator(".verdict")).to_contain_text(re.compile("Verdict: (probable|presumed|confirmed), WORKER_LOST"))
    expect(panel.locator(".verdict")).to_contain_text("It would be refuted by")
    expect(panel.locator(".moments")).to_contain_text("Seen")
    expect(panel.locator(".command code").first).to_have_text(
        f"kubectl -n {site.namespace} get execution vanished -o yaml"
    )


def test_the_keyboard_alone_is_enough_to_retry(dashboard: Callable[..., Dashboard], site: Installation) -> None:
    failed(site, "typed", "typed-too")
    shown = dashboard()
    keys = shown.page.keyboard
    keys.press("/")
    keys.type("typed")
    expect(shown.page.locator(".window .row")).to_have_count(2)
    for _ in range(30):
        keys.press("Tab")
        if shown.page.evaluate("document.activeElement.matches('.rows a')"):
            break
    links = shown.page.locator(".window .row a")
    keys.press("ArrowDown")
    expect(links.nth(1)).to_be_focused()
    keys.press("ArrowUp")
    expect(links.first).to_be_focused()
    task_id = str(links.first.get_attribute("data-task"))
    keys.press("Enter")
    expect(shown.page.locator(f"{PANEL} h2")).to_be_focused()
    expect(shown.button("Retry…")).to_be_enabled()
    for _ in range(5):
        keys.press("Tab")
        if shown.page.evaluate("document.activeElement.textContent") == "Retry…":
            break
    keys.press("Enter")
    strong = shown.page.locator("dialog button.strong")
    expect(strong).to_be_enabled()
    for _ in range(3):
        if shown.page.evaluate("document.activeElement.matches('dialog button.strong')"):
            break
        keys.press("Tab")
    keys.press("Enter")
    site.wait_for(task_id, 2, "succeeded")
    # Closing leads back to where the keyboard was.
    expect(shown.page.get_by_role("dialog")).to_have_count(0)
    shown.page.locator(f"{PANEL} h2").focus()
    keys.press("Escape")
    expect(shown.page.locator(f'a[data-task="{task_id}"]')).to_be_focused()


def test_many_are_retried_at_once_and_those_that_cannot_be_are_named(
    dashboard: Callable[..., Dashboard], site: Installation
) -> None:
    failed(site, "many-1", "many-2")
    site.send(message("many-3"))
    site.wait_for("many-3", 1, "succeeded")
    shown = dashboard("?text=many-")
    expect(shown.page.locator(".window .row")).to_have_count(3)
    shown.page.get_by_label("Select all that are listed").check()
    expect(shown.page.locator(".selection")).to_contain_text("3 executions selected")
    shown.page.locator(".selection").get_by_role("button", name="Retry…").click()
    dialog = shown.page.get_by_role("dialog")
    expect(dialog).to_contain_text("2 executions will be queued again")
    expect(dialog).to_contain_text("attempt 2 of 2 at most")
    expect(dialog).to_contain_text("many-3: cannot retry execution in status 'succeeded'")
    dialog.get_by_role("button", name="Retry 2 executions").click()
    for task_id in ("many-1", "many-2"):
        site.wait_for(task_id, 2, "succeeded")
        shown.state(task_id, "Succeeded")
    assert site.status("many-3") == (1, "succeeded")


def test_cancel_done_and_assign_say_what_they_do_and_do_it(
    dashboard: Callable[..., Dashboard], site: Installation
) -> None:
    site.send(message("stopped", "slow", seconds=60), message("again", "transient"))
    shown = dashboard()
    shown.state("stopped", "Running")
    shown.open("stopped")
    shown.button("Cancel…").click()
    dialog = shown.page.get_by_role("dialog")
    expect(dialog).to_contain_text("Its worker is stopped.")
    dialog.get_by_label("Reason, which stays with the execution").fill("")
    expect(dialog.get_by_role("button", name="Cancel it")).to_be_disabled()
    dialog.get_by_label("Reason, which stays with the execution").fill("wrong branch")
    dialog.get_by_role("button", name="Cancel it").click()
    shown.state("stopped", "Cancelled")
    expect(shown.page.locator(PANEL)).to_contain_text("wrong branch")

    shown.state("again", "RetryScheduled")
    panel = shown.open("again")
    expect(panel.locator(".countdown")).to_have_text(re.compile(r"in \d+ (min|s)"))
    shown.button("Assign…").click()
    # Naming nobody new changes nothing; naming somebody drops the schedule and begins for them.
    dialog.get_by_label("Assignee (empty: nobody)").fill("jane")
    expect(dialog).to_contain_text("Attempt 2 begins at once for the new assignee.")
    shown.page.keyboard.press("Escape")
    shown.button("Mark done…").click()
    expect(dialog).to_contain_text(re.compile("The retry scheduled for .* is dropped"))
    dialog.get_by_role("button", name="Mark done").click()
    shown.state("again", "Failed")
    assert site.status("again") == (1, "failed")


def test_filters_and_the_open_task_are_in_the_address(dashboard: Callable[..., Dashboard], site: Installation) -> None:
    failed(site, "filed-1")
    site.send(message("filed-2"))
    site.wait_for("filed-2", 1, "succeeded")
    shown = dashboard()
    page = shown.page
    page.get_by_role("searchbox").fill("filed-")
    expect(page.locator(".window .row")).to_have_count(2)
    page.locator(".phase", has_text="Failed").click()
    expect(page.locator(".window .row")).to_have_count(1)
    shown.open("filed-1")
    assert "phase=Failed" in page.url
    assert "task=filed-1" in page.url
    page.reload()
    expect(page.locator(f"{PANEL} h2")).to_have_text("filed-1")
    expect(page.locator(".window .row")).to_have_count(1)
    page.go_back()
    expect(page.locator(PANEL)).to_have_count(0)
    page.get_by_role("searchbox").fill("nothing like it")
    expect(page.locator(".empty")).to_contain_text("Nothing matches")
    page.get_by_role("button", name="Clear the filters").click()
    assert shown.row("filed-2").count() == 1


def test_a_restart_of_the_server_loses_nothing(dashboard: Callable[..., Dashboard], site: Installation) -> None:
    shown = dashboard()
    (api,) = (item for item in site.running() if item.name == "api")
    shown.guard.tolerates("failed request", "ERR_CONNECTION_REFUSED|ERR_INCOMPLETE|ERR_EMPTY|ERR_CONNECTION_RESET")
    shown.guard.tolerates("console", "ERR_CONNECTION_REFUSED|ERR_INCOMPLETE|ERR_EMPTY|ERR_CONNECTION_RESET")
    api.stop()
    expect(shown.page.locator(".line")).to_contain_text("Not live:")
    # It goes on with workers of its own, whose word is kept by nobody: it is read from their exit.
    site.send(message("meanwhile", "fail"))
    site.start_api()
    expect(shown.page.locator(".line")).to_have_text("Live", timeout=SLOW_MS)
    shown.state("meanwhile", "Failed")
    assert shown.page.evaluate("performance.getEntriesByType('navigation').length") == 1


def test_a_refused_identity_asks_anew_and_what_was_under_way_goes_on(
    dashboard: Callable[..., Dashboard], site: Installation
) -> None:
    failed(site, "kept")
    shown = dashboard("?text=kept")
    shown.open("kept")
    shown.guard.expects("error status", "401 POST")
    pattern = re.compile("/retry")

    def refuse(route: Route) -> None:
        route.fulfill(status=401, json={"error": "dashboard_unauthorized"})

    shown.page.route(pattern, refuse)
    shown.button("Retry…").click()
    dialog = shown.page.get_by_role("dialog")
    expect(dialog).to_contain_text("Your sign-in has ended")
    shown.page.unroute(pattern)
    expect(shown.row("kept")).to_be_visible()
    dialog.get_by_label("E-mail").fill(DEV_USER)
    dialog.get_by_role("button", name="Sign in", exact=True).click()
    # The question that was refused is asked again, and the dialog is where it was.
    expect(dialog).to_contain_text("Attempt 2 will be queued")
    expect(shown.page.get_by_role("searchbox", include_hidden=True)).to_have_value("kept")
    assert shown.page.evaluate("performance.getEntriesByType('navigation').length") == 1


def test_a_hold_and_the_slots_are_seen(dashboard: Callable[..., Dashboard], site: Installation) -> None:
    shown = dashboard()
    expect(shown.page.locator(".overview")).to_contain_text("not on hold")
    site.alakai_says("hold", "--reason", "the cluster moves")
    expect(shown.page.locator(".overview .banner")).to_contain_text("the cluster moves", timeout=SLOW_MS)
    site.send(message("held"))
    site.alakai_says("resume")
    expect(shown.page.locator(".overview")).to_contain_text("not on hold", timeout=SLOW_MS)
    shown.state("held", "Succeeded")


def test_on_a_phone_nothing_is_wider_than_the_screen(dashboard: Callable[..., Dashboard], site: Installation) -> None:
    failed(site, "pocket-with-a-rather-long-name-that-does-not-fit-into-one-line-of-a-small-screen")
    shown = dashboard("?text=pocket", viewport=PHONE, has_touch=True)
    width = "document.documentElement.scrollWidth"
    expect(shown.page.locator(".window .row")).to_have_count(1)
    assert shown.page.evaluate(width) <= PHONE["width"]
    shown.page.locator(".window .row a").tap()
    expect(shown.button("Retry…")).to_be_visible()
    assert shown.page.evaluate(width) <= PHONE["width"]
    shown.page.get_by_role("button", name="Close").tap()
    expect(shown.page.locator(".window .row")).to_have_count(1)


def test_redis_away_is_told_and_got_over(dashboard: Callable[..., Dashboard], site: Installation) -> None:
    shown = dashboard()
    shown.guard.expects("error status", "502 GET")
    page = shown.page
    page.route(re.compile("/dashboard/tasks"), lambda route: route.fulfill(status=502, json={"error": "away"}))
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("Redis or the queue cannot be used right now.")
    page.unroute_all()
    expect(page.get_by_role("alert")).to_have_count(0, timeout=SLOW_MS)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [{"width": 1280, "height": 800}, PHONE], ids=["desk", "phone"])
def test_axe_finds_nothing_serious_anywhere(
    dashboard: Callable[..., Dashboard], site: Installation, theme: str, viewport: dict[str, int]
) -> None:
    task_ids = [f"axe-{theme}-{viewport['width']}-{number}" for number in range(2)]
    failed(site, *task_ids)
    shown = dashboard(f"?text={task_ids[0][:-2]}", viewport=viewport, color_scheme=theme)
    page = shown.page
    found: dict[str, list[str]] = {}

    def look(where: str) -> None:
        if wrong := axe_violations(page):
            found[where] = wrong

    expect(page.locator(".window .row")).to_have_count(2)
    look("list")
    shown.open(task_ids[0])
    look("panel")
    shown.button("Assign…").click()
    expect(page.get_by_role("dialog").get_by_label("Assignee (empty: nobody)")).to_be_visible()
    look("dialog")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Close", exact=True).click()
    page.locator(".window .row input").first.check()
    look("selection")
    page.locator(".selection").get_by_role("button", name="Retry…").click()
    page.get_by_role("dialog").get_by_role("button", name="Retry", exact=True).click()
    expect(page.locator(".notice p")).to_be_visible()
    look("notice")
    page.get_by_role("searchbox").fill("nothing like it")
    expect(page.locator(".empty")).to_be_visible()
    look("empty")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("E-mail")).to_be_visible()
    look("sign-in")
    assert found == {}
