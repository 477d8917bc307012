"""The controller's tasks: what runs on every replica, and what runs on the leader only.

Everything here is wiring; a newcomer reads ``App.run`` and ``Leader.run`` and knows what the process does.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import structlog

from controller.api_health import ApiHealth
from controller.breakers import Breakers
from controller.epoch import EpochGuard
from controller.kopf_operator import KopfOperator
from controller.leadership import Leadership
from controller.loops.consumer import Consumer
from controller.loops.ecs_hints import EcsHints
from controller.loops.feed_reader import FeedReader
from controller.loops.hints import Hints
from controller.loops.line import Line
from controller.loops.measures import Measures
from controller.loops.outcomes import Outcomes
from controller.loops.resync import Resync
from controller.loops.sweep import Sweep
from controller.mirror import Mirror
from controller.notifications import Notifications
from controller.notifier import Notifier
from controller.observed import ObservedResources
from controller.ownership import Owned, Ownership
from controller.rebuild import Rebuild
from controller.reconciler import Reconciler
from controller.resource_events import WorkerExecutionEvents
from controller.resource_operations import ResourceOperations
from controller.supervision import restarted
from controller.tracking import Tracking
from controller.work_queue import WorkQueue
from executions.adapters.callback_keys import CallbackKeys, open_callback_keys
from executions.adapters.epoch_config_map import EpochConfigMap
from executions.adapters.health import Health
from executions.adapters.kube_client import KubeClient
from executions.adapters.kube_connection import KubeConnection, open_connection
from executions.adapters.launchers import LauncherContext, open_launcher
from executions.adapters.metrics import REDIS_SERVED, serve_metrics, tell_build
from executions.adapters.probes import serve_probes
from executions.adapters.redis_feed import RedisFeed
from executions.adapters.redis_lease import RedisLease
from executions.adapters.redis_owner import PrefixOwner
from executions.adapters.redis_payloads import RedisPayloads
from executions.adapters.redis_positions import RedisPositions
from executions.adapters.redis_store import RedisStore, open_store
from executions.adapters.settings import Settings
from executions.adapters.sqs_queue import SqsQueue, open_queue
from executions.adapters.store_probe import open_store_probe
from executions.operations.commands import Commands
from executions.ports import Launcher, Owning, Watching
from executions.record import Attempt

_EPOCH_SECONDS = 5.0
_NO_EPOCH = "unknown"
"""No Redis has this epoch: nothing is served until the guard has found out which one is ours."""
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class App:
    """One controller process."""

    settings: Settings
    connection: KubeConnection
    store: RedisStore
    launcher: Launcher
    tasks: SqsQueue
    retries: SqsQueue
    kept_outcomes: SqsQueue
    tracking: Tracking
    notifications: Notifications
    callback_keys: CallbackKeys | None = None
    events: SqsQueue | None = None
    """Where hints come from; None: from nowhere, the sweep alone looks."""

    @classmethod
    def from_settings(cls, settings: Settings) -> App:
        """Wire the adapters; connects to nothing yet. Raises InvalidSettings."""
        store = open_store(settings, epoch=_NO_EPOCH)
        payloads = RedisPayloads(store.redis, store.keys.prefix)
        return cls(
            settings=settings,
            connection=open_connection(),
            store=store,
            launcher=open_launcher(settings.launcher_name, LauncherContext(settings, payloads)),
            tasks=open_queue(settings.sqs_queue_url, settings),
            retries=open_queue(settings.implementation_sqs_queue_url, settings),
            kept_outcomes=open_queue(settings.outcomes_queue_url, settings),
            tracking=Tracking.from_settings(settings),
            notifications=Notifications.from_settings(settings, store),
            callback_keys=open_callback_keys(settings),
            events=open_queue(settings.ecs_events_sqs_queue_url, settings, variable="ECS_EVENTS_SQS_QUEUE_URL")
            if settings.ecs_events_sqs_queue_url
            else None,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop`` is set, which SIGTERM and SIGINT do too.

        Then take no more, finish what is under way, hand the lease over. Raises InvalidSettings.
        """
        await self.tracking.check()
        settings = self.settings
        loop = asyncio.get_running_loop()

        def listen_to_signals() -> None:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stop.set)

        listen_to_signals()
        cluster = KubeClient(self.connection, settings.executions_namespace or self.connection.namespace)
        commands = Commands(self.store, self.retries, settings.policy, self.launcher.name)
        probe = open_store_probe(settings)
        health = Health(probe.answers)

        def trust(is_served: bool) -> None:
            health.tell("trust", None if is_served else "the store is not known to be ours yet")
            REDIS_SERVED.set(is_served)

        trust(False)
        guard = EpochGuard(self.store, EpochConfigMap(cluster), on_answer=trust)
        probes = serve_probes(health, settings.controller_port, variable="CONTROLLER_PORT", host=settings.host)
        heart = asyncio.create_task(health.beat())
        tell_build("controller")
        metrics = serve_metrics(settings.metrics_port, default_port=9090, host=settings.host)
        owned: list[Owned] = [PrefixOwner(self.store.redis, self.store.keys.prefix), self.tasks]
        ownership = Ownership(settings.installation, owned, on_answer=partial(health.tell, "installation"))
        consumer = Consumer(self.tasks, self.store, commands, pending_max=settings.pending_max)
        outcomes = Outcomes(self.kept_outcomes, self.store, commands)
        leader = Leader(
            settings=settings,
            connection=self.connection,
            store=self.store,
            cluster=cluster,
            commands=commands,
            launcher=self.launcher,
            tracking=self.tracking,
            notifications=self.notifications,
            outcomes=outcomes,
            callback_keys=self.callback_keys,
            guard=guard,
            events=self.events,
            queues={"tasks": self.tasks, "outcomes": self.kept_outcomes},
            restore_signals=listen_to_signals,
        )
        leadership = Leadership(
            RedisLease(
                self.store.redis,
                self.store.keys.prefix,
                holder=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
                ttl_ms=round(settings.leader_lease_seconds * 1000),
            ),
            leader.run,
            ttl_seconds=settings.leader_lease_seconds,
        )

        def once_owned(work: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
            """Not before queue and prefix are known to be nobody else's."""

            async def run() -> None:
                await ownership.granted.wait()
                await work()

            return run

        def once_known(work: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
            """Nor before somebody has looked which Redis this is."""

            async def run() -> None:
                await guard.has_compared.wait()
                await work()

            return once_owned(run)

        _log.info(
            "Controller started",
            launcher=self.launcher.name,
            namespace=cluster.namespace,
            probes_port=probes.port,
            metrics_port=metrics.port,
        )
        running = [asyncio.create_task(ownership.run())]
        running += [
            asyncio.create_task(restarted(name, work))
            for name, work in (
                ("epoch", lambda: guard.run(_EPOCH_SECONDS)),
                ("consumer", once_known(consumer.run)),
                ("outcomes", once_known(outcomes.run)),
                ("leadership", once_owned(leadership.run)),
                *((name, once_owned(work)) for name, work in self.tracking.parts().items()),
            )
        ]
        await stop.wait()
        _log.info("Stopping")
        health.is_draining = True
        consumer.stop()
        outcomes.stop()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        health.is_closed = True
        queues = (self.tasks, self.retries, self.kept_outcomes, self.events)
        for opened in (*queues, cluster, self.launcher, probe, self.tracking, self.notifications, self.store):
            if opened is not None:
                await opened.close()
        heart.cancel()
        for server in (probes, metrics):
            await asyncio.to_thread(server.stop)


@dataclass(slots=True)
class Leader:
    """What exactly one replica does: reconcile, sweep, mirror, watch."""

    settings: Settings
    connection: KubeConnection
    store: RedisStore
    cluster: KubeClient
    commands: Commands
    launcher: Launcher
    tracking: Tracking
    notifications: Notifications
    outcomes: Outcomes
    callback_keys: CallbackKeys | None
    guard: EpochGuard
    events: SqsQueue | None
    queues: Mapping[str, SqsQueue]
    """Whose depths are told, by name."""
    restore_signals: Callable[[], None]
    """Kopf puts its own signal handlers in place of ours; this undoes it."""

    async def run(self, fence: int) -> None:
        """Until cancelled. Nothing here holds a truth of its own: a new leader begins with a resync and a sweep."""
        settings, store, cluster = self.settings, self.store.fenced(fence), self.cluster
        commands = replace(self.commands, store=store)
        launchers = {self.launcher.name: self.launcher}
        breakers = Breakers(store, settings.policy.breaker)
        reconciling = WorkQueue("reconcile", lambda task_id: reconciler.reconcile(task_id), workers=16)
        keys = self.callback_keys
        reconciler = Reconciler(
            store,
            commands,
            launchers,
            settings.policy,
            store.keys.prefix,
            reconciling.add_after,
            callback_keys=lambda: keys.ring if keys else None,
            on_launch_failed=breakers.launch_failed,
            on_launched=lambda attempt: breakers.launch_works(attempt, has_started=False),
        )
        sweep = Sweep(
            store,
            launchers,
            settings.policy,
            reconciling.add,
            self._may_judge,
            on_launch_failed=breakers.launch_failed,
            on_started=lambda attempt: breakers.launch_works(attempt, has_started=True),
        )
        hints = Hints(sweep.look_at)
        observed, health = ObservedResources(), ApiHealth(cluster.check)
        notifier = Notifier(cluster, cluster.namespace)
        mirror = Mirror(
            store=store,
            cluster=cluster,
            commands=commands,
            observed=observed,
            health=health,
            notifier=notifier,
            namespace=cluster.namespace,
            on_wish=lambda name: wishes.add(name),
            wake=reconciling.add,
            disown=self._disown,
            is_archived=self.tracking.is_archived,
        )
        wishes = ResourceOperations(
            store=store,
            cluster=cluster,
            commands=commands,
            observed=observed,
            health=health,
            notifier=notifier,
            mirror=mirror,
            wake=reconciling.add,
        )
        feed = RedisFeed(store.redis, store.keys.prefix, group="mirror", consumer=f"leader-{fence}")
        measures = Measures(
            store=store,
            feed=feed,
            sweep=sweep,
            work={"reconcile": reconciling, "mirror": mirror.queue, "operations": wishes.queue},
            queues=self.queues,
        )
        line = Line(store, settings.policy.slots, breakers, reconciling.add)
        reader = FeedReader(feed, mirror, reconciling.add, on_freed=line.nudge)
        events = WorkerExecutionEvents(observed, mirror, wishes, reconciling.add)
        resync = Resync(
            store=store,
            positions=RedisPositions(store.redis, store.keys.prefix),
            cluster=cluster,
            observed=observed,
            mirror=mirror,
            events=events,
            policy=settings.policy,
        )
        rebuild = Rebuild(
            guard=self.guard,
            store=store,
            cluster=cluster,
            policy=settings.policy,
            launcher=self.launcher.name,
            known=lambda: {*mirror.compared, *mirror.queue.keys, *reconciling.keys},
        )
        operator = KopfOperator(
            self.connection, cluster.namespace, events, health, restore_signals=self.restore_signals
        )
        async with asyncio.TaskGroup() as group:
            if self.events is not None:
                ecs_hints = EcsHints(self.events, store, hints.note)
                group.create_task(restarted("ecs hints", ecs_hints.run), name="ecs hints")
            if isinstance(watching := self.launcher, Watching):
                group.create_task(restarted("worker watch", lambda: watching.watch(hints.note)), name="worker watch")
            for name, work in (
                ("hints", hints.run),
                ("reconcile", reconciling.run),
                ("mirror", mirror.run),
                ("wishes", wishes.run),
                ("feed", reader.run),
                ("line", line.run),
                ("sweep", lambda: sweep.run(settings.sweep_interval_seconds)),
                ("resync", lambda: resync.run(settings.resync_interval_seconds)),
                ("kopf", operator.run),
                ("rebuild", rebuild.run),
                ("measures", measures.run),
                ("publisher", self.tracking.publisher(store).run),
                *self.notifications.parts().items(),
            ):
                group.create_task(restarted(name, work), name=name)

    async def _disown(self, attempt: Attempt) -> None:
        """Before its resource goes without anybody wanting the worker to end."""
        if isinstance(self.launcher, Owning) and attempt.worker_id is not None:
            await self.launcher.disown(attempt.worker_id)

    def _may_judge(self, now_ms: int) -> bool:
        """After an outage kept outcomes come first, and then the grace period for those that workers still send."""
        drained_at_ms = self.outcomes.drained_at_ms
        return drained_at_ms is not None and now_ms - drained_at_ms >= self.settings.policy.lost_worker_grace_ms
