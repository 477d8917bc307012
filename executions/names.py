"""Names and deterministic identifiers: task ids, resource names, launch tokens.

Never reads anything: each name is a function of its arguments. How Redis keys are spelled is in
``adapters/redis_keys.py``.
"""

from __future__ import annotations

import hashlib
import re

from executions.errors import InvalidTask

GROUP = "alakai.dev"
VERSION = "v1alpha1"
KIND = "WorkerExecution"
PLURAL = "workerexecutions"

FINALIZER = f"{GROUP}/execution"
"""Ours, and deliberately not Kopf's configured one: Kopf strips its own where only ``on.event`` handlers exist."""
INCARNATION_ANNOTATION = f"{GROUP}/incarnation"
RETRY_ANNOTATION = f"{GROUP}/retry"
CANCEL_ANNOTATION = f"{GROUP}/cancel"
DONE_ANNOTATION = f"{GROUP}/done"

TASK_ID_VARIABLE = "ALAKAI_TASK_ID"
"""Of a worker's environment; tells the container that is the worker from others beside it."""

TASK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}", re.ASCII)
TASK_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)

_DNS_LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_DNS_SUBDOMAIN = re.compile(rf"{_DNS_LABEL}(?:\.{_DNS_LABEL})*", re.ASCII)
_HASHED_NAME = re.compile(r".*-[0-9a-f]{20}", re.ASCII)
_NAME_LIMIT = 63
_HASH_LENGTH = 20


def checked_task_id(value: object) -> str:
    """Return ``value`` when it is a task id, else raise InvalidTask. Ids are refused, never cleaned."""
    if isinstance(value, str) and TASK_ID.fullmatch(value):
        return value
    raise InvalidTask(
        "taskId must start with a letter or digit and have 1 to 128 of the characters A-Z a-z 0-9 . _ : -"
    )


def is_hashed_name(name: str) -> bool:
    """Whether a resource of this name is that of a task with another id."""
    return _HASHED_NAME.fullmatch(name) is not None


def resource_name(task_id: str) -> str:
    """The name of the task's custom resource.

    The id itself where it is a DNS-1123 subdomain of at most 63 characters (Kubernetes object names) and cannot be
    taken for a hashed name; any other id becomes a readable slug and 20 hex digits of its SHA-256.
    """
    if len(task_id) <= _NAME_LIMIT and _DNS_SUBDOMAIN.fullmatch(task_id) and not _HASHED_NAME.fullmatch(task_id):
        return task_id
    slug = re.sub(r"[^a-z0-9]+", "-", task_id.lower())[: _NAME_LIMIT - _HASH_LENGTH - 1].strip("-")
    return f"{slug or 'task'}-{hashlib.sha256(task_id.encode()).hexdigest()[:_HASH_LENGTH]}"


def incarnation_from_operation(operation_key: str) -> str:
    """The incarnation of an execution that an operation begins.

    The same operation always begins the same one: when Redis has lost its data and a message or a resource submits
    once more, the launch tokens are those of before, and what was started then is adopted instead of started again.
    """
    return hashlib.sha256(f"incarnation\0{operation_key}".encode()).hexdigest()[:16]


def launch_token(prefix: str, task_id: str, incarnation: str, attempt: int, launch_try: int) -> str:
    """The idempotency token of one launch: 64 hex digits, the limit of ECS ``clientToken``.

    Stable within a launch try, so that a replay adopts the worker; different across tries, attempts and
    incarnations, so that a new launch never answers with an old worker.
    """
    parts = "\0".join((prefix, task_id, incarnation, str(attempt), str(launch_try)))
    return hashlib.sha256(parts.encode()).hexdigest()


def reason_from_code(error_code: str | None) -> str:
    """The condition reason of a failed attempt: our own codes in PascalCase, ``WorkerFailed`` for any other."""
    if error_code in OUR_ERROR_CODES:
        return "".join(part.capitalize() for part in error_code.split("_"))
    return "WorkerFailed"


OUR_ERROR_CODES = frozenset(
    {
        "ATTEMPT_TIMEOUT",
        "COMPLETED_UNREPORTED",
        "IMAGE_ERROR",
        "LAUNCH_CAPACITY",
        "LAUNCH_REJECTED",
        "PAYLOAD_LOST",
        "START_TIMEOUT",
        "WORKER_FAILED",
        "WORKER_LOST",
        "WORKER_NEVER_STARTED",
        "WORKER_OOM",
        "WORKER_PREEMPTED",
        "WORKER_STOPPED_EXTERNALLY",
    }
)
