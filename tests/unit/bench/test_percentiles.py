"""Percentiles are values that were measured, whatever the number of values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.percentiles import percentile

HUNDRED = list(range(1, 101))


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1), (1, 1), (50, 50), (98.5, 99), (99, 99), (99.1, 100), (100, 100)]
)
def test_of_a_hundred_values_the_nth_percentile_is_the_nth(percent: float, expected: int) -> None:
    assert percentile(HUNDRED, percent) == expected


@pytest.mark.parametrize(
    ("values", "percent", "expected"), [([7], 1, 7), ([7], 99, 7), ([9, 1], 50, 1), ([9, 1], 51, 9)]
)
def test_few_values_in_any_order(values: list[float], percent: float, expected: float) -> None:
    assert percentile(values, percent) == expected


@given(st.lists(st.floats(allow_nan=False), min_size=1), st.floats(0, 100))
def test_enough_of_the_values_are_no_larger_and_it_is_the_smallest_such_value(
    values: list[float], percent: float
) -> None:
    found = percentile(values, percent)
    needed = len(values) * percent / 100
    assert found in values
    assert sum(value <= found for value in values) >= needed
    assert found == min(values) or sum(value < found for value in values) < needed


def test_nothing_has_no_percentile() -> None:
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 50)


@pytest.mark.parametrize("percent", [-1, 100.5])
def test_a_percentile_outside_of_0_to_100_is_refused(percent: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 100"):
        percentile([1], percent)
