"""A worker's outcome, from both shapes that workers post."""

from __future__ import annotations

from typing import Any

import pytest

from executions.errors import InvalidOutcome
from executions.outcome import MESSAGE_LIMIT, outcome_from_document

URL = "https://github.com/o/r/pull/7"


@pytest.mark.parametrize(
    "document",
    [
        pytest.param({"taskId": "t", "result": {"status": "success"}}, id="the nested shape"),
        pytest.param({"taskId": "t", "taskType": "digest", "status": "success"}, id="the canonical shape"),
        pytest.param({"taskId": "t", "status": "success"}, id="the canonical shape without a type"),
    ],
)
def test_a_success(document: dict[str, Any]) -> None:
    outcome = outcome_from_document(document)
    assert (outcome.task_id, outcome.succeeded, outcome.attempt) == ("t", True, None)
    assert (outcome.error_message, outcome.error_code, outcome.error_family) == (None, None, None)


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(
            {
                "taskId": "t",
                "result": {
                    "status": "error",
                    "errorMessage": "boom",
                    "errorCode": "E1",
                    "errorFamily": "transient_upstream",
                    "retryNotBefore": "2030-01-01T00:00:00Z",
                    "pullRequestUrl": URL,
                },
            },
            id="the nested shape with everything inside",
        ),
        pytest.param(
            {
                "taskId": "t",
                "errorFamily": "transient_upstream",
                "retryNotBefore": "2030-01-01T00:00:00Z",
                "result": {"status": "error", "errorMessage": "boom", "errorCode": "E1", "pullRequestUrl": URL},
            },
            id="the nested shape with the hints outside",
        ),
        pytest.param(
            {
                "taskId": "t",
                "taskType": "digest",
                "status": "failure",
                "error": {"message": "boom", "code": "E1"},
                "errorFamily": "transient_upstream",
                "retryNotBefore": "2030-01-01T00:00:00Z",
                "pullRequestUrl": URL,
            },
            id="the canonical shape",
        ),
    ],
)
def test_a_failure(document: dict[str, Any]) -> None:
    outcome = outcome_from_document(document)
    assert not outcome.succeeded
    assert (outcome.error_message, outcome.error_code) == ("boom", "E1")
    assert (outcome.error_family, outcome.retry_not_before) == ("transient_upstream", "2030-01-01T00:00:00Z")
    assert outcome.pull_request_url == URL


def test_the_hint_inside_the_result_wins_even_when_it_is_zero() -> None:
    document = {"taskId": "t", "retryNotBefore": 9, "result": {"status": "error", "retryNotBefore": 0}}
    assert outcome_from_document(document).retry_not_before == 0


def test_a_success_carries_no_error_whatever_was_sent() -> None:
    outcome = outcome_from_document(
        {
            "taskId": "t",
            "errorFamily": "transient_upstream",
            "retryNotBefore": 5,
            "result": {"status": "success", "errorMessage": "x", "errorCode": "y", "pullRequestUrl": URL},
        }
    )
    assert (outcome.error_message, outcome.error_code, outcome.error_family) == (None, None, None)
    assert (outcome.retry_not_before, outcome.pull_request_url) == (None, URL)


@pytest.mark.parametrize(
    "document",
    [
        pytest.param({"taskId": "t", "result": {"status": "error"}}, id="no message"),
        pytest.param({"taskId": "t", "result": {"status": "error", "errorMessage": ""}}, id="an empty message"),
        pytest.param({"taskId": "t", "status": "failure"}, id="no error at all"),
        pytest.param({"taskId": "t", "status": "failure", "error": None}, id="an error that is null"),
        pytest.param({"taskId": "t", "status": "failure", "error": {"message": None}}, id="a message that is null"),
    ],
)
def test_a_failure_always_has_a_message(document: dict[str, Any]) -> None:
    assert outcome_from_document(document).error_message == "the worker gave no reason"


def test_a_long_message_is_cut_and_not_refused() -> None:
    outcome = outcome_from_document({"taskId": "t", "status": "failure", "error": {"message": "x" * 100_000}})
    assert outcome.error_message == "x" * MESSAGE_LIMIT


