"""What is needed of a Kubernetes API server, as a protocol, and how it fails.

Implemented by ``adapters/kube_client.py``; the fake of unit tests is ``tests/support/fake_kube.py``, and one contract
suite runs on both. Bodies are plain JSON objects as the API server speaks them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

from executions.errors import AlakaiError

Body = Mapping[str, Any]
"""One object as JSON: ``apiVersion``, ``kind``, ``metadata``, ``spec``, ``status``."""


class ClusterError(AlakaiError):
    """A request that was not carried out. The text is the API server's own, cut; it holds no credentials."""


class NotFound(ClusterError):
    """The object is not there (any more)."""


class AlreadyExists(ClusterError):
    """An object of that name is there already."""


class Conflict(ClusterError):
    """The object is not the one that the request was about: changed, or replaced by another of that name."""


class Gone(ClusterError):
    """The page of a list is no longer known: list again from the start."""


class Invalid(ClusterError):
    """The API server refuses what was sent: validation, or the test of a JSON patch."""


class Forbidden(ClusterError):
    """Our identity may not do this."""


class TooManyRequests(ClusterError):
    """The API server asks to wait."""

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(ClusterError):
    """No usable answer: no connection, time-out, server error, credentials not accepted, resource not served."""


class Cluster(Protocol):
    """The custom resources of one namespace, and the little else that the operator touches there.

    Every method raises Unavailable, TooManyRequests and Forbidden; others where they are named.
    """

    def list(self) -> AsyncIterator[Body]:
        """Every custom resource, page by page; one may come twice when the list had to begin anew."""
        ...

    async def read(self, name: str) -> Body:
        """Raises NotFound."""
        ...

    async def create(self, manifest: Body) -> Body:
        """Raises AlreadyExists, Invalid."""
        ...

    async def patch_status(self, name: str, status: Body) -> Body:
        """Merge ``status`` into the object's; a None removes the field. Raises NotFound, Conflict, Invalid."""
        ...

    async def patch(self, name: str, operations: Sequence[Body]) -> Body:
        """Apply a JSON patch, all or nothing. Raises NotFound, Conflict, and Invalid for a test that fails."""
        ...

    async def delete(self, name: str, *, uid: str, resource_version: int) -> None:
        """Delete exactly the object that was looked at. Raises NotFound, Conflict."""
        ...

    async def create_event(self, event: Body) -> None:
        """Post a core/v1 Event. Raises AlreadyExists, which means that it was told before, Invalid, NotFound."""
        ...

    async def definition_is_leaving(self) -> bool:
        """Whether the custom resource definition is being removed, or is gone; False where we may not look."""
        ...

    async def check(self) -> None:
        """Returns when the API server serves our custom resources to us."""
        ...

    async def read_config_map(self, name: str) -> dict[str, str]:
        """Raises NotFound."""
        ...

    async def create_config_map(self, name: str, data: Mapping[str, str]) -> None:
        """Raises AlreadyExists."""
        ...

    async def update_config_map(self, name: str, data: Mapping[str, str]) -> None:
        """Merge ``data`` into it. Raises NotFound."""
        ...
