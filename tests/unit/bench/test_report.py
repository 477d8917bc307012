"""The table at the end of a benchmark, as it is printed."""

from __future__ import annotations

import pytest

from bench.report import Figure, render

FACTS = {"Machine": "2 cores", "Python": "CPython 3.11.7"}


def test_the_whole_report() -> None:
    figures = [
        Figure("executions end to end", (90.4, 110, 100.2), "1/s"),
        Figure("ratio of the two", (0.5, 0.75), "", 2, "0.8"),
        Figure("start with 10,000", (12_345.67,), "s", 1),
    ]
    assert render(figures, FACTS, ["SQS was left out."]) == (
        "Machine  2 cores\n"
        "Python   CPython 3.11.7\n"
        "\n"
        "FIGURE                   MEDIAN  UNIT  RUNS        AIM\n"
        "executions end to end       100  1/s   90 110 100\n"
        "ratio of the two           0.62        0.50 0.75   0.8\n"
        "start with 10,000      12,345.7  s\n"
        "\n"
        "- SQS was left out."
    )


def test_without_notes_the_table_ends_it() -> None:
    assert render([Figure("lag", (1,), "ms")], FACTS).endswith("lag          1  ms")


@pytest.mark.parametrize(("values", "median"), [((3.0,), 3.0), ((9.0, 1.0, 2.0), 2.0), ((4.0, 1.0), 2.5)])
def test_the_median_does_not_follow_one_bad_run(values: tuple[float, ...], median: float) -> None:
    assert Figure("lag", values, "ms").median == median
