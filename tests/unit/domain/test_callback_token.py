"""Callback tokens: the same at every replay, good for one launch and no other; a bad one tells nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executions.callback_token import LIFE_MS, BadToken, KeyRing, LaunchProof
from executions.lifecycle import intend_launch
from executions.names import launch_token
from executions.record import Launch
from tests.support.builders import NOW_MS, POLICY, pending

OLD, NEW = b"o" * 32, b"n" * 32
RING = KeyRing("new", {"old": OLD, "new": NEW}, "alakai-executions")
TASK = "task-1"


def launch(
    attempt: int = 1, launch_try: int = 1, incarnation: str = "a", key: str | None = "new", task_id: str = TASK
) -> Launch:
    return Launch(
        launch_try=launch_try,
        token=launch_token("alakai-executions", task_id, incarnation, attempt, launch_try),
        intent_at=NOW_MS,
        start_by=NOW_MS,
        callback_key=key,
        callback_expires_at=None if key is None else NOW_MS + LIFE_MS,
    )


def token(ring: KeyRing = RING, attempt: int = 1, **fields: Any) -> str:
    made = ring.token(TASK, attempt, launch(attempt, **fields))
    assert made is not None
    return made


def test_a_token_proves_its_launch() -> None:
    found = RING.proof(token(attempt=2, launch_try=3), TASK, now_ms=NOW_MS)
    assert (found.attempt, found.launch_try) == (2, 3)
    assert found.is_of(launch(2, 3))


def test_a_replay_hands_out_the_very_same_token() -> None:
    rotated = replace(RING, current="newer", keys={**RING.keys, "newer": b"x" * 32})
    assert token() == token(rotated)


def test_it_fits_beside_everything_else_in_the_overrides_of_ecs() -> None:
    long = KeyRing("k" * 32, {"k" * 32: NEW}, "p" * 64)
    assert len(token(long, 1000, launch_try=100, key="k" * 32)) <= 150


def test_what_is_intended_says_which_key_and_for_how_long() -> None:
    made = intend_launch(
        pending(), 1, token="t" * 64, request={}, now_ms=NOW_MS, policy=POLICY, callback_key="new"
    ).latest.launch
    assert made is not None
    assert (made.callback_key, made.callback_expires_at) == ("new", NOW_MS + LIFE_MS)


@pytest.mark.parametrize("made", [launch(key=None), launch(key="gone")], ids=["made without", "key is gone"])
def test_without_its_key_there_is_no_token(made: Launch) -> None:
    assert RING.token(TASK, 1, made) is None


def test_both_keys_verify_until_one_is_taken_away() -> None:
    old = token(key="old")
    assert RING.proof(old, TASK, now_ms=NOW_MS).is_of(launch())
    with pytest.raises(BadToken):
        replace(RING, keys={"new": NEW}).proof(old, TASK, now_ms=NOW_MS)


@pytest.mark.parametrize(
    ("case", "ring", "text", "task_id", "now_ms"),
    [
        ("for another task", RING, token(), "task-2", NOW_MS),
        ("of another installation with the same keys", replace(RING, audience="other"), token(), TASK, NOW_MS),
        ("signed with another key under this id", replace(RING, keys={"new": OLD}), token(), TASK, NOW_MS),
        ("expired", RING, token(), TASK, NOW_MS + LIFE_MS),
        ("cut", RING, token()[:-1], TASK, NOW_MS),
        ("followed by something", RING, token() + "\n", TASK, NOW_MS),
        ("another version", RING, "v2" + token()[2:], TASK, NOW_MS),
        ("nothing", RING, "", TASK, NOW_MS),
        ("a number that no int can be made of", RING, token().replace(".1.", f".{'9' * 5000}.", 1), TASK, NOW_MS),
        ("not ASCII", RING, token().replace(".1.", ".\u0661.", 1), TASK, NOW_MS),
    ],
)
def test_a_token_that_proves_nothing(case: str, ring: KeyRing, text: str, task_id: str, now_ms: int) -> None:
    with pytest.raises(BadToken) as caught:
        ring.proof(text, task_id, now_ms=now_ms)
    assert str(caught.value) == "not a callback token of ours"


launches = st.tuples(st.integers(1, 1000), st.integers(1, 100), st.text("abcdef0123456789", min_size=1, max_size=16))


@given(launches, launches)
def test_a_token_is_for_one_launch_and_no_other(one: tuple[int, int, str], other: tuple[int, int, str]) -> None:
    proof = RING.proof(token(attempt=one[0], launch_try=one[1], incarnation=one[2]), TASK, now_ms=NOW_MS)
    assert proof.is_of(launch(*other)) is (one == other)


@given(st.integers(0, 200), st.sampled_from("0129abzAZ-_."))
def test_a_token_of_which_one_character_is_changed_proves_nothing(place: int, character: str) -> None:
    good = token()
    place %= len(good)
    if good[place] == character:
        return
    with pytest.raises(BadToken):
        RING.proof(good[:place] + character + good[place + 1 :], TASK, now_ms=NOW_MS)


def test_neither_a_key_nor_a_token_is_ever_shown() -> None:
    assert "nnnn" not in repr(RING)
    assert not LaunchProof(1, 1, "x").is_of(None)
