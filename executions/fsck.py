"""What does not fit together between records, lists, resources, workers, dashboard rows and the archive: pure checks.

Each check takes the picture of one task and returns what is wrong, or nothing. A picture is put together from several
stores that move while it is taken, so a finding counts only when a second picture shows it with the same ``mark``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from executions.conditions import phase
from executions.index import Index, Place, index_scores, place
from executions.policy import Policy
from executions.ports import FoundWorker
from executions.record import Execution
from executions.resource import Observed, is_entombed, resource_is_wanted

_OVERDUE_MS = 120_000
"""The sweep comes every few seconds; what is due for so long, nobody looks at."""
_ENDING_MS = 120_000
"""How long a worker may take to end after its attempt did."""


class Kind(StrEnum):
    """What is wrong, and so what mends it."""

    UNREADABLE = "unreadable"
    """A record that nobody can read. Nothing mends it but a person."""
    FOREIGN = "foreign"
    """A record that was written by hand and not taken over."""
    MISINDEXED = "misindexed"
    """A task does not stand in the lists that its record calls for."""
    MISSING_RESOURCE = "missing-resource"
    GHOST_RESOURCE = "ghost-resource"
    """A resource of a task that has no record."""
    STALE_RESOURCE = "stale-resource"
    ORPHAN_WORKER = "orphan-worker"
    """A worker that no attempt needs."""
    DOUBLE_WORKER = "double-worker"
    """A second worker of one attempt."""
    OVERDUE = "overdue"
    """A retry whose time has long come."""
    STALE_ROW = "stale-row"
    """The dashboard shows an older step."""
    NOT_ARCHIVED = "not-archived"
    LOST_OBJECT = "lost-object"
    """The archive has a receipt of an object that is not there."""


@dataclass(frozen=True, slots=True)
class Finding:
    """``subject`` is a task id; of LOST_OBJECT the object's name. ``worker_id`` only of a worker's."""

    kind: Kind
    subject: str
    message: str = field(compare=False)
    mark: str = ""
    """What must be the same in a second picture."""
    worker_id: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """One task as all stores show it."""

    task_id: str
    execution: Execution | None
    is_readable: bool = True
    is_foreign: bool = False
    scores: Mapping[Index, int | None] = field(default_factory=dict)
    """Of the lists, as they are."""
    place: Place | None = None
    """In line and among the holders of slots of its task type, as it is."""
    resource: Observed | None = None
    workers: Sequence[FoundWorker] = ()
    row: str | None = None
    """Event id of the dashboard's row."""
    is_archived: bool | None = None
    """Whether its latest step is in the archive; None where there is no archive."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    now_ms: int
    policy: Policy
    archive_grace_ms: int
    """How long after its end an execution may wait for the archive."""


def findings(picture: Picture, around: Surroundings) -> Iterator[Finding]:
    """All that is wrong with one task."""
    if not picture.is_readable:
        text = "its record cannot be read; repair it with redis-cli"
        yield Finding(Kind.UNREADABLE, picture.task_id, text)
        return
    for check in _CHECKS:
        yield from check(picture, around)
    yield from _workers(picture, around)


def _is_foreign(picture: Picture, _: Surroundings) -> Iterator[Finding]:
    if picture.is_foreign:
        text = "its record was written by hand, and no resync took it over"
        yield Finding(Kind.FOREIGN, picture.task_id, text, _mark(picture))


def _is_misindexed(picture: Picture, _: Surroundings) -> Iterator[Finding]:
    execution = picture.execution
    expected = index_scores(execution) if execution else dict.fromkeys(Index)
    wrong = [index.value for index in Index if picture.scores.get(index) != expected[index]]
    if execution is not None and picture.place is not None and picture.place != place(execution):
        wrong.append("line or slots")
    if wrong and not picture.is_foreign:
        text = f"it stands in {' and '.join(wrong)} as its record does not say"
        if execution is None:
            text = f"it stands in {' and '.join(wrong)} and has no record"
        yield Finding(Kind.MISINDEXED, picture.task_id, text, _mark(picture))


def _resource_is_wrong(picture: Picture, around: Surroundings) -> Iterator[Finding]:
    execution, resource = picture.execution, picture.resource
    if execution is None:
        if resource is not None and resource.is_submitted:
            yield Finding(Kind.GHOST_RESOURCE, picture.task_id, "it has a resource and no record", _mark(picture))
        return
    if picture.is_foreign:
        return  # It is shown once it is taken over.
    if resource is None:
        if resource_is_wanted(execution, now_ms=around.now_ms, policy=around.policy):
            yield Finding(Kind.MISSING_RESOURCE, picture.task_id, "it has a record and no resource", _mark(picture))
        return
    shown = (resource.incarnation, resource.attempt, resource.phase)
    expected = (execution.state.incarnation, execution.latest.number, phase(execution).value)
    if resource.is_submitted and not is_entombed(execution) and shown != expected:
        text = f"its resource shows attempt {shown[1]} {shown[2]}, its record says attempt {expected[1]} {expected[2]}"
        yield Finding(Kind.STALE_RESOURCE, picture.task_id, text, _mark(picture))


def _retry_is_overdue(picture: Picture, around: Surroundings) -> Iterator[Finding]:
    execution = picture.execution
    if execution is None:
        return
    asked, schedule = execution.waiting_retry, execution.waiting_schedule
    times = [asked.resend_at if asked else None, schedule.due_at if schedule else None]
    due_ms = min((time for time in times if time is not None), default=None)
    if due_ms is not None and around.now_ms - due_ms > _OVERDUE_MS:
        late = (around.now_ms - due_ms) // 1000
        text = f"its retry is {late} s late; does a controller run and lead?"
        yield Finding(Kind.OVERDUE, picture.task_id, text, _mark(picture))


def _row_is_stale(picture: Picture, _: Surroundings) -> Iterator[Finding]:
    told = picture.execution.state.told_event if picture.execution else None
    if told is not None and picture.row != told:
        text = "the dashboard has no row of it" if picture.row is None else "the dashboard shows another step"
        yield Finding(Kind.STALE_ROW, picture.task_id, text, _mark(picture))


def _archive_lacks_it(picture: Picture, around: Surroundings) -> Iterator[Finding]:
    execution = picture.execution
    if execution is None or picture.is_archived is not False or execution.state.told_event is None:
        return
    ended_ms = execution.latest.finished_at or 0
    if phase(execution).is_finished and around.now_ms - ended_ms > around.archive_grace_ms:
        yield Finding(Kind.NOT_ARCHIVED, picture.task_id, "its last step is not in the archive", _mark(picture))


_Check = Callable[[Picture, Surroundings], Iterator[Finding]]
_CHECKS: tuple[_Check, ...] = (
    _is_foreign,
    _is_misindexed,
    _resource_is_wrong,
    _retry_is_overdue,
    _row_is_stale,
    _archive_lacks_it,
)


def _workers(picture: Picture, around: Surroundings) -> Iterator[Finding]:
    execution = picture.execution
    for worker in picture.workers:
        attempt = execution.attempt(worker.attempt) if execution else None
        if attempt is not None and attempt.is_live:
            is_launching = attempt.worker_id is None and attempt.launch_tries <= worker.launch_try
            if attempt.worker_id == worker.worker_id or is_launching:
                continue
            text = f"attempt {worker.attempt} has the worker {attempt.worker_id}, and {worker.worker_id} lives too"
            yield Finding(Kind.DOUBLE_WORKER, picture.task_id, text, worker.worker_id, worker.worker_id)
            continue
        if attempt is not None and around.now_ms - (attempt.finished_at or 0) < _ENDING_MS:
            continue
        why = "has no record" if attempt is None else f"attempt {worker.attempt} is {attempt.status}"
        text = f"{why}, and its worker {worker.worker_id} lives"
        yield Finding(Kind.ORPHAN_WORKER, picture.task_id, text, worker.worker_id, worker.worker_id)


def _mark(picture: Picture) -> str:
    execution = picture.execution
    return f"{execution.state.incarnation}.{execution.state.sequence}" if execution else ""
