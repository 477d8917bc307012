"""What people and other services are told of an outcome, and in which words.

``outcome_of`` says of a change whether an attempt ended by it, and what the feed's entry must carry so that it can be
told whatever becomes of the record; ``Notification`` is one outcome on its way; the texts are made of it alone. Never
says a payload or a secret: messages are sanitised, and what others wrote is shown as code, so that it mentions nobody.
Where a notification goes is decided by the channels (``ports.Channel``), when it is tried again in ``delivery``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from alakai_worker.redaction import sanitised

from executions.conditions import schedule_text
from executions.moment import iso_from_ms
from executions.names import TASK_ID
from executions.policy import Policy
from executions.record import Attempt, Execution, ScheduleOutcome, Status
from executions.task import PROJECT

_NAME_LIMIT = 256
_EARLIER_SHOWN = 10
_URL_LIMIT = 2048
_CHANNEL = re.compile(r"[#@]?[A-Za-z0-9._-]{1,80}", re.ASCII)
_THREAD = re.compile(r"\d{1,20}\.\d{1,20}", re.ASCII)
_LINK = re.compile(r"https://[^\s<>\"'`|()\[\]\\]{1,2000}", re.ASCII)
_LARGEST_ISSUE = 2**31
_TITLES = {Status.SUCCEEDED: "Succeeded", Status.FAILED: "Failed", Status.CANCELLED: "Cancelled"}
_GITHUB_SIGNS = {"succeeded": "✅", "failed": "❌", "cancelled": "🚫"}
_SLACK_SIGNS = {"succeeded": ":white_check_mark:", "failed": ":x:", "cancelled": ":no_entry_sign:"}


# What a change tells


def outcome_of(before: Execution | None, after: Execution) -> dict[str, Any] | None:
    """What is to be told of the attempt that ended by this change; None when none did.

    A record that appears finished, because a hand wrote it or because a lost Redis was rebuilt, is nobody's outcome:
    otherwise a rebuild would tell thousands of them once more.
    """
    if before is None or before.state.incarnation != after.state.incarnation:
        return None
    latest, earlier = after.latest, before.attempt(after.latest.number)
    if earlier is None or earlier.status.is_finished or not latest.status.is_finished:
        return None
    told: dict[str, Any] = {
        "status": latest.status.value,
        "callbacks": _callbacks(after.attempts),
        "earlier": [_shown(item) for item in after.attempts[:-1][-_EARLIER_SHOWN:]],
    }
    if latest.error_message is not None and latest.status is not Status.SUCCEEDED:
        told["message"] = sanitised(latest.error_message)
    if latest.status is Status.FAILED:
        told["next"] = _next_by_itself(after)
    return told


def _next_by_itself(execution: Execution) -> str | None:
    """None where it is for somebody to decide."""
    schedule, latest = execution.state.schedule, execution.latest
    if execution.waiting_schedule is not None:
        return schedule_text(execution.waiting_schedule)
    if not latest.task_snapshot:
        return "nothing: its payload is lost"
    is_exhausted = schedule is not None and schedule.attempt == latest.number + 1
    if is_exhausted and schedule is not None and schedule.outcome == ScheduleOutcome.EXHAUSTED:
        return f"nothing: bounded retry exhausted, {schedule.automatic_retry - 1} of {schedule.limit} retries were made"
    return None


def _shown(attempt: Attempt) -> dict[str, Any]:
    return {"attempt": attempt.number, "status": attempt.status.value, "errorCode": _cut(attempt.error_code)}


def _callbacks(attempts: tuple[Attempt, ...]) -> dict[str, Any]:
    """Where the message asks to be told, as far as it can be a place at all: anybody upstream may have written it."""
    snapshots = (item.task_snapshot for item in reversed(attempts) if item.task_snapshot)
    snapshot: Mapping[str, Any] = next(snapshots, {})
    callbacks = _object(snapshot.get("callbacks"))
    found = {
        "github": _github(_object(callbacks.get("github"))),
        "slack": _slack(_object(callbacks.get("slack"))),
        "webhook": _webhook(_object(callbacks.get("webhook"))),
    }
    return {name: place for name, place in found.items() if place}


def _github(place: Mapping[str, Any]) -> dict[str, Any]:
    repo, number = place.get("repo"), place.get("issueNumber")
    is_issue = isinstance(number, int) and not isinstance(number, bool) and 0 < number < _LARGEST_ISSUE
    if not is_issue or not isinstance(repo, str) or not PROJECT.fullmatch(repo):
        return {}
    if not all(part.strip(".") for part in repo.split("/")):
        return {}  # ".." would lead to another of the API's routes
    return {"repo": repo, "issueNumber": number}


def _slack(place: Mapping[str, Any]) -> dict[str, Any]:
    channel, thread = place.get("channel"), place.get("threadTs")
    if not isinstance(channel, str) or not _CHANNEL.fullmatch(channel):
        return {}
    is_thread = isinstance(thread, str) and _THREAD.fullmatch(thread)
    return {"channel": channel, **({"threadTs": thread} if is_thread else {})}


def _webhook(place: Mapping[str, Any]) -> dict[str, Any]:
    url = place.get("url")
    return {"url": url} if isinstance(url, str) and 0 < len(url) <= _URL_LIMIT else {}


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


# A notification on its way


@dataclass(frozen=True, slots=True)
class Notification:
    """One outcome. ``document`` is the body of a webhook; the other texts say the same in words."""

    event_id: str
    order: tuple[int, int]
    """The larger one is the newer one of its execution: time of the commit, sequence number."""
    task_id: str
    document: Mapping[str, Any]
    callbacks: Mapping[str, Any]
    """``github``, ``slack``, ``webhook``: where the task's message asks to be told."""

    @property
    def execution_id(self) -> str:
        return str(self.document["executionId"])

    @property
    def encoded(self) -> bytes:
        """As the outbox keeps it."""
        return orjson.dumps(
            {
                "eventId": self.event_id,
                "order": self.order,
                "taskId": self.task_id,
                "document": self.document,
                "callbacks": self.callbacks,
            }
        )


