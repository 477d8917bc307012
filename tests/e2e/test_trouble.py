"""What outages and hands do to a running installation: nothing is lost, nothing done twice, nothing old comes back."""

from __future__ import annotations

import json
import re
import time
from functools import partial
from typing import Any

import pytest

from tests.e2e.installation import Installation, Running, events, message
from tests.unit.api.test_hostile_bodies import BODIES, JSON, POSTS

BACK_SECONDS = 30.0
SECRETS = {
    "password": "hunter2-of-the-hostile",
    "token": "ghp_0123456789abcdefghijABCDEFGHIJ012345",
    "authorization": "Bearer abcdefghijklmnopqrstuvwxyz.of.the.hostile",
    "note": "AKIAHOSTILE000000000 and https://user:swordfish-of-the-hostile@example.com/",
}
CANARIES = ["canary", *SECRETS.values(), "swordfish-of-the-hostile"]
STOPPED_LOOPS = ("A task failed", "A task ended", "Receiving failed", "Sweep failed", "Traceback")


# The controller goes away


def test_a_killed_controller_is_followed_by_one_that_finishes_the_work(installation: Installation, scale: int) -> None:
    controller, _ = installation.start_both()
    tasks = [f"task-{number}" for number in range(scale)]
    installation.send(*(message(task_id, "slow", seconds=2) for task_id in tasks))
    # Every message is claimed; some workers are at work, others are not launched yet.
    installation.wait_until(lambda: len(installation.records()) == scale, 30, "every message is claimed")
    controller.kill()
    assert {status for _, status in installation.records().values()} & {"pending", "running"}
    installation.start_controller()
    for task_id in tasks:
        installation.wait_for(task_id, 1, "succeeded", 60)
        finals = [status for _, status in installation.work_done(task_id)]
        assert finals.count("completed") == 1, finals
        assert set(finals) <= {"completed", "claim_refused"}
    installation.wait_until(lambda: not installation.differences(), 30, "the mirror equals Redis")
    assert_loops_run(installation)


# The API server goes away


def test_without_the_api_server_work_goes_on_and_the_mirror_catches_up(installation: Installation, scale: int) -> None:
    installation.start_both()
    before, meanwhile = ([f"{when}-{number}" for number in range(scale)] for when in ("before", "meanwhile"))
    installation.send(*(message(task_id) for task_id in before))
    installation.wait_until(installation.resources, 30, "the first resource is there")
    installation.kube.kill_apiserver()
    try:
        installation.send(*(message(task_id) for task_id in meanwhile))
        for task_id in before + meanwhile:
            installation.wait_for(task_id, 1, "succeeded", 60)
        installation.send(message("retried", "fail"))
        installation.wait_for("retried", 1, "failed")
        assert installation.retry("retried")[0] == 202
        installation.wait_for("retried", 2, "succeeded")
    finally:
        installation.kube.start_apiserver()
    installation.wait_until(lambda: not installation.differences(), BACK_SECONDS, "the mirror equals Redis")
    assert len(installation.resources()) == 2 * scale + 1
    for task_id in before + meanwhile:
        assert installation.work_done(task_id) == [(1, "completed")]
    assert_loops_run(installation)


# Hostile input


def test_hostile_bodies_are_refused_and_stop_nothing(served: Installation) -> None:
    served.send(message("victim", "fail:all"))
    served.wait_for("victim", 1, "failed")
    assert served.retry("victim")[0] == 202
    served.wait_for("victim", 2, "failed")  # so that a retry, for which any body will do, is refused as well
    before = served.record("victim")
    paths = [path.replace("task-1", "victim") for path in POSTS]
    wrong = [(json.dumps(document).encode(), JSON) for document in hostile_documents()]
    bodies = [*BODIES.values(), *wrong]
    assert len(bodies) >= 100
    for path in paths:
        for body, headers in bodies:
            url = f"http://localhost:{served.port}{path}"
            answer = served.http.post(url, content=body, headers={"x-dev-user": "you@local", **headers})
            assert 400 <= answer.status_code < 500, (path, body[:80], answer.text)
            assert not any(canary in answer.text for canary in CANARIES), (path, answer.text)
    assert served.record("victim") == before
    assert served.answers(f"http://localhost:{served.port}/livez")
    assert_loops_run(served)


