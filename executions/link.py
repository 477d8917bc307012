"""What people ask for through a custom resource, and which of it was already acted on.

``Wishes`` is what the object says now; ``ResourceLink`` in the record remembers what it said when we acted on it, per
object (uid), so that a restart, a relist or an old watch event repeats nothing. The rules themselves are those of every
other door (``retry``, ``control``). Never reads an object: that is ``resource``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from executions import control, retry, submission
from executions.answer import Answer, Decision, Reply, changed
from executions.policy import Policy
from executions.record import Execution, Refusal, ResourceLink

REQUESTED_BY = "kubernetes"
_DEFAULT_REASON = "cancelled through the custom resource"
_VALUE_LIMIT = 64


class Wish(StrEnum):
    """One thing that can be asked for; the values are the names in ``Wishes`` and ``ResourceLink``."""

    RETRY = "retry"
    CANCEL = "cancel"
    DONE = "done"
    SUSPEND = "suspend"
    ASSIGNEE = "assignee"


_FIELDS = (Wish.SUSPEND, Wish.ASSIGNEE)
_ORDER = (*_FIELDS, Wish.RETRY, Wish.CANCEL, Wish.DONE)
"""A retry comes before a cancellation, so that asking for both at once starts nothing."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What an object asks for: the values of its annotations (None: not set) and of its steering fields."""

    retry: str | None = None
    cancel: str | None = None
    done: str | None = None
    suspend: bool = False
    assignee: str | None = None

    def value(self, wish: Wish) -> str | bool | None:
        found: str | bool | None = getattr(self, wish.value)
        return found


NO_WISHES = Wishes()


def open_wishes(execution: Execution, uid: str, wishes: Wishes, made_by: str | None) -> tuple[Wish, ...]:
    """The wishes of the object ``uid`` that nobody acted on yet, in the order in which to act.

    ``made_by`` is the incarnation that the object was made for by the mirror, None for a user's object. Taking an
    annotation away asks for nothing.
    """
    seen = _seen(execution, uid, wishes, made_by)
    asked = [wish for wish in _ORDER if wish in _FIELDS or wishes.value(wish) is not None]
    return tuple(wish for wish in asked if memorable(wishes.value(wish)) != seen.value(wish))


def granted(
    execution: Execution,
    wish: Wish,
    *,
    uid: str,
    wishes: Wishes,
    made_by: str | None,
    now_ms: int,
    policy: Policy,
    launcher: str,
) -> Decision:
    """Act on one wish by the rules of every door, and remember in the same decision that it was seen.

    A refusal is remembered too, so that it is told by condition and not tried again.
    """
    decision = _decided(execution, wish, wishes, now_ms, policy, launcher)
    message = refusal_message(decision.answer, policy)
    refusal = Refusal(reason=refusal_reason(wish), message=message, at=now_ms) if message else None
    following = decision.execution or execution
    link = linked(following, uid, wishes, made_by).model_copy(
        update={wish.value: memorable(wishes.value(wish)), "refusal": refusal}
    )
    return Decision(following.with_state(resource=link), decision.answer)


def seen(execution: Execution, wish: Wish, *, uid: str, wishes: Wishes, made_by: str | None) -> Execution:
    """Remember that a wish was acted on before, without acting; the same object when that is known already."""
    link = linked(execution, uid, wishes, made_by).model_copy(update={wish.value: memorable(wishes.value(wish))})
    return execution if link == execution.state.resource else execution.with_state(resource=link)


def submitted(execution: Execution, *, uid: str, wishes: Wishes, refusal: Refusal | None, now_ms: int) -> Execution:
    """Bind a user's object to the execution that it submitted, with what it said at that time.

    What was deleted before is wanted again, because somebody made it anew.
    """
    anew = {"uid": uid, "refusal": refusal, "kept_from": now_ms, "absent_attempt": 0}
    link = execution.state.resource.model_copy(update={**anew, **_remembered(wishes)})
    return control.suspend(execution, suspended=wishes.suspend).with_state(resource=link)


