"""`make screenshots`: the pictures of the dashboard page in the documentation, taken of a demo that really ran.

Starts the stack and both processes as `make demo` does, puts some tasks into it, and takes a picture of each main
state of the page. Needs a Chromium.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from devstack.browser import launch_options
from devstack.console import say
from devstack.environment import ROOT
from devstack.errors import DevstackError
from devstack.run import DEV_USER, demo, message, send

FOLDER = ROOT / "docs" / "images"
DESK, PHONE = {"width": 1280, "height": 760}, {"width": 390, "height": 760}
SUFFIX = secrets.token_hex(2)
WAITING = f"port-to-v2-{SUFFIX}"
BESIDE = [
    # What a day brings: some that are at work, one that waits for its automatic retry.
    message(f"bump-libraries-{SUFFIX}", "succeed", "bump the libraries"),
    message(f"hunt-the-leak-{SUFFIX}", "fail", "find the leak"),
    message(WAITING, "transient", "port the client to v2"),
    message(f"digest-of-the-week-{SUFFIX}", "slow", "summarise the week", seconds=600),
    message(f"fix-flaky-login-{SUFFIX}", "slow", "mend the login test", seconds=600),
]


def main() -> int:
    try:
        with demo() as shown:
            send(shown.values, *BESIDE)
            FOLDER.mkdir(exist_ok=True)
            with sync_playwright() as playwright, playwright.chromium.launch(**launch_options()) as browser:
                _take(browser, shown.values, lost=shown.tasks[-1].task_id)
                _end_work(browser, shown.values)
    except DevstackError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("stopped")
        return 1
    return 0


def _take(browser: Browser, values: Mapping[str, str], *, lost: str) -> None:
    page = _signed_in(browser, values, DESK, "light")
    page.locator(".row", has_text=WAITING).locator(".badge.RetryScheduled").wait_for()
    _shoot(page, "dashboard-list")
    page.locator(f'a[data-task="{lost}"]').click()
    page.locator(".panel .verdict").wait_for()
    _shoot(page, "dashboard-lost")
    dark = _signed_in(browser, values, DESK, "dark")
    dark.locator(f'a[data-task="{lost}"]').click()
    dark.get_by_role("button", name="Retry…").click()
    dark.get_by_text("after this one").wait_for()
    _shoot(dark, "dashboard-retry")
    phone = _signed_in(browser, values, PHONE, "dark")
    _shoot(phone, "dashboard-phone")


def _end_work(browser: Browser, values: Mapping[str, str]) -> None:
    """Cancel what is still at work: its workers would outlive us."""
    page = _signed_in(browser, values, DESK, "light")
    page.get_by_label("Select all that are listed").check()
    page.locator(".selection").get_by_role("button", name="Cancel…").click()
    page.locator("dialog button.strong").click()
    page.get_by_text("executions cancelled").wait_for()
    page.locator(".phase", has_text="Running").get_by_text("0", exact=True).wait_for()


def _signed_in(browser: Browser, values: Mapping[str, str], viewport: dict[str, int], scheme: str) -> Page:
    page = browser.new_context(viewport=viewport, color_scheme=scheme, timezone_id="UTC").new_page()  # type: ignore[arg-type]
    page.goto(f"http://localhost:{values['PORT']}/dashboard")
    page.get_by_label("E-mail").fill(DEV_USER)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.locator(".window .row").first.wait_for()
    return page


def _shoot(page: Page, name: str) -> None:
    path: Path = FOLDER / f"{name}.png"
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)  # What has just changed fades in.
    page.screenshot(path=path)
    say(f"{path.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