def test_hostile_messages_are_refused_and_stop_nothing(served: Installation) -> None:
    texts = [text for body, _ in BODIES.values() if (text := sendable(body))]
    documents = [json.dumps(document) for document in hostile_documents()]
    assert len(texts) + len(documents) >= 100
    tasks = set(served.records())
    for text in texts + documents:
        served.send(text)
    served.send(message("after-the-hostile"))
    served.wait_for("after-the-hostile", 1, "succeeded")
    served.kubectl("wait", "--for=condition=Succeeded", "execution/after-the-hostile", "--timeout=30s")
    served.wait_until(lambda: served.queued(only_waiting=True) == 0, 30, "every message was looked at")
    began = set(served.records()) - tasks
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}", task_id) for task_id in began)
    assert served.answers(f"http://localhost:{served.port}/readyz")
    assert_loops_run(served)


def hostile_documents() -> list[dict[str, object]]:
    """Well-formed JSON with wrong meanings, a secret in each."""
    good = message("victim")
    ids: list[object] = ["", " ", "a b", "a\nb", "-a", ".a", "a/b", "../a", "ä", "a" * 129, "a\0b", None, 7, ["a"], {}]
    attempts: list[object] = [0, -1, 1.5, "2", True, 10**30, 1e308, None, [2], 1001]
    changes: list[dict[str, object]] = [
        *({"taskId": wrong} for wrong in ids),
        *({"attempt": wrong, "launchTry": wrong} for wrong in attempts),
        {"taskType": ["implementation"]},
        {"taskType": "Impl\nementation"},
        {"payload": "text"},
        {"payload": None},
        {"metadata": []},
        {"metadata": {"trace_id": {"$gt": ""}}},
        {"result": "success", "attempt": 0},
        {"result": {"status": "maybe"}, "attempt": 0},
        {"reason": "", "assignee": 7, "claimId": "a b", "attempt": 0},
    ]
    return [{**good, **change, **SECRETS} for change in changes]


