"""The custom resource on a real API server: what it accepts, refuses, protects and shows.

No controller runs here: the tests write the status themselves, as the mirror would.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from kubernetes import config
from kubernetes.client import ApiClient, CustomObjectsApi
from kubernetes.client.exceptions import ApiException

from devstack.kubernetes import ControlPlane
from executions import names

Document = dict[str, Any]
Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]

CRD_LIMIT_BYTES = 40_000  # kubectl apply keeps a copy in an annotation, and the API server takes 262,144 bytes of those
OPENAPI_LAG_SECONDS = 30


class Executions:
    """The resources of one namespace. A refusal raises ApiException, see `refused`."""

    def __init__(self, api: CustomObjectsApi, namespace: str) -> None:
        self._api: Any = api
        self._where = (names.GROUP, names.VERSION, namespace, names.PLURAL)

    def create(self, name: str, spec: Document, **more: Any) -> Document:
        body = {"apiVersion": f"{names.GROUP}/{names.VERSION}", "kind": names.KIND, "metadata": {"name": name}}
        created: Document = self._api.create_namespaced_custom_object(*self._where, body={**body, "spec": spec, **more})
        return created

    def patch(self, name: str, body: Document, *, door: str = "") -> Document:
        """A merge patch: None removes a field, lists are replaced."""
        send = getattr(self._api, f"patch_namespaced_custom_object{door}")
        patched: Document = send(*self._where, name, body, _content_type="application/merge-patch+json")
        return patched

    def patch_status(self, name: str, status: Document) -> Document:
        return self.patch(name, {"status": status}, door="_status")

    def select(self, field_selector: str) -> list[str]:
        found = self._api.list_namespaced_custom_object(*self._where, field_selector=field_selector)
        return sorted(item["metadata"]["name"] for item in found["items"])


@pytest.fixture(scope="module")
def api(kube: ControlPlane) -> Iterator[CustomObjectsApi]:
    connect: Callable[..., ApiClient] = config.new_client_from_config
    with connect(config_file=str(kube.kubeconfig)) as client:
        yield CustomObjectsApi(client)


@pytest.fixture
def executions(api: CustomObjectsApi, namespace: str) -> Executions:
    return Executions(api, namespace)


@pytest.fixture
def kubectl(kube: ControlPlane, namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    """Run kubectl in the test's namespace. Its discovery cache is the session's own: ports of servers come again."""
    options = (
        f"--kubeconfig={kube.kubeconfig}",
        f"--namespace={namespace}",
        f"--cache-dir={tmp_path_factory.getbasetemp() / 'kubectl'}",
    )

    def run(*arguments: str, stdin: str | None = None, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [kube.kubectl, *options, *arguments], input=stdin, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == code, f"kubectl {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done

    return run


def refused(call: Callable[..., object], *arguments: Any) -> str:
    """The message with which the API server refuses the call as invalid."""
    with pytest.raises(ApiException) as refusal:
        call(*arguments)
    assert refusal.value.status == 422, refusal.value.body
    return str(json.loads(refusal.value.body or "{}")["message"])


# --- what is asked for ------------------------------------------------------------------------------------------------

TYPE = {"taskType": "implementation"}

ACCEPTED: dict[str, tuple[str, Document]] = {
    "a type alone": ("one", TYPE),
    "a type in the task alone": ("one", {"task": TYPE}),
    "the same type and id twice": ("one", {**TYPE, "taskId": "one", "task": {**TYPE, "taskId": "one"}}),
    "the id in the task alone, when it is the object's name": ("one", {**TYPE, "task": {"taskId": "one"}}),
    "an id that cannot be a name": (names.resource_name("Impl_1:a"), {**TYPE, "taskId": "Impl_1:a"}),
    "an id as long as it may be": (names.resource_name("x" * 128), {**TYPE, "taskId": "x" * 128}),
    "a whole message as it is sent": (
        "impl-e2e",
        {
            "task": {
                "taskId": "impl-e2e",
                "taskType": "bug-hunter",
                "payload": {"repo": "my-org/my-repo", "deep": {"list": [1, "two", {"three": None}]}, "null": None},
                "metadata": {"createdAt": 1, "trace_id": "t", "actor": {"provider": "slack", "more": 1}, "more": [1]},
                "callbacks": {"github": {"repo": "my-org/my-repo", "issueNumber": 1}},
                "attempt": 1,
                "unknown": {"kept": True},
            }
        },
    ),
    "a time of creation in words": ("one", {**TYPE, "task": {"metadata": {"createdAt": "2026-01-01T00:00:00Z"}}}),
    "a held execution for somebody": ("one", {**TYPE, "suspend": True, "assignee": "jane@example.com"}),
}


@pytest.mark.parametrize(("name", "spec"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_accepts(executions: Executions, name: str, spec: Document) -> None:
    created = executions.create(name, spec)

    assert created["spec"] == {"suspend": False, **spec}
    annotated = executions.patch(name, {"metadata": {"annotations": {names.RETRY_ANNOTATION: "1"}}})
    assert annotated["spec"] == created["spec"]


ID_RULE = "a task id must start with a letter or digit and have 1 to 128 of the characters"
TYPE_RULE = "a task type must start with a letter or digit and have 1 to 63 of the characters"

REFUSED: dict[str, tuple[Document, str]] = {
    "no type at all": ({}, "spec.taskType: Invalid value: the kind of work is missing: set spec.taskType"),
    "a task without a type": ({"task": {"payload": {}}}, "the kind of work is missing: set spec.taskType"),
    "two types": ({**TYPE, "task": {"taskType": "digest"}}, "spec.task.taskType differs from spec.taskType"),
    "two ids": ({**TYPE, "taskId": "one", "task": {"taskId": "two"}}, "spec.task.taskId differs from spec.taskId"),
    "an empty id": ({**TYPE, "taskId": ""}, ID_RULE),
    "an id with a path in it": ({**TYPE, "taskId": "../etc"}, ID_RULE),
    "an id with a line end": ({**TYPE, "taskId": "one\n"}, ID_RULE),
    "an id in other letters": ({**TYPE, "taskId": "täsk"}, ID_RULE),
    "an id that is too long": ({**TYPE, "taskId": "x" * 129}, "spec.taskId: Too long: may not be more than 128 bytes"),
    "a bad id in the task": ({**TYPE, "taskId": "one", "task": {"taskId": "-"}}, ID_RULE),
    "an empty type": ({"taskType": ""}, TYPE_RULE),
    "a type with a blank": ({"taskType": "two words"}, TYPE_RULE),
    "a type that is too long": ({"taskType": "x" * 64}, "spec.taskType: Too long: may not be more than 63 bytes"),
    "a bad type in the task": ({"task": {"taskType": "a/b"}}, TYPE_RULE),
    "a later attempt": ({**TYPE, "task": {"attempt": 2}}, "annotate with alakai.dev/retry=<new value>"),
    "a number as the id": ({**TYPE, "taskId": 7}, 'spec.taskId in body must be of type string: "integer"'),
    "a text as the payload": ({**TYPE, "task": {"payload": "x"}}, "must be of type object"),
    "a number as the trace id": ({**TYPE, "task": {"metadata": {"trace_id": 7}}}, "must be of type string"),
    "an endless assignee": ({**TYPE, "assignee": "x" * 257}, "spec.assignee: Too long"),
}


@pytest.mark.parametrize(("spec", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refuses(executions: Executions, spec: Document, message: str) -> None:
    assert message in refused(executions.create, "one", spec)


def test_the_id_and_type_rules_are_those_of_every_other_door(executions: Executions) -> None:
    for number, character in enumerate("aZ0._:-/ ü\u0660"):
        for field, pattern in (("taskId", names.TASK_ID), ("taskType", names.TASK_TYPE)):
            for value in (character, f"a{character}"):
                spec = {**TYPE, field: value}
                if pattern.fullmatch(value):
                    executions.create(f"{field.lower()}-{number}-{len(value)}", spec)
                else:
                    assert "must start with a letter or digit" in refused(executions.create, "refused", spec)


# --- what cannot change -----------------------------------------------------------------------------------------------

TASK: Document = {
    "payload": {"prompt": "add retries", "deep": {"list": [1, {"two": 2}]}},
    "metadata": {"trace_id": "t", "createdAt": 1},
    "unknown": 1,
}
FULL: Document = {"taskId": "one", **TYPE, "task": TASK}
TASK_RULE = "spec.task: Invalid value: spec.task cannot be changed or removed once it is there"

UNCHANGEABLE: dict[str, tuple[Document, Document, str]] = {
    "another id": (FULL, {"taskId": "two"}, "spec.taskId cannot be set, changed or removed later"),
    "the id away": (FULL, {"taskId": None}, "spec.taskId cannot be set, changed or removed later"),
    "an id added": (TYPE, {"taskId": "one"}, "spec.taskId cannot be set, changed or removed later"),
    "another type": (FULL, {"taskType": "digest"}, "spec.taskType cannot be set, changed or removed later"),
    "the type away": (FULL, {"taskType": None}, "spec.taskType cannot be set, changed or removed later"),
    "the type away where the task has one": (
        {**TYPE, "task": TYPE},
        {"taskType": None},
        "spec.taskType cannot be set, changed or removed later",
    ),
    "a type added": ({"task": TYPE}, TYPE, "spec.taskType cannot be set, changed or removed later"),
    "the task away": (FULL, {"task": None}, TASK_RULE),
    "another payload": (FULL, {"task": {"payload": {"prompt": "x"}}}, TASK_RULE),
    "another payload deep inside": (FULL, {"task": {"payload": {"deep": {"list": [1, {"two": 3}]}}}}, TASK_RULE),
    "a renamed payload field": (FULL, {"task": {"payload": {"prompt": None, "order": "add retries"}}}, TASK_RULE),
    "the payload away": (FULL, {"task": {"payload": None}}, TASK_RULE),
    "callbacks added": (FULL, {"task": {"callbacks": {}}}, TASK_RULE),
    "another trace id": (FULL, {"task": {"metadata": {"trace_id": "u"}}}, TASK_RULE),
    "another time of creation": (FULL, {"task": {"metadata": {"createdAt": "1"}}}, TASK_RULE),
    "another unknown field": (FULL, {"task": {"unknown": 2}}, TASK_RULE),
    "an unknown field added": (FULL, {"task": {"more": 2}}, TASK_RULE),
    "an unknown field for a known one": (FULL, {"task": {"payload": None, "more": 1}}, TASK_RULE),
    "a known field for an unknown one": (FULL, {"task": {"unknown": None, "callbacks": {}}}, TASK_RULE),
}


@pytest.mark.parametrize(("spec", "change", "message"), UNCHANGEABLE.values(), ids=UNCHANGEABLE.keys())
def test_the_task_is_fixed(executions: Executions, spec: Document, change: Document, message: str) -> None:
    executions.create("one", spec)

    assert message in refused(executions.patch, "one", {"spec": change})


def test_a_task_may_be_added_once(executions: Executions) -> None:
    executions.create("one", TYPE)

    assert executions.patch("one", {"spec": {"task": TASK}})["spec"]["task"] == TASK
    assert TASK_RULE in refused(executions.patch, "one", {"spec": {"task": {"payload": {"prompt": "x"}}}})


def test_an_added_task_obeys_the_same_rules(executions: Executions) -> None:
    executions.create("one", TYPE)

    assert "differs from spec.taskType" in refused(executions.patch, "one", {"spec": {"task": {"taskType": "digest"}}})


def test_suspend_and_assignee_may_change_and_raise_the_generation(executions: Executions) -> None:
    executions.create("one", FULL)

    changed = executions.patch("one", {"spec": {"suspend": True, "assignee": "jane@example.com"}})
    again = executions.patch("one", {"spec": {"suspend": False, "assignee": None}})

    assert changed["spec"] == {**FULL, "suspend": True, "assignee": "jane@example.com"}
    assert again["spec"] == {**FULL, "suspend": False}
    assert [changed["metadata"]["generation"], again["metadata"]["generation"]] == [2, 3]


# --- the status -------------------------------------------------------------------------------------------------------


def test_pending_shows_without_a_write_whatever_the_creator_claims(executions: Executions) -> None:
    silent = executions.create("silent", TYPE)
    claiming = executions.create("claiming", TYPE, status={"phase": "Succeeded", "attempt": 7})

    assert silent["status"] == claiming["status"] == {"phase": "Pending"}


def test_the_status_is_written_through_its_own_door_and_raises_no_generation(executions: Executions) -> None:
    executions.create("one", TYPE)

    assert executions.patch("one", {"status": {"phase": "Running"}})["status"] == {"phase": "Pending"}
    written = executions.patch_status("one", {"phase": "Running"})
    assert (written["status"], written["metadata"]["generation"]) == ({"phase": "Running"}, 1)


LOST: Document = {
    "attempt": 1,
    "phase": "Failed",
    "reason": "WorkerLost",
    "finishTime": "2026-01-01T10:00:00.250Z",
    "errorCode": "WORKER_LOST",
}
AT_WORK: Document = {"attempt": 2, "phase": "Running"}
STATUS: Document = {
    "phase": "Running",
    "incarnation": "first",
    "attempt": 2,
    "sequence": 7,
    "attempts": [LOST, AT_WORK],
}
SEEN: Document = {"source": "ecs:DescribeTasks", "observedAt": "2026-01-01T10:00:00Z", "detail": "stopped"}
VERDICT: Document = {
    "kind": "lost",
    "grade": "confirmed",
    "code": "WORKER_OOM",
    "message": "x" * 512,
    "refutedBy": "a callback of launch 1",
    "spokenAt": "2026-01-01T10:01:00Z",
    "detectedAfterMs": 60_000,
    "lastSeenAliveAt": "2026-01-01T10:00:00Z",
    "launchTry": 1,
}
LATE: Document = {"status": "success", "receivedAt": "2026-01-01T10:05:00Z"}


def without(document: Document, field: str) -> Document:
    return {key: value for key, value in document.items() if key != field}


STATUS_CHANGES: dict[str, Document] = {
    "the same again": STATUS,
    "a newer sequence": {"sequence": 8},
    "the end of the live attempt": {
        "phase": "Succeeded",
        "sequence": 8,
        "attempts": [LOST, {**AT_WORK, "phase": "Succeeded", "finishTime": "2026-01-01T11:00:00Z"}],
    },
    "the next attempt": {"attempt": 3, "sequence": 9, "attempts": [LOST, AT_WORK, {**AT_WORK, "attempt": 3}]},
    "the oldest attempt left out": {"attempts": [AT_WORK]},
    "a worker id for a finished attempt": {"attempts": [{**LOST, "workerId": "arn:task"}, AT_WORK]},
    "evidence for a finished attempt": {"attempts": [{**LOST, "evidence": [SEEN]}, AT_WORK]},
    "a verdict on a finished attempt": {
        "attempts": [{**LOST, "verdict": VERDICT, "evidence": [{**SEEN, "code": "WORKER_OOM"}]}, AT_WORK]
    },
    "a late result of a finished attempt": {"attempts": [{**LOST, "lateResult": LATE}, AT_WORK]},
    "the same finish time in another time zone": {
        "attempts": [{**LOST, "finishTime": "2026-01-01T11:00:00.250+01:00"}, AT_WORK]
    },
    "a new incarnation that starts over": {
        "phase": "Pending",
        "incarnation": "second",
        "attempt": 1,
        "sequence": 1,
        "attempts": [{"attempt": 1, "phase": "Succeeded"}],
    },
    "a new incarnation without any attempt": {
        "phase": "Pending",
        "incarnation": "second",
        "attempt": None,
        "sequence": None,
        "attempts": None,
    },
}


@pytest.mark.parametrize("change", STATUS_CHANGES.values(), ids=STATUS_CHANGES.keys())
def test_the_status_takes(executions: Executions, change: Document) -> None:
    executions.create("one", TYPE)
    executions.patch_status("one", STATUS)

    written = executions.patch_status("one", change)["status"]

    assert written == {key: value for key, value in {**STATUS, **change}.items() if value is not None}


STALE = "an older state of this execution is not accepted"
FROZEN = "status.attempts: Invalid value: a finished attempt keeps its phase, reason and finishTime"

STATUS_REGRESSIONS: dict[str, tuple[Document, str]] = {
    "a lower attempt": ({"attempt": 1}, f"status.attempt: Invalid value: {STALE}"),
    "the attempt away": ({"attempt": None}, STALE),
    "a lower sequence": ({"sequence": 6}, f"status.sequence: Invalid value: {STALE}"),
    "the sequence away": ({"sequence": None}, STALE),
    "the incarnation away": ({"incarnation": None}, "status.incarnation cannot be removed"),
    "a lost attempt that succeeded after all": ({"attempts": [{**LOST, "phase": "Succeeded"}, AT_WORK]}, FROZEN),
    "a finished attempt at work again": ({"attempts": [{**LOST, "phase": "Running"}, AT_WORK]}, FROZEN),
    "another reason": ({"attempts": [{**LOST, "reason": "WorkerFailed"}, AT_WORK]}, FROZEN),
    "the reason away": ({"attempts": [without(LOST, "reason"), AT_WORK]}, FROZEN),
    "another finish time": ({"attempts": [{**LOST, "finishTime": "2026-01-01T10:00:00.251Z"}, AT_WORK]}, FROZEN),
    "the finish time away": ({"attempts": [without(LOST, "finishTime"), AT_WORK]}, FROZEN),
    "a changed attempt at another place": ({"attempts": [AT_WORK, {**LOST, "phase": "Cancelled"}]}, FROZEN),
    "a changed attempt beside a new one": (
        {"attempt": 3, "attempts": [{**LOST, "reason": "x"}, AT_WORK, {**AT_WORK, "attempt": 3}]},
        FROZEN,
    ),
    "two entries for one attempt": ({"attempts": [LOST, LOST]}, "Duplicate value"),
    "more attempts than are kept": (
        {"attempts": [LOST, *({**AT_WORK, "attempt": number} for number in range(2, 18))]},
        "status.attempts: Too many: 17: must have at most 16 items",
    ),
    "a phase we do not have": ({"phase": "Lost"}, 'supported values: "Pending", "Running", "RetryScheduled"'),
    "no phase": ({"phase": None}, "status.phase: Required value"),
    "a scheduled attempt": ({"attempts": [{**LOST, "attempt": 3, "phase": "RetryScheduled"}]}, "Unsupported value"),
    "a time in words": ({"nextRetryTime": "soon"}, "must be of type date-time"),
    "a condition without a reason": (
        {
            "conditions": [
                {"type": "Finished", "status": "True", "message": "", "lastTransitionTime": "2026-01-01T10:00:00Z"}
            ]
        },
        "status.conditions[0].reason: Required value",
    ),
}


@pytest.mark.parametrize(("change", "message"), STATUS_REGRESSIONS.values(), ids=STATUS_REGRESSIONS.keys())
def test_the_status_refuses(executions: Executions, change: Document, message: str) -> None:
    executions.create("one", TYPE)
    executions.patch_status("one", STATUS)

    assert message in refused(executions.patch_status, "one", change)


def test_a_status_without_an_incarnation_is_protected_too(executions: Executions) -> None:
    executions.create("one", TYPE)
    executions.patch_status("one", without(STATUS, "incarnation"))

    assert STALE in refused(executions.patch_status, "one", {"attempt": 1})
    assert STALE in refused(executions.patch_status, "one", {"sequence": 6})
    assert FROZEN in refused(executions.patch_status, "one", {"attempts": [{**LOST, "phase": "Running"}]})


def test_the_first_incarnation_may_replace_an_unknown_one(executions: Executions) -> None:
    executions.create("one", TYPE)
    executions.patch_status("one", without(STATUS, "incarnation"))

    status = executions.patch_status("one", {"incarnation": "first", "attempt": 1, "sequence": 1, "attempts": None})

    assert (status["status"]["attempt"], status["status"]["sequence"]) == (1, 1)


def test_as_much_status_as_fits_is_still_checked(executions: Executions) -> None:
    """The API server stops a rule that costs too much while it runs; ours stay far below at every list's limit."""
    evidence = [{**SEEN, "detail": "x" * 1024}] * 16
    full = [
        {
            **LOST,
            "attempt": number,
            "reason": "R" * 128,
            "message": "x" * 1024,
            "evidence": evidence,
            "verdict": VERDICT,
        }
        for number in range(1, 17)
    ]
    executions.create("one", {**TYPE, "task": {"payload": {f"field-{number}": "x" * 64 for number in range(9_000)}}})
    executions.patch_status("one", {**STATUS, "attempt": 16, "attempts": full})

    changed = [*full[:15], {**full[15], "phase": "Succeeded"}]

    assert FROZEN in refused(executions.patch_status, "one", {"attempts": changed})
    assert executions.patch("one", {"spec": {"suspend": True}})["spec"]["suspend"]
    assert TASK_RULE in refused(executions.patch, "one", {"spec": {"task": {"payload": {"field-8999": "y"}}}})


