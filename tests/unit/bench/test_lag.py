"""A change was shown once the watch told its sequence number or a later one."""

from __future__ import annotations

import pytest

from bench.errors import BenchError
from bench.lag import lags_ms
from executions.feed import FeedEntry, Transition


def change(sequence: int, occurred_ms: int, task_id: str = "task-1") -> FeedEntry:
    return FeedEntry(task_id, "incarnation-1", sequence, 1, Transition.RUNNING, occurred_ms)


def test_the_first_sight_counts() -> None:
    assert lags_ms([change(3, 1000)], {"task-1": [(1, 900.0), (3, 1007.5), (3, 1090.0)]}) == [7.5]


def test_a_change_that_was_written_together_with_a_later_one_is_shown_by_it() -> None:
    assert lags_ms([change(3, 1000), change(4, 1020)], {"task-1": [(1, 900.0), (4, 1050.0)]}) == [50.0, 30.0]


def test_tasks_are_not_mixed_up() -> None:
    sightings = {"task-1": [(3, 1010.0)], "task-2": [(3, 2020.0)]}
    assert lags_ms([change(3, 1000), change(3, 2000, "task-2")], sightings) == [10.0, 20.0]


@pytest.mark.parametrize("seen", [{}, {"task-1": [(2, 1010.0)]}, {"task-2": [(3, 1010.0)]}])
def test_a_change_that_was_never_shown_is_no_lag_but_an_error(seen: dict[str, list[tuple[int, float]]]) -> None:
    with pytest.raises(BenchError, match="task-1"):
        lags_ms([change(3, 1000)], seen)
