"""What a worker reads from its environment."""

from __future__ import annotations

import pytest
from alakai_worker.launch import InvalidEnvironment, launch_from_environment

ENVIRONMENT = {
    "ALAKAI_TASK_ID": "task-1",
    "ALAKAI_ATTEMPT": "2",
    "ALAKAI_LAUNCH_TRY": "3",
    "ALAKAI_CLAIM_URL": "http://localhost:3000/task-claim",
    "ALAKAI_CALLBACK_URL": "https://api.example.com/task-complete",
    "ALAKAI_TRACE_ID": "trace-1",
    "ALAKAI_TASK_TYPE": "digest",
    "ALAKAI_CALLBACK_TOKEN": "a-secret",
    "ALAKAI_GIVE_UP_SECONDS": "1.5",
}


def test_everything_is_read() -> None:
    launch = launch_from_environment(ENVIRONMENT)
    assert (launch.task_id, launch.attempt, launch.launch_try) == ("task-1", 2, 3)
    assert launch.claim_url == "http://localhost:3000/task-claim"
    assert launch.callback_url == "https://api.example.com/task-complete"
    assert (launch.trace_id, launch.task_type, launch.give_up_seconds) == ("trace-1", "digest", 1.5)
    assert launch.token == "a-secret"
    assert "a-secret" not in repr(launch)


def test_what_may_be_left_out_has_a_default() -> None:
    needed = ("TASK_ID", "ATTEMPT", "LAUNCH_TRY", "CLAIM_URL", "CALLBACK_URL")
    launch = launch_from_environment({f"ALAKAI_{name}": ENVIRONMENT[f"ALAKAI_{name}"] for name in needed})
    assert (launch.trace_id, launch.task_type, launch.token) == ("task-1", "unknown", None)
    assert launch.give_up_seconds == 3600


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALAKAI_TASK_ID", ""),
        ("ALAKAI_ATTEMPT", ""),
        ("ALAKAI_ATTEMPT", "0"),
        ("ALAKAI_ATTEMPT", "-1"),
        ("ALAKAI_ATTEMPT", "two"),
        ("ALAKAI_LAUNCH_TRY", "1.0"),
        ("ALAKAI_LAUNCH_TRY", "²"),
        ("ALAKAI_CLAIM_URL", "localhost:3000/task-claim"),
        ("ALAKAI_CLAIM_URL", "ftp://localhost/x"),
        ("ALAKAI_CLAIM_URL", "http:///task-claim"),
        ("ALAKAI_CLAIM_URL", "http://localhost:99999/"),
        ("ALAKAI_CLAIM_URL", "http://[::1/"),
        ("ALAKAI_CALLBACK_URL", "http://local host/"),
        ("ALAKAI_CALLBACK_URL", "http://a..b/"),
        ("ALAKAI_CALLBACK_URL", "http://localhost/ü"),
        ("ALAKAI_GIVE_UP_SECONDS", "-1"),
        ("ALAKAI_GIVE_UP_SECONDS", "nan"),
        ("ALAKAI_GIVE_UP_SECONDS", "inf"),
        ("ALAKAI_GIVE_UP_SECONDS", "soon"),
    ],
)
def test_a_wrong_variable_is_named(name: str, value: str) -> None:
    with pytest.raises(InvalidEnvironment, match=name):
        launch_from_environment({**ENVIRONMENT, name: value})