def tombstoned(execution: Execution) -> Execution:
    """A user deleted the resource: it stays away until a later attempt is claimed."""
    number = execution.latest.number
    if execution.state.resource.absent_attempt >= number:
        return execution
    return execution.with_state(resource=execution.state.resource.model_copy(update={"absent_attempt": number}))


def kept_from(execution: Execution, now_ms: int) -> Execution:
    """Let the resource of an adopted record stay for its time from now on, whenever the work itself was done."""
    return execution.with_state(resource=execution.state.resource.model_copy(update={"kept_from": now_ms}))


def submission_key(uid: str) -> str:
    """The operation of a user's object that submits: remembered for as long as the object exists."""
    return f"resource:{uid}"


def refusal_reason(wish: Wish) -> str:
    """``RetryRefused`` and so on."""
    return f"{wish.value.capitalize()}Refused"


def refusal_message(answer: Answer, policy: Policy) -> str | None:
    """What to tell about a refusal, in the words of the HTTP door; None when it was no refusal."""
    match answer.reply:
        case Reply.NOT_FOUND:
            return "execution not found"
        case Reply.NOT_FAILED:
            return f"cannot retry execution in status '{answer.status}'"
        case Reply.BUDGET_EXHAUSTED:
            return f"retry budget exhausted (MAX_RETRIES is {policy.max_retries})"
        case Reply.PAYLOAD_LOST:
            return "cannot retry: task payload is lost"
    return None


def linked(execution: Execution, uid: str, wishes: Wishes, made_by: str | None) -> ResourceLink:
    """The link for this object: the one there is, or a new one when the object is another than before."""
    link = execution.state.resource
    if link.uid == uid:
        return link
    before = _remembered(_seen(execution, uid, wishes, made_by))
    return link.model_copy(update={"uid": uid, "refusal": None, **before})


def memorable(value: str | bool | None) -> str | bool | None:
    """A value as it is remembered: long ones, such as reasons, as their hash, so that the record stays small."""
    if not isinstance(value, str) or len(value) <= _VALUE_LIMIT:
        return value
    return f"sha256:{hashlib.sha256(value.encode()).hexdigest()[:32]}"


def _seen(execution: Execution, uid: str, wishes: Wishes, made_by: str | None) -> Wishes:
    link = execution.state.resource
    if link.uid == uid:
        return Wishes(link.retry, link.cancel, link.done, bool(link.suspend), link.assignee)
    if made_by == execution.state.incarnation:
        # We made this object and it asked for nothing then, except what the mirror wrote into it.
        return Wishes(suspend=execution.state.suspended)
    # An object that we know nothing of: acting on what may be old is worse than asking its user once more.
    return Wishes(**_remembered(wishes))


def _remembered(wishes: Wishes) -> dict[str, Any]:
    return {wish.value: memorable(wishes.value(wish)) for wish in Wish}


def _decided(execution: Execution, wish: Wish, wishes: Wishes, now_ms: int, policy: Policy, launcher: str) -> Decision:
    task_id = execution.task_id
    match wish:
        case Wish.RETRY:
            return _retried(execution, now_ms, policy)
        case Wish.CANCEL:
            reason = wishes.cancel or _DEFAULT_REASON
            return control.cancel(execution, task_id, reason=reason, requested_by=REQUESTED_BY, now_ms=now_ms)
        case Wish.DONE:
            return control.mark_done(execution, task_id, now_ms=now_ms)
        case Wish.SUSPEND:
            return changed(control.suspend(execution, suspended=wishes.suspend), Reply.ACCEPTED)
        case Wish.ASSIGNEE:
            return submission.hand_over(
                execution, task_id, assignee=wishes.assignee, now_ms=now_ms, policy=policy, launcher=launcher
            )


def _retried(execution: Execution, now_ms: int, policy: Policy) -> Decision:
    decision = retry.request_retry(
        execution, execution.task_id, requested_by=REQUESTED_BY, now_ms=now_ms, policy=policy
    )
    following = decision.execution
    if decision.answer.detail != "send" or following is None or following.state.retry is None:
        return decision
    # Due at once: whoever looks next enqueues it, this process or another one after a crash.
    mark = following.state.retry.model_copy(update={"resend_at": now_ms})
    return Decision(following.with_state(retry=mark), decision.answer)
