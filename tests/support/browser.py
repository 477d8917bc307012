"""A page in a real browser that is watched: what goes wrong on it fails its test, unless the test said it would.

Playwright's synchronous interface keeps an event loop running in its thread for as long as the browser is there. So a
module that uses a browser has plain tests only, and no fixture of theirs may be asynchronous.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol
from urllib.parse import urlsplit

from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Error,
    Page,
    Request,
    Response,
    WebError,
    WebSocket,
    sync_playwright,
)

from devstack.browser import launch_options

OPTIONS: dict[str, Any] = {
    "locale": "en-US",
    "timezone_id": "UTC",
    "viewport": {"width": 1280, "height": 800},
}
PATIENCE_MS = 15_000
NETWORK_SCHEMES = ("http", "https", "ws", "wss")
GIVEN_UP = "net::ERR_ABORTED"
"""What the page itself or a navigation cut off, such as an event stream that is left behind: no fault of the site."""
TELL = "__tellViolation"
TELL_VIOLATIONS = """
addEventListener('securitypolicyviolation', event => window.__tellViolation({
  directive: event.effectiveDirective, blocked: event.blockedURI, policy: event.originalPolicy,
  source: event.sourceFile, line: event.lineNumber, sample: event.sample,
}))
"""
SETTLE = """() => new Promise(done => {
  const channel = new MessageChannel()
  channel.port1.onmessage = () => done()
  channel.port2.postMessage(0)
})"""
"""Returns after what the page had to tell by now; no timer, which a test may have faked."""

Kind = Literal["console", "page error", "csp", "foreign request", "failed request", "error status", "crash"]


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that went wrong; `about` is the address of the request, or what a policy blocked."""

    kind: Kind
    text: str
    about: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@dataclass(frozen=True, slots=True)
class Expectation:
    """Troubles of one kind that a test knows of; `required` ones must have happened by the test's end."""

    kind: Kind
    pattern: str
    required: bool

    def covers(self, trouble: Trouble) -> bool:
        return self.kind == trouble.kind and re.search(self.pattern, trouble.text) is not None

    def __str__(self) -> str:
        return f"{self.kind}: {self.pattern}"


