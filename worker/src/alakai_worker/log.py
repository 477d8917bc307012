"""Log lines: one JSON object a line on standard output, in the shape that the other components log.

A worker outlives the process that reads its output, so a broken pipe never disturbs the work.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from alakai_worker.launch import Launch
from alakai_worker.redaction import sanitised

INFO, WARNING = 30, 40
_TASK_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)


def to_standard_output(line: bytes) -> None:
    # Past sys.stdout: its flush at exit would turn a broken pipe into exit code 120.
    try:
        os.write(1, line)
    except OSError:
        return


class Log:
    """Writes lines that carry the launch's trace id."""

    def __init__(
        self,
        launch: Launch,
        *,
        write: Callable[[bytes], None] = to_standard_output,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._launch = launch
        self._write = write
        self._wall_clock = wall_clock

    def line(self, level: int, msg: str, **fields: object) -> None:
        """One line about a step. ``msg`` and texts among the fields are cleaned of what looks like a secret."""
        launch = self._launch
        cleaned = {name: sanitised(value) if isinstance(value, str) else value for name, value in fields.items()}
        self.write({**opening(launch, level, self.now()), "task_id": launch.task_id, **cleaned, "msg": sanitised(msg)})

    def write(self, document: Mapping[str, Any]) -> None:
        self._write(json.dumps(document, default=str).encode("ascii") + b"\n")

    def now(self) -> str:
        moment = datetime.fromtimestamp(self._wall_clock(), timezone.utc)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def opening(launch: Launch, level: int, time_text: str) -> dict[str, Any]:
    """The fields that every line begins with."""
    known = _TASK_TYPE.fullmatch(launch.task_type)
    return {
        "time": time_text,
        "level": level,
        "service": f"alakai-worker-{launch.task_type if known else 'unknown'}",
        "component": "worker",
        "trace_id": launch.trace_id,
        "context": {"trace_id": launch.trace_id, "component": "worker"},
    }
