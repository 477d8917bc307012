"""``python -m controller``: settings, logs, then ``App`` until it is told to stop; ``--only PART`` for a part of it."""

from __future__ import annotations

import argparse
import asyncio
import sys

import structlog

from controller.alone import PARTS, run_alone
from controller.app import App
from executions.adapters.logging import also_trace, configure_logging
from executions.adapters.otel import open_tracing
from executions.adapters.settings import settings_from_environment
from executions.errors import InvalidSettings

_log = structlog.get_logger("controller")


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 after a requested stop, 2 for settings that cannot work."""
    parser = argparse.ArgumentParser(prog="controller", description="The controller of Alakai; settings are variables.")
    parser.add_argument("--only", choices=PARTS, help="run this part by itself, beside the controllers")
    part = parser.parse_args(arguments).only
    try:
        settings = settings_from_environment()
        configure_logging(settings)
        also_trace(open_tracing("alakai-orchestrator"))
        if part is not None:
            asyncio.run(run_alone(settings, part))
        else:
            asyncio.run(_run(App.from_settings(settings)))
    except InvalidSettings as error:
        sys.stderr.write(f"controller: {error}\n")
        return 2
    _log.info("Stopped")
    return 0


async def _run(app: App) -> None:
    await app.run(asyncio.Event())


if __name__ == "__main__":
    sys.exit(main())
