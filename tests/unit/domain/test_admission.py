"""May a launch begin now: slots, the line, the hold."""

from __future__ import annotations

import pytest

from executions.admission import Hindrance, Slots, Standing, hindrance, next_in_line, who_holds
from executions.control import suspend
from executions.index import Place, place
from executions.lifecycle import hindered, intend_launch, launch_failed
from executions.record import Execution, Waiting
from tests.support.builders import NOW_MS, POLICY, intended, pending, running
from tests.unit.domain.states import failed, succeeded

TEN = Slots(total=10)
FIVE_EACH = Slots(per_type={"a": 5, "b": 5})
BOTH = Slots(total=10, per_type={"a": 8})


@pytest.mark.parametrize(
    ("slots", "live", "older", "expected"),
    [
        pytest.param(Slots(), {"a": 9_999}, {"a": 9_999}, None, id="no limit, no line"),
        pytest.param(TEN, {"a": 4, "b": 5}, {}, None, id="the last slot"),
        pytest.param(TEN, {"a": 4, "b": 6}, {}, Hindrance.NO_SLOT, id="none left"),
        pytest.param(TEN, {"a": 14}, {}, Hindrance.NO_SLOT, id="more than there may be, after the limit was lowered"),
        pytest.param(FIVE_EACH, {"a": 5}, {}, Hindrance.NO_SLOT_OF_TYPE, id="none left of this type"),
        pytest.param(FIVE_EACH, {"b": 5}, {}, None, id="another type is full"),
        pytest.param(FIVE_EACH, {"a": 3}, {"a": 1}, None, id="one older, two free"),
        pytest.param(FIVE_EACH, {"a": 3}, {"a": 2}, Hindrance.NOT_ITS_TURN, id="two older, two free"),
        pytest.param(TEN, {"b": 8}, {"b": 1}, None, id="one older of another type, two free"),
        pytest.param(TEN, {"b": 8}, {"b": 1, "a": 1}, Hindrance.NOT_ITS_TURN, id="two older of two types, two free"),
        pytest.param(BOTH, {"a": 0, "b": 9}, {"b": 5}, Hindrance.NOT_ITS_TURN, id="older ones of an unlimited type"),
        pytest.param(
            Slots(total=10, per_type={"b": 5}), {"b": 5}, {"b": 99}, None, id="those of a full type hold up no other"
        ),
        pytest.param(
            Slots(total=6, per_type={"b": 5}), {"b": 4}, {"b": 99}, None, id="but one of them can begin, of two slots"
        ),
        pytest.param(
            Slots(total=5, per_type={"b": 5}), {"b": 4}, {"b": 99}, Hindrance.NOT_ITS_TURN, id="which is the last one"
        ),
        pytest.param(Slots(per_type={"a": 0}), {}, {}, Hindrance.NO_SLOT_OF_TYPE, id="a type that is switched off"),
    ],
)
def test_what_keeps_an_attempt_of_type_a_from_its_launch(
    slots: Slots, live: dict[str, int], older: dict[str, int], expected: Hindrance | None
) -> None:
    assert hindrance("a", slots=slots, is_held=False, live=live, older=older) is expected
    assert hindrance("a", slots=slots, is_held=True, live=live, older=older) is Hindrance.HELD


def test_a_type_whose_breaker_is_open_begins_nothing_and_holds_up_no_other() -> None:
    older = {"a": 1, "b": 99}
    barred = hindrance("b", slots=TEN, is_held=False, live={}, older=older, barred={"b"})
    assert barred is Hindrance.BREAKER_OPEN
    assert hindrance("a", slots=TEN, is_held=False, live={}, older=older, barred={"b"}) is None
    assert hindrance("a", slots=TEN, is_held=False, live={}, older=older) is Hindrance.NOT_ITS_TURN


@pytest.mark.parametrize(
    ("slots", "live", "expected"),
    [
        (Slots(total=3), {}, ["a1", "b1", "a2"]),
        (Slots(total=3), {"a": 1}, ["a1", "b1"]),
        (Slots(total=3), {"a": 3}, []),
        (Slots(per_type={"a": 1}), {}, ["a1", "b1", "b2"]),
        (Slots(total=3, per_type={"a": 1}), {"a": 1}, ["b1", "b2"]),
        (Slots(total=1, per_type={"a": 1}), {}, ["a1"]),
        (Slots(), {}, ["a1", "b1", "a2", "a3", "b2"]),
    ],
)
def test_whose_turn_it_is(slots: Slots, live: dict[str, int], expected: list[str]) -> None:
    heads = {"a": [(1, "a1"), (3, "a2"), (4, "a3")], "b": [(2, "b1"), (5, "b2")]}
    assert next_in_line(Standing(live, {}, heads), slots) == expected


def test_who_holds_what_is_told_in_words() -> None:
    standing = Standing({"digest": 5, "implementation": 15, "bug-hunter": 0}, {})
    assert who_holds(standing, Slots(20, {"digest": 5}), "digest") == (
        "5 of 5 slots for digest and 20 of 20 slots in all are held (digest 5, implementation 15)"
    )
    assert who_holds(standing, Slots(20), "digest") == "20 of 20 slots in all are held (digest 5, implementation 15)"
    assert who_holds(Standing({}, {}), Slots(None, {"digest": 0}), "digest") == (
        "0 of 0 slots for digest are held (nobody)"
    )


def relaunching() -> Execution:
    return launch_failed(
        intended(), 1, 1, code="LAUNCH_CAPACITY", message="no", permanent=False, now_ms=NOW_MS, policy=POLICY
    )


def waiting(execution: Execution, reason: str) -> Execution:
    return hindered(execution, 1, Waiting(reason=reason, message="why", since=NOW_MS))


@pytest.mark.parametrize(
    ("execution", "since_ms", "live_ms"),
    [
        pytest.param(pending(), NOW_MS, None, id="it waits"),
        pytest.param(suspend(pending(), suspended=True), None, None, id="a suspended one keeps nobody waiting"),
        pytest.param(relaunching(), NOW_MS + 1_000, None, id="not before its pause is over"),
        pytest.param(waiting(pending(), "SlotUnavailable"), NOW_MS, None, id="one that waits for a slot"),
        pytest.param(waiting(pending(), "NoLauncher"), None, None, id="one that nobody here can launch"),
        pytest.param(intended(), None, NOW_MS, id="a launch on its way holds its slot"),
        pytest.param(running(), None, NOW_MS, id="a worker at work holds it"),
        pytest.param(succeeded(), None, None, id="the end"),
        pytest.param(failed(), None, None, id="a failure"),
    ],
)
def test_where_an_execution_stands(execution: Execution, since_ms: int | None, live_ms: int | None) -> None:
    assert place(execution) == Place("implementation", since_ms, live_ms)


def test_what_hinders_a_launch_is_noted_once_and_gone_with_the_launch() -> None:
    held = waiting(pending(), "Held")
    assert waiting(held, "Held") is held
    assert waiting(held, "SlotUnavailable").latest.waiting != held.latest.waiting
    assert waiting(running(), "Held") == running()
    launched = intend_launch(held, 1, token="t" * 64, request={}, now_ms=NOW_MS, policy=POLICY)
    assert launched.latest.waiting is None
