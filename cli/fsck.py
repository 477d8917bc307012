"""``alakai fsck``: does everything fit together, and with ``--repair`` mends what does not.

Takes a picture of records, lists, resources, workers, dashboard rows and archive, after a pause a second one of what
looked wrong; only what both show is told. Repairs go through the same doors as everything else: a commit, a word to the
leader, the launcher's stop, an event on the stream. What is wrong and why is decided in ``executions.fsck``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import IntEnum

from cli.output import Output, console, progress, show_document, show_table
from cli.resources import open_cluster
from executions.adapters.kube_client import KubeClient
from executions.adapters.launchers import LauncherContext, open_launcher
from executions.adapters.redis_inspection import RedisInspection
from executions.adapters.redis_payloads import RedisPayloads
from executions.adapters.redis_store import RedisStore, open_store
from executions.adapters.settings import Settings, settings_from_environment
from executions.adapters.task_tracking import TaskTracking, open_tracking
from executions.adapters.visibility_file import visibility_from
from executions.errors import InvalidEvent
from executions.fsck import Finding, Kind, Picture, Surroundings, findings
from executions.operations.settle import settle
from executions.ports import FoundWorker, Launcher, Listing
from executions.resource import Observed, observed_from_body
from executions.tracking import (
    TrackingEvent,
    event_from_text,
    execution_id_of,
    task_and_time_of,
    told_event,
)

_BATCH = 200
_REPAIR_SECONDS = 60.0
_AGAIN_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 8.0


class ExitCode(IntEnum):
    """As fsck(8)."""

    GOOD = 0
    REPAIRED = 1
    LEFT = 4


def run(*, repair: bool, settle_seconds: float, output: Output) -> ExitCode:
    """Print what was found, and with ``repair`` what became of it. Raises InvalidSettings, StoreUnavailable, …"""
    return asyncio.run(_run(repair=repair, settle_seconds=settle_seconds, output=output))


async def _run(*, repair: bool, settle_seconds: float, output: Output) -> ExitCode:
    async with AsyncExitStack() as stack:
        stores = await Stores.opened(settings_from_environment(), stack)
        suspected = await stores.findings(None)
        if suspected:
            await asyncio.sleep(settle_seconds)
        found = suspected & await stores.findings(suspected)
        left = await _repaired(stores, found) if repair and found else found
        _show(found, left, output, is_repaired=repair)
    if not found:
        return ExitCode.GOOD
    return ExitCode.LEFT if left else ExitCode.REPAIRED


async def _repaired(stores: Stores, found: set[Finding]) -> set[Finding]:
    """Mend, and look until it shows; what is left is returned."""
    with progress() as bar:
        task = bar.add_task("repairs", total=len(found))
        for finding in sorted(found, key=_order):
            await stores.repair(finding)
            bar.advance(task)
    deadline, left, pause = time.monotonic() + _REPAIR_SECONDS, found, _AGAIN_SECONDS
    while left and time.monotonic() < deadline:
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)  # each look lists the whole cluster
        still = {(item.kind, item.subject, item.worker_id) for item in await stores.findings(left)}
        left = {item for item in left if (item.kind, item.subject, item.worker_id) in still}
        for item in left:
            if item.worker_id:
                await stores.repair(item)  # stopping a worker is asked for until it is gone
    return left


def _show(found: set[Finding], left: Collection[Finding], output: Output, *, is_repaired: bool) -> None:
    def state(item: Finding) -> str:
        return "found" if not is_repaired else "left" if item in left else "repaired"

    ordered = sorted(found, key=_order)
    if output in (Output.JSON, Output.YAML):
        documents = [
            {"kind": item.kind.value, "subject": item.subject, "message": item.message, "state": state(item)}
            for item in ordered
        ]
        show_document(documents, output)
        return
    if found:
        rows = [[item.kind.value, state(item), item.subject, item.message] for item in ordered]
        show_table(("what", "state", "subject", "message"), rows)
        if not is_repaired:
            console(stderr=True).print("alakai fsck --repair mends what can be mended")
    else:
        print("everything fits together")


def _order(item: Finding) -> tuple[str, str, str]:
    return item.kind.value, item.subject, item.worker_id


@dataclass(slots=True)
class Stores:
    """Everything that is compared."""

    settings: Settings
    store: RedisStore
    cluster: KubeClient
    launcher: Launcher
    tracking: TaskTracking

    @classmethod
    async def opened(cls, settings: Settings, stack: AsyncExitStack) -> Stores:
        """Raises InvalidSettings, StoreUnavailable."""
        store = open_store(settings)
        stack.push_async_callback(store.close)
        await store.ping()
        cluster = open_cluster()
        stack.push_async_callback(cluster.close)
        payloads = RedisPayloads(store.redis, store.keys.prefix)
        launcher = open_launcher(settings.launcher_name, LauncherContext(settings, payloads))
        stack.push_async_callback(launcher.close)
        tracking = open_tracking(settings)
        stack.push_async_callback(tracking.close)
        return cls(settings, store, cluster, launcher, tracking)

    async def findings(self, only: Collection[Finding] | None) -> set[Finding]:
        """Of all tasks, or of those that looked wrong before."""
        wanted = None if only is None else {item.subject for item in only if item.kind is not Kind.LOST_OBJECT}
        resources = {item.task_id: item async for item in self._resources()}
        workers = await self._workers()
        task_ids = await self._task_ids(resources, workers) if wanted is None else wanted
        foreign = {task_id async for task_id in self.store.foreign_changes()}
        found = set[Finding]()
        with progress() as bar:
            shown = bar.add_task("looking" if only is None else "looking again", total=len(task_ids))
            ordered = sorted(task_ids)
            for start in range(0, len(ordered), _BATCH):
                batch = ordered[start : start + _BATCH]
                around = Surroundings(await self.store.now_ms(), self.settings.policy, self._archive_grace_ms)
                for picture in await self._pictures(batch, foreign, resources, workers):
                    found.update(findings(picture, around))
                bar.advance(shown, len(batch))
        if only is None or any(item.kind is Kind.LOST_OBJECT for item in only):
            found |= await self._lost_objects()
        return found

    async def repair(self, finding: Finding) -> None:
        """What mends that kind. Whether it did is seen at the next look."""
        task_id = finding.subject
        match finding.kind:
            case Kind.FOREIGN | Kind.MISINDEXED:
                await settle(self.store, await self.store.read(task_id))
                await self.store.wake(task_id)
            case Kind.MISSING_RESOURCE | Kind.GHOST_RESOURCE | Kind.STALE_RESOURCE | Kind.OVERDUE:
                await self.store.wake(task_id)
            case Kind.ORPHAN_WORKER | Kind.DOUBLE_WORKER:
                await self.launcher.stop(finding.worker_id, "no attempt needs this worker (alakai fsck)")
            case Kind.STALE_ROW:
                await self._tell(task_id, to_archive=False)
            case Kind.NOT_ARCHIVED:
                await self._tell(task_id, to_archive=True)
            case Kind.LOST_OBJECT:
                await self._archive_again(finding.subject)

    async def _pictures(
        self,
        task_ids: list[str],
        foreign: set[str],
        resources: dict[str, Observed],
        workers: dict[str, list[FoundWorker]],
    ) -> list[Picture]:
        read = {snapshot.task_id: snapshot for snapshot in await self.store.read_many(task_ids)}
        listed = await RedisInspection(self.store.redis, self.store.keys.prefix).listed(task_ids)
        executions = {task_id: read[task_id].execution for task_id in task_ids if task_id in read}
        told = {
            task_id: (execution_id_of(execution), execution.state.told_event)
            for task_id, execution in executions.items()
            if execution is not None and execution.state.told_event is not None
        }
        rows = dict(zip(told, await self.tracking.projection.read([item for item, _ in told.values()]), strict=True))
        archived: dict[str, bool] = {}
        if self.tracking.archive is not None:
            pairs = [(execution_id, event_id) for execution_id, event_id in told.values() if event_id]
            archived = dict(zip(told, await self.tracking.ledger.archived(pairs), strict=True))
        pictures = []
        for task_id, where in zip(task_ids, listed, strict=True):
            row = rows.get(task_id, {})
            is_of_another = row.get("taskId", task_id) != task_id  # which has the same row, and took a later step
            pictures.append(
                Picture(
                    task_id=task_id,
                    execution=executions.get(task_id),
                    is_readable=task_id in read,
                    is_foreign=task_id in foreign,
                    scores=where.scores,
                    place=where.place,
                    resource=resources.get(task_id),
                    workers=workers.get(task_id, ()),
                    row=told[task_id][1] if is_of_another else row.get("eventId"),
                    is_archived=archived.get(task_id),
                )
            )
        return pictures

    async def _task_ids(self, resources: Iterable[str], workers: Iterable[str]) -> set[str]:
        inspection = RedisInspection(self.store.redis, self.store.keys.prefix)
        recorded = {task_id async for task_id in self.store.task_ids()}
        return recorded | await inspection.named() | set(resources) | set(workers)

    async def _resources(self) -> AsyncIterator[Observed]:
        async for body in self.cluster.list():
            yield observed_from_body(body)

    async def _workers(self) -> dict[str, list[FoundWorker]]:
        found: dict[str, list[FoundWorker]] = {}
        if isinstance(self.launcher, Listing):
            for worker in await self.launcher.workers():
                found.setdefault(worker.task_id, []).append(worker)
        return found

    @property
    def _archive_grace_ms(self) -> int:
        return round(3000 * self.settings.task_tracking_s3_batch_seconds) + 5_000

    async def _lost_objects(self) -> set[Finding]:
        if self.tracking.archive is None:
            return set()
        there = set(await self.tracking.archive.names())
        return {
            Finding(Kind.LOST_OBJECT, receipt.name, f"S3 lacks an object of {receipt.events} events", receipt.sha256)
            async for receipt in self.tracking.ledger.all_receipts()
            if receipt.name not in there
        }

    async def _tell(self, task_id: str, *, to_archive: bool) -> None:
        """The latest step once more, from the record: to the projection, or on the stream for the archive."""
        if (event := await self._latest(task_id)) is None:
            return
        if to_archive:
            await self.tracking.stream.repeat([event.line])
        else:
            await self.tracking.projection.apply([event])

    async def _latest(self, task_id: str) -> TrackingEvent | None:
        """The event of the latest step, as it was told."""
        execution = (await self.store.read(task_id)).execution
        visibility = visibility_from(self.settings.task_visibility_file)
        return told_event(execution, visibility) if execution is not None else None

    async def _archive_again(self, name: str) -> None:
        """What the lost object held, from the stream where it still is, else the latest step from its record."""
        lost = await self.tracking.ledger.reopened(name)
        found = {event.event_id: event async for event in self._on_the_stream() if event.event_id in lost}
        for event_id in lost - found.keys():
            latest = await self._latest(task_and_time_of(event_id)[0])
            if latest is not None and latest.event_id == event_id:
                found[event_id] = latest
        await self.tracking.stream.repeat([event.line for event in found.values()])
        if nowhere := len(lost) - len(found):
            console(stderr=True).print(f"{nowhere} events of {name} are nowhere any more", markup=False)

    async def _on_the_stream(self) -> AsyncIterator[TrackingEvent]:
        async for text in self.tracking.stream.entries():
            try:
                yield event_from_text(text)
            except InvalidEvent:
                continue