# --- how kubectl shows it ---------------------------------------------------------------------------------------------

SHOWN: Document = {
    "phase": "RetryScheduled",
    "attempt": 1,
    "reason": "WorkerFailed",
    "next": "attempt 2 at 10:02",
    "project": "my-org/my-repo",
    "launcher": "ecs",
    "workerId": "arn:task/1",
}
CELLS = ["one", "implementation", "RetryScheduled", "1", "WorkerFailed", "attempt 2 at 10:02"]


def cells(kubectl: Kubectl, *arguments: str) -> list[list[str]]:
    """The table without its header, split where kubectl leaves at least three blanks."""
    lines = kubectl("get", *arguments, "--no-headers").stdout.splitlines()
    return [[cell.strip() for cell in line.split("   ") if cell.strip()] for line in lines]


def test_kubectl_get_shows_where_an_execution_stands(executions: Executions, kubectl: Kubectl) -> None:
    executions.create("one", TYPE)
    executions.patch_status("one", SHOWN)

    header = kubectl("get", "executions").stdout.splitlines()[0].split()
    wide = kubectl("get", "executions", "-o", "wide").stdout.splitlines()[0].split()

    assert header == ["NAME", "TYPE", "PHASE", "ATTEMPT", "REASON", "NEXT", "AGE"]
    assert wide == [*header, "PROJECT", "LAUNCHER", "WORKER"]
    (row,) = cells(kubectl, "executions")
    assert row[:-1] == CELLS
    (row,) = cells(kubectl, "executions", "-o", "wide")
    assert (row[:6], row[7:]) == (CELLS, ["my-org/my-repo", "ecs", "arn:task/1"])


