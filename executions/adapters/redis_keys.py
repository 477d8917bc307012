"""How Redis keys are spelled. Records alone live under ``<prefix>:``, everything internal under ``<prefix>/``.

Ids never become patterns or code: they are only ever the tail of a key.
"""

from __future__ import annotations

from dataclasses import dataclass

from executions.index import Index


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one prefix."""

    prefix: str

    def record(self, task_id: str) -> str:
        """Hash: attempt number → JSON of the attempt. The public, durable record."""
        return f"{self.prefix}:{task_id}"

    def state(self, task_id: str) -> str:
        """Hash: ``version``, ``digest`` of the record as last committed, ``doc`` (JSON of the state)."""
        return f"{self.prefix}/state:{task_id}"

    def index(self, index: Index) -> str:
        return f"{self.prefix}/index:{index.value}"

    def operation(self, key: str) -> str:
        """String: the answer given to an operation, kept so that its repeat gets the same."""
        return f"{self.prefix}/operation:{key}"

    def payload(self, task_id: str) -> str:
        """String: the task's message, for workers that read it and claim nothing. Spelled in ``commit.lua`` too."""
        return f"{self.prefix}/payload:{task_id}"

    def line(self, task_type: str) -> str:
        """Sorted set: tasks of that type that wait for a slot, by since when. Spelled in ``commit.lua`` too."""
        return f"{self.prefix}/line:{task_type}"

    def slots(self, task_type: str) -> str:
        """Sorted set: tasks of that type that hold a slot. Spelled in ``commit.lua`` too."""
        return f"{self.prefix}/slots:{task_type}"

    @property
    def types(self) -> str:
        """Set: the task types that have any of those. Spelled in ``commit.lua`` too."""
        return f"{self.prefix}/types"

    @property
    def hold(self) -> str:
        """String: there while the installation is on hold. Spelled in ``commit.lua`` too."""
        return f"{self.prefix}/hold"

    def breaker(self, launcher: str, task_type: str) -> str:
        """Hash: an open breaker. Spelled in ``commit.lua`` too."""
        return f"{self.prefix}/breaker:{launcher}:{task_type}"

    def launch_failures(self, launcher: str, task_type: str, code: str) -> str:
        """Sorted set: launch failures of that kind, by time."""
        return f"{self.prefix}/launch-failures:{launcher}:{task_type}:{code}"

    @property
    def breakers(self) -> str:
        """Set: launcher and task type of every open breaker, as a JSON list."""
        return f"{self.prefix}/breakers"

    @property
    def feed(self) -> str:
        """Stream: the change feed."""
        return f"{self.prefix}/feed"

    @property
    def epoch(self) -> str:
        """String: which Redis this is. Its loss means that the data is lost."""
        return f"{self.prefix}/epoch"

    @property
    def waited(self) -> str:
        """String: written where commits wait for replicas, so that there is something to wait for."""
        return f"{self.prefix}/waited"

    @property
    def installation(self) -> str:
        """String: the name of the installation that the prefix belongs to."""
        return f"{self.prefix}/installation"

    @property
    def leader(self) -> str:
        """String with a time to live: who leads."""
        return f"{self.prefix}/leader"

    @property
    def fence(self) -> str:
        """Counter: rises with every change of leadership."""
        return f"{self.prefix}/fence"

    @property
    def notifications_put(self) -> str:
        """Sorted set: ids of the events that were put into the outbox last."""
        return f"{self.prefix}/notifications/put"

    @property
    def notification_channels(self) -> str:
        """Set: the channels that have or had a line."""
        return f"{self.prefix}/notifications/channels"

    def notification_line(self, channel: str, task_id: str) -> str:
        """List: what a channel is to tell of a task, oldest first."""
        return f"{self.prefix}/notifications/line/{channel}/{task_id}"

    def notification_tries(self, channel: str, task_id: str) -> str:
        """Hash: what became of the head of that line so far."""
        return f"{self.prefix}/notifications/tries/{channel}/{task_id}"

    def notifications_due(self, channel: str) -> str:
        """Sorted set: tasks that have a line, by when its head is to be tried next."""
        return f"{self.prefix}/notifications/due/{channel}"

    def notifications_since(self, channel: str) -> str:
        """Sorted set: the same tasks, by when their head was put."""
        return f"{self.prefix}/notifications/since/{channel}"

    def notifications_dead(self, channel: str) -> str:
        """List: notifications that were given up, with the reason."""
        return f"{self.prefix}/notifications/dead/{channel}"

    def told_message(self, channel: str, place: str, execution_id: str) -> str:
        """String with a time to live: which comment or message of that place is the execution's own."""
        return f"{self.prefix}/notifications/told/{channel}/{place}/{execution_id}"

    def task_id_of_record(self, key: str) -> str:
        return key[len(self.prefix) + 1 :]
