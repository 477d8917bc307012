"""The watch over a page: everything that can go wrong on one is seen, and a page on which nothing does passes."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Browser, Error

from tests.support.accessibility import IMPACTS, axe_violations
from tests.support.browser import Watch, watching

HEAD = '<!doctype html><html lang="en"><head><title>A page</title><link rel="icon" href="data:,"></head>'
POLICY = "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data:; frame-src 'none'"


class Site:
    """A server on loopback; a test gives it the pages."""

    def __init__(self) -> None:
        self.pages: dict[str, str] = {}
        self.headers: dict[str, str] = {}
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.host}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        body = self.pages.get(request.path.partition("?")[0])
        request.send_response(404 if body is None else 200)
        request.send_header("Content-Type", "text/javascript" if request.path.endswith(".js") else "text/html")
        # One that is cut off promises more than it sends.
        length = len((body or "").encode()) + (100 if request.path == "/cut" else 0)
        request.send_header("Content-Length", str(length))
        for name, text in self.headers.items():
            request.send_header(name, text)
        request.end_headers()
        request.wfile.write((body or "").encode())

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def sites() -> Iterator[Callable[[], Site]]:
    started: list[Site] = []

    def start() -> Site:
        started.append(Site())
        return started[-1]

    yield start
    for site in started:
        site.stop()


@pytest.fixture
def site(sites: Callable[[], Site]) -> Site:
    return sites()


@pytest.fixture
def other(sites: Callable[[], Site]) -> Site:
    other = sites()
    other.pages["/"] = f"{HEAD}<p>elsewhere</p>"
    return other


def report(browser: Browser, site: Site, body: str, *, until: str = "", **options: Any) -> str:
    """What the watch says of a page with this body; `until` is a part of the console's output to be waited for."""
    site.pages["/"] = HEAD + body
    with pytest.raises(AssertionError) as caught, watching(browser) as watch:  # noqa: PT012
        page, _ = watch(site.url, **options)
        if until:
            with page.expect_console_message(lambda message: until in message.text):
                page.goto("/")
        else:
            page.goto("/")
    return str(caught.value)


def test_a_page_on_which_nothing_goes_wrong_passes(watched_page: Watch, site: Site) -> None:
    site.pages["/"] = f"{HEAD}<p>Hello</p><script>console.warn('only a warning')</script><img src='data:,'>"
    page, guard = watched_page(site.url)
    page.goto("/")
    assert page.inner_text("p") == "Hello"
    guard.check()


WRONG: dict[str, tuple[str, str]] = {
    "an error in the console": ("<script>console.error('bad', 1)</script>", "console: bad 1 ({site}/:1)"),
    "a claim that does not hold": ("<script>console.assert(1 > 2, 'claim')</script>", "console: claim"),
    "an exception": ("<script>null.x</script>", "page error: TypeError: Cannot read properties of null"),
    "a rejection that nobody handles": ("<script>Promise.reject(Error('late'))</script>", "page error: Error: late"),
    "an image that is not there": ("<img src='/none'>", "error status: 404 GET {site}/none"),
    "an image of another host": ("<img src='{other}/'>", "foreign request: GET {other}/"),
    "a frame of another host": ("<iframe src='{other}/'></iframe>", "foreign request: GET {other}/"),
    "a WebSocket to another host": ("<script>new WebSocket('ws://{host}/')</script>", "foreign request: WebSocket"),
}


@pytest.mark.parametrize("case", WRONG)
def test_it_fails(case: str, browser: Browser, site: Site, other: Site) -> None:
    body, wanted = (text.format(site=site.url, other=other.url, host=other.host) for text in WRONG[case])
    assert wanted in report(browser, site, body, until="WebSocket" if "WebSocket" in case else "")


BLOCKED: dict[str, tuple[str, str]] = {
    "a script in the page": ("<script>let x</script>", "csp: script-src-elem blocked inline"),
    "a style in the page": ("<p style='color: red'>red</p>", "csp: style-src-attr blocked inline"),
    "a frame": ("<iframe src='{site}/'></iframe>", "csp: frame-src blocked {site}/"),
    "an image of another host": ("<img src='{other}/'>", "csp: img-src blocked {other}/"),
    "eval": ("<script src='/eval.js'></script>", "csp: script-src blocked eval"),
}


@pytest.mark.parametrize("case", BLOCKED)
def test_what_the_policy_blocks_fails_and_is_told_once(case: str, browser: Browser, site: Site, other: Site) -> None:
    site.headers["Content-Security-Policy"] = POLICY
    site.pages["/eval.js"] = "try { eval('1') } catch {}"
    body, wanted = (text.format(site=site.url, other=other.url) for text in BLOCKED[case])
    said = [line for line in report(browser, site, body).splitlines() if "foreign request" not in line]
    assert said[0] == "wrong on the page:"
    assert len(said) == 2, said
    assert wanted in said[1]


def test_what_a_policy_would_block_fails_though_the_browser_lets_it_pass(browser: Browser, site: Site) -> None:
    site.headers["Content-Security-Policy-Report-Only"] = POLICY
    assert "csp: script-src-elem blocked inline" in report(browser, site, "<script>let x</script>")


