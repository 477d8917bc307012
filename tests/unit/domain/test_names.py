"""Names: the custom resource's, the launch token, the condition reason."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executions.errors import InvalidTask
from executions.names import OUR_ERROR_CODES, checked_task_id, launch_token, reason_from_code, resource_name

task_ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}", fullmatch=True)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("a", id="one letter is enough"),
        pytest.param("0", id="it may begin with a digit"),
        pytest.param("Impl.E2E_x:1-b", id="all allowed characters"),
        pytest.param("x" * 128, id="128 characters are the most"),
    ],
)
def test_a_task_id_is_returned_as_it_is(value: str) -> None:
    assert checked_task_id(value) == value


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("", id="nothing"),
        pytest.param("x" * 129, id="one character too many"),
        pytest.param("-a", id="a dash in front"),
        pytest.param(".a", id="a dot in front"),
        pytest.param("a/b", id="a slash, which would name another key"),
        pytest.param("a b", id="a space"),
        pytest.param("a\n", id="a line feed at the end, which a careless pattern takes"),
        pytest.param("a\x00", id="a null byte"),
        pytest.param("*", id="a pattern of keys"),
        pytest.param("é", id="a letter beyond ASCII"),
        pytest.param("\u0661", id="a digit beyond ASCII"),
        pytest.param("a{b}", id="braces, which choose a cluster's slot"),
        pytest.param(1, id="a number"),
        pytest.param(None, id="null"),
        pytest.param(["a"], id="a list"),
        pytest.param(True, id="a truth value"),
    ],
)
def test_anything_else_is_refused_and_not_echoed(value: object) -> None:
    with pytest.raises(InvalidTask, match="taskId must start") as caught:
        checked_task_id(value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("task_id", "name"),
    [
        pytest.param("impl-e2e", "impl-e2e", id="an id that is an object name stays readable"),
        pytest.param("a.b-c.d", "a.b-c.d", id="a DNS subdomain with dots too"),
        pytest.param("x" * 63, "x" * 63, id="up to 63 characters"),
        pytest.param("x" * 64, None, id="64 characters are hashed"),
        pytest.param("Impl", None, id="capitals are hashed"),
        pytest.param("a_b", None, id="an underscore is hashed"),
        pytest.param("a:b", None, id="a colon is hashed"),
        pytest.param("a-", None, id="a dash at the end is hashed"),
        pytest.param("a.-b", None, id="a label that begins with a dash is hashed"),
        pytest.param("a..b", None, id="an empty label is hashed"),
        pytest.param(
            "x-0123456789abcdef0123",
            None,
            id="an id that looks like a hashed name is hashed itself",
        ),
        pytest.param("0_____________________", None, id="an id whose slug is almost empty"),
    ],
)
def test_the_resource_name(task_id: str, name: str | None) -> None:
    found = resource_name(task_id)
    if name is not None:
        assert found == name
    else:
        assert found != task_id
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?-[0-9a-f]{20}", found)


@given(task_ids)
def test_every_resource_name_is_one_that_kubernetes_takes(task_id: str) -> None:
    name = resource_name(task_id)
    label = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
    assert len(name) <= 63
    assert re.fullmatch(rf"{label}(\.{label})*", name)


@given(task_ids)
def test_no_task_can_take_the_resource_of_another(task_id: str) -> None:
    name = resource_name(task_id)
    if name != task_id:
        assert resource_name(name) != name


def test_ids_that_differ_only_in_what_the_slug_drops_have_their_own_resources() -> None:
    assert len({resource_name(task_id) for task_id in ("A.b", "a_b", "a:b", "A:b", "a.B")}) == 5


def test_the_launch_token_is_stable_and_every_part_of_it_counts() -> None:
    token = launch_token("prefix", "task", "one", 1, 1)
    assert re.fullmatch(r"[0-9a-f]{64}", token)
    assert token == launch_token("prefix", "task", "one", 1, 1)
    others = {
        launch_token("other", "task", "one", 1, 1),
        launch_token("prefix", "other", "one", 1, 1),
        launch_token("prefix", "task", "two", 1, 1),
        launch_token("prefix", "task", "one", 2, 1),
        launch_token("prefix", "task", "one", 1, 2),
        launch_token("prefixtask", "", "one", 1, 1),
        launch_token("prefix", "task", "one1", 1, 1),
        launch_token("prefix", "task", "one", 11, 1),
    }
    assert len(others) == 8
    assert token not in others


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        pytest.param("WORKER_LOST", "WorkerLost", id="ours in PascalCase"),
        pytest.param("START_TIMEOUT", "StartTimeout", id="ours with two words"),
        pytest.param("worker_lost", "WorkerFailed", id="a worker's code that only looks like ours"),
        pytest.param("E42", "WorkerFailed", id="a worker's own code"),
        pytest.param("", "WorkerFailed", id="an empty code"),
        pytest.param(None, "WorkerFailed", id="no code"),
    ],
)
def test_the_reason_of_a_failed_attempt(code: str | None, reason: str) -> None:
    assert reason_from_code(code) == reason


def test_every_reason_of_ours_is_its_own_and_fit_for_a_condition() -> None:
    reasons = {reason_from_code(code) for code in OUR_ERROR_CODES}
    assert len(reasons) == len(OUR_ERROR_CODES)
    assert all(re.fullmatch(r"[A-Z][A-Za-z]*", reason) for reason in reasons)
