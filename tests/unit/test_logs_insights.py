"""The evaluator that the guide's queries are run with, on lines made for it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.logs_insights import query

ROWS: list[dict[str, Any]] = [
    {"time": "1", "event": "a.b", "outcome": "error", "duration_ms": 10, "context": {"component": "core"}},
    {"time": "2", "event": "a.c", "outcome": "success", "duration_ms": 30, "context": {"component": "core"}},
    {"time": "3", "event": "slack.x", "outcome": "error", "duration_ms": 20, "slack": {"user_id": "U1"}},
    {"time": "4", "msg": "no summary"},
]
LINES = [json.dumps(row) for row in ROWS] + ["no JSON", "[]"]


@pytest.mark.parametrize(
    ("condition", "times"),
    [
        ('outcome = "error"', ["1", "3"]),
        ('outcome != "error"', ["2"]),
        ('context.component = "core" and duration_ms > 10', ["2"]),
        ('event = "a.b" or event = "a.c"', ["1", "2"]),
        ('(event = "a.b" or event = "slack.x")\nand slack.user_id = "U1"', ["3"]),
        (r"event like /^slack\./", ["3"]),
        ('event like "a."', ["1", "2"]),
        ("event like /./", ["1", "2", "3"]),
        ('not outcome = "error" and event like /a/', ["2"]),
        ('duration_ms = "10"', []),
        ("duration_ms >= 20", ["2", "3"]),
    ],
)
def test_a_condition(condition: str, times: list[str]) -> None:
    assert [row["@timestamp"] for row in query(f"fields @timestamp | filter {condition}", LINES)] == times


def test_rows_are_sorted_and_limited_and_show_what_was_asked_for() -> None:
    found = query("fields event, duration_ms, none | sort duration_ms desc | limit 2", LINES)
    assert found == [{"event": "a.c", "duration_ms": 30}, {"event": "slack.x", "duration_ms": 20}]


def test_figures_are_by_group() -> None:
    text = "filter outcome like /./ | stats pct(duration_ms, 50) as p50, count() as n by outcome | sort p50 desc"
    assert query(text, LINES) == [
        {"outcome": "success", "p50": 30, "n": 1},
        {"outcome": "error", "p50": 10, "n": 2},
    ]


@pytest.mark.parametrize("text", ["parse x", "fields a | filter", "filter a =", "filter (a = 1", "filter a = 1 b"])
def test_what_is_not_of_the_language_is_refused(text: str) -> None:
    with pytest.raises((ValueError, KeyError)):
        query(text, LINES)
