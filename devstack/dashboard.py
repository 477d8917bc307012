"""The Grafana dashboard of the chart, made from `dashboard.yaml`: one panel per question."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_PANELS = Path(__file__).parent / "dashboard.yaml"
_WIDTH, _HEIGHT, _COLUMNS = 8, 7, 3
_SOURCE = {"type": "prometheus", "uid": "${source}"}


def panels() -> list[dict[str, Any]]:
    """``title``, ``queries`` by legend, and perhaps ``unit``, of each panel."""
    found: list[dict[str, Any]] = yaml.safe_load(_PANELS.read_text())
    return found


def dashboard() -> str:
    """The JSON that Grafana takes."""
    made: dict[str, Any] = {
        "title": "Alakai",
        "uid": "alakai",
        "tags": ["alakai"],
        "schemaVersion": 39,
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": [{"name": "source", "type": "datasource", "query": "prometheus"}]},
        "panels": [_panel(index, panel) for index, panel in enumerate(panels())],
    }
    return json.dumps(made, indent=1) + "\n"


def _panel(index: int, panel: Mapping[str, Any]) -> dict[str, Any]:
    row, column = divmod(index, _COLUMNS)
    return {
        "id": index + 1,
        "type": "timeseries",
        "title": panel["title"],
        "datasource": _SOURCE,
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.get("unit", "short"), "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": _SOURCE, "expr": query, "legendFormat": legend}
            for number, (legend, query) in enumerate(panel["queries"].items())
        ],
    }
