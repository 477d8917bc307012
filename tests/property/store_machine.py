"""A state machine that does everything at once to a store and the lifecycle, and compares with a simple model.

A few tasks are submitted, launched, claimed, reported, lost, cancelled and retried in any order, with duplicates, stale
wishes, lost requests and replies, and hands in the record. The store is the subclass's: see ``Bench``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from executions.answer import Answer, Decision, Reply
from executions.errors import QueueUnavailable, StoreUnavailable
from executions.feed import FeedEntry
from executions.index import Index
from executions.lifecycle import ended, intend_launch, launch_failed, launched
from executions.operations.commands import Commands
from executions.operations.transact import alter, transact
from executions.outcome import outcome_from_document
from executions.policy import Policy
from executions.ports import Operation, Snapshot, Store
from executions.record import Execution, Status
from executions.retry import withdraw_retry
from tests.property.model import FINISHED, MAX_LAUNCH_TRIES, MAX_RETRIES, REDELIVER_MS, Model, Models, Try
from tests.property.unreliable import Fault, Outbox, QueueMode, UnreliableStore
from tests.support.builders import NOW_MS, a_task, task_document
from tests.support.store_contract import World

POLICY = Policy(max_retries=MAX_RETRIES, max_launch_tries=MAX_LAUNCH_TRIES, retry_redeliver_ms=REDELIVER_MS)
TASKS = ("one", "two", "three")

choices = st.integers(0, 11)
"""Which task is meant, see ``StoreMachine.one``."""
faults: st.SearchStrategy[Fault] = st.sampled_from(
    [None, None, None, None, "request lost", "reply lost", "edited meanwhile"]
)
offsets = st.sampled_from([0, 0, 0, 0, 0, 0, 0, -1, 1])
"""Which attempt or launch try is meant, beside the latest one."""


@dataclass(frozen=True)
class Bench:
    """What the machine runs on. ``new_entries`` gives each feed entry once."""

    store: Store
    world: World
    run: Callable[[Coroutine[Any, Any, Any]], Any]
    new_entries: Callable[[], Sequence[FeedEntry]]
    close: Callable[[], None]


class StoreMachine(RuleBasedStateMachine):
    """Subclasses say what it runs on."""

    def bench(self) -> Bench:
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.on = self.bench()
        self.store = UnreliableStore(self.on.store, self.edit)
        self.queue = Outbox()
        self.numbers = itertools.count(1)
        self.commands = Commands(self.store, self.queue, POLICY, "local")
        self.models = Models(NOW_MS)
        self.messages: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, Answer] = {}
        """What each operation was answered first."""
        self.taken = 0
        self.frozen: dict[tuple[str, str, int], object] = {}
        self.sequences: dict[tuple[str, str], int] = {}
        self.told: dict[tuple[str, str], int] = {}
        self.ends: set[tuple[str, str, int]] = set()
        for task in TASKS:
            self.messages.append((f"message-{next(self.numbers)}", task_document(task)))
            self.deliver(-1, None)

    def teardown(self) -> None:
        if hasattr(self, "on"):
            self.on.close()

    # How a command is given: with a fault perhaps, and then again

    def give(
        self,
        call: Callable[[], Coroutine[Any, Any, Answer]],
        step: Callable[[], Reply],
        fault: Fault,
        *,
        operation: str | None = None,
    ) -> None:
        """Give a command until it is answered, and compare the answer with the model's.

        A command whose reply was lost has had its effect; given again, it must say what a second one is told, or, with
        an operation, what the first one was told.
        """
        self.store.fault = fault
        try:
            answer = self.on.run(call())
        except StoreUnavailable:
            if fault == "reply lost" and operation is None:
                step()
            answer = self.on.run(call())
        self.store.fault = None
        if operation is not None and operation in self.answers:
            assert answer == self.answers[operation]
            return
        expected = step()
        assert answer.reply is expected, f"{answer} where {expected} was expected"
        if operation is not None and expected is not Reply.OUT_OF_ORDER:  # that one was not acted on
            self.answers[operation] = answer

    def alter(
        self, task: str, following: Callable[[Execution, int], Execution], step: Callable[[], Reply], fault: Fault
    ) -> None:
        self.give(lambda: alter(self.store, task, following), step, fault)

    async def edit(self, task: str) -> None:
        """A hand adds a field to the latest attempt, which must not be lost."""
        model = self.models.tasks.get(task)
        if model is not None:
            number = str(model.last.number)
            document = orjson.loads((await self.on.world.record(task))[number])
            model.last.nonce = next(self.numbers)
            await self.on.world.write_by_hand(task, number, orjson.dumps({**document, "nonce": model.last.nonce}))

    def one(self, choice: int, fits: Callable[[Model], bool]) -> str:
        """Mostly a task for which the command means something, now and then any."""
        fitting = [task for task in TASKS if task in self.models.tasks and fits(self.models.tasks[task])]
        among = fitting if fitting and choice % 4 else TASKS
        return among[choice % len(among)]

    def last(self, task: str) -> Try:
        found = self.models.tasks.get(task)
        return found.last if found else Try(1)

    def take_sent(self) -> None:
        for document in self.queue.sent[self.taken :]:
            self.messages.append((f"message-{next(self.numbers)}", document))
        self.taken = len(self.queue.sent)

    # Submitting

    @rule(choice=choices, ahead=st.sampled_from([None, None, 1, 1, 0, -1, 2, 3]), fault=faults)
    def a_new_message(self, choice: int, ahead: int | None, fault: Fault) -> None:
        task = self.one(choice, lambda model: model.last.status == "failed")
        number = self.last(task).number + (ahead or 0)
        document = task_document(task) if ahead is None or number < 1 else task_document(task, attempt=number)
        self.messages.append((f"message-{next(self.numbers)}", document))
        self.deliver(len(self.messages) - 1, fault)

    @precondition(lambda self: self.messages)
    @rule(number=st.integers(0, 1000), fault=faults)
    def a_message_is_delivered_for_the_first_time_or_again(self, number: int, fault: Fault) -> None:
        self.deliver(-1 - number % len(self.messages), fault)

    def deliver(self, position: int, fault: Fault) -> None:
        message_id, document = self.messages[position]
        task = a_task(document["taskId"], **{name: value for name, value in document.items() if name == "attempt"})
        self.give(
            lambda: self.commands.dispatch(task, message_id=message_id),
            lambda: self.models.dispatch(task.task_id, task.attempt),
            fault,
            operation=f"message:{message_id}",
        )

    @rule(choice=choices, uid=st.sampled_from(["u1", "u2", "u3", "u4"]), fault=faults)
    def a_resource_submits(self, choice: int, uid: str, fault: Fault) -> None:
        task = self.one(choice, lambda model: model.last.status == "failed")
        operation = f"resource:{task}:{uid}"
        self.give(
            lambda: self.commands.submit(a_task(task), operation=Operation(operation, None)),
            lambda: self.models.submit(task),
            fault,
            operation=operation,
        )

    # Launching

    @rule(choice=choices, offset=offsets, fault=faults)
    def a_launch_is_intended(self, choice: int, offset: int, fault: Fault) -> None:
        task = self.one(choice, lambda model: model.last.status == "pending" and model.last.launch is None)
        attempt = self.last(task).number + offset

        def following(found: Execution, now_ms: int) -> Execution:
            return intend_launch(found, attempt, token="t" * 64, request={}, now_ms=now_ms, policy=POLICY)

        self.alter(task, following, lambda: self.models.intend(task, attempt), fault)

    @rule(choice=choices, attempt=offsets, launch_try=offsets, fault=faults)
    def a_launch_is_answered(self, choice: int, attempt: int, launch_try: int, fault: Fault) -> None:
        task = self.one(choice, lambda model: model.last.launch is not None and not model.last.worker)
        number, launch = self.meant(task, attempt, launch_try)

        def following(found: Execution, now_ms: int) -> Execution:
            return launched(found, number, launch, worker_id=f"worker-{number}-{launch}", now_ms=now_ms)

        self.alter(task, following, lambda: self.models.launched(task, number, launch), fault)

    @rule(choice=choices, attempt=offsets, launch_try=offsets, permanent=st.booleans(), fault=faults)
    def a_launch_has_no_worker(self, choice: int, attempt: int, launch_try: int, permanent: bool, fault: Fault) -> None:
        task = self.one(choice, lambda model: model.last.is_live)
        number, launch = self.meant(task, attempt, launch_try)

        def following(found: Execution, now_ms: int) -> Execution:
            return launch_failed(
                found,
                number,
                launch,
                code="LAUNCH_CAPACITY",
                message="no room",
                permanent=permanent,
                now_ms=now_ms,
                policy=POLICY,
            )

        self.alter(task, following, lambda: self.models.launch_failed(task, number, launch, permanent=permanent), fault)

    @rule(choice=choices, attempt=offsets, launch_try=offsets, who=st.sampled_from(["a", "b"]), fault=faults)
    def workers_claim_their_launch(self, choice: int, attempt: int, launch_try: int, who: str, fault: Fault) -> None:
        task = self.one(choice, lambda model: model.last.is_live)
        number, launch = self.meant(task, attempt, launch_try)
        for claim_id in (who, "a", who):
            self.give(
                lambda: self.commands.claim(task, attempt=number, launch_try=launch, claim_id=claim_id),  # noqa: B023
                lambda: self.models.claim(task, number, launch, claim_id),  # noqa: B023
                fault,
            )

    def meant(self, task: str, attempt: int, launch_try: int) -> tuple[int, int]:
        last = self.last(task)
        return last.number + attempt, (last.launch or last.tries or 1) + launch_try

    @rule(fault=faults)
    def a_waiting_attempt_gets_its_worker(self, fault: Fault) -> None:
        """The usual way, so that the unusual ones meet it often."""
        self.a_launch_is_intended(1, 0, None)
        self.a_launch_is_answered(1, 0, 0, fault)

    @rule(times=st.integers(1, MAX_LAUNCH_TRIES), is_cancelled=st.booleans(), fault=faults)
    def launches_fail_one_after_the_other(self, times: int, is_cancelled: bool, fault: Fault) -> None:
        self.a_launch_is_intended(1, 0, None)
        if is_cancelled:
            self.somebody_cancels_or_is_done(1, "cancel", None)
        for _ in range(times):
            self.a_launch_has_no_worker(1, 0, 0, False, fault)
            self.a_launch_is_intended(1, 0, None)

    # Ending

    @rule(succeeded=st.sampled_from([False, False, False, True]), fault=faults)
    def a_live_attempt_is_reported(self, succeeded: bool, fault: Fault) -> None:
        """The usual way, too."""
        self.a_waiting_attempt_gets_its_worker(None)
        self.a_worker_reports(1, 0, None, succeeded, fault)

    @rule(
        choice=choices,
        attempt=st.sampled_from([None, None, 0, 0, -1, 1]),
        launch_try=st.sampled_from([None, None, None, 0, -1]),
        succeeded=st.booleans(),
        fault=faults,
    )
    def a_worker_reports(
        self, choice: int, attempt: int | None, launch_try: int | None, succeeded: bool, fault: Fault
    ) -> None:
        task = self.one(choice, lambda model: model.last.is_live)
        number, launch = self.meant(task, attempt or 0, launch_try or 0)
        named = {"attempt": number} if attempt is not None and number >= 1 else {}
        tried = {"launchTry": launch} if launch_try is not None and launch >= 1 else {}
        report = outcome_from_document(
            {"taskId": task, "status": "success" if succeeded else "failure", **named, **tried}
        )
        self.give(
            lambda: self.commands.complete(report),
            lambda: self.models.outcome(task, named.get("attempt"), tried.get("launchTry"), succeeded=succeeded),
            fault,
        )

    @rule(choice=choices, offset=offsets, fault=faults)
    def a_worker_is_lost(self, choice: int, offset: int, fault: Fault) -> None:
        task = self.one(choice, lambda model: model.last.is_live)
        attempt = self.last(task).number + offset

        def following(found: Execution, now_ms: int) -> Execution:
            return ended(found, attempt, Status.FAILED, now_ms=now_ms, code="WORKER_LOST", message="gone")

        self.alter(task, following, lambda: self.models.lost(task, attempt), fault)

    @rule(choice=choices, word=st.sampled_from(["cancel", "done", "done"]), fault=faults)
    def somebody_cancels_or_is_done(self, choice: int, word: str, fault: Fault) -> None:
        if word == "done":
            task = self.one(choice, lambda _: True)
            self.give(lambda: self.commands.mark_done(task), lambda: self.models.done(task), fault)
            return
        task = self.one(choice, lambda model: model.mark_is_unclaimed or model.last.is_live)
        self.give(
            lambda: self.commands.cancel(task, reason="not needed", requested_by="jane"),
            lambda: self.models.cancel(task),
            fault,
        )

    @rule(choice=choices, fault=faults)
    def somebody_else_is_assigned(self, choice: int, fault: Fault) -> None:
        task = self.one(choice, lambda model: model.last.status == "failed")
        name = f"person-{next(self.numbers)}"
        self.give(lambda: self.commands.assign(task, assignee=name), lambda: self.models.hand_over(task, name), fault)

    # Retrying

    @rule(choice=choices, mode=st.sampled_from(["up", "up", "away", "unclear"]), fault=faults)
    def somebody_clicks_retry(self, choice: int, mode: QueueMode, fault: Fault) -> None:
        task = self.one(choice, lambda model: model.mark is not None or model.last.status == "failed")
        found = self.models.tasks.get(task)
        before = found.mark if found else None
        self.queue.mode = mode
        try:
            self.give(lambda: self.commands.retry(task, requested_by="jane"), lambda: self.models.retry(task), fault)
        except QueueUnavailable:
            # Answered 502: the mark that this click made is gone again, unless it is not the only one to rely on it.
            assert mode == "away"
            assert self.models.retry(task) is Reply.QUEUED
            assert found is not None
            assert found.mark is not before
            found.mark = None
        finally:
            self.queue.mode, self.store.fault = "up", None
            self.take_sent()

    @rule(seconds=st.sampled_from([0, 10, 11]), fault=faults)
    def a_retry_is_asked_for_again_when_it_has_begun(self, seconds: int, fault: Fault) -> None:
        before = len(self.messages)
        self.somebody_clicks_retry(1, "up", None)
        for position in range(before, len(self.messages)):
            self.deliver(position, None)
            self.time_passes(seconds)
            task = self.messages[position][1]["taskId"]
            self.give(
                lambda: self.commands.retry(task, requested_by="joe"),  # noqa: B023
                lambda: self.models.retry(task),  # noqa: B023
                fault,
            )

    @rule(is_asked_again=st.booleans(), fault=faults)
    def a_retry_is_cancelled_on_its_way(self, is_asked_again: bool, fault: Fault) -> None:
        before = len(self.messages)
        self.somebody_clicks_retry(1, "up", None)
        self.somebody_cancels_or_is_done(1, "cancel", fault)
        if is_asked_again:
            self.somebody_clicks_retry(1, "up", None)
        for position in range(before, len(self.messages)):
            self.deliver(position, fault)

    @rule(choice=choices, clicks=st.integers(0, 2), offset=offsets, fault=faults)
    def a_send_turns_out_to_have_failed(self, choice: int, clicks: int, offset: int, fault: Fault) -> None:
        for _ in range(clicks):
            self.somebody_clicks_retry(choice, "up", None)
        task = self.one(choice, lambda model: model.mark_is_unclaimed)
        attempt = self.last(task).number + 1 + offset
        self.alter(
            task,
            lambda found, _: withdraw_retry(found, attempt),
            lambda: self.models.withdraw(task, attempt),
            fault,
        )

    @rule(choice=choices)
    def an_unclaimed_retry_is_sent_again(self, choice: int) -> None:
        task = self.one(choice, lambda model: model.mark_is_unclaimed)
        expected = self.models.resend(task)
        before = len(self.queue.sent)
        self.on.run(self.commands.resend_retry(task))
        assert [item["attempt"] for item in self.queue.sent[before:]] == ([] if expected is None else [expected])
        self.take_sent()

    @rule(seconds=st.sampled_from([1, 5, 11, 61]))
    def time_passes(self, seconds: int) -> None:
        self.store.now += seconds * 1000
        self.models.now_ms = self.store.now

    # Hands in the record

    @precondition(lambda self: self.models.tasks)
    @rule(task=st.sampled_from([*TASKS, *[None] * 8]))
    def a_record_is_removed_by_hand(self, task: str | None) -> None:
        if task not in self.models.tasks:
            return
        self.on.run(self.on.world.remove_by_hand(task))
        del self.models.tasks[task]

    @rule(
        attempt=st.sampled_from([1, 2, 3, 5]),
        status=st.sampled_from(["failed", "running", "succeeded", "pending"]),
        has_payload=st.booleans(),
        is_cancelled=st.booleans(),
        replaces=st.sampled_from([False, False, True]),
    )
    def a_record_is_written_by_hand(
        self, attempt: int, status: str, has_payload: bool, is_cancelled: bool, replaces: bool
    ) -> None:
        if replaces:
            self.a_record_is_removed_by_hand(TASKS[0])
        absent = [item for item in TASKS if item not in self.models.tasks]
        if not absent:
            return
        task, nonce = absent[0], next(self.numbers)
        document: dict[str, Any] = {"status": status, "launcher": "local", "nonce": nonce}
        if has_payload:
            document["taskSnapshot"] = task_document(task)
        self.on.run(self.on.world.write_by_hand(task, str(attempt), orjson.dumps(document)))
        self.models.tasks[task] = Model([Try(attempt, status, nonce=nonce)], has_payload)
        if is_cancelled:
            self.give(
                lambda: self.commands.cancel(task, reason="not needed", requested_by="jane"),
                lambda: self.models.cancel(task),
                None,
            )

    @precondition(lambda self: any(not model.mark_is_unclaimed for model in self.models.tasks.values()))
    @rule(status=st.sampled_from(["failed", "succeeded"]))
    def a_record_is_edited_by_hand(self, status: str) -> None:
        task, model = next((task, model) for task, model in self.models.tasks.items() if not model.mark_is_unclaimed)
        number = str(model.last.number)
        document = orjson.loads(self.record(task)[number])
        model.last.status, model.last.nonce = status, next(self.numbers)
        edited = {**document, "status": status, "nonce": model.last.nonce}
        self.on.run(self.on.world.write_by_hand(task, number, orjson.dumps(edited)))

    @rule()
    def a_resync_takes_over_what_hands_did(self) -> None:
        async def settle() -> None:
            for task in {item async for item in self.store.foreign_changes()}:
                snapshot = await self.store.read(task)
                if snapshot.execution is None:
                    await self.store.commit(snapshot, None, Answer(Reply.ACCEPTED, task))
                else:
                    await transact(self.store, task, take_over)

        def take_over(seen: Snapshot) -> Decision:
            assert seen.execution is not None
            execution = seen.execution.with_state(assignee=seen.execution.state.assignee)
            return Decision(execution, Answer(Reply.ACCEPTED, seen.task_id))

        self.on.run(settle())
        assert self.foreign() == set()

    # What always holds

    def record(self, task: str) -> dict[str, bytes]:
        found: dict[str, bytes] = self.on.run(self.on.world.record(task))
        return found

    def foreign(self) -> set[str]:
        async def changes() -> set[str]:
            return {item async for item in self.store.foreign_changes()}

        found: set[str] = self.on.run(changes())
        return found

    def state_of(self, task: str) -> Execution | None:
        snapshot: Snapshot = self.on.run(self.store.read(task))
        return snapshot.execution

    @invariant()
    def the_record_is_what_the_model_says(self) -> None:
        for task in TASKS:
            found = [orjson.loads(value) for _, value in sorted(self.record(task).items())]
            model = self.models.tasks.get(task)
            expected = [(item.status, item.run, item.nonce) for item in model.tries] if model else []
            assert [(item["status"], item.get("run", 1), item.get("nonce")) for item in found] == expected
            live = [item for item in found if item["status"] not in FINISHED]
            assert all("launch" not in item or item["launch"]["startBy"] for item in live)

    @invariant()
    def attempts_are_gapless_and_within_the_budget(self) -> None:
        for task, model in self.models.tasks.items():
            numbers = sorted(int(name) for name in self.record(task))
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            assert len(numbers) == 1 or numbers[-1] <= MAX_RETRIES + 1
            assert [item.number for item in model.tries] == numbers

    @invariant()
    def a_finished_attempt_is_frozen_within_its_incarnation(self) -> None:
        foreign = self.foreign()
        for task in self.models.tasks:
            if task in foreign:
                continue
            for number, value in self.record(task).items():
                item = orjson.loads(value)
                if item["status"] in FINISHED:
                    key = (task, item["incarnation"], int(number))
                    parts = ("status", "finishedAt", "error_code", "errorMessage", "result", "run")
                    result = [item.get(name) for name in parts]
                    assert self.frozen.setdefault(key, result) == result
                    assert len(item["lateResults"]) <= 5

    @invariant()
    def the_sequence_rises_within_an_incarnation(self) -> None:
        for task in self.models.tasks:
            execution = self.state_of(task)
            assert execution is not None
            key = (task, execution.state.incarnation)
            assert execution.state.sequence >= self.sequences.get(key, 0)
            self.sequences[key] = execution.state.sequence

    @invariant()
    def the_feed_tells_each_step_once_and_each_end_once(self) -> None:
        for entry in self.on.new_entries():
            key = (entry.task_id, entry.incarnation)
            if entry.transition == "forgotten":
                continue
            assert entry.sequence > self.told.get(key, 0)
            self.told[key] = entry.sequence
            if entry.transition in FINISHED:
                end = (*key, entry.attempt)
                assert end not in self.ends
                self.ends.add(end)

    @invariant()
    def the_lists_hold_what_the_record_says(self) -> None:
        foreign = self.foreign()
        expected: dict[Index, set[str]] = {index: set() for index in Index}
        for task, model in self.models.tasks.items():
            if task in foreign:
                continue
            item = orjson.loads(self.record(task)[str(model.last.number)])
            status, is_intended = item["status"], "launch" in item
            expected[Index.WAITING] |= {task} if status == "pending" and not is_intended else set()
            expected[Index.LIVE] |= {task} if status == "running" or (status == "pending" and is_intended) else set()
            expected[Index.FINISHED] |= {task} if status in FINISHED else set()
            is_due = (status == "pending" and "launchNotBefore" in item) or model.mark_is_unclaimed
            expected[Index.DUE] |= {task} if is_due else set()
        for index in Index:
            members: list[str] = self.on.run(self.store.members(index))
            assert set(members) - foreign == expected[index], index
            assert len(members) == self.on.run(self.store.count(index))
