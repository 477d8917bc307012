"""The commands on executions, the same for every door: queue, HTTP and kubectl.

Each reads, decides with the pure rules and commits. Never launches anything: that is the reconciler's work, woken by
the change feed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from executions import control, lifecycle, retry, submission
from executions.answer import Answer, Decision, Reply
from executions.callback_token import LaunchProof
from executions.errors import QueueUnavailable, QueueUnclear
from executions.names import incarnation_from_operation
from executions.operations.transact import alter, alter_seen, transact, transacted
from executions.outcome import Outcome
from executions.policy import Policy
from executions.ports import Operation, Queue, Snapshot, Store
from executions.record import Execution
from executions.task import Task


@dataclass(frozen=True, slots=True)
class Commands:
    """The commands, bound to a store and the queue that retries are sent to."""

    store: Store
    queue: Queue
    policy: Policy
    launcher: str
    """Name of the launcher that newly claimed attempts are meant for."""

    async def dispatch(self, task: Task, *, message_id: str) -> Answer:
        """What a queue message does (contract: task message). ``message_id`` makes every redelivery a no-op."""
        operation = Operation(f"message:{message_id}")
        return await self._change(
            task.task_id,
            lambda seen: submission.dispatch(
                seen.execution,
                task,
                now_ms=seen.now_ms,
                policy=self.policy,
                launcher=self.launcher,
                incarnation=incarnation_from_operation(operation.key),
            ),
            operation,
        )

    async def submit(self, task: Task, *, operation: Operation) -> Answer:
        """Status-aware submit on behalf of a resource that a user made."""
        return await self._change(
            task.task_id,
            lambda seen: submission.submit(
                seen.execution,
                task,
                now_ms=seen.now_ms,
                policy=self.policy,
                launcher=self.launcher,
                incarnation=incarnation_from_operation(operation.key),
            ),
            operation,
        )

    async def retry(self, task_id: str, *, requested_by: str, dry_run: bool = False) -> Answer:
        """Ask for a retry: marked in the store, then enqueued. Raises QueueUnavailable when it was not enqueued.

        An unclear send counts as done: the mark stays, and an unclaimed mark is enqueued again.
        """

        def decide(seen: Snapshot) -> Decision:
            return retry.request_retry(
                seen.execution, task_id, requested_by=requested_by, now_ms=seen.now_ms, policy=self.policy
            )

        if dry_run:
            return decide(await self.store.read(task_id)).answer
        done = await transacted(self.store, task_id, decide)
        marked = done.following.execution if done.following else None
        if done.answer.reply is Reply.QUEUED and done.answer.detail == "send" and marked is not None:
            await self._send_retry(marked)
        return done.answer

    async def cancel(self, task_id: str, *, reason: str, requested_by: str, dry_run: bool = False) -> Answer:
        def decide(seen: Snapshot) -> Decision:
            return control.cancel(seen.execution, task_id, reason=reason, requested_by=requested_by, now_ms=seen.now_ms)

        return await self._change(task_id, decide, dry_run=dry_run)

    async def mark_done(self, task_id: str, *, dry_run: bool = False) -> Answer:
        def decide(seen: Snapshot) -> Decision:
            return control.mark_done(seen.execution, task_id, now_ms=seen.now_ms)

        return await self._change(task_id, decide, dry_run=dry_run)

    async def assign(self, task_id: str, *, assignee: str | None, dry_run: bool = False) -> Answer:
        def decide(seen: Snapshot) -> Decision:
            return submission.hand_over(
                seen.execution,
                task_id,
                assignee=assignee,
                now_ms=seen.now_ms,
                policy=self.policy,
                launcher=self.launcher,
            )

        return await self._change(task_id, decide, dry_run=dry_run)

    async def claim(
        self, task_id: str, *, attempt: int, launch_try: int, claim_id: str, proof: LaunchProof | None = None
    ) -> Answer:
        """A worker's ``POST /task-claim``; ``proof`` is the launch that its token was for."""
        return await self._change(
            task_id,
            lambda seen: lifecycle.claim_launch(
                seen.execution,
                task_id,
                attempt=attempt,
                launch_try=launch_try,
                claim_id=claim_id,
                now_ms=seen.now_ms,
                proof=proof,
            ),
        )

    async def complete(
        self,
        outcome: Outcome,
        *,
        received_ms: int | None = None,
        operation: Operation | None = None,
        proof: LaunchProof | None = None,
    ) -> Answer:
        """A worker's outcome, of the launch that its token was for where it had one.

        ``received_ms`` is set for one that waited on the outcomes queue.
        """
        return await self._change(
            outcome.task_id,
            lambda seen: lifecycle.record_outcome(
                seen.execution,
                outcome,
                received_ms=seen.now_ms if received_ms is None else received_ms,
                now_ms=seen.now_ms,
                was_kept=received_ms is not None,
                proof=proof,
            ),
            operation,
        )

    async def resend_retry(self, task_id: str) -> None:
        """Enqueue a marked retry again that is past its time. Raises QueueUnavailable, QueueUnclear."""

        def resent(found: Execution, now_ms: int) -> Execution:
            if not retry.retry_is_due(found, now_ms):
                return found
            return retry.retry_resent(found, now_ms=now_ms, policy=self.policy)

        # The next time is committed before the send: two controllers never send for the same moment.
        done = await alter_seen(self.store, await self.store.read(task_id), resent)
        if done.answer.reply is Reply.ACCEPTED and done.following is not None and done.following.execution is not None:
            await self._enqueue(done.following.execution)

    async def _send_retry(self, marked: Execution) -> None:
        try:
            await self._enqueue(marked)
        except QueueUnclear:
            return
        except QueueUnavailable:
            if await self._withdraw(marked.task_id, marked.latest.number + 1):
                raise

    async def _enqueue(self, marked: Execution) -> None:
        """Send the message of a retry that was just marked."""
        message = retry.retry_message(marked)
        if message is not None:
            await self.queue.send(message)

    async def _withdraw(self, task_id: str, attempt: int) -> bool:
        """Take the mark back; False when another click already relies on it, so that the retry will happen."""
        answer = await alter(self.store, task_id, lambda found, _: retry.withdraw_retry(found, attempt))
        return answer.reply is Reply.ACCEPTED

    async def _change(
        self,
        task_id: str,
        decide: Callable[[Snapshot], Decision],
        operation: Operation | None = None,
        *,
        dry_run: bool = False,
    ) -> Answer:
        if dry_run:
            return decide(await self.store.read(task_id)).answer
        return await transact(self.store, task_id, decide, operation=operation)
