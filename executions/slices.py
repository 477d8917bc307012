"""The catalogue of summary events: which slices of work there are, what they go through and how they end.

``docs/events.md`` is made from it, and tests hold what the processes really emit against it. The shape of an event is
``summary``'s business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_AWAY = {
    "store_unavailable": "Redis did not answer, or is not the one we know",
    "queue_unavailable": "SQS did not take the message",
    "internal_error": "a defect; the log line before it has the trace",
}
_ASKED = {
    "accepted": "done",
    "nothing_to_do": "it was so already",
    "not_found": "there is no record",
    **_AWAY,
}


COMPONENTS: Mapping[str, str] = {
    "core": "The API, service `alakai-core`.",
    "orchestrator": "The controller, service `alakai-orchestrator`.",
    "worker": "Beside the work, service `alakai-worker-` and the task type.",
}
EVENT_FIELDS: Mapping[str, str] = {
    "time": "when the slice ended",
    "level": "30",
    "service": "whose log it is in",
    "component": "`core`, `orchestrator` or `worker`",
    "trace_id": "joins all slices of one task",
    "event": "`payload.source` of the task, else its type",
    "outcome": "`success`, `error`, or `skipped` where there was nothing to do",
    "final_status": "how it ended, one of the words below",
    "duration_ms": "how long it took",
    "context": "`trace_id` and `component` once more, where log queries look for them",
    "steps": "each step that was come to: `ok`, `error`, or `-` where it was left out",
    "error": "null, or `type` and a sanitised `message`",
    "repo": "`full_name` and `base_ref`",
    "task": "`task_id`, `task_type` and `source`",
    "agent": "`provider` and `model`, where a worker told them",
    "pull_request": "`url` and `number`, where there is one",
    "slack": "`user_id` of an actor from Slack",
    "msg": "`[event] <event> -> <outcome>`",
}


@dataclass(frozen=True, slots=True)
class SliceKind:
    """One kind of work, of one component. ``steps`` are in the order in which they happen."""

    component: str
    name: str
    trigger: str
    steps: tuple[str, ...]
    final_statuses: Mapping[str, str]
    """What each says."""


CATALOGUE = (
    SliceKind(
        "orchestrator",
        "intake",
        "a message was taken from the queue",
        ("parse", "claim"),
        {
            "claimed": "an attempt began",
            "nothing_to_do": "the task has this attempt or a later one, or the message was acted on before",
            "over_budget": "dropped: more attempts than MAX_RETRIES allows",
            "out_of_order": "left to the dead-letter queue: the attempt cannot follow the latest one",
            "budget_exhausted": "the task failed, and its retries are spent",
            "invalid_message": "left to the dead-letter queue: it is no task",
            "record_unreadable": "the record of its task cannot be read",
            "store_unavailable": _AWAY["store_unavailable"],
            "contention": "others changed the record again and again; the message comes back",
            "unexpected_error": _AWAY["internal_error"],
        },
    ),
    SliceKind(
        "orchestrator",
        "launch",
        "an attempt was to get a worker",
        ("intend", "launch", "record"),
        {
            "launched": "it has one",
            "launch_unclear": "the launcher's answer was lost; the same launch is sent again",
            "launch_refused": "the launcher started nothing",
        },
    ),
    SliceKind(
        "orchestrator",
        "wait",
        "an attempt cannot be launched now",
        ("launch",),
        {
            "slot_unavailable": "as many attempts are live as may be, or it is not its turn",
            "breaker_open": "launches of its class fail",
            "held": "the installation is on hold",
            "no_launcher": "no controller here has its launcher",
        },
    ),
    SliceKind(
        "orchestrator",
        "automatic retry",
        "a scheduled retry was due",
        ("promote",),
        {"retry_promoted": "its attempt began", "retry_dropped": "it was not to be any more"},
    ),
    SliceKind(
        "core",
        "claim",
        "a worker asked whether it may work",
        ("claim",),
        {
            "granted": "it may",
            "refused": "another one does, or its launch is not the live one",
            "not_found": "there is no record",
            **_AWAY,
        },
    ),
    SliceKind(
        "core",
        "outcome",
        "a worker reported",
        ("record", "keep"),
        {
            "succeeded": "recorded",
            "failed": "recorded",
            "running": "kept until a look at the worker tells who stopped it",
            "pending": "recorded, and the attempt is launched again",
            "cancelled": "recorded, after a cancellation was asked for",
            "queued": "Redis is away: kept on the outcomes queue",
            "already_finished": "nothing changed: the attempt was decided",
            "superseded": "nothing changed: another launch or attempt is the live one",
            "not_found": "there is no record",
            **_AWAY,
        },
    ),
    SliceKind(
        "core",
        "retry",
        "somebody asked for a retry",
        ("authenticate", "request", "enqueue"),
        {
            "queued": "the next attempt is on the queue, or was already",
            "dry_run": "only asked what would happen",
            "not_failed": "the latest attempt is not failed",
            "budget_exhausted": "its retries are spent",
            "payload_lost": "there is nothing to run",
            "not_found": "there is no record",
            **_AWAY,
        },
    ),
    SliceKind("core", "cancel", "somebody asked to cancel", ("authenticate", "cancel"), _ASKED),
    SliceKind("core", "done", "somebody asked to count it as done", ("authenticate", "done"), _ASKED),
    SliceKind(
        "core",
        "assign",
        "somebody asked to give it to somebody else",
        ("authenticate", "assign"),
        _ASKED | {"budget_exhausted": "reassigned, and no attempt is left for the new assignee"},
    ),
    SliceKind(
        "worker",
        "work",
        "a worker ended",
        ("claim", "work", "report"),
        {
            "completed": "the work succeeded",
            "failed": "the work failed",
            "claim_refused": "it was not the one to work",
            "not_claimed": "the API could not be asked",
            "unreported": "the API did not take the outcome",
            "stopped": "it was stopped before it began",
        },
    ),
)
