"""The callback's body, held against the control plane's own parser."""

from __future__ import annotations

import json

import pytest
from alakai_worker import Outcome
from alakai_worker.launch import Launch

from executions.outcome import MESSAGE_LIMIT, outcome_from_document

BODY_LIMIT = 64 * 1024
LAUNCH = Launch("task-1", 2, 3, "http://localhost/task-claim", "http://localhost/task-complete", "trace-1")


def test_a_success_names_attempt_launch_and_pull_request() -> None:
    body = Outcome.success(pull_request_url="https://github.com/a/b/pull/1").body(LAUNCH)
    assert body == {
        "taskId": "task-1",
        "attempt": 2,
        "launchTry": 3,
        "result": {"status": "success", "pullRequestUrl": "https://github.com/a/b/pull/1"},
    }
    assert outcome_from_document(body).succeeded


def test_a_failure_carries_everything_that_decides_about_a_retry() -> None:
    outcome = Outcome.failure(
        "overloaded",
        code="codex_transient_upstream",
        family="transient_upstream",
        retry_not_before="2026-01-01T00:00:00Z",
        agent={"provider": "codex", "model": "m", "other": "x"},
    )
    parsed = outcome_from_document(outcome.body(LAUNCH))
    assert (parsed.succeeded, parsed.attempt, parsed.launch_try) == (False, 2, 3)
    assert (parsed.error_message, parsed.error_code) == ("overloaded", "codex_transient_upstream")
    assert (parsed.error_family, parsed.retry_not_before) == ("transient_upstream", "2026-01-01T00:00:00Z")
    assert parsed.agent is not None
    assert (parsed.agent.provider, parsed.agent.model) == ("codex", "m")


def test_the_token_is_told_where_there_is_one() -> None:
    launch = Launch("task-1", 2, 3, "http://localhost/", "http://localhost/", "trace-1", token="a-secret")
    assert outcome_from_document(Outcome.success().body(launch)).token == "a-secret"


@pytest.mark.parametrize("text", ["x" * 1_000_000, "\U0001f600" * 1_000_000, "\udcff" * 10_000, "\0" * 10_000])
def test_no_text_makes_the_body_one_that_is_refused(text: str) -> None:
    outcome = Outcome.failure(text, code=text, family=text, retry_not_before=text, agent={"provider": text})
    content = json.dumps(outcome.body(LAUNCH), ensure_ascii=False).encode()
    assert len(content) <= BODY_LIMIT
    parsed = outcome_from_document(json.loads(content))
    assert parsed.error_message is not None
    assert 1 <= len(parsed.error_message) <= MESSAGE_LIMIT


def test_half_a_link_is_not_told() -> None:
    body = Outcome.success(pull_request_url="https://github.com/" + "x" * 3000).body(LAUNCH)
    assert body["result"] == {"status": "success"}
    assert outcome_from_document(body).succeeded