def test_a_type_that_only_the_task_has_is_shown_too(executions: Executions, kubectl: Kubectl) -> None:
    executions.create("inner", {"task": {"taskType": "digest", "payload": {"taskType": "decoy"}}})
    executions.create("outer", {**TYPE, "task": {"payload": {"taskType": "decoy"}}})

    assert [row[1] for row in cells(kubectl, "executions")] == ["digest", "implementation"]


@pytest.mark.parametrize(
    "word", ["execution", "executions", "wex", "workerexecution", "workerexecutions", "workerexecutions.alakai.dev"]
)
def test_every_name_of_the_kind_finds_it(executions: Executions, kubectl: Kubectl, word: str) -> None:
    executions.create("one", TYPE)

    assert kubectl("get", word, "one", "-o", "name").stdout == "workerexecution.alakai.dev/one\n"


def test_the_category_finds_it(executions: Executions, kubectl: Kubectl) -> None:
    executions.create("one", TYPE)

    assert kubectl("get", "alakai", "-o", "name").stdout == "workerexecution.alakai.dev/one\n"


def test_executions_are_selected_by_phase_and_type(executions: Executions, kubectl: Kubectl) -> None:
    executions.create("waiting", TYPE)
    executions.create("done", {"taskType": "digest"})
    executions.patch_status("done", {"phase": "Succeeded"})

    assert executions.select("status.phase=Pending") == ["waiting"]
    assert executions.select("status.phase=Succeeded,spec.taskType=digest") == ["done"]
    assert executions.select("status.phase!=Succeeded,spec.taskType=digest") == []
    assert [row[0] for row in cells(kubectl, "executions", "--field-selector", "spec.taskType=digest")] == ["done"]


