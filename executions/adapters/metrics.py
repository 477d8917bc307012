"""What is counted, and the page that Prometheus reads. All collectors are here, each with a bounded set of labels.

Counts follow from what a commit changed, and the store tells of each commit that it has written: so a verdict counts
once, whoever commits it, and neither a repeat nor a decision that lost its race does. They begin at zero with each
process; a commit whose answer was lost is not counted.
"""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Iterable
from functools import partial
from importlib.metadata import entry_points, version

from prometheus_client import Counter, Gauge, Histogram, start_http_server

from executions.adapters.thread_server import ThreadServer, serve_on_thread
from executions.admission import Breaker, Slots, Standing
from executions.names import OUR_ERROR_CODES
from executions.record import Attempt, Execution, Grade, Judgement, ScheduleOutcome

LOST_WORKERS = Counter(
    "alakai_lost_workers",
    "Workers that were judged to be lost, to have never started or to have been taken away",
    ("grade", "code", "launcher"),
)
FALSE_LOSSES = Counter(
    "alakai_false_losses", "Attempts that ended by a verdict on their worker, which reported after all", ("grade",)
)
LOSS_DETECTION = Histogram(
    "alakai_loss_detection_seconds",
    "From when a worker stopped, or was last seen alive, to the verdict on it",
    buckets=(1, 5, 15, 30, 60, 90, 120, 180, 300, 600, 1800, 3600),
)
LAUNCH_TRIES = Counter(
    "alakai_launch_tries",
    "Launches by what became of them; one that was launched may be counted again as never_started or preempted",
    ("launcher", "outcome"),
)
AUTOMATIC_RETRIES = Counter(
    "alakai_automatic_retries", "Automatic retries by what became of them, scheduled first", ("outcome",)
)
SLOTS_HELD = Gauge("alakai_slots_held", "Live attempts, each of which holds a slot", ("task_type",))
SLOTS_LIMIT = Gauge("alakai_slots_limit", "Attempts that may be live at once; all: of every type", ("task_type",))
WAITING = Gauge("alakai_attempts_waiting", "Attempts that could be launched if they were let", ("task_type",))
ON_HOLD = Gauge("alakai_on_hold", "1 while the whole installation is on hold")
BREAKER_OPEN = Gauge(
    "alakai_breaker_open", "1 while launches of that launcher and task type are held back", ("launcher", "task_type")
)
ATTEMPTS = Counter("alakai_attempts", "Attempts that ended, by how", ("status", "code", "launcher"))
MESSAGES = Counter("alakai_messages", "Queue messages by what became of them", ("queue", "outcome"))
BUILD_INFO = Gauge("alakai_build_info", "1, with the version that runs", ("component", "version"))
REDIS_SERVED = Gauge("alakai_redis_served", "1 while Redis is known to be ours; otherwise nothing is done with it")
REDIS_CALLS = Gauge("alakai_redis_calls", "Calls to Redis that are under way")
REDIS_FAILURES = Counter("alakai_redis_failures", "Calls to Redis that failed")
HTTP_REQUESTS = Counter("alakai_http_requests", "Requests to the API", ("route", "method", "status"))
STREAMS_OPEN = Gauge("alakai_streams_open", "Readers that follow the dashboard's stream of events")
STREAMS_DROPPED = Counter(
    "alakai_streams_dropped",
    "Readers whose connection was ended: behind (others' events had gone by), stalled (took nothing any more)",
    ("reason",),
)
for _reason in ("behind", "stalled"):  # there from the start, so that a rise from nothing is a rise
    STREAMS_DROPPED.labels(_reason)