@pytest.mark.parametrize(("path", "wanted"), [("/cut", "CONTENT_LENGTH_MISMATCH"), ("{gone}/", "CONNECTION_REFUSED")])
def test_a_request_that_fails_on_the_way_fails(
    path: str, wanted: str, browser: Browser, site: Site, sites: Callable[[], Site]
) -> None:
    gone = sites()
    gone.stop()
    site.pages["/cut"] = "half"
    url = path.format(gone=gone.url)
    body = f"<script>fetch('{url}').then(answer => answer.text()).catch(() => console.log('over'))</script>"
    said = report(browser, site, body, until="over", allow=[gone.host])
    address = url if url.startswith("http") else site.url + url
    assert re.search(rf"failed request: net::ERR_{wanted} GET {address}", said), said


def test_a_request_that_the_page_gave_up_is_no_failure(watched_page: Watch, site: Site) -> None:
    site.pages["/"] = f"""{HEAD}<script>
      const control = new AbortController()
      fetch('/', {{signal: control.signal}}).catch(() => console.log('given up'))
      control.abort()
    </script>"""
    page, _ = watched_page(site.url)
    with page.expect_console_message(lambda message: message.text == "given up"):
        page.goto("/")


def test_a_crash_fails(browser: Browser, site: Site) -> None:
    site.pages["/"] = HEAD
    with pytest.raises(AssertionError, match="crash: the page crashed"), watching(browser) as watch:  # noqa: PT012
        page, _ = watch(site.url)
        page.goto("/")
        with page.expect_event("crash"), pytest.raises(Error):
            page.goto("chrome://crash")


def test_a_second_page_of_the_context_is_watched_too(browser: Browser, site: Site) -> None:
    site.pages["/"] = f"{HEAD}<a href='/second' target='_blank'>open</a>"
    site.pages["/second"] = f"{HEAD}<script>console.error('in the second')</script>"
    with pytest.raises(AssertionError, match="console: in the second"), watching(browser) as watch:  # noqa: PT012
        page, _ = watch(site.url)
        page.goto("/")
        with page.expect_popup() as popup:
            page.click("a")
        popup.value.wait_for_load_state()


def test_another_host_may_be_allowed(watched_page: Watch, site: Site, other: Site) -> None:
    site.pages["/"] = f"{HEAD}<iframe src='{other.url}/'></iframe>"
    page, _ = watched_page(site.url, allow=[other.host])
    page.goto("/")
    assert page.frame_locator("iframe").locator("p").inner_text() == "elsewhere"


def test_what_a_test_expects_is_no_failure(watched_page: Watch, site: Site) -> None:
    site.pages["/"] = f"{HEAD}<img src='/none'><script>console.error('known'); throw Error('known')</script>"
    page, guard = watched_page(site.url)
    guard.expects("console", "^known")
    guard.expects("page error", "^Error: known")
    guard.expects("error status", "404 GET .*/none$")
    guard.tolerates("error status", "503")
    page.goto("/")


def test_an_expected_violation_is_no_failure_and_neither_is_its_echo(watched_page: Watch, site: Site) -> None:
    site.headers["Content-Security-Policy"] = POLICY
    site.pages["/"] = f"{HEAD}<script>let x</script>"
    page, guard = watched_page(site.url)
    guard.expects("csp", "^script-src-elem blocked inline")
    page.goto("/")


def test_something_else_than_expected_fails_and_what_was_expected_is_missed(browser: Browser, site: Site) -> None:
    site.pages["/"] = f"{HEAD}<script>console.error('unknown')</script>"
    with pytest.raises(AssertionError) as caught, watching(browser) as watch:  # noqa: PT012
        page, guard = watch(site.url)
        guard.expects("console", "^known")
        page.goto("/")
    assert str(caught.value).splitlines() == [
        "wrong on the page:",
        f"  console: unknown ({site.url}/:1)",
        "expected, and it did not happen:",
        "  console: ^known",
    ]


def test_the_end_of_a_test_tells_of_every_page_that_it_opened(browser: Browser, site: Site) -> None:
    site.pages["/"] = f"{HEAD}<script>console.error(location.search)</script>"
    with pytest.raises(AssertionError) as caught, watching(browser) as watch:  # noqa: PT012
        for name in ("one", "two"):
            watch(site.url).page.goto(f"/?{name}")
    assert "console: ?one" in str(caught.value)
    assert "console: ?two" in str(caught.value)
    assert browser.contexts == []


def test_axe_finds_what_keeps_people_out_under_a_strict_policy(watched_page: Watch, site: Site) -> None:
    site.headers["Content-Security-Policy"] = POLICY
    site.pages["/"] = f"{HEAD}<body><main><h1>A page</h1><img id='logo' src='data:,'><button></button></main></body>"
    page, _ = watched_page(site.url)
    page.goto("/")
    assert axe_violations(page) == [
        "button-name (critical): Buttons must have discernible text, at button",
        "image-alt (critical): Images must have alternative text, at #logo",
    ]
    page.locator("#logo").evaluate("logo => { logo.alt = 'Alakai' }")
    page.locator("button").evaluate("button => { button.textContent = 'Retry' }")
    assert axe_violations(page, IMPACTS) == []
