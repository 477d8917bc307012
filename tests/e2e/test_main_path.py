"""The main path from outside: queue, HTTP and kubectl on one side, records, resources and workers on the other."""

from __future__ import annotations

import json
from functools import partial

from tests.e2e.installation import ROOT, Installation, at_once, message

CLICKS = 40
EQUAL = 50
NOBODY_LISTENS = "redis://localhost:1"


def test_a_message_becomes_a_succeeded_resource(served: Installation) -> None:
    served.send(message("plain"))
    served.kubectl("wait", "--for=create", "execution/plain", "--timeout=30s")
    served.kubectl("wait", "--for=condition=Succeeded", "execution/plain", "--timeout=30s")
    record = served.record("plain")
    assert list(record) == [1]
    assert record[1]["status"] == "succeeded"
    assert record[1]["taskSnapshot"] == message("plain")
    assert served.work_done("plain") == [(1, "completed")]


def test_the_example_message_runs(served: Installation) -> None:
    sent = served.alakai("send", "--message-body", (ROOT / "examples" / "message.json").read_text())
    assert sent["task-id"] == "demo-from-the-queue"
    served.wait_for("demo-from-the-queue", 1, "succeeded")


# The retry route


def test_every_answer_of_the_retry_route(served: Installation) -> None:
    no_redis = served.start_api(wait=False, REDIS_URL=NOBODY_LISTENS)
    no_queue = served.start_api(wait=False, IMPLEMENTATION_SQS_QUEUE_URL=f"{served.env['SQS_QUEUE_URL']}-missing")
    served.send(message("once", "fail"), message("twice", "fail:all"), message("fine"))
    served.wait_for("once", 1, "failed")
    served.wait_for("twice", 1, "failed")
    served.wait_for("fine", 1, "succeeded")
    served.wait_ready(no_redis, "/health")
    served.wait_ready(no_queue)

    unauthorized = (401, {"error": "dashboard_unauthorized"})
    assert served.retry("once", headers={}) == unauthorized
    assert served.retry("once", headers={"authorization": "Bearer made.up.token"}) == unauthorized
    assert served.retry("nobody-sent-this") == (404, {"error": "execution not found"})
    assert served.retry("fine") == (409, {"error": "cannot retry execution in status 'succeeded'"})
    for broken in (no_redis, no_queue):
        status, body = served.retry("once", api=broken)
        assert (status, list(body)) == (502, ["error"]), broken.url
    assert served.status("once") == (1, "failed")

    # A refused enqueue leaves nothing behind that would keep the next click from being sent.
    assert served.retry("once") == (202, {"taskId": "once", "attempt": 2, "status": "queued"})
    served.wait_for("once", 2, "succeeded")
    assert served.retry("once") == (409, {"error": "cannot retry execution in status 'succeeded'"})

    assert served.retry("twice")[0] == 202
    served.wait_for("twice", 2, "failed")
    assert served.retry("twice") == (409, {"error": "retry budget exhausted", "maxRetries": 1})
    bare = {"taskId": "bare", "taskType": "digest", "attempt": 1, "status": "failed"}
    served.redis.hset(f"{served.prefix}:bare", "1", json.dumps(bare))
    assert served.retry("bare") == (409, {"error": "cannot retry: task payload is lost"})
    for broken in (no_redis, no_queue):
        assert broken.stop() == 0


