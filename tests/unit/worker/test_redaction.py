"""Log lines of a worker are cleaned as those of the control plane are."""

from __future__ import annotations

import pytest
from alakai_worker import redaction

import executions.summary


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer abc.def",
        "token=abc&x=1",
        '{"password": "p"}',
        "redis://user:pass@host/0",
        "https://0123456789abcdef0123@github.com/a/b",
        "eyJhbGciOi.eyJzdWIi.sig",
        "ghp_0123456789abcdef",
        "pass\x00word=hidden",
        "line\none\x00\u202etwo",
        "x" * 2000,
        "nothing to hide",
    ],
)
def test_texts_are_cleaned_as_by_the_control_plane(text: str) -> None:
    assert redaction.sanitised(text) == executions.summary.sanitised(text)


def test_the_patterns_are_the_same() -> None:
    # Two copies: a worker cannot import the control plane. Whoever improves one improves the other.
    assert redaction._SECRETS.pattern == executions.summary._SECRETS.pattern
    assert redaction._CONTROL.pattern == executions.summary._CONTROL.pattern


def test_a_secret_is_gone() -> None:
    assert "hunter2" not in redaction.sanitised("could not sign in: password=hunter2")
