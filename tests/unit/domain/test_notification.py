"""What is told of an outcome, and in which words: for every end of an attempt, and for nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from executions.automatic_retry import with_retry_scheduled
from executions.feed import entry_between
from executions.lifecycle import ended
from executions.notification import (
    Notification,
    execution_mark,
    github_comment,
    notification_from_text,
    notification_of,
    outcome_of,
    slack_text,
)
from executions.policy import Policy
from executions.record import Execution, Status
from tests.support.builders import NOW_MS, POLICY, pending, running
from tests.unit.domain.states import (
    at_work,
    by_hand,
    cancelled,
    cancelling,
    claimed_again,
    failed,
    reported,
    scheduled,
    succeeded,
)

TRANSIENT = {"errorFamily": "transient_upstream"}


def told(before: Execution, after: Execution, *, policy: Policy = POLICY) -> Notification:
    """As the feed carries it and the leader makes it."""
    entry = entry_between(before, after.with_state(sequence=7), NOW_MS)
    assert entry is not None
    assert entry.outcome is not None
    assert entry.event is not None
    return notification_of(
        entry.outcome,
        entry.event,
        event_id=entry.event_id,
        sequence=entry.sequence,
        occurred_ms=entry.occurred_ms,
        policy=policy,
    )


def with_task(execution: Execution, **fields: Any) -> Execution:
    """The same with other fields in its message."""
    snapshot = {**(execution.latest.task_snapshot or {}), **fields}
    return execution.with_latest(task_snapshot=snapshot)


def transient_end(before: Execution, policy: Policy) -> Execution:
    return with_retry_scheduled(before, reported(before, **TRANSIENT), now_ms=NOW_MS, policy=policy, draw=lambda: 0.5)


# Which changes are outcomes


@pytest.mark.parametrize(
    ("before", "after", "status"),
    [
        pytest.param(running(), succeeded(), "succeeded", id="a success"),
        pytest.param(running(), failed(), "failed", id="a failure"),
        pytest.param(running(), ended(running(), 1, Status.FAILED, now_ms=NOW_MS, code="WORKER_LOST", message="gone"),
                     "failed", id="a verdict"),
        pytest.param(pending(), cancelled(), "cancelled", id="a cancellation"),
        pytest.param(running(), transient_end(running(), POLICY), "failed", id="a failure whose retry is scheduled"),
        pytest.param(at_work(claimed_again(failed())), failed(attempts=2), "failed", id="each attempt's own end"),
        pytest.param(None, pending(), None, id="a claim is none"),
        pytest.param(pending(), running(), None, id="a start is none"),
        pytest.param(running(), cancelling(running()), None, id="a wish to cancel is none"),
        pytest.param(failed(), scheduled(failed()), None, id="nor is what happens after the end"),
        pytest.param(failed(), claimed_again(failed()), None, id="nor the next attempt"),
        pytest.param(None, by_hand(Status.FAILED), None, id="a finished record that appears was not finished now"),
        pytest.param(
            running(), failed().with_state(incarnation="another"), None, id="another incarnation is another's outcome"
        ),
    ],
)  # fmt: skip
def test_the_outcomes(before: Execution | None, after: Execution, status: str | None) -> None:
    found = outcome_of(before, after)
    assert (found["status"] if found else None) == status


# What is said


def test_a_success_names_its_pull_request() -> None:
    url = "https://github.com/my-org/my-repo/pull/5"
    found = told(running(), reported(running(), succeeded=True, pullRequestUrl=url))
    assert found.document == {
        "eventId": found.event_id,
        "occurredAt": "2023-11-14T22:13:20.000Z",
        "sequence": 7,
        "executionId": "task-1",
        "taskId": "task-1",
        "taskType": "implementation",
        "taskName": "implementation",
        "project": "my-org/my-repo",
        "traceId": "trace-task-1",
        "attempt": 1,
        "status": "succeeded",
        "errorCode": None,
        "errorMessage": None,
        "pullRequests": [url],
        "next": None,
        "earlierAttempts": [],
    }


def test_the_second_attempt_says_what_became_of_the_first() -> None:
    found = told(at_work(claimed_again(failed())), reported(at_work(claimed_again(failed())), succeeded=True))
    assert found.document["earlierAttempts"] == [{"attempt": 1, "status": "failed", "errorCode": "E1"}]


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        pytest.param(Policy(max_retries=2), "attempt 2 is due at 2023-11-14T22:15:20.000Z (automatic retry 1 of 2)",
                     id="a retry to come"),
        pytest.param(Policy(max_retries=0), "nothing: bounded retry exhausted, 0 of 0 retries were made",
                     id="no retry left"),
    ],
)  # fmt: skip
def test_what_comes_next_of_a_transient_failure(policy: Policy, said: str) -> None:
    assert told(running(), transient_end(running(), policy), policy=policy).document["next"] == said


def test_what_comes_next_of_any_other_failure() -> None:
    assert told(running(), failed()).document["next"] == "nothing by itself: somebody may retry it"
    spent = told(running(), failed(), policy=Policy(max_retries=0))
    assert spent.document["next"] == "nothing: no retry is left"
    without_payload = running().with_latest(task_snapshot=None)
    assert told(without_payload, reported(without_payload)).document["next"] == "nothing: its payload is lost"


def test_neither_payload_nor_secret_nor_control_character_is_told() -> None:
    before = with_task(running(), payload={"repo": "my-org/my-repo", "prompt": "the payload"})
    error = {"message": "token=hush-hush\u202e\nghp_0123456789abcdef0123", "code": "E\n1"}
    found = told(before, reported(before, error=error))
    for text in (found.encoded.decode(), github_comment(found), slack_text(found)):
        assert "the payload" not in text
        assert "hush" not in text
        assert "ghp_" not in text
    assert found.document["errorMessage"] == "token=*** ***"
    assert found.document["errorCode"] == "E 1"


@pytest.mark.parametrize("url", ["http://plain.example", "javascript:alert(1)", "https://a b", "https://x/)[x](y"])
def test_what_is_no_link_is_not_shown_as_one(url: str) -> None:
    found = told(running(), reported(running(), succeeded=True, pullRequestUrl=url))
    assert found.document["pullRequests"] == []


# Where to


@pytest.mark.parametrize(
    ("callbacks", "kept"),
    [
        pytest.param({"github": {"repo": "o/r", "issueNumber": 5}}, {"github": {"repo": "o/r", "issueNumber": 5}},
                     id="an issue"),
        pytest.param({"github": {"repo": "../..", "issueNumber": 5}}, {}, id="a path that leads elsewhere"),
        pytest.param({"github": {"repo": "o/..", "issueNumber": 5}}, {}, id="also by half"),
        pytest.param({"github": {"repo": "o/r/issues/1", "issueNumber": 5}}, {}, id="no repository"),
        pytest.param({"github": {"repo": "o/r", "issueNumber": "5/../.."}}, {}, id="a number that is none"),
        pytest.param({"github": {"repo": "o/r", "issueNumber": True}}, {}, id="nor that one"),
        pytest.param({"github": {"repo": "o/r", "issueNumber": 0}}, {}, id="nor zero"),
        pytest.param({"github": ["o/r"]}, {}, id="a list"),
        pytest.param({"slack": {"channel": "C1", "threadTs": "1.5"}}, {"slack": {"channel": "C1", "threadTs": "1.5"}},
                     id="a thread"),
        pytest.param({"slack": {"channel": "C1", "threadTs": "&x"}}, {"slack": {"channel": "C1"}}, id="no thread"),
        pytest.param({"slack": {"channel": "C1&x=y"}}, {}, id="no channel"),
        pytest.param({"webhook": {"url": "https://h/x"}}, {"webhook": {"url": "https://h/x"}}, id="a webhook"),
        pytest.param({"webhook": {"url": 5}}, {}, id="no URL"),
        pytest.param({"webhook": {"url": "x" * 3000}}, {}, id="a long one"),
    ],
)  # fmt: skip
def test_where_a_message_asks_to_be_told(callbacks: dict[str, Any], kept: dict[str, Any]) -> None:
    before = with_task(running(), callbacks=callbacks)
    assert told(before, reported(before)).callbacks == kept


def test_a_message_without_callbacks_or_without_sense_is_told_nowhere_of_its_own() -> None:
    for callbacks in (None, 5, []):
        before = with_task(running(), callbacks=callbacks)
        assert told(before, reported(before)).callbacks == {}


# The outbox


def test_a_notification_comes_back_from_the_outbox() -> None:
    found = told(running(), failed())
    assert notification_from_text(found.encoded) == found


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"order": 5}'])
def test_what_is_none_is_told_apart(text: bytes) -> None:
    with pytest.raises(ValueError, match="not a notification"):
        notification_from_text(text)


# The words


def test_a_comment_in_full() -> None:
    before = at_work(claimed_again(failed()))
    url = "https://github.com/my-org/my-repo/pull/5"
    found = told(before, reported(before, succeeded=True, pullRequestUrl=url))
    assert github_comment(found) == (
        "<!-- alakai:task-1 -->\n"
        "✅ **Succeeded**: `implementation`, attempt 2\n"
        "\n"
        f"- pull request: {url}\n"
        "- attempt 1 failed (`E1`)\n"
        "\n"
        "<sub>task `task-1`, 2023-11-14T22:13:20.000Z</sub>"
    )


def test_a_slack_message_in_full() -> None:
    assert slack_text(told(running(), failed())) == (
        ":x: *Failed*: `implementation` in `my-org/my-repo`, attempt 1\n"
        "• `E1`: `boom`\n"
        "• next: nothing by itself: somebody may retry it\n"
        "task `task-1`, 2023-11-14T22:13:20.000Z"
    )


def test_foreign_text_mentions_nobody_and_breaks_out_of_nothing() -> None:
    error = {"message": "`@everyone` <!channel> <!-- --> [x](https://evil)", "code": "`E"}
    found = told(running(), reported(running(), error=error))
    comment = github_comment(found)
    assert "`'E`: `'@everyone' <!channel> <!-- --> [x](https://evil)`" in comment
    assert "<!channel>" not in slack_text(found)
    assert "&lt;!channel&gt;" in slack_text(found)


@pytest.mark.parametrize("execution_id", ["a --> b", "x" * 200, "zeile\nzwei"])
def test_an_id_of_any_kind_makes_one_mark(execution_id: str) -> None:
    found = told(running(), failed())
    strange = replace(found, document={**found.document, "executionId": execution_id})
    mark = execution_mark(strange)
    assert mark.count("-->") == 1
    assert "\n" not in mark
    assert github_comment(strange).splitlines()[0] == mark
