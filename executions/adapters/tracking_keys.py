"""How the keys of task tracking are spelled in Redis: the stream, and everything else below ``task-tracking:``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TrackingKeys:
    """``stream`` is a setting of its own; ``prefix`` is put before ``task-tracking:``."""

    stream: str
    prefix: str = ""

    @property
    def _root(self) -> str:
        return f"{self.prefix}task-tracking:"

    @property
    def execution_root(self) -> str:
        return f"{self._root}execution:"

    def execution(self, execution_id: str) -> str:
        """Hash: the latest event of an execution."""
        return f"{self.execution_root}{execution_id}"

    @property
    def project_root(self) -> str:
        """Before, and ``:executions`` after the name of a project. Spelled in ``project.lua`` too."""
        return f"{self._root}project:"

    def project(self, project: str) -> str:
        """Sorted set: execution ids of a project by the time of their latest event (ms)."""
        return f"{self.project_root}{project}:executions"

    @property
    def executions(self) -> str:
        """Sorted set: the same of all projects, and of executions without one."""
        return f"{self._root}executions"

    @property
    def published(self) -> str:
        """Sorted set: ids of the events that were published last, so that none is published twice."""
        return f"{self._root}published"

    def poison(self, group: str) -> str:
        """Stream: entries that a group could not make anything of, each with its reason."""
        return f"{self._root}poison:{group}"

    @property
    def archived_root(self) -> str:
        return f"{self._root}archived:"

    def archived(self, execution_id: str) -> str:
        """Hash: event id → name of the object that holds it, of one execution. Spelled in ``seal.lua`` too."""
        return f"{self.archived_root}{execution_id}"

    @property
    def open_batches(self) -> str:
        """Sorted set: names of objects that are not known to be stored, by since when (ms)."""
        return f"{self._root}archive:open"

    def batch(self, name: str) -> str:
        """Hash: what an open object will hold."""
        return f"{self._root}archive:batch:{name}"

    @property
    def folders(self) -> str:
        """Set: every ``project/day`` that has receipts."""
        return f"{self._root}archive:folders"

    def receipts(self, folder: str) -> str:
        """Hash: object name → receipt (JSON), of one ``project/day``."""
        return f"{self._root}archive:receipts:{folder}"
