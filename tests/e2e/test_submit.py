"""Status-aware submit with real processes: what is submitted again runs again only when it failed, and once."""

from __future__ import annotations

import pytest

from tests.e2e.installation import Installation, message


@pytest.mark.timeout(120)
def test_concurrent_submits_of_one_failed_id_start_one_worker_and_raise_run_by_one(installation: Installation) -> None:
    installation.start_both(controllers=2, LOCAL_WORKER="manual")
    installation.send(message("again"))
    installation.wait_for("again", 1, "running")
    assert installation.complete("again", error="no luck")[0] == 200
    installation.send(*(message("again") for _ in range(200)))
    installation.wait_for("again", 2, "running")
    installation.wait_until(lambda: installation.queued() == 0, 60, "every message was acted on")
    record = installation.record("again")
    assert {number: (item["status"], item["run"]) for number, item in record.items()} == {
        1: ("failed", 1),
        2: ("running", 2),
    }


@pytest.mark.timeout(600)
def test_restarts_under_live_workers_count_no_run(installation: Installation, scale: int) -> None:
    controller, _ = installation.start_both(LOCAL_WORKER="manual")
    # What a killed controller's long poll receives comes again soon.
    queue = installation.env["SQS_QUEUE_URL"]
    installation.sqs.set_queue_attributes(QueueUrl=queue, Attributes={"VisibilityTimeout": "2"})
    tasks = [f"live-{number}" for number in range(10)]
    installation.send(*(message(task_id) for task_id in tasks))
    for task_id in tasks:
        installation.wait_for(task_id, 1, "running")
    for _ in range(scale // 5):
        controller.kill()
        controller = installation.start_controller(LOCAL_WORKER="manual")
        # It leads and looks at what is live: a task that is sent now is launched by it.
    installation.send(message("the-last"))
    installation.wait_for("the-last", 1, "running")
    for task_id in tasks:
        record = installation.record(task_id)
        assert {number: (item["status"], item["run"], item["launchTries"]) for number, item in record.items()} == {
            1: ("running", 1, 1)
        }
        assert installation.complete(task_id)[0] == 200


def test_a_message_that_comes_again_after_its_task_failed_does_nothing(installation: Installation) -> None:
    installation.start_api()
    queue = installation.env["SQS_QUEUE_URL"]
    # Claimed and not deleted: the process dies in between, and SQS delivers the message once more.
    installation.sqs.set_queue_attributes(QueueUrl=queue, Attributes={"VisibilityTimeout": "2"})
    installation.send(message("redelivered"))
    installation.start_controller(
        program=("tests.crash.process", "controller"),
        wait=False,
        LOCAL_WORKER="fail",
        FAILPOINT="before_sqs_delete:kill@1",
        FAILPOINT_MARK=str(installation.folder / "mark"),
    )
    installation.wait_until((installation.folder / "mark").exists, 30, "it was killed before the deletion")
    installation.start_controller(LOCAL_WORKER="fail", MAX_RETRIES="5")
    installation.wait_for("redelivered", 1, "failed")
    installation.wait_until(lambda: installation.queued() == 0, 30, "the message came again and was deleted")
    assert installation.record("redelivered").keys() == {1}
