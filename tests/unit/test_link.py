"""What objects ask for, and what of it was acted on."""

from __future__ import annotations

import pytest

from executions.answer import Reply
from executions.control import suspend
from executions.link import (
    Wish,
    Wishes,
    granted,
    kept_from,
    linked,
    memorable,
    open_wishes,
    seen,
    submitted,
    tombstoned,
)
from executions.record import Execution, ResourceLink
from tests.support.builders import NOW_MS, POLICY, pending, running
from tests.unit.domain.states import claimed_again, failed, succeeded

OURS = "incarnation-1"
"""The incarnation that the builders' executions have: an object made by it is the mirror's own."""


def grant(execution: Execution, wish: Wish, wishes: Wishes, *, uid: str = "u", made_by: str | None = OURS) -> Execution:
    following = granted(
        execution, wish, uid=uid, wishes=wishes, made_by=made_by, now_ms=NOW_MS, policy=POLICY, launcher="local"
    ).execution
    assert following is not None
    return following


def linked_to(execution: Execution, **fields: object) -> Execution:
    return execution.with_state(resource=ResourceLink(uid="u", **fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("case", "execution", "wishes", "made_by", "asked"),
    [
        ("a fresh object of ours asks for nothing", running(), Wishes(), OURS, ()),
        ("an annotation on a fresh object of ours", failed(), Wishes(retry="1"), OURS, (Wish.RETRY,)),
        ("an annotation that was acted on", linked_to(failed(), retry="1"), Wishes(retry="1"), OURS, ()),
        ("a new value", linked_to(failed(), retry="1"), Wishes(retry="2"), OURS, (Wish.RETRY,)),
        ("an annotation taken away", linked_to(failed(), retry="1"), Wishes(), OURS, ()),
        ("an object nobody knows, as found", failed(), Wishes(retry="1", suspend=True), None, ()),
        ("an object of an earlier record", failed(), Wishes(retry="1"), "incarnation-0", ()),
        ("held back", running(), Wishes(suspend=True), OURS, (Wish.SUSPEND,)),
        ("born held back", suspend(pending(), suspended=True), Wishes(suspend=True), OURS, ()),
        ("released", linked_to(pending(), suspend=True), Wishes(), OURS, (Wish.SUSPEND,)),
        ("another assignee", linked_to(pending(), assignee="jane"), Wishes(assignee="john"), OURS, (Wish.ASSIGNEE,)),
        ("no assignee any more", linked_to(pending(), assignee="jane"), Wishes(), OURS, (Wish.ASSIGNEE,)),
        (
            "everything at once, the stop last",
            running(),
            Wishes(retry="1", cancel="x", done="y", suspend=True, assignee="jane"),
            OURS,
            (Wish.SUSPEND, Wish.ASSIGNEE, Wish.RETRY, Wish.CANCEL, Wish.DONE),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else None,
)
def test_which_wishes_are_open(
    case: str, execution: Execution, wishes: Wishes, made_by: str | None, asked: tuple[Wish, ...]
) -> None:
    assert open_wishes(execution, "u", wishes, made_by) == asked


@pytest.mark.parametrize("wish", list(Wish))
def test_a_granted_wish_is_open_no_more(wish: Wish) -> None:
    wishes = Wishes(retry="1", cancel="stop " * 200, done="yes", suspend=True, assignee="jane")
    assert wish not in open_wishes(grant(running(), wish, wishes), "u", wishes, OURS)


def test_granting_one_wish_leaves_the_others_open() -> None:
    wishes = Wishes(retry="1", cancel="enough")
    assert open_wishes(grant(failed(), Wish.RETRY, wishes), "u", wishes, OURS) == (Wish.CANCEL,)


def test_a_retry_is_marked_and_due_at_once() -> None:
    following = grant(failed(), Wish.RETRY, Wishes(retry="1"))
    mark = following.state.retry
    assert mark is not None
    assert (mark.attempt, mark.resend_at, mark.requested_by) == (2, NOW_MS, "kubernetes")
    assert following.state.resource.retry == "1"
    assert following.state.resource.refusal is None


def test_a_refusal_is_kept_and_not_tried_again_and_the_next_grant_clears_it() -> None:
    refused = grant(succeeded(), Wish.RETRY, Wishes(retry="1"))
    refusal = refused.state.resource.refusal
    assert refusal is not None
    assert (refusal.reason, refusal.message) == ("RetryRefused", "cannot retry execution in status 'succeeded'")
    assert open_wishes(refused, "u", Wishes(retry="1"), OURS) == ()
    assert grant(refused, Wish.DONE, Wishes(done="1")).state.resource.refusal is None


def test_a_spent_budget_is_refused_in_words() -> None:
    refused = grant(failed(attempts=2), Wish.RETRY, Wishes(retry="1")).state.resource.refusal
    assert refused is not None
    assert refused.message == "retry budget exhausted (MAX_RETRIES is 1)"


def test_cancel_takes_the_annotations_value_as_reason() -> None:
    following = grant(running(), Wish.CANCEL, Wishes(cancel="not needed"))
    assert following.state.cancellation is not None
    assert following.state.cancellation.reason == "not needed"
    empty = grant(running(), Wish.CANCEL, Wishes(cancel=""))
    assert empty.state.cancellation is not None
    assert empty.state.cancellation.reason == "cancelled through the custom resource"


def test_spec_fields_steer_the_execution() -> None:
    assert grant(pending(), Wish.SUSPEND, Wishes(suspend=True)).state.suspended is True
    assert grant(pending(), Wish.ASSIGNEE, Wishes(assignee="jane")).state.assignee == "jane"
    assert grant(running(), Wish.DONE, Wishes(done="1")).latest.status == "running"


def test_long_values_are_remembered_by_their_hash() -> None:
    assert memorable("short") == "short"
    assert len(str(memorable("x" * 200_000))) < 64
    assert memorable("x" * 65) != memorable("x" * 66)
    assert (memorable(None), memorable(True)) == (None, True)


def test_seen_without_acting_changes_the_memory_only() -> None:
    following = seen(failed(), Wish.RETRY, uid="u", wishes=Wishes(retry="1"), made_by=OURS)
    assert following.state.retry is None
    assert following.state.resource.retry == "1"
    assert seen(following, Wish.RETRY, uid="u", wishes=Wishes(retry="1"), made_by=OURS) is following


def test_a_submission_binds_the_object_as_it_was_and_revives_what_was_deleted() -> None:
    wishes = Wishes(retry="1", suspend=True)
    following = submitted(tombstoned(failed()), uid="u", wishes=wishes, refusal=None, now_ms=NOW_MS)
    assert open_wishes(following, "u", wishes, None) == ()
    assert following.state.suspended is True
    assert (following.state.resource.absent_attempt, following.state.resource.kept_from) == (0, NOW_MS)


def test_a_new_object_takes_the_place_of_the_old_link_but_not_of_the_tombstone() -> None:
    old = kept_from(tombstoned(linked_to(failed(), retry="1")), NOW_MS)
    link = linked(old, "u-2", Wishes(), OURS)
    assert (link.uid, link.retry, link.absent_attempt, link.kept_from) == ("u-2", None, 1, NOW_MS)


def test_a_tombstone_is_set_once_and_counts_for_its_attempt() -> None:
    dead = tombstoned(failed())
    assert tombstoned(dead) is dead
    assert tombstoned(claimed_again(dead)).state.resource.absent_attempt == 2


def test_a_retry_of_a_running_attempt_is_answered_as_over_http() -> None:
    decision = granted(
        running(),
        Wish.RETRY,
        uid="u",
        wishes=Wishes(retry="1"),
        made_by=OURS,
        now_ms=NOW_MS,
        policy=POLICY,
        launcher="local",
    )
    assert decision.answer.reply is Reply.NOT_FAILED
