"""Each safeguard is needed: without it the checker finds a way to a violation, with it there is none from there."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.model.check import check
from tests.model.invariants import two_launches, violation
from tests.model.steps import ALL, after, steps
from tests.model.world import Message, Safeguards, World

A, B = "controller A", "controller B"
INTENDED = (f"{A} decides", f"{A} commits and deletes m1", f"{A} plans", f"{A} commits")
SENT = (*INTENDED, f"{A} is about", f"{A} sends the launch, w1")
AT_WORK = (*SENT, f"{A} notes w1", "w1 claims")
OVERTAKEN = (
    *(f"{A} decides on m1", f"{B} decides on m0", f"{B} commits and deletes m0"),
    *(f"{B} plans", f"{B} commits", f"{B} is about", f"{B} sends the launch, w1", f"{B} notes w1", "w1 claims"),
)
"""Controller A has decided on what was there before all that B did."""
FAILED_AND_NOT_DELETED = (
    *(f"{A} decides on m1", f"{A} commits", f"{A} plans", f"{A} commits", f"{A} is about"),
    *(f"{A} sends the launch, w1", f"{A} notes w1", "w1 claims", "w1 fails", "the outcome of w1 arrives"),
)
"""The first attempt has failed, and the message that began it is still on the queue."""
START = replace(World(), passes=2)
TWO_MESSAGES = replace(START, queue=(Message("m1"), Message("m0")))


@pytest.mark.parametrize(
    ("safeguard", "begins", "kinds", "violated", "problem"),
    [
        pytest.param(
            "version",
            OVERTAKEN,
            ("commit", "reconcile", "send", "note", "claim"),
            violation,
            "2 workers worked on attempt 1",
            id="a commit on what is out of date takes back what was done",
        ),
        pytest.param(
            "token",
            INTENDED,
            ("reconcile", "send", "note"),
            two_launches,
            "attempt 1 of life 1 has 2 workers",
            id="a launch that is sent again with another token starts another worker",
        ),
        pytest.param(
            "claim",
            INTENDED,
            ("reconcile", "send", "note", "claim", "forget"),
            violation,
            "2 workers worked on attempt 1",
            id="a launcher that forgets a token starts two, and both work",
        ),
        pytest.param(
            "incarnation",
            SENT,
            ("deliver", "commit", "reconcile", "note", "remove"),
            violation,
            "life 2 adopted w1, a worker of life 1",
            id="a task that was made anew adopts the worker of the old one",
        ),
        pytest.param(
            "fence",
            AT_WORK,
            ("finish", "callback", "retry", "deliver", "commit", "reconcile"),
            violation,
            "attempt 2 of life 1 was decided by w1",
            id="an outcome that comes twice decides the next attempt",
        ),
        pytest.param(
            "fence",
            AT_WORK,
            ("finish", "callback", "remove", "deliver", "commit", "reconcile"),
            violation,
            "attempt 1 of life 2 was decided by w1",
            id="an outcome decides a task that was made anew",
        ),
        pytest.param(
            "grace",
            AT_WORK,
            ("finish", "callback", "look", "time"),
            violation,
            "w1 was judged lost while its outcome was on its way",
            id="a worker that has reported is judged before its outcome arrives",
        ),
        pytest.param(
            "memory",
            FAILED_AND_NOT_DELETED,
            ("deliver", "commit"),
            violation,
            "there are 2 attempts, and 1 were asked for",
            id="a message that comes again is a retry that nobody asked for",
        ),
    ],
)
def test_a_safeguard_is_needed_and_enough(
    safeguard: str,
    begins: tuple[str, ...],
    kinds: tuple[str, ...],
    violated: Callable[[World], str | None],
    problem: str,
) -> None:
    start = TWO_MESSAGES if begins is OVERTAKEN else START
    off = replace(Safeguards(), **{safeguard: False})
    without = check(after(start, *begins, on=off), off, kinds, violated=violated)
    assert problem in str(without.problem)
    assert without.path
    with_it = check(after(start, *begins), Safeguards(), kinds, violated=violated)
    assert with_it.problem is None, str(with_it)
    assert with_it.is_complete


def test_nothing_is_found_near_the_beginning_with_all_safeguards_on() -> None:
    found = check(START, Safeguards(), ALL, worlds=6_000)
    assert found.problem is None, str(found)
    assert found.explored == 6_000


QUIET = ("deliver", "commit", "reconcile", "send", "note", "claim", "finish", "callback", "look", "time")
"""What goes on when trouble is over."""


@pytest.mark.parametrize("seed", range(40))
def test_far_from_the_beginning_nothing_is_violated_and_everything_still_ends(seed: int) -> None:
    draw = random.Random(seed)
    world, path = replace(World(queue=(Message("m1"), Message("m1-again"))), passes=3), list[str]()
    for _ in range(60):
        possible = list(steps(world, Safeguards(), ALL))
        if not possible:
            break
        name, world = draw.choice(possible)
        path.append(name)
        assert violation(world) is None, (violation(world), path)
    # Trouble is over: whatever happened, the task comes to an end, and on its way nothing is violated either.
    world = replace(world, passes=20, looks=0, sent=0)
    for _ in range(200):
        if world.execution is not None and world.execution.latest.status.is_finished and not world.queue:
            return
        possible = list(steps(replace(world, looks=0, sent=0), Safeguards(), QUIET))
        assert possible, (path, "nothing can happen any more")
        name, world = draw.choice(possible)
        path.append(name)
        assert violation(world) is None, (violation(world), path)
    raise AssertionError(("it does not end", path))