HTTP_SECONDS = Histogram("alakai_http_request_seconds", "Time that requests to the API took", ("route",))
WORK_QUEUE_WAIT = Histogram(
    "alakai_work_queue_wait_seconds",
    "From when something was to be looked at until somebody did",
    ("queue",),
    buckets=(0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300),
)
WORK_QUEUE_FAILURES = Counter("alakai_work_queue_failures", "Looks that failed and are repeated", ("queue",))
TRACKING_PUBLISHED = Counter("alakai_tracking_published", "Lifecycle events that were put onto the tracking stream")
TRACKING_HANDLED = Counter(
    "alakai_tracking_handled", "Entries of the tracking stream that were handled, repeats included", ("by",)
)
TRACKING_SET_ASIDE = Counter(
    "alakai_tracking_set_aside", "Entries of the tracking stream that nothing could be made of", ("by",)
)
for _part in ("projector", "archiver"):
    TRACKING_SET_ASIDE.labels(_part)
ARCHIVE_OPEN = Gauge("alakai_archive_open_batches", "Batches of events that S3 does not have yet")
ARCHIVE_FAILURES = Counter("alakai_archive_failures", "Attempts to store a batch that failed")
NOTIFICATIONS = Counter(
    "alakai_notifications",
    "Tries to tell an outcome: sent, failed (tried again), dead (given up)",
    ("channel", "outcome"),
)
# Of the leader only; see ``forget_leadership``.
LEADER = Gauge("alakai_leader", "1 while this replica leads")
WORK_QUEUE_DEPTH = Gauge("alakai_work_queue_depth", "What is to be looked at, now and later", ("queue", "state"))
WORK_QUEUE_AGE = Gauge(
    "alakai_work_queue_oldest_seconds", "How long the oldest of it waits; of the mirror: its lag", ("queue",)
)
SWEEP_AGE = Gauge("alakai_sweep_age_seconds", "Since the last look at all live workers ended")
LIVE = Gauge("alakai_attempts_live", "Attempts that are launched or being launched")
RETRIES_SCHEDULED = Gauge("alakai_retries_scheduled", "Automatic retries and requested ones that wait for their time")
OLDEST_WAITING = Gauge("alakai_oldest_waiting_seconds", "How long the oldest attempt waits for its launch")
FEED_LAG = Gauge("alakai_feed_lag", "Entries of the change feed that its slowest reader has not read")
QUEUE_MESSAGES = Gauge("alakai_queue_messages", "Messages in a queue, those under way included", ("queue",))
DEAD_LETTERS = Gauge("alakai_dead_letters", "Messages in the dead-letter queue of a queue", ("queue",))
REDIS_BYTES = Gauge("alakai_redis_used_bytes", "Memory that Redis uses")
NOTIFICATIONS_DEAD = Gauge("alakai_notifications_dead", "Notifications that were given up", ("channel",))
NOTIFICATIONS_WAITING = Gauge(
    "alakai_notifications_waiting", "Tasks of which something is still to be told", ("channel",)
)
NOTIFICATIONS_AGE = Gauge(
    "alakai_notifications_oldest_seconds", "How long the oldest notification waits to be delivered", ("channel",)
)
_LEADERS = (LEADER, SWEEP_AGE, LIVE, RETRIES_SCHEDULED, OLDEST_WAITING, FEED_LAG, REDIS_BYTES, ON_HOLD)
_LEADERS_LABELLED = (
    *(WORK_QUEUE_DEPTH, WORK_QUEUE_AGE, QUEUE_MESSAGES, DEAD_LETTERS),
    *(SLOTS_HELD, SLOTS_LIMIT, WAITING, BREAKER_OPEN),
    *(NOTIFICATIONS_DEAD, NOTIFICATIONS_WAITING, NOTIFICATIONS_AGE),
)
_KNOWN_LAUNCHERS = frozenset(point.name for point in entry_points(group="alakai.launchers"))
_KNOWN_TYPES = ("implementation", "digest", "bug-hunter")
_SCHEDULE_OUTCOMES = frozenset({"scheduled", *ScheduleOutcome})
_KINDS = ("never_started", "preempted")


def count_commit(before: Execution | None, after: Execution) -> None:
    """Count what a commit changed: ``before`` is what was read, ``after`` what was written."""
    past = {item.number: item for item in before.attempts} if before is not None else {}
    for attempt in after.attempts:
        old = past.get(attempt.number)
        if old is not None and old is not attempt:
            _count_launch(old, attempt)
            _count_verdict(old, attempt)
            _count_end(old, attempt)
    _count_schedule(before, after)


