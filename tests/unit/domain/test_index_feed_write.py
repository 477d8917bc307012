"""What one commit writes: the changed attempts, the state, the lists, the feed entry."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import orjson
import pytest

from executions.control import suspend
from executions.feed import FeedEntry, Transition, entry_between, entry_from_document
from executions.index import Index, index_scores
from executions.lifecycle import claim_launch, ended, launch_failed, record_outcome, suspect
from executions.ports import Snapshot
from executions.record import Evidence, Execution, Status, Suspicion
from executions.write import foreign_incarnation, forgotten_entry, record_digest, write_for
from tests.support.builders import NOW_MS, POLICY, intended, pending, running
from tests.unit.domain.states import (
    at_work,
    by_hand,
    cancelled,
    cancelling,
    claimed_again,
    failed,
    outcome,
    reported,
    scheduled,
    succeeded,
)
from tests.unit.domain.test_retry import clicked

WAITING_AGAIN = launch_failed(running(), 1, 1, code="X", message="x", permanent=False, now_ms=NOW_MS, policy=POLICY)
AGAIN_MS = NOW_MS + POLICY.launch_wait_ms(1)
RESEND_MS = NOW_MS + POLICY.retry_redeliver_ms


def lost() -> Execution:
    return ended(running(), 1, Status.FAILED, now_ms=NOW_MS, code="WORKER_LOST", message="gone")


def reported_late() -> Execution:
    execution = record_outcome(lost(), outcome(succeeded=True), received_ms=NOW_MS, now_ms=NOW_MS).execution
    assert execution is not None
    return execution


def claimed() -> Execution:
    execution = claim_launch(running(), "task-1", attempt=1, launch_try=1, claim_id="c", now_ms=NOW_MS).execution
    assert execution is not None
    return execution


# The lists


@pytest.mark.parametrize(
    ("execution", "scores"),
    [
        pytest.param(pending(), {Index.WAITING: NOW_MS}, id="a claimed attempt waits"),
        pytest.param(intended(), {Index.LIVE: NOW_MS}, id="from its intent on it is live"),
        pytest.param(running(), {Index.LIVE: NOW_MS}, id="a running one is live"),
        pytest.param(cancelling(running()), {Index.LIVE: NOW_MS}, id="also while it is being stopped"),
        pytest.param(
            WAITING_AGAIN,
            {Index.WAITING: NOW_MS, Index.DUE: AGAIN_MS},
            id="one to be launched again waits and is due",
        ),
        pytest.param(succeeded(), {Index.FINISHED: NOW_MS}, id="a success is finished"),
        pytest.param(failed(), {Index.FINISHED: NOW_MS}, id="a failure too"),
        pytest.param(cancelled(), {Index.FINISHED: NOW_MS}, id="a cancellation too"),
        pytest.param(
            clicked(failed()), {Index.FINISHED: NOW_MS, Index.DUE: RESEND_MS}, id="a marked retry is due when unclaimed"
        ),
        pytest.param(claimed_again(clicked(failed())), {Index.WAITING: NOW_MS}, id="and not once it was claimed"),
        pytest.param(by_hand(), {Index.LIVE: 0}, id="a running record without times is live"),
        pytest.param(by_hand(started_at=7), {Index.LIVE: 7}, id="its start counts where no claim is known"),
        pytest.param(by_hand(Status.FAILED), {Index.FINISHED: 0}, id="a failed record without times is finished"),
    ],
)
def test_the_lists_that_an_execution_stands_in(execution: Execution, scores: dict[Index, int]) -> None:
    found = index_scores(execution)
    assert set(found) == set(Index)
    assert {index: score for index, score in found.items() if score is not None} == scores


def test_the_sooner_of_two_due_times_counts() -> None:
    mark = clicked(failed()).state.retry
    assert mark is not None
    sooner = WAITING_AGAIN.with_state(retry=mark.model_copy(update={"resend_at": AGAIN_MS - 1}))
    assert index_scores(sooner)[Index.DUE] == AGAIN_MS - 1
    assert index_scores(WAITING_AGAIN.with_state(retry=mark))[Index.DUE] == AGAIN_MS


# The feed


@pytest.mark.parametrize(
    ("before", "after", "transition"),
    [
        pytest.param(None, pending(), Transition.CLAIMED, id="a new task is claimed"),
        pytest.param(None, running(), Transition.RUNNING, id="a new record shows its status"),
        pytest.param(None, by_hand(Status.FAILED), Transition.FAILED, id="whatever it is"),
        pytest.param(failed(), claimed_again(failed()), Transition.CLAIMED, id="the next attempt is claimed"),
        pytest.param(intended(), running(), Transition.RUNNING, id="it runs"),
        pytest.param(running(), WAITING_AGAIN, Transition.PENDING, id="it waits for its next launch"),
        pytest.param(running(), succeeded(), Transition.SUCCEEDED, id="it succeeds"),
        pytest.param(running(), failed(), Transition.FAILED, id="it fails"),
        pytest.param(pending(), cancelled(), Transition.CANCELLED, id="it is cancelled"),
        pytest.param(lost(), reported_late(), Transition.UPDATED, id="a late result"),
        pytest.param(
            running(),
            running().with_latest(evidence=[Evidence(source="s", observed_at=1, detail="d")]),
            Transition.UPDATED,
            id="evidence",
        ),
        pytest.param(running(), cancelling(running()), Transition.UPDATED, id="a wish to cancel"),
        pytest.param(pending(), suspend(pending(), suspended=True), Transition.UPDATED, id="a suspension"),
        pytest.param(pending(), pending().with_state(assignee="jane"), Transition.UPDATED, id="an assignee"),
        pytest.param(failed(), scheduled(failed()), Transition.UPDATED, id="a schedule"),
        pytest.param(
            reported(intended()),
            reported(intended()).with_latest(worker_id="w"),
            Transition.UPDATED,
            id="a worker id",
        ),
        pytest.param(pending(), intended(), None, id="an intent is nobody's business"),
        pytest.param(running(), claimed(), None, id="nor is the claim of a launch"),
        pytest.param(running(), suspect(running(), 1, suspicion=Suspicion(since=1)), None, id="nor is a suspicion"),
        pytest.param(failed(), clicked(failed()), None, id="nor is the mark of a retry"),
        pytest.param(running(), running(), None, id="nor is nothing"),
    ],
)
def test_the_feed_tells(before: Execution | None, after: Execution, transition: Transition | None) -> None:
    entry = entry_between(before, after, NOW_MS + 3)
    if transition is None:
        assert entry is None
    else:
        expected = FeedEntry(
            "task-1", "incarnation-1", after.state.sequence, after.latest.number, transition, NOW_MS + 3
        )
        assert entry is not None
        assert replace(entry, event=None, outcome=None) == expected


def test_another_incarnation_is_told_as_new() -> None:
    anew = pending().with_state(incarnation="incarnation-2")
    entry = entry_between(failed(), anew, NOW_MS)
    assert entry is not None
    assert (entry.transition, entry.incarnation) == (Transition.CLAIMED, "incarnation-2")


# The write


def snapshot(execution: Execution | None, version: int = 4) -> Snapshot:
    return Snapshot("task-1", execution, version, "digest", NOW_MS + 9)


def test_only_what_changes_is_written() -> None:
    before = failed(attempts=2)
    write = write_for(snapshot(before), at_work(claimed_again(before)))
    assert set(write.attempts) == {"3"}
    assert orjson.loads(write.attempts["3"])["status"] == "running"
    assert write_for(snapshot(before), before.with_state(assignee="jane")).attempts == {}


def test_every_write_is_one_sequence_number_later() -> None:
    before = running().with_state(sequence=7)
    write = write_for(snapshot(before), before.with_state(assignee="jane"))
    assert orjson.loads(write.state)["sequence"] == 8
    assert write.entry is not None
    assert (write.entry.sequence, write.entry.occurred_ms) == (8, NOW_MS + 9)


def test_a_new_record_is_written_in_full() -> None:
    write = write_for(snapshot(None, 0), pending())
    assert set(write.attempts) == {"1"}
    assert write.entry is not None
    assert write.entry.transition is Transition.CLAIMED
    assert write.scores[Index.WAITING] == NOW_MS


def test_a_record_of_others_is_stamped_when_it_is_adopted() -> None:
    foreign = by_hand(Status.FAILED).with_latest(incarnation=None)
    write = write_for(snapshot(foreign), foreign)
    assert orjson.loads(write.attempts["1"])["incarnation"] == "incarnation-1"


def test_a_record_that_was_removed_is_told_without_an_incarnation() -> None:
    assert forgotten_entry(snapshot(None)) == FeedEntry("task-1", "", 0, 0, Transition.FORGOTTEN, NOW_MS + 9)


# The digest


def test_the_digest_is_that_of_fields_in_the_order_of_their_bytes() -> None:
    assert record_digest({}) == ""
    plain = b"1:12:{}2:103:abc1:21:x"
    assert (
        record_digest({"2": b"x", "10": b"abc", "1": b"{}"}) == hashlib.sha1(plain, usedforsecurity=False).hexdigest()
    )


def test_no_two_records_share_a_digest_by_the_way_they_are_joined() -> None:
    digests = {
        record_digest(fields)
        for fields in (
            {"1": b"a", "2": b"b"},
            {"1": b"b", "2": b"a"},
            {"12": b"ab"},
            {"1": b"a1:2b"},
            {"1": b"", "2": b"ab"},
            {"1": b"ab", "2": b""},
            {"1": b"a"},
            {"2": b"a"},
        )
    }
    assert len(digests) == 8


def test_the_incarnation_of_a_record_of_others_is_the_same_at_each_look_and_new_at_each_commit() -> None:
    assert foreign_incarnation(1, "d") == foreign_incarnation(1, "d")
    assert len({foreign_incarnation(1, "d"), foreign_incarnation(2, "d"), foreign_incarnation(1, "e")}) == 3


def test_an_entry_of_a_later_version_is_read_as_far_as_we_know_it() -> None:
    entry = {"task_id": "a", "incarnation": "i", "sequence": 1, "attempt": 1, "transition": "failed", "occurred_ms": 1}
    assert entry_from_document({**entry, "newer": {"deep": None}}) == entry_from_document(entry)
    assert entry_from_document(entry).transition is Transition.FAILED
    assert entry_from_document({**entry, "transition": "hibernated"}).transition is Transition.UPDATED
