"""Bodies that break parsers, on every route that takes one: always a 4xx, never an echo, never a changed execution."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator

import orjson
import pytest
from structlog.testing import capture_logs

from api.guard import MAX_BODY_BYTES
from tests.support.fake_identity import JANES_TOKEN
from tests.unit.api.harness import Api

JSON = {"content-type": "application/json"}
POSTS = [
    "/task-complete",
    "/task-claim",
    "/dashboard/executions/task-1/retry",
    "/dashboard/executions/task-1/cancel",
    "/dashboard/executions/task-1/done",
    "/dashboard/executions/task-1/assign",
]
GOOD = (
    b'"taskId":"task-1","result":{"status":"success"},"attempt":1,"launchTry":1,"claimId":"i",'
    b'"reason":"r","assignee":"a","secret":"canary"'
)
"""Fields that satisfy every route, so that nothing but the fault beside them can be refused."""


def beside(fault: bytes) -> bytes:
    """An otherwise good body with a fault in a field that nobody knows."""
    return b"{" + GOOD + b',"x":' + fault + b"}"


def nested(levels: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return opening * levels + closing * levels


BODIES: dict[str, tuple[bytes, dict[str, str]]] = {
    "a number": (b"1", JSON),
    "a text": (b'"canary"', JSON),
    "null": (b"null", JSON),
    "true": (b"true", JSON),
    "a list": (b"[{" + GOOD + b"}]", JSON),
    "an empty list": (b"[]", JSON),
    "nothing": (b"", JSON),
    "white space": (b" \n\t ", JSON),
    "one byte": (b"{", JSON),
    "cut off": (b"{" + GOOD, JSON),
    "cut off in a text": (b'{"taskId":"canary', JSON),
    "NaN": (beside(b"NaN"), JSON),
    "Infinity": (beside(b"Infinity"), JSON),
    "-Infinity": (beside(b"-Infinity"), JSON),
    "1e400": (beside(b"1e400"), JSON),
    "-1e400": (beside(b"-1e400"), JSON),
    "an integer of 5,000 digits": (beside(b"7" * 5000), JSON),
    "a negative integer of 5,000 digits": (beside(b"-" + b"7" * 5000), JSON),
    "a leading zero": (beside(b"007"), JSON),
    "a leading plus": (beside(b"+1"), JSON),
    "a fraction without a number": (beside(b".5"), JSON),
    "a number without a fraction": (beside(b"1."), JSON),
    "a hexadecimal number": (beside(b"0x1F"), JSON),
    "an exponent without digits": (beside(b"1e"), JSON),
    "65 lists in each other": (beside(nested(65)), JSON),
    "1,000 lists in each other": (beside(nested(1000)), JSON),
    "30,000 lists in each other": (beside(nested(30_000)), JSON),
    "30,000 open lists": (b"[" * 30_000, JSON),
    "65 objects in each other": (beside(b'{"a":' * 65 + b"1" + b"}" * 65), JSON),
    "1,000 objects in each other": (beside(b'{"a":' * 1000 + b"1" + b"}" * 1000), JSON),
    "10,000 open objects": (b'{"a":' * 10_000, JSON),
    "lists and objects in each other": (beside(b'[{"a":' * 40 + b"1" + b"}]" * 40), JSON),
    "a lone high surrogate": (beside(rb'"\ud800"'), JSON),
    "a lone low surrogate": (beside(rb'"\udc00"'), JSON),
    "surrogates the wrong way round": (beside(rb'"\udc00\ud800"'), JSON),
    "a lone surrogate in a key": (beside(rb'{"\ud800":1}'), JSON),
    "a surrogate in UTF-8": (beside(b'"\xed\xa0\x80"'), JSON),
    "an overlong slash": (beside(b'"\xc0\xaf"'), JSON),
    "a byte that is never UTF-8": (beside(b'"\xff"'), JSON),
    "a cut character": (beside(b'"\xe2\x82"'), JSON),
    "a character beyond Unicode": (beside(b'"\xf5\x80\x80\x80"'), JSON),
    "Latin-1": (beside('"ä"'.encode("latin-1")), JSON),
    "a byte order mark": (b"\xef\xbb\xbf{" + GOOD + b"}", JSON),
    "UTF-16": ((b"{" + GOOD + b"}").decode().encode("utf-16"), JSON),
    "UTF-16 without a mark": ((b"{" + GOOD + b"}").decode().encode("utf-16-le"), JSON),
    "UTF-32": ((b"{" + GOOD + b"}").decode().encode("utf-32"), JSON),
    "a NUL byte in a text": (beside(b'"a\0b"'), JSON),
    "a NUL byte after the end": (b"{" + GOOD + b"}\0", JSON),
    "NUL bytes alone": (b"\0" * 100, JSON),
    "a newline in a text": (beside(b'"a\nb"'), JSON),
    "an escape character in a text": (beside(b'"\x1b"'), JSON),
    "the same key twice": (b"{" + GOOD + b',"taskId":"task-2"}', JSON),
    "the same key twice, once escaped": (b"{" + GOOD + rb',"t\u0061skId":"task-2"}', JSON),
    "the same key twice further down": (beside(b'{"a":1,"a":2}'), JSON),
    "the same key twice in a list": (beside(b'[{"a":1,"a":1}]'), JSON),
    "an empty key twice": (beside(b'{"":1,"":2}'), JSON),
    "a trailing comma": (b"{" + GOOD + b",}", JSON),
    "a missing comma": (b"{" + GOOD + b'"b":1}', JSON),
    "a comment": (b"{" + GOOD + b"} // canary", JSON),
    "single quotes": (b"{'taskId':'canary'}", JSON),
    "a bare key": (b"{taskId:1}", JSON),
    "a key that is a number": (b"{1:1}", JSON),
    "two documents": (b"{" + GOOD + b"}{" + GOOD + b"}", JSON),
    "two lines": (b"{" + GOOD + b"}\n{" + GOOD + b"}", JSON),
    "an unknown escape": (beside(rb'"\x41"'), JSON),
    "a cut escape": (beside(rb'"\u12"'), JSON),
    "undefined": (beside(b"undefined"), JSON),
    "True of another language": (beside(b"True"), JSON),
    "one byte too many": (beside(b'"' + b"x" * (MAX_BODY_BYTES - len(beside(b'""')) + 1) + b'"'), JSON),
    "a megabyte": (beside(b'"' + b"x" * 1_048_576 + b'"'), JSON),
    "65 KB of white space": (b" " * (MAX_BODY_BYTES + 1), JSON),
    "no content type": (b"{" + GOOD + b"}", {}),
    "an empty content type": (b"{" + GOOD + b"}", {"content-type": ""}),
    "a form": (b"taskId=canary", {"content-type": "application/x-www-form-urlencoded"}),
    "plain text": (b"{" + GOOD + b"}", {"content-type": "text/plain"}),
    "XML": (b"<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>", {"content-type": "application/xml"}),
    "a multipart form": (b"--b\r\n\r\ncanary\r\n--b--", {"content-type": "multipart/form-data; boundary=b"}),
    "a type that begins like JSON": (b"{" + GOOD + b"}", {"content-type": "application/jsonp"}),
    "a type that ends like JSON": (b"{" + GOOD + b"}", {"content-type": "application/problem+json"}),
    "a list of types": (b"{" + GOOD + b"}", {"content-type": "text/plain, application/json"}),
    "JSON in Latin-1": (b"{" + GOOD + b"}", {"content-type": "application/json; charset=iso-8859-1"}),
    "JSON in UTF-7": (b"{" + GOOD + b"}", {"content-type": 'application/json; charset="utf-7"'}),
    "compressed": (gzip.compress(b"{" + GOOD + b"}"), {**JSON, "content-encoding": "gzip"}),
    "said to be compressed": (b"{" + GOOD + b"}", {**JSON, "content-encoding": "br"}),
}


@pytest.mark.parametrize("path", POSTS)
async def test_every_hostile_body_is_refused(api: Api, path: str) -> None:
    await api.fail("task-1")
    before = api.store.records["task-1"], api.store.states["task-1"]
    assert len(BODIES) >= 60
    with capture_logs() as logs:
        for name, (body, headers) in BODIES.items():
            person = {"authorization": f"Bearer {JANES_TOKEN}"}
            response = await api.send("POST", path, content=body, headers={**headers, **person})
            assert 400 <= response.status_code < 500, (name, response.status_code)
            assert set(response.json()) <= {"error", "code"}, name
            assert "canary" not in response.text, name
            assert "task-2" not in response.text, name
    assert (api.store.records["task-1"], api.store.states["task-1"]) == before
    assert api.retries.sent == api.outcomes.sent == []
    assert "canary" not in f"{logs}{api.events}"


@pytest.mark.parametrize("path", POSTS)
async def test_the_same_body_without_a_fault_is_taken(api: Api, path: str) -> None:
    """Without this the test above would pass for a route that refuses everything."""
    await api.fail("task-1")
    person = {"authorization": f"Bearer {JANES_TOKEN}"}
    for body in (beside(b"1"), beside(nested(60)), beside(b'"' + b"x" * (MAX_BODY_BYTES - len(beside(b'""'))) + b'"')):
        assert orjson.loads(body)
        for media_type in ("application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf8"'):
            headers = {"content-type": media_type, **person}
            response = await api.send("POST", path, content=body, headers=headers)
            # A failed execution has no launch to claim; everything else does what it is for.
            assert response.status_code == 409 if path == "/task-claim" else response.status_code < 300, response.text


@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz", "/v0/livez", "/v0/healthz", "/nowhere"])
async def test_a_body_where_none_belongs_does_no_harm(api: Api, path: str) -> None:
    for name, (body, headers) in BODIES.items():
        response = await api.send("GET", path, content=body, headers=headers)
        expected = 413 if len(body) > MAX_BODY_BYTES else 404 if path == "/nowhere" else 200
        assert response.status_code == expected, name


async def test_a_chunked_body_is_counted_as_it_arrives(api: Api) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"taskId":"'
        for _ in range(40):
            yield b"c" * 4096

    response = await api.send("POST", "/task-complete", content=chunks(), headers=JSON)
    assert response.status_code == 413
    assert response.headers["connection"] == "close"


PATHS = {
    "NUL": "task%00canary",
    "newline": "task-1%0A",
    "carriage return": "task%0D%0ASet-Cookie:%20a=b",
    "space": "task%201",
    "percent": "task%25",
    "double encoding": "task%252Fcanary",
    "backslash": "..%5Ccanary",
    "one dot": "%2E",
    "two dots": "%2E%2E",
    "leading dot": ".canary",
    "leading dash": "-canary",
    "star": "*",
    "question mark": "task%3Fcanary",
    "hash": "task%23canary",
    "invalid UTF-8": "%FF%FE",
    "overlong slash": "%C0%AF",
    "umlaut": "t%C3%A4sk",
    "full-width digit": "task%EF%BC%91",
    "right-to-left override": "task%E2%80%AE1",
    "zero-width space": "task%E2%80%8B1",
    "quotes": "%22canary%22",
    "angle brackets": "%3Cscript%3Ecanary%3C",
    "semicolon": "task;canary",
    "at sign": "task@canary",
    "129 characters": "c" * 129,
    "5,000 characters": "c" * 5000,
    "template": "%7B%7Bcanary%7D%7D",
    "Redis glob": "task%5B1-9%5D",
}


@pytest.mark.parametrize("control", ["retry", "cancel", "done", "assign"])
async def test_a_task_id_that_is_none_is_refused_with_the_reason(api: Api, control: str) -> None:
    for name, tail in PATHS.items():
        response = await api.post(f"/dashboard/executions/{tail}/{control}", json={"reason": "r", "assignee": "a"})
        assert response.status_code == 400, name
        assert response.json()["error"].startswith("taskId must start with a letter or digit"), name
        assert "canary" not in response.text, name
    assert api.store.records == {}


@pytest.mark.parametrize("tail", ["a%2Fb", "%2F", "%2E%2E%2Fcanary", "", "a/b", "a//"])
async def test_a_path_with_more_or_fewer_parts_is_no_route(api: Api, tail: str) -> None:
    response = await api.post(f"/dashboard/executions/{tail}/retry")
    assert (response.status_code, response.json()) == (404, {"error": "route not found"})


async def test_who_is_not_signed_in_does_not_learn_what_a_good_id_is(api: Api) -> None:
    for tail in PATHS.values():
        response = await api.send("POST", f"/dashboard/executions/{tail}/retry", content=b"{", headers=JSON)
        assert response.status_code == 401


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", POSTS)
async def test_another_method_is_refused(api: Api, method: str, path: str) -> None:
    response = await api.send(method, path)
    assert (response.status_code, response.json()) == (405, {"error": "method not allowed"})


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/redoc", "/dashboards", "/health/", "/task-complete/", "//", "/canary"]
)
async def test_an_unknown_path_is_refused_without_an_echo(api: Api, path: str) -> None:
    response = await api.send("GET", path)
    assert (response.status_code, response.json()) == (404, {"error": "route not found"})
