"""Which addresses and URLs may be sent to at all, and what an answer means."""

from __future__ import annotations

import pytest

from executions.adapters.outbound import Reply, failure_of, is_public, place_of
from tests.support.builders import NOW_MS


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "140.82.121.4", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "0.0.0.1", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
        *("169.254.169.254", "169.254.170.2", "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "255.255.255.255"),
        *("240.0.0.1", "192.0.0.192", "168.63.129.16", "192.88.99.1"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1"),
        *("fec0::1", "::10.0.0.1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254"),
        *("64:ff9b::a00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:a00:1::1", "2001:0:a00:1::1", "2001:db8::1"),
    ],
)
def test_all_others(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://hooks.example.com/x?y=z", "hooks.example.com:443"),
        ("https://HOOKS.example.com:443", "hooks.example.com:443"),
        ("https://hooks.example.com./x", "hooks.example.com:443"),
        ("https://hooks.example.com:8443/x", "hooks.example.com:8443"),
        ("https://[2606:4700::1111]/x", "2606:4700::1111:443"),
    ],
)
def test_the_place_of_an_url(url: str, place: str) -> None:
    assert place_of(url) == place


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://hooks.example.com/", "must begin with https"),
        ("ftp://hooks.example.com/", "must begin with https"),
        ("file:///etc/passwd", "must begin with https"),
        ("//hooks.example.com/", "must begin with https"),
        ("hooks.example.com", "must begin with https"),
        ("https://user@hooks.example.com/", "user or password"),
        ("https://hooks.example.com@evil.example/", "user or password"),
        ("https:///x", "names no host|no URL"),
        ("https://hooks.example.com:port/", "no URL"),
        ("https://[::1/", "no URL"),
    ],
)
def test_what_is_nowhere_to_send_to(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        place_of(url)


@pytest.mark.parametrize(
    "url",
    ["https://evil.example/hooks.example.com", "https://hooks.example.com.evil.example/", "https://hooks.example.com:80/",
     "https://evil.example#hooks.example.com", "https://evil.example?@hooks.example.com",
     "https://evil.example\\@hooks.example.com/"],
)  # fmt: skip
def test_a_name_that_only_looks_like_another_is_another(url: str) -> None:
    try:
        assert place_of(url) != "hooks.example.com:443"
    except ValueError:
        pass


@pytest.mark.parametrize(
    ("status", "headers", "is_refusal", "retry_after_ms"),
    [
        (500, {}, False, None),
        (503, {"Retry-After": "7"}, False, 7_000),
        (503, {"Retry-After": "Tue, 14 Nov 2023 22:13:29 GMT"}, False, 9_000),
        (503, {"Retry-After": "soon"}, False, None),
        (503, {"Retry-After": "Tue, 14 Nov 2000 22:13:29 GMT"}, False, 0),
        (429, {}, False, None),
        (408, {}, False, None),
        (409, {}, False, None),
        (301, {"Location": "https://elsewhere.example"}, True, None),
        (304, {}, True, None),
        (400, {}, True, None),
        (401, {}, True, None),
        (404, {}, True, None),
        (410, {}, True, None),
        (100, {}, False, None),
    ],
)
def test_what_an_answer_means(
    status: int, headers: dict[str, str], is_refusal: bool, retry_after_ms: int | None
) -> None:
    failure = failure_of(Reply(status, headers), now_ms=NOW_MS, who="it")
    assert (failure.is_refusal, failure.retry_after_ms, failure.is_for_all) == (is_refusal, retry_after_ms, False)


def test_a_shared_limit_is_about_all() -> None:
    assert failure_of(Reply(429, {"Retry-After": "1"}), now_ms=NOW_MS, who="it", is_shared=True).is_for_all
