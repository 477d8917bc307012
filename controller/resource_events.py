"""Watch events of custom resources: kept as last seen, and passed on as "look at this again" to three queues.

Does no work of its own and never waits, so that one slow object holds up no other. Events come from Kopf
(``handlers/workerexecutions.py``) and, as if they did, from the resync's lists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from controller.mirror import Mirror
from controller.observed import ObservedResources
from controller.resource_operations import ResourceOperations
from executions.conditions import Phase
from executions.link import NO_WISHES
from executions.resource import Observed, observed_from_body


class WorkerExecutionEvents:
    """Who is woken by what. ``wake(task_id)`` has an execution reconciled."""

    def __init__(
        self,
        observed: ObservedResources,
        mirror: Mirror,
        operations: ResourceOperations,
        wake: Callable[[str], None],
    ) -> None:
        self._observed = observed
        self._mirror = mirror
        self._operations = operations
        self._wake = wake

    def observe(self, event_type: str | None, body: Mapping[str, Any]) -> Observed:
        """One event: ``ADDED``, ``MODIFIED``, ``DELETED``, or None for an object of a list."""
        seen = observed_from_body(body)
        if event_type == "DELETED":
            self._observed.drop(seen.name, seen.uid)
            self._mirror.deleted(seen)
            return seen
        before = self._observed.get(seen.name)
        if self._observed.put(seen, listed=event_type is None):
            self._route(before, seen)
        if seen.is_submitted and seen.phase == Phase.PENDING and not seen.is_deleting:
            # What the mirror shows may be launched: from here on it can be seen and stopped with kubectl.
            self._wake(seen.task_id)
        return seen

    def _route(self, before: Observed | None, seen: Observed) -> None:
        asked_before = before.wishes if before is not None and before.uid == seen.uid else NO_WISHES
        if not seen.is_submitted or seen.wishes != asked_before:
            self._operations.add(seen.name)
        if seen.is_deleting or not seen.is_protected or _was_edited(before, seen):
            self._mirror.add(seen.task_id)


def _was_edited(before: Observed | None, seen: Observed) -> bool:
    """Whether a status, or the generation that it speaks of, changed in a way that we do not write."""
    if before is None or before.uid != seen.uid:
        return False
    by_hand = before.sequence == seen.sequence and before.status_digest != seen.status_digest
    return by_hand or before.generation != seen.generation
