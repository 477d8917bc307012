"""What the record calls for."""

from __future__ import annotations

import pytest

from executions.control import suspend
from executions.lifecycle import launch_failed
from executions.plan import (
    REPLAY_LIMIT_MS,
    Action,
    FindWorker,
    IntendLaunch,
    LaunchWorker,
    ResendRetry,
    StopWorker,
    plan,
)
from executions.record import Execution
from tests.support.builders import NOW_MS, POLICY, intended, pending, running
from tests.unit.domain.states import (
    at_work,
    by_hand,
    cancelled,
    cancelling,
    claimed_again,
    failed,
    scheduled,
    succeeded,
)
from tests.unit.domain.test_retry import clicked

INTENDED = intended()
assert INTENDED.latest.launch is not None
LAUNCH = LaunchWorker(1, INTENDED.latest.launch)
FIND = FindWorker(1, INTENDED.latest.launch)
WAIT_MS = POLICY.launch_wait_ms(1)
WAITING = launch_failed(INTENDED, 1, 1, code="X", message="x", permanent=False, now_ms=NOW_MS, policy=POLICY)


@pytest.mark.parametrize(
    ("execution", "after_ms", "actions"),
    [
        pytest.param(pending(), 0, (IntendLaunch(1),), id="a claimed attempt gets a launch"),
        pytest.param(claimed_again(failed()), 0, (IntendLaunch(2),), id="so does the next attempt"),
        pytest.param(suspend(pending(), suspended=True), 0, (), id="unless it is suspended"),
        pytest.param(WAITING, WAIT_MS - 1, (), id="a failed launch waits for its back-off"),
        pytest.param(WAITING, WAIT_MS, (IntendLaunch(1),), id="and is tried again after it"),
        pytest.param(suspend(WAITING, suspended=True), WAIT_MS, (), id="unless it was suspended meanwhile"),
        pytest.param(INTENDED, 0, (LAUNCH,), id="an intent without an answer is sent"),
        pytest.param(INTENDED, REPLAY_LIMIT_MS - 1, (LAUNCH,), id="again and again"),
        pytest.param(INTENDED, REPLAY_LIMIT_MS, (FIND,), id="until its token may be forgotten: then it is looked for"),
        pytest.param(INTENDED, 10**9, (FIND,), id="however long it takes to be found"),
        pytest.param(suspend(INTENDED, suspended=True), 10**9, (FIND,), id="also when suspended by then"),
        pytest.param(cancelling(INTENDED), 10**9, (FIND,), id="also when cancelled by then"),
        pytest.param(running(), 10**9, (), id="a launch that was answered has no limit"),
        pytest.param(
            cancelling(running()),
            10**9,
            (StopWorker(1, "worker-of-task-1", "not needed"),),
            id="an old worker is stopped as a young one",
        ),
        pytest.param(suspend(INTENDED, suspended=True), 0, (LAUNCH,), id="also when suspended: a worker may exist"),
        pytest.param(cancelling(INTENDED), 0, (LAUNCH,), id="also when cancelled: the answer says whom to stop"),
        pytest.param(running(), 0, (), id="a running worker is left alone"),
        pytest.param(suspend(running(), suspended=True), 0, (), id="also when suspended"),
        pytest.param(
            cancelling(running()),
            0,
            (StopWorker(1, "worker-of-task-1", "not needed"),),
            id="a cancelled worker is stopped",
        ),
        pytest.param(
            at_work(claimed_again(failed())).with_state(cancellation=cancelling(running()).state.cancellation),
            0,
            (),
            id="the wish for an earlier attempt stops nobody",
        ),
        pytest.param(by_hand(), 0, (), id="a running record without a worker calls for nothing"),
        pytest.param(by_hand(worker_id="arn"), 0, (), id="one with a worker neither"),
        pytest.param(succeeded(), 0, (), id="a success calls for nothing"),
        pytest.param(cancelled(), 0, (), id="a cancellation neither"),
        pytest.param(failed(), 0, (), id="a failure neither"),
        pytest.param(scheduled(failed()), 0, (), id="a schedule is not ours to promote"),
        pytest.param(clicked(failed()), POLICY.retry_redeliver_ms - 1, (), id="a marked retry has its time"),
        pytest.param(clicked(failed()), POLICY.retry_redeliver_ms, (ResendRetry(2),), id="and is sent again after it"),
        pytest.param(claimed_again(clicked(failed())), 10**9, (IntendLaunch(2),), id="a claimed retry is launched"),
    ],
)
def test_the_plan(execution: Execution, after_ms: int, actions: tuple[Action, ...]) -> None:
    assert plan(execution, now_ms=NOW_MS + after_ms) == actions


@pytest.mark.parametrize(
    ("limit_ms", "age_ms", "action"),
    [
        pytest.param(None, 10**12, LAUNCH, id="a launcher without a limit is sent the launch after any time"),
        pytest.param(1_000, 999, LAUNCH, id="just within the launcher's limit"),
        pytest.param(1_000, 1_000, FIND, id="just outside it"),
        pytest.param(1_000, -60_000, LAUNCH, id="a clock that was set back makes no launch old"),
    ],
)
def test_how_long_a_launch_is_sent_is_the_launchers_own_property(
    limit_ms: int | None, age_ms: int, action: Action
) -> None:
    assert plan(INTENDED, now_ms=NOW_MS + age_ms, replay_limit_ms=limit_ms) == (action,)


def test_the_limit_is_well_within_the_hour_after_which_ecs_may_forget_a_token() -> None:
    assert REPLAY_LIMIT_MS == 50 * 60_000