@pytest.mark.parametrize("phase", ["Succeeded", "Failed", "Cancelled"])
def test_kubectl_waits_for_the_end(executions: Executions, kubectl: Kubectl, phase: str) -> None:
    condition = {"type": "Finished", "reason": phase, "message": "", "lastTransitionTime": "2026-01-01T10:00:00Z"}
    executions.create("one", TYPE)
    executions.patch_status("one", {"phase": "Running", "conditions": [{**condition, "status": "False"}]})
    wait = ("wait", "--for=condition=Finished", "execution/one")

    assert "timed out" in kubectl(*wait, "--timeout=1s", code=1).stderr
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(kubectl, *wait, "--timeout=30s")
        executions.patch_status("one", {"phase": phase, "conditions": [{**condition, "status": "True"}]})
        assert "condition met" in waiting.result().stdout


def test_kubectl_apply_tells_why_a_change_is_refused(kubectl: Kubectl, repository: Path) -> None:
    example = (repository / "examples" / "resource.yaml").read_text()

    assert "created" in kubectl("apply", "-f", "-", stdin=example).stdout
    assert "unchanged" in kubectl("apply", "-f", "-", stdin=example).stdout
    refusal = kubectl("apply", "-f", "-", stdin=example.replace("add retries", "remove retries"), code=1).stderr
    assert TASK_RULE in refusal
    assert "annotate with alakai.dev/retry=<new value>" in refusal


