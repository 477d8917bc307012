"""Logs: structlog for everybody, Kopf's, uvicorn's and boto's records included, as JSON lines or for people.

Text that looks like a secret is masked on the way out. The summary event is written by ``emit_summary`` as it is, on
one line of its own.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from typing import Any

import orjson
import structlog
from alakai_worker.redaction import sanitised
from structlog.typing import EventDict, Processor, WrappedLogger

from executions.adapters.settings import Settings

_LEVELS = {"debug": 20, "info": 30, "warning": 40, "error": 50, "critical": 60}
"""Numbers of the bunyan family, which the log queries filter by."""
_QUIET = (
    *("aiohttp.access", "asyncio", "boto3", "botocore", "google"),
    *("kopf.objects", "kubernetes", "urllib3", "uvicorn.error"),
)
_TOLD_BY_US = ("kopf._core.reactor.orchestration", "kopf._core.reactor.running")
"""Kopf writes two tracebacks whenever the API server goes away; ``controller.kopf_operator`` says it in a line."""
_tracing: Callable[[dict[str, Any]], None] | None = None
_lock = threading.Lock()


def configure_logging(settings: Settings) -> None:
    """Set up logging for a process; replaces whatever libraries set up before."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
        _masked,
    ]
    people = settings.log_format == "console"
    final: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    final += (
        [structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), timestamp_key="time")]
        if people
        else [_numbered, structlog.processors.EventRenamer("msg"), _rendered]
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=final))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _TOLD_BY_US:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def also_trace(tracing: Callable[[dict[str, Any]], None] | None) -> None:
    """Hand every further summary event to ``tracing`` too (``adapters/otel.py``)."""
    global _tracing
    _tracing = tracing


def emit_summary(event: dict[str, Any]) -> None:
    """Write one summary event as one JSON line, in either log format: it is read by machines."""
    line = orjson.dumps(event).decode()
    with _lock:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    if _tracing is not None:
        _tracing(event)


def _masked(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        if isinstance(value, str) and key not in ("time", "level", "logger"):
            event[key] = _mask_lines(value)
    return event


def _mask_lines(text: str) -> str:
    return "\n".join(sanitised(line) for line in text.splitlines()) if "\n" in text else sanitised(text)


def _numbered(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    event["level"] = _LEVELS.get(str(event.get("level")), 30)
    return event


def _rendered(_: WrappedLogger, __: str, event: EventDict) -> str:
    return orjson.dumps(event, default=str).decode()
