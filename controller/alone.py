"""One part of task tracking as a process of its own: needs the tracking Redis (and S3) and nothing else.

For installations where projecting or archiving is to have its own resources; the controllers do the same beside it.
"""

from __future__ import annotations

import asyncio
import signal

import structlog

from controller.supervision import restarted
from controller.tracking import Tracking
from executions.adapters.health import Health
from executions.adapters.metrics import serve_metrics, tell_build
from executions.adapters.probes import serve_probes
from executions.adapters.settings import Settings
from executions.errors import InvalidSettings

PARTS = ("projector", "archiver", "trimmer")
_log = structlog.get_logger(__name__)


async def run_alone(settings: Settings, part: str) -> None:
    """Until SIGTERM or SIGINT. Raises InvalidSettings."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    tracking = Tracking.from_settings(settings)
    work = tracking.parts().get(part)
    if work is None:
        raise InvalidSettings(f"the {part} is switched off; set TASK_TRACKING_S3_ARCHIVE_ENABLED=true")
    await tracking.check()
    health = Health(tracking.opened.stream.ping)
    probes = serve_probes(health, settings.controller_port, variable="CONTROLLER_PORT", host=settings.host)
    heart = asyncio.create_task(health.beat())
    tell_build(part)
    metrics = serve_metrics(settings.metrics_port, default_port=9090, host=settings.host)
    _log.info("Started alone", part=part, probes_port=probes.port, metrics_port=metrics.port)
    running = asyncio.create_task(restarted(part, work))
    await stop.wait()
    _log.info("Stopping")
    health.is_draining = True
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    health.is_closed = True
    await tracking.close()
    heart.cancel()
    for server in (probes, metrics):
        await asyncio.to_thread(server.stop)