def test_forty_clicks_at_two_api_processes_are_one_retry(installation: Installation) -> None:
    one, two = installation.start_api(wait=False), installation.start_api(wait=False)
    installation.wait_ready(one, "/health")
    installation.wait_ready(two, "/health")
    task_id = installation.alakai("seed", "--execution-id", "clicked")["queue-task-id"]

    answers = at_once([partial(installation.retry, task_id, api=api) for api in (one, two) * (CLICKS // 2)])

    assert answers == [(202, {"taskId": task_id, "attempt": 2, "status": "queued"})] * CLICKS
    assert installation.queued() == 1
    installation.start_controller()
    installation.wait_for(task_id, 2, "succeeded")
    assert sorted(installation.record(task_id)) == [1, 2]
    assert installation.work_done(task_id) == [(2, "completed")]


# Many messages, one worker


def test_equal_messages_start_one_worker(served: Installation) -> None:
    """Two controllers take them."""
    # Visible again at once, the same message is received over and over until its claim is durable.
    attributes = {"VisibilityTimeout": "0"}
    served.sqs.set_queue_attributes(QueueUrl=served.env["SQS_QUEUE_URL"], Attributes=attributes)  # type: ignore[arg-type]
    served.send(*[message("at-once")] * EQUAL)
    for _ in range(EQUAL):
        served.send(message("one-by-one"))
    attributes = {"VisibilityTimeout": "30"}
    served.sqs.set_queue_attributes(QueueUrl=served.env["SQS_QUEUE_URL"], Attributes=attributes)  # type: ignore[arg-type]
    served.wait_for("at-once", 1, "succeeded")
    served.wait_for("one-by-one", 1, "succeeded")
    served.wait_until(lambda: served.queued() == 0, 30, "every message is done with")
    for task_id in ("at-once", "one-by-one"):
        record = served.record(task_id)
        assert list(record) == [1]
        assert record[1]["run"] == record[1]["launchTries"] == 1
        assert served.work_done(task_id) == [(1, "completed")]


# Lost workers


def test_a_worker_that_dies_is_found_lost_and_retried(served: Installation) -> None:
    served.send(message("dies", "die"))
    served.wait_for("dies", 1, "failed")
    first = served.record("dies")[1]
    assert first["error_code"] == "WORKER_LOST"
    assert first["errorMessage"]
    served.kubectl("wait", "--for=condition=Finished", "execution/dies", "--timeout=30s")
    described = served.kubectl("describe", "execution", "dies")
    assert "WorkerLost" in described

    assert served.retry("dies") == (202, {"taskId": "dies", "attempt": 2, "status": "queued"})
    served.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "execution/dies", "--timeout=30s")
    assert served.status("dies") == (2, "succeeded")
    assert served.record("dies")[1] == first
    shown = served.resource("dies")
    assert shown is not None
    assert [item["reason"] for item in shown["status"]["attempts"]] == ["WorkerLost", "WorkerSucceeded"]


# kubectl


def apply(served: Installation, name: str, scenario: str, **spec: object) -> str:
    manifest = {
        "apiVersion": "alakai.dev/v1alpha1",
        "kind": "WorkerExecution",
        "metadata": {"name": name},
        "spec": {"taskType": "implementation", "task": {"payload": {"scenario": scenario}}, **spec},
    }
    return served.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))


def annotate(served: Installation, name: str, control: str, value: str) -> None:
    served.kubectl("annotate", "execution", name, f"alakai.dev/{control}={value}", "--overwrite")


def wait_phase(served: Installation, name: str, attempt: int, phase: str) -> None:
    served.wait_until(lambda: served.phase(name) == (attempt, phase), 30, f"{name} is {phase} at attempt {attempt}")


def after_a_resync(served: Installation, witness: str) -> None:
    """Return once a whole comparison of Redis and resources has passed: only it finds a record written by hand."""
    record = {"taskId": witness, "taskType": "digest", "attempt": 1, "status": "succeeded"}
    served.redis.hset(f"{served.prefix}:{witness}", "1", json.dumps(record))
    served.kubectl("wait", "--for=create", f"execution/{witness}", "--timeout=30s")


def test_kubectl_runs_the_example_and_shows_it(served: Installation) -> None:
    served.kubectl("apply", "-f", str(ROOT / "examples" / "resource.yaml"))
    served.kubectl("wait", "--for=condition=Finished", "execution/demo-from-kubectl", "--timeout=30s")

    rows = [line.split() for line in served.kubectl("get", "executions", "demo-from-kubectl").splitlines()]
    assert rows[0] == ["NAME", "TYPE", "PHASE", "ATTEMPT", "REASON", "NEXT", "AGE"]
    assert rows[1][:5] == ["demo-from-kubectl", "implementation", "Succeeded", "1", "WorkerSucceeded"]
    wide = [line.split() for line in served.kubectl("get", "execution", "-o", "wide").splitlines()]
    assert wide[0][-3:] == ["PROJECT", "LAUNCHER", "WORKER"]
    row = next(line for line in wide if line[0] == "demo-from-kubectl")
    assert row[-3:-1] == ["my-org/my-repo", "local"]
    assert row[-1] == served.record("demo-from-kubectl")[1]["taskArn"]
    described = served.kubectl("describe", "wex", "demo-from-kubectl")
    assert all(word in described for word in ("Conditions:", "Dispatched", "Finished", "Succeeded", "Pull Request URL"))
    assert "phase" in served.kubectl("explain", "execution.status", namespaced=False)


def test_applying_again_submits_nothing(served: Installation) -> None:
    assert "created" in apply(served, "applied", "fail")
    wait_phase(served, "applied", 1, "Failed")
    assert "unchanged" in apply(served, "applied", "fail")
    after_a_resync(served, "witness-of-apply")
    assert served.status("applied") == (1, "failed")
    assert served.work_done("applied") == [(1, "failed")]