def test_what_a_worker_may_say_beside_its_outcome() -> None:
    outcome = outcome_from_document(
        {
            "taskId": "t",
            "status": "success",
            "attempt": 2,
            "launchTry": 3,
            "agent": {"provider": "codex", "model": "m", "mood": "good"},
            "token": "canary-token",
            "unknown": [1],
            "launch_try": 9,
            "pull_request_url": 9,
        }
    )
    assert (outcome.attempt, outcome.launch_try, outcome.token) == (2, 3, "canary-token")
    assert outcome.agent is not None
    assert (outcome.agent.provider, outcome.agent.model) == ("codex", "m")


def test_the_token_is_not_shown() -> None:
    outcome = outcome_from_document({"taskId": "t", "status": "success", "token": "canary-token"})
    assert "canary" not in repr(outcome)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        pytest.param(None, "must be a JSON object", id="null"),
        pytest.param([], "must be a JSON object", id="a list"),
        pytest.param("x", "must be a JSON object", id="text"),
        pytest.param({}, "taskId must start", id="an empty object"),
        pytest.param({"taskId": "../x", "status": "success"}, "taskId must start", id="a bad task id"),
        pytest.param({"taskId": "t"}, "'status' is invalid: missing", id="no outcome"),
        pytest.param({"task_id": "t", "status": "success"}, "taskId must start", id="a task id by another name"),
        pytest.param({"taskId": "t", "status": "error"}, "'status' is invalid", id="the other shape's word"),
        pytest.param({"taskId": "t", "status": True}, "'status' is invalid", id="a truth value as status"),
        pytest.param({"taskId": "t", "result": None}, "'result' is invalid", id="a result that is null"),
        pytest.param({"taskId": "t", "result": []}, "'result' is invalid", id="a result that is a list"),
        pytest.param({"taskId": "t", "result": {}}, "'result.status' is invalid: missing", id="an empty result"),
        pytest.param(
            {"taskId": "t", "result": {"status": "failure"}},
            "'result.status' is invalid",
            id="the other word inside",
        ),
        pytest.param(
            {"taskId": "t", "result": {"status": "error", "errorMessage": 7}},
            "'result.errorMessage' is invalid",
            id="a message that is a number",
        ),
        pytest.param({"taskId": "t", "status": "failure", "error": "boom"}, "'error' is invalid", id="text as error"),
        pytest.param(
            {"taskId": "t", "status": "failure", "error": {"code": "x" * 257}},
            "'error.code' is invalid",
            id="long code",
        ),
        pytest.param({"taskId": "t", "status": "success", "attempt": 0}, "'attempt' is invalid", id="attempt 0"),
        pytest.param(
            {"taskId": "t", "status": "success", "attempt": "1"}, "'attempt' is invalid", id="text as attempt"
        ),
        pytest.param({"taskId": "t", "status": "success", "attempt": True}, "'attempt' is invalid", id="attempt true"),
        pytest.param({"taskId": "t", "status": "success", "attempt": 1.0}, "'attempt' is invalid", id="attempt 1.0"),
        pytest.param({"taskId": "t", "status": "success", "launchTry": 0}, "'launchTry' is invalid", id="launch try 0"),
        pytest.param({"taskId": "t", "status": "success", "agent": "codex"}, "'agent' is invalid", id="agent as text"),
        pytest.param({"taskId": "t", "status": "success", "token": "x" * 1025}, "'token' is invalid", id="long token"),
        pytest.param(
            {"taskId": "t", "status": "success", "pullRequestUrl": "x" * 2049}, "'pullRequestUrl'", id="a long URL"
        ),
        pytest.param(
            {"taskId": "t", "status": "failure", "retryNotBefore": True}, "'retryNotBefore", id="true as hint"
        ),
    ],
)
def test_a_body_that_says_nothing_usable_is_refused_and_not_echoed(document: object, reason: str) -> None:
    with pytest.raises(InvalidOutcome, match=reason) as caught:
        outcome_from_document(document)
    assert len(str(caught.value)) < 130
