"""Points in time: milliseconds inside, ISO text outside."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from executions.moment import FOREIGN, Moment, iso_from_ms, ms_from_iso

FIRST_MS, LAST_MS = -62_135_596_800_000, 253_402_300_799_999


class Sample(BaseModel):
    at: Moment


@pytest.mark.parametrize(
    ("text", "value_ms"),
    [
        pytest.param("2023-11-14T22:13:20.123Z", 1_700_000_000_123, id="UTC with milliseconds"),
        pytest.param("2023-11-14T22:13:20Z", 1_700_000_000_000, id="UTC without a fraction"),
        pytest.param("2023-11-15T00:13:20.123+02:00", 1_700_000_000_123, id="another zone"),
        pytest.param("2023-11-14T22:13:20.123", 1_700_000_000_123, id="no zone is UTC"),
        pytest.param("2023-11-14T22:13:20.123456Z", 1_700_000_000_123, id="microseconds are rounded"),
        pytest.param("2023-11-14", 1_699_920_000_000, id="a day is its midnight"),
    ],
)
def test_iso_text_is_read(text: str, value_ms: int) -> None:
    assert ms_from_iso(text) == value_ms


@pytest.mark.parametrize("text", ["", "soon", "2023-13-01", "1700000000"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"Invalid isoformat|month must be"):
        ms_from_iso(text)


@given(st.integers(FIRST_MS, LAST_MS))
def test_no_millisecond_is_lost_on_the_way_to_text_and_back(value_ms: int) -> None:
    assert ms_from_iso(iso_from_ms(value_ms)) == value_ms
    assert iso_from_ms(value_ms).endswith("Z")


def test_times_as_text_sort_like_the_times() -> None:
    times = [0, 1, 999, 1000, 1_700_000_000_000, 1_700_000_000_010]
    assert sorted(iso_from_ms(item) for item in times) == [iso_from_ms(item) for item in times]


@pytest.mark.parametrize(
    ("value", "foreign", "value_ms"),
    [
        pytest.param(1_700_000_000_123, False, 1_700_000_000_123, id="our own numbers are milliseconds"),
        pytest.param(1_700_000_000, False, 1_700_000_000, id="also small ones"),
        pytest.param(1_700_000_000, True, 1_700_000_000_000, id="a foreign small number is seconds"),
        pytest.param(1_700_000_000.5, True, 1_700_000_000_500, id="with a fraction too"),
        pytest.param(1_700_000_000_123, True, 1_700_000_000_123, id="a foreign large number is milliseconds"),
        pytest.param("2023-11-14T22:13:20.123Z", True, 1_700_000_000_123, id="text is text from anybody"),
    ],
)
def test_a_field_takes_numbers_and_text(value: object, foreign: bool, value_ms: int) -> None:
    sample = Sample.model_validate({"at": value}, context=FOREIGN if foreign else None)
    assert sample.at == value_ms
    assert sample.model_dump_json() == f'{{"at":"{iso_from_ms(value_ms)}"}}'


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("soon", id="text that is no time"),
        pytest.param("0001-01-01T00:00:00+14:00", id="a time before the first year, once in UTC"),
        pytest.param("9999-12-31T23:59:59-14:00", id="a time after the last year, once in UTC"),
        pytest.param(99_999_999_999_999_999, id="a number that could never be written as text again"),
        pytest.param(1e30, id="an absurd number"),
        pytest.param(-1e14, id="an absurd negative number"),
        pytest.param([], id="a list"),
        pytest.param({}, id="an object"),
    ],
)
def test_what_is_no_time_is_refused(value: Any) -> None:
    with pytest.raises(ValidationError):
        Sample.model_validate({"at": value}, context=FOREIGN)