def notification_from_text(text: bytes) -> Notification:
    """Read one of the outbox. Raises ValueError."""
    try:
        found = orjson.loads(text)
        at_ms, sequence = found["order"]
        return Notification(
            found["eventId"], (int(at_ms), int(sequence)), found["taskId"], found["document"], found["callbacks"]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a notification ({type(error).__name__})") from None


def notification_of(
    outcome: Mapping[str, Any],
    event: Mapping[str, Any],
    *,
    event_id: str,
    sequence: int,
    occurred_ms: int,
    policy: Policy,
) -> Notification:
    """Of what the feed's entry carries: ``outcome`` is of ``outcome_of``, ``event`` of ``tracking.followed``."""
    attempt = event["attempt"]
    next_step = outcome.get("next")
    if outcome["status"] == Status.FAILED and next_step is None:
        can_retry = policy.may_retry(attempt)
        next_step = "nothing by itself: somebody may retry it" if can_retry else "nothing: no retry is left"
    document = {
        "eventId": event_id,
        "occurredAt": iso_from_ms(occurred_ms),
        "sequence": sequence,
        "executionId": event["executionId"],
        "taskId": event["taskId"],
        "taskType": event["taskType"],
        "taskName": sanitised(str(event["taskName"]))[:_NAME_LIMIT],
        "project": event.get("project"),
        "traceId": event.get("traceId"),
        "attempt": attempt,
        "status": outcome["status"],
        "errorCode": _cut(event.get("errorCode")),
        "errorMessage": outcome.get("message"),
        "pullRequests": [url for url in event.get("prLinks") or () if _LINK.fullmatch(url)],
        "next": next_step,
        "earlierAttempts": outcome["earlier"],
    }
    return Notification(event_id, (occurred_ms, sequence), event["taskId"], document, outcome["callbacks"])


def _cut(text: str | None) -> str | None:
    return None if text is None else sanitised(text)[:_NAME_LIMIT]


# The words


def execution_mark(notification: Notification) -> str:
    """The first line of an execution's one comment, by which it is found again."""
    execution_id = notification.execution_id
    if not TASK_ID.fullmatch(execution_id):  # an id may be any text, and end the HTML comment that it stands in
        execution_id = hashlib.sha256(execution_id.encode()).hexdigest()
    return f"<!-- alakai:{execution_id} -->"


def github_comment(notification: Notification) -> str:
    """Markdown; foreign text stands in code spans, where it can neither mention nor link nor break out."""
    document = notification.document
    lines = [
        execution_mark(notification),
        f"{_GITHUB_SIGNS[document['status']]} **{_title(document)}**: {_code(document['taskName'])}, "
        f"attempt {document['attempt']}",
        *_details(document, bullet="- ", code=_code, link=str),
        "",
        f"<sub>task {_code(notification.task_id)}, {document['occurredAt']}</sub>",
    ]
    return "\n".join(lines)


def slack_text(notification: Notification) -> str:
    """Slack's mrkdwn; what could be a mention or a link of others is escaped."""
    document = notification.document
    project = f" in {_slack_code(document['project'])}" if document["project"] else ""
    lines = [
        f"{_SLACK_SIGNS[document['status']]} *{_title(document)}*: {_slack_code(document['taskName'])}{project}, "
        f"attempt {document['attempt']}",
        *_details(document, bullet="• ", code=_slack_code, link=lambda url: f"<{_escaped(url)}>"),
        f"task {_slack_code(notification.task_id)}, {document['occurredAt']}",
    ]
    return "\n".join(lines)


def _title(document: Mapping[str, Any]) -> str:
    return _TITLES[Status(document["status"])]


def _details(document: Mapping[str, Any], *, bullet: str, code: Any, link: Any) -> list[str]:
    lines = []
    if document["errorCode"] or document["errorMessage"]:
        parts = [code(part) for part in (document["errorCode"], document["errorMessage"]) if part]
        lines.append(f"{bullet}{': '.join(parts)}")
    lines += [f"{bullet}pull request: {link(url)}" for url in document["pullRequests"]]
    if document["next"]:
        lines.append(f"{bullet}next: {document['next']}")
    for item in document["earlierAttempts"]:
        reason = f" ({code(item['errorCode'])})" if item["errorCode"] else ""
        lines.append(f"{bullet}attempt {item['attempt']} {item['status']}{reason}")
    return ["", *lines] if lines and bullet == "- " else lines


def _code(text: str) -> str:
    return f"`{text.replace('`', chr(39)) or ' '}`"


def _slack_code(text: str) -> str:
    return _code(_escaped(text))


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