class Guard:
    """Takes down what goes wrong in a browser context that may talk to `site` and the hosts of `allow` only.

    Hosts are as in an address, with their port: `localhost:8080`.
    """

    def __init__(self, context: BrowserContext, site: str, allow: Iterable[str] = ()) -> None:
        self._context = context
        self._hosts = {urlsplit(site).netloc, *allow}
        self._troubles: list[Trouble] = []
        self._expectations: list[Expectation] = []
        self._violated: list[str] = []
        context.expose_binding(TELL, lambda _, violation: self._on_violation(violation))
        context.add_init_script(TELL_VIOLATIONS)
        context.on("console", self._on_console)
        context.on("weberror", self._on_page_error)
        context.on("request", self._on_request)
        context.on("requestfailed", self._on_request_failed)
        context.on("response", self._on_response)
        context.on("page", self._on_page)

    def expects(self, kind: Kind, pattern: str) -> None:
        """Troubles of this kind whose text has `pattern` (a regular expression) are no fault; their absence is one."""
        self._expectations.append(Expectation(kind, pattern, required=True))

    def tolerates(self, kind: Kind, pattern: str) -> None:
        """The same for troubles that may happen or not, such as a stream cut off by a restart of the server."""
        self._expectations.append(Expectation(kind, pattern, required=False))

    def check(self) -> None:
        """Raise AssertionError when there is anything to report."""
        if text := self.report():
            raise AssertionError(text)

    def report(self) -> str:
        """All that went wrong so far, and what was expected and did not happen; empty when all is well."""
        for page in self._context.pages:
            try:
                page.evaluate(SETTLE)
            except Error:
                pass  # closed, crashed or on its way to another page: whatever it told has arrived
        told = [trouble for trouble in self._troubles if not self._is_echo(trouble)]
        wrong = [trouble for trouble in told if not any(known.covers(trouble) for known in self._expectations)]
        missing = [
            known for known in self._expectations if known.required and not any(map(known.covers, self._troubles))
        ]
        lines = ["wrong on the page:", *(f"  {trouble}" for trouble in wrong)] if wrong else []
        lines += ["expected, and it did not happen:", *(f"  {known}" for known in missing)] if missing else []
        return "\n".join(lines)

    def _is_echo(self, trouble: Trouble) -> bool:
        """Whether the browser tells here once more what it told as another kind of trouble."""
        others = [other for other in self._troubles if other.kind != trouble.kind]
        if trouble.kind == "console" and trouble.text.startswith("Failed to load resource:"):
            return bool(trouble.about) and any(other.about == trouble.about for other in others)
        if trouble.kind == "console" and "Content Security Policy" in trouble.text:
            return any(told in trouble.text for told in self._violated)
        if trouble.kind == "failed request" and trouble.text.startswith("csp "):
            return any(other.kind == "csp" and other.about == trouble.about for other in others)
        return False

    def _tell(self, kind: Kind, text: str, about: str = "") -> None:
        self._troubles.append(Trouble(kind, text, about))

    def _on_page(self, page: Page) -> None:
        page.on("crash", lambda page: self._tell("crash", f"the page crashed: {page.url}"))
        page.on("websocket", self._on_websocket)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "assert"):
            place = message.location
            text = f"{message.text} ({place['url']}:{place['lineNumber'] + 1})" if place["url"] else message.text
            self._tell("console", text, place["url"])

    def _on_page_error(self, error: WebError) -> None:
        self._tell("page error", error.error.stack or error.error.message)

    def _on_violation(self, violation: dict[str, Any]) -> None:
        directive, blocked = violation["directive"], violation["blocked"]
        self._violated += [re.sub("-(elem|attr)$", "", directive), *([blocked] if "://" in blocked else [])]
        place = f" at {violation['source']}:{violation['line']}" if violation["source"] else ""
        sample = f": {violation['sample']}" if violation["sample"] else ""
        self._tell("csp", f"{directive} blocked {blocked}{place}{sample}, the policy is {violation['policy']}", blocked)

    def _on_request(self, request: Request) -> None:
        self._look_at_host(request.method, request.url)

    def _on_websocket(self, socket: WebSocket) -> None:
        self._look_at_host("WebSocket", socket.url)

    def _look_at_host(self, method: str, url: str) -> None:
        address = urlsplit(url)
        if address.scheme in NETWORK_SCHEMES and address.netloc not in self._hosts:
            self._tell("foreign request", f"{method} {url}", url)

    def _on_request_failed(self, request: Request) -> None:
        if request.failure != GIVEN_UP:
            self._tell("failed request", f"{request.failure} {request.method} {request.url}", request.url)

    def _on_response(self, response: Response) -> None:
        if response.status >= 400:
            text = f"{response.status} {response.request.method} {response.url}"
            self._tell("error status", text, response.url)


class WatchedPage(NamedTuple):
    page: Page
    guard: Guard


class Watch(Protocol):
    def __call__(self, site: str, *, allow: Iterable[str] = (), **options: Any) -> WatchedPage:
        """A page in a context of its own, where addresses are relative to `site`; `options` are of `new_context`."""
        ...


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser, there until the block is left. No other may be open in this thread meanwhile."""
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(**launch_options()) as browser,
    ):
        yield browser


@contextmanager
def watching(browser: Browser) -> Iterator[Watch]:
    """Opens pages, and checks and closes them all at the end of the block. Raises AssertionError."""
    opened: list[WatchedPage] = []

    def watch(site: str, *, allow: Iterable[str] = (), **options: Any) -> WatchedPage:
        context = browser.new_context(base_url=site, **(OPTIONS | options))
        context.set_default_timeout(PATIENCE_MS)
        guard = Guard(context, site, allow)
        opened.append(WatchedPage(context.new_page(), guard))
        return opened[-1]

    try:
        yield watch
        wrong = [text for _, guard in opened if (text := guard.report())]
    finally:
        for page, _ in opened:
            page.context.close()
    if wrong:
        raise AssertionError("\n".join(wrong))
