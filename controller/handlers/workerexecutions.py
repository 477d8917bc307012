"""What Kopf calls for custom resources: hands every watch event on and decides nothing."""

from __future__ import annotations

from typing import Any

import kopf

from controller.resource_events import WorkerExecutionEvents
from executions.names import GROUP, PLURAL, VERSION


def register(registry: kopf.OperatorRegistry, events: WorkerExecutionEvents) -> None:
    """Have Kopf hand every watch event of our resource to ``events``."""

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def on_event(event: kopf.RawEvent, **_: Any) -> None:
        events.observe(event["type"], event["object"])