# --- how it is described ----------------------------------------------------------------------------------------------


@pytest.fixture
def schema(kubectl: Kubectl) -> Document:
    """The schema as the API server serves it."""
    definition = json.loads(kubectl("get", "crd", f"{names.PLURAL}.{names.GROUP}", "-o", "json").stdout)
    (version,) = definition["spec"]["versions"]
    served: Document = version["schema"]["openAPIV3Schema"]
    return served


def objects(schema: Document, path: str = "execution") -> Iterator[tuple[str, dict[str, Document]]]:
    """The fields of every object, those in lists included, by its path as `kubectl explain` takes it."""
    properties = schema.get("items", schema).get("properties", {})
    if properties:
        yield path, properties
    for name, field in properties.items():
        yield from objects(field, f"{path}.{name}")


def fields(schema: Document) -> dict[str, Document]:
    return {f"{path}.{name}": field for path, properties in objects(schema) for name, field in properties.items()}


def test_every_field_has_a_description(schema: Document) -> None:
    texts = {path: field.get("description", "") for path, field in fields(schema).items()}

    assert len(texts) > 50
    assert [path for path, text in texts.items() if len(text) <= 10 or not text.endswith(".")] == []


def test_kubectl_explain_prints_every_description(schema: Document, kubectl: Kubectl) -> None:
    for path, properties in objects(schema):
        assert missing_in_explain(kubectl, path, [field["description"] for field in properties.values()]) == []


def missing_in_explain(kubectl: Kubectl, path: str, expected: list[str]) -> list[str]:
    """What `kubectl explain` does not print of these; its document follows the CRD within seconds."""
    deadline = time.monotonic() + OPENAPI_LAG_SECONDS
    while True:
        printed = " ".join(kubectl("explain", path).stdout.split())
        missing = [text for text in expected if " ".join(text.split()) not in printed]
        if not missing or time.monotonic() > deadline:
            return missing


def test_everything_is_bounded(schema: Document, repository: Path) -> None:
    """Without bounds the API server cannot price the rules, and refuses the whole definition."""
    unbounded = [
        path
        for path, field in fields(schema).items()
        if (field.get("type") == "array" and "maxItems" not in field)
        or (field.get("type") == "string" and not {"maxLength", "enum", "format"} & field.keys())
    ]

    assert unbounded == []
    assert (repository / "crds" / "workerexecutions.alakai.dev.yaml").stat().st_size < CRD_LIMIT_BYTES
