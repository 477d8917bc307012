"""A ladder takes the first rung that works, and says all it tried when none does."""

from __future__ import annotations

from pathlib import Path

import pytest

from devstack.errors import NothingFound
from devstack.ladder import Ladder, Missed, Rung

FOUND = {"tool": Path("/somewhere/tool")}


def miss(reason: str) -> dict[str, Path]:
    raise Missed(reason)


def never() -> dict[str, Path]:
    raise AssertionError("a rung below the first that works was tried")


def test_the_first_rung_that_works_wins_and_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    rungs = (Rung("first", lambda: miss("not set")), Rung("second", lambda: FOUND), Rung("third", never))
    ladder = Ladder("the tool of this test", rungs, advice="Install it.")
    assert ladder.climb() == FOUND
    assert capsys.readouterr().err == "the tool of this test: second\n"


def test_the_winner_is_told_once_per_process(capsys: pytest.CaptureFixture[str]) -> None:
    ladder = Ladder("a tool asked for twice", (Rung("only", lambda: FOUND),), advice="")
    ladder.climb()
    ladder.climb()
    assert capsys.readouterr().err.count("asked for twice") == 1


def test_one_error_lists_every_rung_with_its_reason_in_order() -> None:
    rungs = (Rung("variable", lambda: miss("not set")), Rung("download", lambda: miss("no network")))
    with pytest.raises(NothingFound) as caught:
        Ladder("tool", rungs, advice="Install it.").climb()
    assert str(caught.value).splitlines() == [
        "no tool could be had. Install it. Tried:",
        "  - variable: not set",
        "  - download: no network",
    ]


def test_an_error_that_is_not_a_miss_is_not_hidden() -> None:
    def broken() -> dict[str, Path]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Ladder("tool", (Rung("broken", broken), Rung("next", lambda: FOUND)), advice="").climb()