def _count_launch(old: Attempt, attempt: Attempt) -> None:
    if old.launch is None or old.worker_id is not None:
        return
    has_failed = attempt.launch is None or (attempt.status.is_finished and attempt.result is None)
    if attempt.worker_id is not None:
        LAUNCH_TRIES.labels(_launcher(attempt), "launched").inc()
    elif has_failed:
        LAUNCH_TRIES.labels(_launcher(attempt), "refused").inc()


def _count_end(old: Attempt, attempt: Attempt) -> None:
    if attempt.status.is_finished and not old.status.is_finished:
        code = attempt.error_code or "none"
        known = code if code == "none" or code in OUR_ERROR_CODES else "OTHER"
        ATTEMPTS.labels(attempt.status.value, known, _launcher(attempt)).inc()


def _count_verdict(old: Attempt, attempt: Attempt) -> None:
    verdict = attempt.verdict
    if verdict is None:
        return
    if verdict != old.verdict:
        code = verdict.code if verdict.code in OUR_ERROR_CODES else "OTHER"
        LOST_WORKERS.labels(_grade(verdict), code, _launcher(attempt)).inc()
        LOSS_DETECTION.observe(verdict.detected_after_ms / 1000)
        if verdict.kind in _KINDS:
            LAUNCH_TRIES.labels(_launcher(attempt), verdict.kind).inc()
    if attempt.late_results and not old.late_results:
        FALSE_LOSSES.labels(_grade(verdict)).inc()


def _count_schedule(before: Execution | None, after: Execution) -> None:
    schedule = after.state.schedule
    if before is None or schedule is None or before.state.schedule == schedule:
        return
    outcome = "scheduled" if schedule.outcome is None else schedule.outcome
    AUTOMATIC_RETRIES.labels(outcome if outcome in _SCHEDULE_OUTCOMES else "other").inc()


def _grade(verdict: Judgement) -> str:
    return verdict.grade.value if isinstance(verdict.grade, Grade) else "other"


def _launcher(attempt: Attempt) -> str:
    """Bounded, although anybody may write a record: what is not installed here is ``other``."""
    return attempt.launcher if attempt.launcher in _KNOWN_LAUNCHERS else "other"


def tell_build(component: str) -> None:
    """Which version this is."""
    BUILD_INFO.labels(component, version("alakai-operator")).set(1)


def forget_leadership() -> None:
    """What only a leader knows is told by the next one; two replicas that tell it would be added up."""
    for gauge in _LEADERS:
        gauge.set(0)
    for labelled in _LEADERS_LABELLED:
        labelled.clear()


def tell_admission(standing: Standing, slots: Slots, *, is_held: bool, breakers: Iterable[Breaker] = ()) -> None:
    """Who holds slots and who waits, by task type: those that we know or that have a limit, all others in one."""
    ON_HOLD.set(is_held)
    named = {*_KNOWN_TYPES, *slots.per_type}
    BREAKER_OPEN.clear()
    for breaker in breakers:
        task_type = breaker.task_type if breaker.task_type in named else "other"
        BREAKER_OPEN.labels(breaker.launcher, task_type).set(1)
    for gauge, counts in ((SLOTS_HELD, standing.live), (WAITING, standing.waiting)):
        told = Counts[str](dict.fromkeys((*named, "other"), 0))
        for task_type, count in counts.items():
            told[task_type if task_type in named else "other"] += count
        for task_type, count in told.items():
            gauge.labels(task_type).set(count)
    for task_type, limit in slots.per_type.items():
        SLOTS_LIMIT.labels(task_type).set(limit)
    if slots.total is not None:
        SLOTS_LIMIT.labels("all").set(slots.total)


def serve_metrics(port: int | None, *, default_port: int, host: str) -> ThreadServer:
    """Serve ``/metrics`` until stopped. Raises InvalidSettings when the port is taken."""
    return serve_on_thread(
        partial(start_http_server, addr=host), port, variable="METRICS_PORT", default_port=default_port
    )
