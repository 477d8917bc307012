"""What of the chart is made from something else: `python -m devstack.chart [--check]`.

values.yaml is written by hand. From it, its comments and the settings' own definitions follow values.schema.json (so a
typo in values fails) and the tables of the chart's README; the custom resource definition is a copy of `crds/`, the
Grafana dashboard comes from `devstack/dashboard.yaml`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic.alias_generators import to_camel

from devstack.dashboard import dashboard
from devstack.environment import ROOT
from executions.adapters.settings import Settings

CHART = ROOT / "deploy" / "helm"
DEFINITION = ROOT / "crds" / "workerexecutions.alakai.dev.yaml"
SET_ELSEWHERE = frozenset(
    {
        "api_probe_port",
        "callback_token_keys_file",
        "callback_token_required",
        "controller_port",
        "ecs_launcher_file",
        "env",
        "executions_namespace",
        "installation",
        "kubernetes_launcher_file",
        "launcher",
        "local_worker",
        "metrics_port",
        "notifications_file",
        "port",
        "redis_url",
        "redis_url_file",
        "task_dashboard_allowed_users",
        "task_dashboard_google_client_ids",
        "task_dashboard_google_domains",
        "task_tracking_redis_url",
        "task_tracking_redis_url_file",
        "task_visibility_file",
    }
)
"""Settings that the chart derives from other values, or that mean nothing in a cluster."""
_FREE = re.compile(
    r"(?:annotations|labels|Labels|Annotations|nodeSelector|affinity|resources|Probe|SecurityContext|launcher\.file|notifications\.file|visibility)$"
)
"""Values that are handed through to Kubernetes, or to a launcher, as they are."""
_ENUMS = {
    "image.pullPolicy": ["Always", "IfNotPresent", "Never"],
    "api.service.type": ["ClusterIP", "NodePort", "LoadBalancer"],
}
_NULLABLE = {"podDisruptionBudget.minAvailable": ["null", "integer", "string"]}
_MINIMUM = {"replicaCount": 1, "terminationGracePeriodSeconds": 1}
_BEGIN, _END = "<!-- generated: values -->", "<!-- end -->"


@dataclass(frozen=True, slots=True)
class Value:
    """One value: its path, its default, and what its comment says."""

    path: str
    default: Any
    comment: str


def main() -> int:
    """Write what differs, or with `--check` only say so. Exit status 1 then."""
    check = "--check" in sys.argv[1:]
    made = {
        CHART / "values.schema.json": json.dumps(schema(), indent=2) + "\n",
        CHART / "README.md": with_tables((CHART / "README.md").read_text()),
        CHART / "files" / "workerexecutions.yaml": DEFINITION.read_text(),
        CHART / "files" / "dashboard.json": dashboard(),
    }
    stale = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if check:
            sys.stderr.write(f"{path.relative_to(ROOT)} is stale; run `make chart`\n")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(made[path])
    return 1 if check and stale else 0


def schema() -> dict[str, Any]:
    """JSON Schema of the values."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    made = _schema_of(values, "")
    made["properties"]["config"] = {"type": "object", "additionalProperties": False, "properties": _settings()}
    made["properties"]["global"] = {"type": "object"}
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of the chart alakai", **made}


def _schema_of(value: object, path: str) -> dict[str, Any]:
    if path in _ENUMS:
        return {"enum": _ENUMS[path]}
    if path in _NULLABLE:
        return {"type": _NULLABLE[path]}
    if isinstance(value, dict):
        if not value or _FREE.search(path):
            return {"type": "object"}
        fields = {name: _schema_of(item, f"{path}.{name}".lstrip(".")) for name, item in value.items()}
        return {"type": "object", "additionalProperties": False, "properties": fields}
    if isinstance(value, list):
        kinds = {type(item) for item in value}
        items = {str: {"type": "string"}, int: {"type": "integer"}}.get(kinds.pop(), {}) if len(kinds) == 1 else {}
        return {"type": "array", **({"items": items} if items else {})}
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, int):
        return {"type": "integer", **({"minimum": _MINIMUM[path]} if path in _MINIMUM else {})}
    return {"type": "string"}


def _settings() -> dict[str, Any]:
    """The settings that stand under `config`, by their name there."""
    known = Settings.model_json_schema()["properties"]
    return {
        to_camel(name): _plain(definition) for name, definition in sorted(known.items()) if name not in SET_ELSEWHERE
    }


def _plain(definition: Mapping[str, Any]) -> dict[str, Any]:
    """Without defaults and titles: what is not set keeps the default of the version that runs."""
    kinds = definition.get("anyOf", [definition])
    return {
        key: item
        for key, item in next(kind for kind in kinds if kind.get("type") != "null").items()
        if key not in ("title", "default", "description", "uniqueItems")
    }


def with_tables(text: str) -> str:
    """The README with its tables made anew."""
    before, rest = text.split(_BEGIN, 1)
    after = rest.split(_END, 1)[1]
    return f"{before}{_BEGIN}\n\n{_tables()}\n{_END}{after}"


def _tables() -> str:
    rows = ["| Value | Default | Meaning |", "|---|---|---|"]
    rows += [f"| `{item.path}` | `{json.dumps(item.default)}` | {item.comment} |" for item in values()]
    rows += ["", "Settings, all under `config`:", "", "| Value | Variable | Default |", "|---|---|---|"]
    for name, field in sorted(Settings.model_fields.items()):
        if name not in SET_ELSEWHERE:
            default = shown(field.get_default(call_default_factory=True))
            rows.append(f"| `config.{to_camel(name)}` | `{name.upper()}` | {default} |")
    return "\n".join(rows)


def shown(default: object) -> str:
    """A default as one would write it into the variable; a set in one order, so that no page changes by itself."""
    if default in (None, "", {}, (), []):
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, frozenset):
        default = tuple(sorted(default))
    if isinstance(default, tuple):
        return f"`{','.join(f'{item:g}' if isinstance(item, float) else str(item) for item in default)}`"
    return f"`{default}`"


def values() -> Iterator[Value]:
    """Every value that is not a mapping of others, with the comment above it or above what it is part of."""
    text = (CHART / "values.yaml").read_text()
    lines = text.splitlines()
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if isinstance(node, yaml.MappingNode):
        yield from _leaves(node, "", lines, yaml.safe_load(text))


def _leaves(node: yaml.MappingNode, path: str, lines: list[str], value: Any) -> Iterator[Value]:
    for key, item in node.value:
        name = f"{path}.{key.value}".lstrip(".")
        if name == "config":
            continue
        own = value[key.value]
        is_group = isinstance(item, yaml.MappingNode) and item.value and not item.flow_style and not _FREE.search(name)
        if is_group:
            yield from _leaves(item, name, lines, own)
        else:
            yield Value(name, own, _comment_above(lines, key.start_mark.line))


def _comment_above(lines: list[str], line: int) -> str:
    found: list[str] = []
    for text in reversed(lines[:line]):
        if not text.strip().startswith("#"):
            break
        found.insert(0, text.strip().lstrip("#").strip().removeprefix("-- "))
    return " ".join(found).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
