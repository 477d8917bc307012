"""Failpoints: how they are written, which step a commit is, that they spring once, and that the product has none."""

from __future__ import annotations

from pathlib import Path

import pytest

from executions.control import cancel
from executions.lifecycle import claim_launch, ended, launch_failed, suspect
from executions.link import tombstoned
from executions.ports import Operation
from executions.record import Execution, Status, Suspicion
from executions.retry import request_retry
from tests.crash.failpoints import API_STEPS, CONTROLLER_STEPS, Action, Failpoint, Trap, commit_step
from tests.support.builders import NOW_MS, POLICY, intended, pending, running
from tests.unit.domain.states import cancelled, claimed_again, failed, succeeded

PRODUCT = ("executions", "controller", "api", "cli", "worker", "devstack")


def after(decision: object) -> Execution:
    found = getattr(decision, "execution", None)
    assert isinstance(found, Execution)
    return found


def test_a_failpoint_reads_as_it_is_written() -> None:
    for text in ("before_claim:kill@1", "after_sqs_delete:lose_reply@12", "before_cr_create:pause@2"):
        assert str(Failpoint.from_text(text)) == text


@pytest.mark.parametrize(
    "text", ["", "claim:kill@1", "before_claim:kill", "before_claim:burn@1", "before_claim:kill@0"]
)
def test_what_is_no_failpoint(text: str) -> None:
    with pytest.raises(ValueError, match="not a failpoint"):
        Failpoint.from_text(text)


STEPS = [
    ("claim", None, pending()),
    ("claim", failed(), claimed_again(failed())),
    ("intend", pending(), intended()),
    ("record_worker", intended(), running()),
    (
        "worker_claim",
        running(),
        after(claim_launch(running(), "task-1", attempt=1, launch_try=1, claim_id="c", now_ms=1)),
    ),
    ("outcome", running(), succeeded()),
    ("outcome", running(), failed()),
    ("verdict", running(), ended(running(), 1, Status.FAILED, now_ms=NOW_MS, code="WORKER_LOST", message="gone")),
    ("cancelled", pending(), cancelled()),
    ("suspect", running(), suspect(running(), 1, suspicion=Suspicion(since=NOW_MS))),
    (
        "relaunch",
        running(),
        launch_failed(running(), 1, 1, code="X", message="x", permanent=False, now_ms=NOW_MS, policy=POLICY),
    ),
    ("retry_mark", failed(), after(request_retry(failed(), "task-1", requested_by="j", now_ms=NOW_MS, policy=POLICY))),
    ("cancel_mark", running(), after(cancel(running(), "task-1", reason="r", requested_by="j", now_ms=NOW_MS))),
    ("link", failed(), tombstoned(failed())),
    ("update", failed(), failed().with_state(assignee="jane")),
]


@pytest.mark.parametrize(("step", "before", "following"), STEPS, ids=[step for step, _, _ in STEPS])
def test_which_step_a_commit_is(step: str, before: Execution | None, following: Execution) -> None:
    assert commit_step(before, following, None) == step


def test_commits_that_write_no_execution() -> None:
    assert commit_step(running(), None, Operation("message:m")) == "remember"
    assert commit_step(None, None, None) == "forget"


def test_every_step_of_the_matrix_is_a_commit_or_a_call() -> None:
    commits = {step for step, _, _ in STEPS}
    calls = {"receive", "sqs_delete", "payload", "launch", "stop", "lease", "event", "retry_send"}
    calls |= {"cr_create", "cr_status", "cr_patch"}
    assert set(CONTROLLER_STEPS) | set(API_STEPS) <= commits | calls


async def test_a_lost_answer_is_lost_once_and_the_step_is_done(tmp_path: Path) -> None:
    trap = Trap(Failpoint("after", "claim", Action.LOSE_REPLY, 2), tmp_path / "mark")
    done: list[int] = []

    async def step() -> int:
        done.append(1)
        return len(done)

    assert await trap.around("claim", step, lambda: OSError("lost")) == 1
    assert not (tmp_path / "mark").exists()
    with pytest.raises(OSError, match="lost"):
        await trap.around("claim", step, lambda: OSError("lost"))
    assert (tmp_path / "mark").exists()
    assert await trap.around("claim", step, lambda: OSError("lost")) == 3


def test_the_product_has_no_failpoints(repository: Path) -> None:
    files = [path for folder in PRODUCT for path in (repository / folder).rglob("*.py")]
    assert len(files) > 100
    named = [path for path in files if "failpoint" in path.read_text().lower() or "tests." in path.read_text()]
    assert named == []