def test_kubectl_retries_and_is_refused(served: Installation) -> None:
    apply(served, "annotated", "fail")
    wait_phase(served, "annotated", 1, "Failed")
    annotate(served, "annotated", "retry", "1")
    wait_phase(served, "annotated", 2, "Succeeded")
    annotate(served, "annotated", "retry", "2")
    refusal = "cannot retry execution in status 'succeeded'"
    served.wait_until(
        lambda: refusal in served.kubectl("describe", "execution", "annotated"), 30, "the refusal is told"
    )
    served.wait_until(lambda: refusal in served.kubectl("get", "events"), 30, "the refusal is an Event")
    assert served.status("annotated") == (2, "succeeded")
    assert served.work_done("annotated") == [(1, "failed"), (2, "completed")]


def test_kubectl_cancels_a_live_worker(served: Installation) -> None:
    apply(served, "cancelled", "hang")
    wait_phase(served, "cancelled", 1, "Running")
    assert len(served.workers("cancelled")) == 1
    annotate(served, "cancelled", "cancel", "wrong branch")
    served.kubectl("wait", "--for=condition=Finished", "execution/cancelled", "--timeout=30s")
    assert served.phase("cancelled") == (1, "Cancelled")
    assert "wrong branch" in served.kubectl("describe", "execution", "cancelled")
    assert served.workers("cancelled") == []


def test_kubectl_done_leaves_a_live_worker_alone(served: Installation) -> None:
    apply(served, "done", "hang")
    wait_phase(served, "done", 1, "Running")
    annotate(served, "done", "done", "solved by hand")
    after_a_resync(served, "witness-of-done")
    assert served.phase("done") == (1, "Running")
    assert len(served.workers("done")) == 1
    annotate(served, "done", "cancel", "tidying up")
    wait_phase(served, "done", 1, "Cancelled")


def test_suspended_executions_wait(served: Installation) -> None:
    apply(served, "suspended", "succeed", suspend=True)
    after_a_resync(served, "witness-of-suspend")
    assert served.status("suspended") == (1, "pending")
    assert served.work_done("suspended") == []
    served.kubectl("patch", "execution", "suspended", "--type=merge", "-p", '{"spec":{"suspend":false}}')
    wait_phase(served, "suspended", 1, "Succeeded")


def test_deleting_an_unfinished_one_cancels_it(served: Installation) -> None:
    apply(served, "deleted", "hang")
    wait_phase(served, "deleted", 1, "Running")
    served.kubectl("delete", "execution", "deleted", "--timeout=30s")
    assert served.status("deleted") == (1, "cancelled")
    assert served.workers("deleted") == []
    after_a_resync(served, "witness-of-delete")
    assert served.resource("deleted") is None


def test_a_deleted_finished_one_comes_back_with_its_next_attempt(served: Installation) -> None:
    served.send(message("comes-back", "fail"))
    served.wait_until(lambda: served.phase("comes-back") == (1, "Failed"), 30, "it failed")
    served.kubectl("delete", "execution", "comes-back", "--timeout=30s")
    after_a_resync(served, "witness-of-finished")
    assert served.resource("comes-back") is None
    assert served.status("comes-back") == (1, "failed")
    assert served.retry("comes-back")[0] == 202
    served.wait_until(lambda: served.phase("comes-back") == (2, "Succeeded"), 30, "it is back")


def test_an_object_with_another_name_than_its_task_is_refused(served: Installation) -> None:
    apply(served, "misnamed", "succeed", taskId="another-name")
    served.wait_until(
        lambda: "NameMismatch" in served.kubectl("describe", "execution", "misnamed"), 30, "it is refused"
    )
    assert served.status("another-name") is None
    assert served.status("misnamed") is None
    served.kubectl("delete", "execution", "misnamed", "--timeout=30s")


def test_the_dashboard_cancels_too(served: Installation) -> None:
    served.send(message("asked", "hang"))
    served.wait_for("asked", 1, "running")
    path, reason = "/dashboard/executions/asked/cancel", {"reason": "not needed"}
    assert served.post(path, reason) == (202, {"taskId": "asked", "attempt": 1, "status": "running"})
    served.wait_for("asked", 1, "cancelled")
    assert served.post(path, reason) == (200, {"taskId": "asked", "attempt": 1, "status": "cancelled"})
    assert served.post(path, reason, headers={})[0] == 401
    assert served.post("/dashboard/executions/nobody-sent-this/cancel", reason)[0] == 404
    assert served.workers("asked") == []
