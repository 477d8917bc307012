"""Are this queue and this key prefix ours? Two installations on one of them would take each other's tasks.

The first installation writes its name down, in Redis under the prefix and as a tag of the queue; any other one that
finds a name which is not its own takes nothing and does nothing. What may not be asked (no right to read tags) is not
held against anybody. An installation without a name (``INSTALLATION`` is not set) is not checked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from executions.errors import AlakaiError

_AGAIN_SECONDS = 10.0
_log = structlog.get_logger(__name__)


class Owned(Protocol):
    """Something that belongs to one installation."""

    what: str
    """In words, for the line that refuses: ``the queue X``."""
    remedy: str

    async def owner(self, name: str) -> str | None:
        """Whose it is, after writing ``name`` down where nobody is; None where that cannot be told."""
        ...


@dataclass(slots=True)
class Ownership:
    """Waits until everything in ``owned`` is ours."""

    name: str
    owned: Sequence[Owned]
    on_answer: Callable[[str | None], None] = lambda _: None
    """Told what stands against us, None once nothing does."""
    granted: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Until granted; asks again for as long as something is somebody else's."""
        told: str | None = None
        while True:
            try:
                refusal = await self.refusal()
            except AlakaiError as error:
                _log.warning("Whose queue and prefix these are could not be asked", reason=str(error))
                await asyncio.sleep(1)
                continue
            except Exception:
                _log.exception("Whose queue and prefix these are could not be asked")
                await asyncio.sleep(1)
                continue
            self.on_answer(refusal)
            if refusal is None:
                self.granted.set()
                return
            if refusal != told:
                _log.error("Another installation is here: nothing is done", reason=refusal)
                told = refusal
            await asyncio.sleep(_AGAIN_SECONDS)

    async def refusal(self) -> str | None:
        """One line that names what is another's and the remedy; None when all is ours. Raises AlakaiError."""
        if not self.name:
            return None
        for item in self.owned:
            owner = await item.owner(self.name)
            if owner not in (None, self.name):
                return f"{item.what} belongs to the installation {owner}, this one is {self.name}; {item.remedy}"
        return None
