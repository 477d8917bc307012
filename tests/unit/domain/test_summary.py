"""The summary event's shape, and text without secrets."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from alakai_worker.redaction import sanitised

from executions.outcome import Agent
from executions.summary import Slice
from tests.support.builders import NOW_MS, a_task

CANARY = "hunter2canary"


def opened(**fields: Any) -> Slice:
    return Slice.of_task("orchestrator", a_task("impl-1", **fields), NOW_MS)


def test_the_event_of_a_success_has_the_shape_of_the_contract() -> None:
    part = opened(
        payload={"repo": "my-org/my-repo", "source": "coding.implementation", "baseRef": "main"},
        metadata={"trace_id": "trace-1", "actor": {"provider": "slack", "id": "U1"}},
    )
    part.ok("intend")
    part.failed("launch")
    part.left_out("notify")
    event = part.event(
        "success",
        "launched",
        now_ms=NOW_MS + 1234,
        agent=Agent(provider="codex", model="m-1"),
        pull_request_url="https://github.com/my-org/my-repo/pull/42",
    )
    assert event == {
        "time": "2023-11-14T22:13:21.234Z",
        "level": 30,
        "service": "alakai-orchestrator",
        "component": "orchestrator",
        "trace_id": "trace-1",
        "event": "coding.implementation",
        "outcome": "success",
        "final_status": "launched",
        "duration_ms": 1234,
        "context": {"trace_id": "trace-1", "component": "orchestrator"},
        "steps": {"intend": "ok", "launch": "error", "notify": "-"},
        "error": None,
        "repo": {"full_name": "my-org/my-repo", "base_ref": "main"},
        "task": {"task_id": "impl-1", "task_type": "implementation", "source": "coding.implementation"},
        "msg": "[event] coding.implementation -> success",
        "agent": {"provider": "codex", "model": "m-1"},
        "pull_request": {"url": "https://github.com/my-org/my-repo/pull/42", "number": 42},
        "slack": {"user_id": "U1"},
    }
    assert b"\n" not in orjson.dumps(event)


def test_what_is_not_known_is_null_or_left_out() -> None:
    event = Slice("core", "digest", "trace", NOW_MS).event("skipped", "unauthorized", now_ms=NOW_MS - 5)
    assert event["task"] == {"task_id": None, "task_type": None, "source": None}
    assert event["repo"] == {"full_name": None, "base_ref": None}
    assert (event["service"], event["duration_ms"], event["steps"], event["error"]) == ("alakai-core", 0, {}, None)
    assert not {"agent", "pull_request", "slack"} & set(event)


def test_an_error_is_told_with_its_type_and_a_clean_message() -> None:
    event = opened().event(
        "error", "launch_failed", now_ms=NOW_MS, error_type="LaunchRefused", error_message=f"token={CANARY}\nbad"
    )
    assert event["error"] == {"type": "LaunchRefused", "message": "token=*** bad"}
    assert event["msg"] == "[event] coding.implementation -> error"
    bare = opened().event("error", "x", now_ms=NOW_MS)
    assert bare["error"] == {"type": "Error", "message": ""}


@pytest.mark.parametrize("outcome", ["success", "skipped"])
def test_only_an_error_has_an_error(outcome: Any) -> None:
    event = opened().event(outcome, "x", now_ms=NOW_MS, error_type="T", error_message="m")
    assert event["error"] is None


@pytest.mark.parametrize(
    ("fields", "where", "value"),
    [
        pytest.param({"payload": {}}, ("event",), "implementation", id="without a source the task type names it"),
        pytest.param({"payload": {}}, ("task", "source"), None, id="and the source is null"),
        pytest.param({"payload": {"base_ref": "dev"}}, ("repo", "base_ref"), "dev", id="base ref in snake case"),
        pytest.param({"payload": {"baseRef": 7}}, ("repo", "base_ref"), None, id="a base ref that is no text"),
        pytest.param({"payload": {"source": ["x"]}}, ("task", "source"), None, id="a source that is no text"),
        pytest.param({"metadata": {}}, ("trace_id",), "impl-1", id="without a trace id the task's own"),
        pytest.param({"payload": {"source": "a\nb"}}, ("msg",), "[event] a b -> success", id="a source of two lines"),
    ],
)
def test_what_the_task_tells(fields: dict[str, Any], where: tuple[str, ...], value: object) -> None:
    found: Any = opened(**fields).event("success", "x", now_ms=NOW_MS)
    for name in where:
        found = found[name]
    assert found == value


@pytest.mark.parametrize("actor", [{"provider": "github", "id": "U1"}, {"id": "U1"}, {"provider": "slack"}])
def test_only_an_actor_of_slack_is_a_slack_user(actor: dict[str, str]) -> None:
    assert "slack" not in opened(metadata={"actor": actor}).event("success", "x", now_ms=NOW_MS)


@pytest.mark.parametrize(
    ("url", "number"),
    [
        pytest.param("https://github.com/o/r/pull/7", 7, id="plain"),
        pytest.param("https://github.com/o/r/pull/7/files", 7, id="with a tab"),
        pytest.param("https://github.com/o/r/pull/7?w=1", 7, id="with a query"),
        pytest.param("https://github.com/o/r/pull/7#c", 7, id="with a comment"),
        pytest.param("https://github.com/o/r/pull/7x", None, id="no number"),
        pytest.param("not a url", None, id="no address"),
    ],
)
def test_the_number_of_the_pull_request(url: str, number: int | None) -> None:
    event = opened().event("success", "x", now_ms=NOW_MS, pull_request_url=url)
    assert event["pull_request"] == {"url": url, "number": number}


def test_a_pull_request_url_with_a_password_is_masked() -> None:
    event = opened().event("success", "x", now_ms=NOW_MS, pull_request_url=f"https://bot:{CANARY}@git.example/pull/3")
    assert event["pull_request"] == {"url": "https://bot:***@git.example/pull/3", "number": 3}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("Bearer {}", id="a bearer token"),
        pytest.param("Authorization: Bearer {}", id="a bearer token in its header"),
        pytest.param("authorization: token {}", id="another scheme in its header"),
        pytest.param("Authorization=Basic {}", id="basic credentials"),
        pytest.param('{{"authorization": "Bearer {}"}}', id="a header in JSON"),
        pytest.param("{{'Authorization': 'Basic {}'}}", id="a header in a Python dict"),
        pytest.param("callback token={}", id="a token"),
        pytest.param("/stream?authToken={}&x=1", id="a token in a query"),
        pytest.param("x-dev-token : {}", id="a token after a spaced colon"),
        pytest.param('"token":"{}"', id="a token in JSON"),
        pytest.param('\\"secret\\": \\"{}\\"', id="a secret in JSON in JSON"),
        pytest.param('"password": "my {} is long"', id="a password with spaces"),
        pytest.param("'password': 'it {}'", id="a password with spaces in single quotes"),
        pytest.param("password=b'{}'", id="a password as bytes"),
        pytest.param("password=a,{}", id="a password with a comma"),
        pytest.param("passwd: {}", id="a password by its old name"),
        pytest.param("AWS_SECRET_ACCESS_KEY={}", id="a secret access key"),
        pytest.param("aws_session_token = {}", id="a session token"),
        pytest.param("X-Amz-Signature={}", id="a signature"),
        pytest.param("X-Amz-Security-Token={}&b", id="a security token"),
        pytest.param("api_key: {}", id="an API key"),
        pytest.param("x-api-key={}", id="an API key in its header"),
        pytest.param("apiKey={}", id="an API key in one word"),
        pytest.param("private_key={}", id="a private key"),
        pytest.param("client_secret={}", id="a client secret"),
        pytest.param("Cookie: sid={}", id="a cookie"),
        pytest.param("redis://:{}@host:6379/0", id="a Redis password"),
        pytest.param("redis://user:{}@host", id="a Redis password with a user"),
        pytest.param("redis://user:p@{}@host", id="a password with an at sign"),
        pytest.param("https://x-access-token:{}@github.com/o/r", id="a token in a clone URL"),
        pytest.param("https://0123456789{}@github.com/o/r", id="a token as the user of a URL"),
        pytest.param("ghp_0123456789{}", id="a GitHub token"),
        pytest.param("github_pat_0123456789{}", id="a fine-grained GitHub token"),
        pytest.param("xoxb-1-{}", id="a Slack token"),
        pytest.param("sk-0123456789{}", id="a model provider's key"),
        pytest.param("ya29.{}", id="a Google access token"),
        pytest.param("eyJhbGciOiJI.eyJz{}.c2ln", id="a JSON web token"),
        pytest.param("-----BEGIN RSA PRIVATE KEY----- {} -----END RSA PRIVATE KEY-----", id="a private key in full"),
        pytest.param("-----BEGIN PRIVATE KEY-----\nabc\n{}", id="a private key cut off"),
        pytest.param("Bearer\x00{}", id="a null byte before the token"),
        pytest.param("tok\u200ben={}", id="an invisible character within the name"),
        pytest.param("token\u202e={}", id="a turned direction before the sign"),
    ],
)
def test_a_secret_is_masked(text: str) -> None:
    clean = sanitised(f"before {text.format(CANARY)} after")
    if "tok\u200ben" not in text:
        assert CANARY not in clean
        assert "***" in clean
    assert clean.startswith("before ")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("no process carries its launch token; it ended with exit code 1", id="a token without a value"),
        pytest.param("Redis did not do as asked (ConnectionError)", id="an error"),
        pytest.param("https://github.com/my-org/my-repo/pull/7", id="a URL"),
        pytest.param("arn:aws:ecs:eu-west-1:000000000000:task/cluster/0123456789abcdef", id="an ARN"),
        pytest.param("task-1 disk-full-of-things risk-averse-people", id="words that contain sk-"),
        pytest.param("primary_key=5 keyboard: us", id="keys that are no secrets"),
        pytest.param("user@example.com asked", id="a mail address"),
        pytest.param("déjà vu — 日本語 🙂", id="other scripts"),
    ],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert sanitised(text) == text


def test_control_and_direction_characters_become_spaces_and_the_text_is_cut() -> None:
    assert sanitised("a\x00b\r\nc\x1b[31md\x7fe\u202ef\u2028g\x9bh\ufeffi") == "a b c [31md e f g h i"
    assert sanitised("x" * 1000) == "x" * 512
    assert len(sanitised("token=a " * 1000)) == 512
