"""The custom resources as last seen: from watch events, from lists, and from the answers to our own writes.

A cache only, kept by object name: everything in it can be read again. An older view never replaces a newer one.
"""

from __future__ import annotations

from executions.resource import Observed

_GONE_REMEMBERED = 4096


class ObservedResources:
    """All objects of the namespace, as far as they were seen."""

    def __init__(self) -> None:
        self._objects: dict[str, Observed] = {}
        self._gone: dict[str, None] = {}
        """Uids of the objects that were deleted last: the answer to a write may come after the news of the end."""

    def __len__(self) -> int:
        return len(self._objects)

    def get(self, name: str) -> Observed | None:
        return self._objects.get(name)

    def all(self) -> list[Observed]:
        return list(self._objects.values())

    def put(self, observed: Observed, *, listed: bool = False) -> bool:
        """Keep what was seen; False when it is nothing new: our own write's echo, or an event that came late.

        ``listed``: it was just read on purpose, so that an object of another uid is the one there is, whatever the
        numbers say (they begin anew when the API server's own store was lost).
        """
        if observed.uid in self._gone:
            return False
        known = self._objects.get(observed.name)
        is_other = listed and known is not None and known.uid != observed.uid
        if known is not None and known.resource_version >= observed.resource_version and not is_other:
            return False
        self._objects[observed.name] = observed
        return True

    def drop(self, name: str, uid: str) -> bool:
        """Forget an object that is gone; False when another one of that name took its place already."""
        self._gone[uid] = None
        if len(self._gone) > _GONE_REMEMBERED:
            del self._gone[next(iter(self._gone))]
        known = self._objects.get(name)
        if known is None or known.uid != uid:
            return False
        del self._objects[name]
        return True