def sendable(body: bytes) -> str | None:
    """The body as a message, where SQS takes such text (#x9, #xA, #xD, #x20 and up, at most 256 KiB)."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    is_allowed = all(character in "\t\n\r" or character >= " " for character in text)
    return text if text and is_allowed and len(body) <= 262_144 else None


def assert_loops_run(installation: Installation) -> None:
    log = installation.logs()
    # Kopf tells of its own failures at length; it is supervised, and started again. asyncio tells of a TLS connection
    # that ended while something was still being written to it, as happens when a process stops.
    lines = [
        line
        for line in log.splitlines()
        if '"logger":"kopf' not in line and not ('"logger":"asyncio"' in line and "SSLProtocol" in line)
    ]
    assert [line for line in lines if any(sign in line for sign in STOPPED_LOOPS)] == []
    assert [canary for canary in CANARIES if canary in log] == []


# Hands in Redis and Kubernetes while no controller runs


@pytest.mark.timeout(300)
def test_what_happened_without_a_controller_is_taken_over_and_nothing_old_runs(
    installation: Installation, scale: int
) -> None:
    controller, _ = installation.start_both(LOCAL_WORKER="manual")
    kinds = ("removed", "unwanted", "failed", "kept")
    removed, unwanted, failed, kept = ([f"{kind}-{number}" for number in range(scale)] for kind in kinds)
    everything = removed + unwanted + failed + kept
    installation.send(*(message(task_id) for task_id in everything))
    wait_for_all(installation, everything, "running")
    for task_id in failed:
        assert installation.complete(task_id, error="no luck")[0] == 200
    installation.wait_until(lambda: not installation.differences(), 60, "everything is shown")
    assert controller.stop() == 0

    installation.redis.delete(*(f"{installation.prefix}:{task_id}" for task_id in removed))
    by_hand = [f"by-hand-{number}" for number in range(scale)]
    for number, task_id in enumerate(by_hand):
        status = "failed" if number % 2 else "succeeded"
        write_record(installation, task_id, status)
    installation.kubectl("delete", "executions", *unwanted, "--wait=false")

    again = installation.start_controller(LOCAL_WORKER="manual")
    installation.wait_until(lambda: not installation.differences(without=unwanted), 30, "the mirror equals Redis")
    wait_for_all(installation, unwanted, "cancelled")
    after_a_resync(installation)
    assert installation.differences(without=unwanted) == {}
    assert launches(again) == []
    records = installation.records()
    assert {task_id: records.get(task_id) for task_id in everything + by_hand} == {
        **dict.fromkeys(removed),
        **dict.fromkeys(unwanted, (1, "cancelled")),
        **dict.fromkeys(failed, (1, "failed")),
        **dict.fromkeys(kept, (1, "running")),
        **{task_id: (1, "failed" if number % 2 else "succeeded") for number, task_id in enumerate(by_hand)},
    }
    # And it still works: what was kept running ends, what failed is retried.
    assert installation.complete(kept[0])[0] == 200
    assert installation.retry(failed[0])[0] == 202
    installation.wait_for(failed[0], 2, "running")
    assert [event["task"]["task_id"] for event in launches(again)] == [failed[0]]
    assert_loops_run(installation)


def write_record(installation: Installation, task_id: str, status: str) -> None:
    """A record as another service would write it: only what everybody knows."""
    attempt = {
        "taskId": task_id,
        "taskType": "digest",
        "attempt": 1,
        "status": status,
        "taskSnapshot": message(task_id),
        "startedAt": "2026-01-01T00:00:00Z",
        "finishedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    installation.redis.hset(f"{installation.prefix}:{task_id}", "1", json.dumps(attempt))


def wait_for_all(installation: Installation, task_ids: list[str], status: str) -> None:
    def are_there() -> bool:
        records = installation.records()
        return all(records.get(task_id) == (1, status) for task_id in task_ids)

    installation.wait_until(are_there, 60, f"{len(task_ids)} tasks are {status}")


def after_a_resync(installation: Installation) -> None:
    """Return once a whole comparison that began after now has passed: it alone finds a record written by hand."""
    for witness in ("witness-1", "witness-2"):  # the first may be found by a comparison that is already under way
        write_record(installation, witness, "succeeded")
        installation.wait_until(partial(installation.resource, witness), 30, "a resync has passed")


def launches(controller: Running) -> list[dict[str, Any]]:
    return [event for event in events(controller.log_text()) if event["final_status"] == "launched"]


# Dead letters


def test_dead_letters_are_told_with_their_reasons_and_sent_back(installation: Installation) -> None:
    dead = installation.sqs.get_queue_url(QueueName=f"{installation.name}-dlq")["QueueUrl"]
    for body in (json.dumps(message("good", "succeed")), "not JSON", json.dumps({"taskId": "no type"})):
        installation.sqs.send_message(QueueUrl=dead, MessageBody=body)
    listed = installation.alakai_says("dlq", "list")
    assert re.search(r"  good  a task, received \d+ times; the controller's log says", listed)
    assert re.search(r"  -  .*JSON", listed)
    assert listed.endswith(f"3 dead letters in {installation.name}-dlq\n")
    installation.start_both()
    assert "1 sent back to the queue, 2 kept" in installation.alakai_says("dlq", "redrive")
    installation.wait_for("good", 1, "succeeded")
    assert "2 sent back to the queue, 0 kept" in installation.alakai_says("dlq", "redrive", "--all")
    assert f"{installation.name}-dlq is empty" in installation.alakai_says("dlq", "list")
    nowhere = installation.run_alakai("dlq", "list", SQS_QUEUE_URL=f"{installation.env['SQS_QUEUE_URL']}-nowhere")
    assert (nowhere.returncode, nowhere.stdout) == (1, "")
    assert "SQS did not do as asked" in nowhere.stderr
    assert len(nowhere.stderr.splitlines()) == 1
