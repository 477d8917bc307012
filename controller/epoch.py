"""Is this Redis the one we know? The epoch key in Redis is compared with its copy in a ConfigMap.

A Redis that lost its data (emptied, another instance) has lost the key with it, and must not be served: it would
launch everything again. The copy is in Kubernetes, which does not fail together with Redis. What was lost is recreated
by the leader: ``controller/rebuild.py``.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import structlog

from executions.adapters.redis_epoch import create_epoch, read_epoch
from executions.adapters.redis_store import RedisStore
from executions.errors import AlakaiError

_log = structlog.get_logger(__name__)


class Trust(StrEnum):
    """What the comparison says. Only the first two are served."""

    KNOWN = "known"
    UNCONFIRMED = "unconfirmed"
    """Redis has an epoch; the API server cannot be asked for its copy now."""
    UNDECIDED = "undecided"
    """Redis has no epoch, or not the last one known, and the API server cannot be asked for its copy."""
    LOST = "lost"
    """The copy names an epoch that this Redis does not have."""


class EpochCopy(Protocol):
    """The copy outside Redis. Both raise AlakaiError when it cannot be reached."""

    async def read(self, name: str) -> str | None: ...

    async def create(self, name: str, epoch: str) -> None:
        """Nothing happens when there is one already."""
        ...

    async def replace(self, name: str, epoch: str) -> None: ...


def config_map_name(prefix: str) -> str:
    """One per key prefix, because two installations may share a namespace."""
    return f"alakai-epoch-{hashlib.sha256(prefix.encode()).hexdigest()[:10]}"


@dataclass(slots=True)
class EpochGuard:
    """Keeps ``store.epoch`` at the epoch that may be served, and tells what it found."""

    store: RedisStore
    copy: EpochCopy
    on_answer: Callable[[bool], None] = lambda _: None
    """Told after each comparison whether Redis is served; it is not while it does not answer."""
    trust: Trust = Trust.UNDECIDED
    copied: str | None = None
    """The copy's epoch when it was last read."""
    has_compared: asyncio.Event = field(default_factory=asyncio.Event)
    """Set after the first comparison: before it nobody knows whether anything may be done."""

    @property
    def is_served(self) -> bool:
        return self.trust in (Trust.KNOWN, Trust.UNCONFIRMED)

    async def run(self, interval_seconds: float) -> None:
        """Compare for ever; logs each change of the answer with its remedy."""
        has_answered = True
        while True:
            before, answered_before = self.trust, has_answered
            try:
                self.trust, has_answered = await self.compare(), True
            except AlakaiError as error:
                has_answered = False
                if answered_before:
                    _log.warning("Redis could not be asked for its epoch", reason=str(error))
            # What was known of a Redis that is away is no reason to call it served: the alert on it would never fire.
            is_served = has_answered and self.is_served
            self.on_answer(is_served)
            self.has_compared.set()
            if self.trust is not before:
                self._tell()
            elif has_answered and not answered_before:
                _log.info("Redis answers again", epoch=self.store.epoch)
            await asyncio.sleep(interval_seconds if is_served else min(interval_seconds, 1.0))

    async def begin(self, epoch: str) -> None:
        """Serve this Redis under a new epoch, after a rebuild. Raises StoreUnavailable and the copy's errors.

        The copy first: a crash in between looks like lost data, which is rebuilt once more, and not like a Redis that
        may be served.
        """
        prefix = self.store.keys.prefix
        await self.copy.replace(config_map_name(prefix), epoch)
        await create_epoch(self.store.redis, prefix, epoch)
        self.trust = await self.compare()
        self.on_answer(self.is_served)
        self._tell()

    async def compare(self) -> Trust:
        """One comparison. Raises StoreUnavailable."""
        prefix = self.store.keys.prefix
        name = config_map_name(prefix)
        ours = await read_epoch(self.store.redis, prefix)
        try:
            self.copied = copied = await self.copy.read(name)
            if copied is None:
                # Redis first: an epoch that only the copy knew would look like lost data.
                ours = await create_epoch(self.store.redis, prefix, secrets.token_hex(8))
                await self.copy.create(name, ours)
                self.copied = copied = await self.copy.read(name)
        except AlakaiError:
            if ours is None or self.copied not in (None, ours):
                return Trust.UNDECIDED
            self.store.epoch = ours
            return Trust.UNCONFIRMED
        if ours is None or ours != copied:
            return Trust.LOST
        self.store.epoch = ours
        return Trust.KNOWN

    def _tell(self) -> None:
        name = config_map_name(self.store.keys.prefix)
        match self.trust:
            case Trust.KNOWN:
                _log.info("Redis is the one we know", epoch=self.store.epoch)
            case Trust.UNCONFIRMED:
                _log.warning("The API server is away; Redis is trusted by its own epoch", epoch=self.store.epoch)
            case Trust.UNDECIDED:
                _log.warning("Redis is not known and the API server is away; waiting for the API server")
            case Trust.LOST:
                _log.error(
                    "Redis has lost its data, or is another Redis: nothing is served until the leader has rebuilt it",
                    epoch_copy=f"ConfigMap {name}",
                )
