"""What an execution should do, as simply as it can be said: the other opinion that the state machine compares with.

Shares no code with the domain. Knows statuses and counters only; times are milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from executions.answer import Reply

MAX_RETRIES = 2
MAX_LAUNCH_TRIES = 3
REDELIVER_MS = 60_000
DOUBLE_CLICK_MS = 10_000
FINISHED = ("succeeded", "failed", "cancelled")


@dataclass
class Try:
    """One attempt."""

    number: int
    status: str = "pending"
    run: int = 1
    launch: int | None = None
    """The launch try that is written down."""
    tries: int = 0
    worker: bool = False
    claimed_by: str | None = None
    nonce: int | None = None
    """What a hand wrote into it."""

    @property
    def is_finished(self) -> bool:
        return self.status in FINISHED

    @property
    def is_live(self) -> bool:
        return self.status == "running" or (self.status == "pending" and self.launch is not None)


@dataclass
class Mark:
    """A retry that somebody asked for."""

    attempt: int
    asked_ms: int
    due_ms: int
    joined: bool = False


@dataclass
class Model:
    """One task with a record."""

    tries: list[Try]
    has_payload: bool = True
    mark: Mark | None = None
    cancelled_attempt: int | None = None
    assignee: str | None = None

    @property
    def last(self) -> Try:
        return self.tries[-1]

    def of(self, number: int) -> Try | None:
        return next((item for item in self.tries if item.number == number), None)

    @property
    def mark_is_unclaimed(self) -> bool:
        return self.mark is not None and self.last.number < self.mark.attempt


@dataclass
class Models:
    """All tasks. Each method does what one command should do, and returns the reply that it should give."""

    now_ms: int
    tasks: dict[str, Model] = field(default_factory=dict)

    def submit(self, task: str) -> Reply:
        found = self.tasks.get(task)
        if found is None:
            self.tasks[task] = Model([Try(1)])
            return Reply.CLAIMED
        if found.last.status != "failed":
            return Reply.NOTHING_TO_DO
        if found.last.number > MAX_RETRIES:
            return Reply.BUDGET_EXHAUSTED
        return self._claim_next(found)

    def dispatch(self, task: str, attempt: int | None) -> Reply:
        found = self.tasks.get(task)
        if attempt is None or (attempt == 1 and found is None):
            return self.submit(task)
        if found is not None and attempt <= found.last.number:
            return Reply.NOTHING_TO_DO
        if attempt > MAX_RETRIES + 1:
            return Reply.OVER_BUDGET
        if found is not None and found.cancelled_attempt == attempt:
            return Reply.NOTHING_TO_DO
        if found is not None and attempt == found.last.number + 1 and found.last.status == "failed":
            return self._claim_next(found)
        return Reply.OUT_OF_ORDER

    def intend(self, task: str, attempt: int) -> Reply:
        found = self.tasks.get(task)
        if found is None or found.last.number != attempt:
            return Reply.NOTHING_TO_DO
        last = found.last
        if last.status != "pending" or last.launch is not None:
            return Reply.NOTHING_TO_DO
        last.tries += 1
        last.launch, last.claimed_by = last.tries, None
        return Reply.ACCEPTED

    def launched(self, task: str, attempt: int, launch_try: int) -> Reply:
        found = self.tasks.get(task)
        item = found.of(attempt) if found else None
        if item is None or item.launch != launch_try or item.worker:
            return Reply.NOTHING_TO_DO
        item.worker = True
        if item.status == "pending":
            item.status = "running"
        return Reply.ACCEPTED

    def launch_failed(self, task: str, attempt: int, launch_try: int, *, permanent: bool) -> Reply:
        found = self.tasks.get(task)
        if found is None or found.last.number != attempt or not found.last.is_live:
            return Reply.NOTHING_TO_DO
        last = found.last
        if last.launch is not None and last.launch != launch_try:
            return Reply.NOTHING_TO_DO
        if found.cancelled_attempt == attempt:
            last.status = "cancelled"
        elif permanent or last.launch is None or last.tries >= MAX_LAUNCH_TRIES:
            last.status = "failed"
        else:
            last.status, last.launch, last.worker, last.claimed_by = "pending", None, False, None
        return Reply.ACCEPTED

    def claim(self, task: str, attempt: int, launch_try: int, who: str) -> Reply:
        found = self.tasks.get(task)
        if found is None:
            return Reply.NOT_FOUND
        last = found.last
        may = (
            last.number == attempt
            and last.is_live
            and last.launch == launch_try
            and found.cancelled_attempt is None
            and last.claimed_by in (None, who)
        )
        if not may:
            return Reply.REFUSED
        last.claimed_by = who
        return Reply.GRANTED

    def outcome(self, task: str, attempt: int | None, launch_try: int | None, *, succeeded: bool) -> Reply:
        found = self.tasks.get(task)
        if found is None:
            return Reply.NOT_FOUND
        last = found.last
        if attempt is not None and attempt != last.number:
            return Reply.SUPERSEDED
        if last.is_finished:
            return Reply.ALREADY_FINISHED
        if not last.is_live or (launch_try is not None and last.launch is not None and launch_try != last.launch):
            return Reply.SUPERSEDED
        stopped = found.cancelled_attempt == last.number
        last.status = "succeeded" if succeeded else "cancelled" if stopped else "failed"
        return Reply.RECORDED

    def lost(self, task: str, attempt: int) -> Reply:
        found = self.tasks.get(task)
        if found is None or found.last.number != attempt or found.last.is_finished:
            return Reply.NOTHING_TO_DO
        found.last.status = "failed"
        return Reply.ACCEPTED

    def cancel(self, task: str) -> Reply:
        found = self.tasks.get(task)
        if found is None:
            return Reply.NOT_FOUND
        last = found.last
        if found.cancelled_attempt is not None:
            return Reply.NOTHING_TO_DO
        if not last.is_finished:
            found.cancelled_attempt = last.number
            if last.launch is None and not last.worker:
                last.status = "cancelled"
            return Reply.ACCEPTED
        if found.mark is not None and found.mark_is_unclaimed:
            found.cancelled_attempt, found.mark = found.mark.attempt, None
            return Reply.ACCEPTED
        return Reply.NOTHING_TO_DO

    def done(self, task: str) -> Reply:
        return Reply.NOTHING_TO_DO if task in self.tasks else Reply.NOT_FOUND

    def hand_over(self, task: str, assignee: str) -> Reply:
        found = self.tasks.get(task)
        if found is None:
            return Reply.NOT_FOUND
        if found.assignee == assignee:
            return Reply.NOTHING_TO_DO
        found.assignee = assignee
        if found.last.status == "failed" and found.last.number <= MAX_RETRIES and found.has_payload:
            self._claim_next(found)
        return Reply.ACCEPTED

    def retry(self, task: str) -> Reply:
        """The mark; what becomes of the message is the machine's."""
        found = self.tasks.get(task)
        if found is None:
            return Reply.NOT_FOUND
        last, mark = found.last, found.mark
        if mark is not None and found.mark_is_unclaimed:
            mark.joined = True
            return Reply.QUEUED
        if (
            mark is not None
            and last.number == mark.attempt
            and not last.is_finished
            and self.now_ms - mark.asked_ms <= DOUBLE_CLICK_MS
        ):
            return Reply.QUEUED
        if last.status != "failed":
            return Reply.NOT_FAILED
        if last.number > MAX_RETRIES:
            return Reply.BUDGET_EXHAUSTED
        if not found.has_payload:
            return Reply.PAYLOAD_LOST
        found.mark = Mark(last.number + 1, self.now_ms, self.now_ms + REDELIVER_MS)
        found.cancelled_attempt = None
        return Reply.QUEUED

    def withdraw(self, task: str, attempt: int) -> Reply:
        found = self.tasks.get(task)
        mark = found.mark if found else None
        if found is None or mark is None or mark.attempt != attempt or mark.joined or not found.mark_is_unclaimed:
            return Reply.NOTHING_TO_DO
        found.mark = None
        return Reply.ACCEPTED

    def resend(self, task: str) -> int | None:
        """The attempt whose message is enqueued again now."""
        found = self.tasks.get(task)
        mark = found.mark if found else None
        if found is None or mark is None or not found.mark_is_unclaimed or mark.due_ms > self.now_ms:
            return None
        mark.due_ms = self.now_ms + REDELIVER_MS
        return mark.attempt

    def _claim_next(self, found: Model) -> Reply:
        found.tries.append(Try(found.last.number + 1, run=found.last.run + 1))
        found.cancelled_attempt, found.has_payload = None, True
        return Reply.CLAIMED
