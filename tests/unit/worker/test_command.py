"""What an exit status and a result file make together; real commands are run in ``tests/integration``."""

from __future__ import annotations

from typing import Any

import pytest
from alakai_worker.command import outcome_of
from alakai_worker.outcome import Outcome


@pytest.mark.parametrize(
    ("status", "result", "expected"),
    [
        (0, None, Outcome.success()),
        (0, {"status": "success", "pullRequestUrl": "u"}, Outcome.success(pull_request_url="u")),
        (0, {"agent": {"provider": "codex"}}, Outcome.success(agent={"provider": "codex"})),
        (
            0,
            {"status": "failure", "errorMessage": "no", "errorCode": "E1", "retryNotBefore": 90},
            Outcome.failure("no", code="E1", retry_not_before=90),
        ),
        (
            0,
            {"status": "unheard of"},
            Outcome.failure("the command's result says that it failed", code="WORKER_FAILED"),
        ),
        (0, "the result file is not JSON", Outcome.failure("the result file is not JSON", code="WORKER_FAILED")),
        (
            1,
            {"status": "success", "pullRequestUrl": "u"},
            Outcome.failure("the command ended with exit status 1", code="WORKER_FAILED"),
        ),
        (
            1,
            {"errorCode": "codex_transient_upstream", "errorFamily": "transient_upstream"},
            Outcome.failure(
                "the command ended with exit status 1", code="codex_transient_upstream", family="transient_upstream"
            ),
        ),
        (-99, None, Outcome.failure("the command was killed by signal 99", code="WORKER_FAILED")),
    ],
)
def test_exit_status_and_result_file_together(status: int, result: Any, expected: Outcome) -> None:
    assert outcome_of(status, [], result) == expected
