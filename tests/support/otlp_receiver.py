"""A place that takes OpenTelemetry traces by OTLP over HTTP, as a collector does, and keeps the spans."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True, slots=True)
class Span:
    service: str
    name: str
    trace_id: str
    """Hexadecimal."""
    duration_ms: int
    is_error: bool
    attributes: dict[str, str]


class OtlpReceiver(AbstractContextManager["OtlpReceiver"]):
    """Listens on loopback until the block is left."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.spans += _spans(ExportTraceServiceRequest.FromString(body))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200 if self.path == "/v1/traces" else 404)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _spans(request: ExportTraceServiceRequest) -> list[Span]:
    return [
        Span(
            service=next(item.value.string_value for item in group.resource.attributes if item.key == "service.name"),
            name=span.name,
            trace_id=span.trace_id.hex(),
            duration_ms=(span.end_time_unix_nano - span.start_time_unix_nano) // 1_000_000,
            is_error=span.status.code == 2,
            attributes={item.key: item.value.string_value for item in span.attributes},
        )
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]
