"""When traces are sent, and under which ids."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from executions.adapters.otel import is_wanted, open_tracing, trace_id_of
from executions.errors import InvalidSettings

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}


@pytest.mark.parametrize(
    ("environ", "is_on"),
    [
        ({}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://localhost:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "false"}, True),
    ],
)
def test_the_standard_variables_say_whether_traces_are_sent(environ: dict[str, str], is_on: bool) -> None:
    assert is_wanted(environ) is is_on


def test_a_uuid_is_the_trace_id_itself() -> None:
    assert trace_id_of("7d9f0d4e-0000-4000-8000-00000000cafe") == 0x7D9F0D4E00004000800000000000CAFE
    assert trace_id_of("7d9f0d4e00004000800000000000cafe") == 0x7D9F0D4E00004000800000000000CAFE


def test_any_other_text_has_an_id_of_its_own() -> None:
    assert trace_id_of("impl-e2e") == trace_id_of("impl-e2e") != trace_id_of("impl-e3e")
    assert 0 < trace_id_of("impl-e2e") < 2**128
    assert trace_id_of("00000000-0000-0000-0000-000000000000") == 1


def test_an_exporter_that_nobody_knows_is_refused() -> None:
    with pytest.raises(InvalidSettings, match="set it to otlp, console or none"):
        open_tracing("alakai-core", {"OTEL_TRACES_EXPORTER": "zipkin"})


def test_while_it_is_off_nothing_of_it_is_loaded() -> None:
    program = (
        "import sys, controller.__main__, api.__main__; from executions.adapters.otel import open_tracing;"
        "assert open_tracing('x', {}) is None;"
        "sys.exit('opentelemetry.sdk.trace' in sys.modules or 'opentelemetry.exporter' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2], timeout=60)
    assert done.returncode == 0
