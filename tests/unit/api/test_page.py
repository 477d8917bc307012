"""The page: what is served, what a browser is told to hold it to, and what is in it of the settings."""

from __future__ import annotations

import hashlib
import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from api.page import FOLDER
from tests.support.fake_identity import AUDIENCE
from tests.unit.api.harness import Api, made

VENDORED = FOLDER / "vendor" / "lit-html"
ASSETS = "/dashboard/assets/"


@pytest.fixture
def api() -> Api:
    return made(task_dashboard_google_client_ids=f"{AUDIENCE},another")


def policy_of(answer: Any) -> dict[str, str]:
    directives = answer.headers["content-security-policy"].split("; ")
    return {name: sources for name, _, sources in (item.partition(" ") for item in directives)}


def config_of(page: str) -> dict[str, Any]:
    (found,) = re.findall(r'<meta name="alakai" content="([^"]*)">', page)
    config: dict[str, Any] = json.loads(html.unescape(found))
    return config


async def test_the_page_is_served_to_everybody_and_tells_how_to_sign_in(api: Api) -> None:
    answer = await api.http.get("/dashboard")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert config_of(answer.text) == {"googleClientId": AUDIENCE, "isLocal": False, "namespace": None}


async def test_everything_that_the_page_names_is_there(api: Api) -> None:
    named = set(re.findall(r'(?:src|href)="(/[^"]*)"', (await api.http.get("/dashboard")).text))
    assert f"{ASSETS}app.js" in named
    for path in FOLDER.rglob("*.js"):
        text = path.read_text()
        imported = re.findall(r'(?:from|import)\s*"(\.[^"]+)"', text)
        named |= {ASSETS + (path.parent / name).resolve().relative_to(FOLDER).as_posix() for name in imported}
    for path_ in sorted(named):
        answer = await api.http.get(path_)
        assert answer.status_code == 200, path_
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert (await api.http.get(f"{ASSETS}app.js")).headers["content-type"] == "text/javascript; charset=utf-8"


@pytest.mark.parametrize(
    "name", ["nothing.js", "../page.py", "%2e%2e/page.py", "index.html", "vendor/lit-html/LICENSE", ""]
)
async def test_nothing_else_is(api: Api, name: str) -> None:
    answer = await api.http.get(ASSETS + name)
    assert (answer.status_code, answer.json()) == (404, {"error": "route not found"})


async def test_without_google_nothing_from_elsewhere_is_allowed() -> None:
    api = made(with_identity=False, env="local")
    answer = await api.http.get("/dashboard")
    policy = policy_of(answer)
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert "http" not in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert config_of(answer.text)["isLocal"] is True
    assert config_of(answer.text)["googleClientId"] is None


async def test_with_google_its_sign_in_is_the_only_other_source(api: Api) -> None:
    answer = await api.http.get("/dashboard")
    hosts = set(re.findall(r"https?://[^/; ]+", answer.headers["content-security-policy"]))
    assert hosts == {"https://accounts.google.com"}
    assert "unsafe" not in answer.headers["content-security-policy"]
    # Google's window tells ours who signed in.
    assert answer.headers["cross-origin-opener-policy"] == "same-origin-allow-popups"


async def test_what_stands_in_the_page_cannot_end_the_attribute_that_it_stands_in() -> None:
    hostile = '"><script>alert(1)</script>'
    api = made(env="local", executions_namespace=hostile)
    page = (await api.http.get("/dashboard")).text
    assert "<script>alert" not in page
    assert config_of(page)["namespace"] == hostile


@pytest.mark.parametrize("path", ["/dashboard", f"{ASSETS}app.js"])
async def test_a_browser_asks_each_time_and_gets_it_only_when_it_changed(api: Api, path: str) -> None:
    first = await api.http.get(path)
    assert first.headers["cache-control"] == "no-cache"
    again = await api.http.get(path, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = await api.http.get(path, headers={"if-none-match": '"other"'})
    assert other.content == first.content


async def test_there_is_no_page_where_nobody_can_sign_in() -> None:
    api = made(with_identity=False)
    for path in ("/dashboard", f"{ASSETS}app.js"):
        assert (await api.http.get(path)).status_code == 404


def test_the_vendored_library_is_what_its_readme_says() -> None:
    said = dict(re.findall(r"^\| (\S+\.js) \| ([0-9a-f]{64}) \|$", (VENDORED / "README.md").read_text(), re.MULTILINE))
    found = {
        path.relative_to(VENDORED).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VENDORED.rglob("*.js")
    }
    assert said == found
    assert "BSD 3-Clause" in (VENDORED / "LICENSE").read_text()


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.js")), ids=lambda path: path.name)
def test_the_modules_say_what_they_are_for_and_make_no_html_of_texts(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("/**")
    for way in ("innerHTML", "insertAdjacentHTML", "document.write", "eval(", "unsafeHTML", "new Function"):
        assert way not in text
