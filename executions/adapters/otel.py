"""Summary events as OpenTelemetry spans, for whoever has a place to send them to. Opt-in by the standard variables.

On when ``OTEL_EXPORTER_OTLP_ENDPOINT`` (or ``…_TRACES_ENDPOINT``) is set or ``OTEL_TRACES_EXPORTER`` names one, unless
``OTEL_SDK_DISABLED=true``; everything else is read by the SDK itself. While it is off we import nothing of the SDK.
A span's trace has the event's own trace id: a UUID as it is, any other text by its hash.
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from executions.errors import InvalidSettings
from executions.moment import ms_from_iso

Emit = Callable[[dict[str, Any]], None]
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_EXPORTER = "OTEL_TRACES_EXPORTER"
_ATTRIBUTES = {
    "alakai.trace_id": ("trace_id",),
    "alakai.component": ("component",),
    "alakai.final_status": ("final_status",),
    "alakai.outcome": ("outcome",),
    "alakai.task_id": ("task", "task_id"),
    "alakai.task_type": ("task", "task_type"),
    "alakai.repository": ("repo", "full_name"),
    "error.type": ("error", "type"),
}


def is_wanted(environ: Mapping[str, str]) -> bool:
    """Whether the standard variables ask for traces."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = environ.get(_EXPORTER, "")
    return exporter != "none" and bool(exporter or any(environ.get(name) for name in _ENDPOINTS))


def trace_id_of(text: str) -> int:
    """128 bits: those of a UUID (with or without dashes), else a hash. Never 0, which is no trace id."""
    try:
        return uuid.UUID(text).int or 1
    except ValueError:
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16]) or 1


def root_of(text: str) -> int:
    """The span that all slices of a trace hang from; nobody records it."""
    return int.from_bytes(hashlib.sha256(f"root:{text}".encode()).digest()[:8]) or 1


def open_tracing(service: str, environ: Mapping[str, str] = os.environ) -> Emit | None:
    """What turns an event into a span and has it sent in the background; None while it is off.

    Raises InvalidSettings when traces are asked for and the SDK is not installed.
    """
    if not is_wanted(environ):
        return None
    try:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags
    except ImportError:
        raise InvalidSettings(
            f"{_EXPORTER} or an OTLP endpoint is set and OpenTelemetry is not installed; "
            "install alakai-operator[otel], or unset it"
        ) from None
    # What the environment says of the resource (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES) wins over us.
    named = {} if "OTEL_SERVICE_NAME" in environ else {SERVICE_NAME: service}
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(BatchSpanProcessor(_exporter(environ.get(_EXPORTER) or "otlp")))
    tracer = provider.get_tracer("alakai")

    def emit(event: dict[str, Any]) -> None:
        text = str(event["trace_id"])
        parent = SpanContext(trace_id_of(text), root_of(text), is_remote=True, trace_flags=TraceFlags(1))
        ended_ms = ms_from_iso(str(event["time"]))
        span = tracer.start_span(
            str(event["event"]),
            context=trace.set_span_in_context(NonRecordingSpan(parent)),
            start_time=(ended_ms - int(event["duration_ms"])) * 1_000_000,
            attributes=_attributes(event),
        )
        for name, result in event["steps"].items():
            span.set_attribute(f"alakai.step.{name}", result)
        if event["outcome"] == "error":
            span.set_status(Status(StatusCode.ERROR, str((event.get("error") or {}).get("message") or "")))
        span.end(end_time=ended_ms * 1_000_000)

    return emit


def _exporter(name: str) -> Any:
    if name == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter()
    if name == "otlp":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter()
    raise InvalidSettings(f"{_EXPORTER} is {name[:32]!r}; set it to otlp, console or none")


def _attributes(event: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, path in _ATTRIBUTES.items():
        value: Any = event
        for part in path:
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            found[name] = str(value)
    return found
