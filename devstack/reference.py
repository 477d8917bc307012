"""The reference pages of `docs/`, made from the code: `python -m devstack.reference [--check]`.

Nothing is listed here that the code knows: a new setting, field, route, metric, alert or command is on its page at the
next run. Another page is one function that returns its text, and its line in `PAGES`.
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
import textwrap
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import groupby, pairwise
from typing import Any

import typer
import yaml
from prometheus_client.metrics import MetricWrapperBase
from pydantic.alias_generators import to_camel

from api.context import open_context
from api.main import create_app
from cli.main import app
from devstack.chart import CHART, DEFINITION, SET_ELSEWHERE, shown
from devstack.environment import ROOT
from devstack.markdown import Field, code, fields, kind, page, prose, table
from executions.adapters import metrics
from executions.adapters.settings import Settings
from executions.conditions import Condition, Reason
from executions.names import OUR_ERROR_CODES, reason_from_code
from executions.slices import CATALOGUE, COMPONENTS, EVENT_FIELDS

DOCS = ROOT / "docs"
MADE = "<!-- Made by `make docs` from the code; do not edit. -->"


def main() -> int:
    """Write what differs, or with `--check` only say so. Exit status 1 then."""
    check = "--check" in sys.argv[1:]
    stale = {name: text for name, text in pages().items() if _found(name) != text}
    for name, text in stale.items():
        if check:
            sys.stderr.write(f"docs/{name} is stale; run `make docs`\n")
        else:
            (DOCS / name).parent.mkdir(parents=True, exist_ok=True)
            (DOCS / name).write_text(text)
    return 1 if check and stale else 0


def pages() -> dict[str, str]:
    """Path below `docs/` → its text."""
    return {name: make() for name, make in PAGES.items()}


def _found(name: str) -> str:
    path = DOCS / name
    return path.read_text() if path.exists() else ""


# Settings


def settings_page() -> str:
    """Every environment variable of both processes, in the order of the settings' own definition."""
    in_chart = [name for name in Settings.model_fields if name not in SET_ELSEWHERE]
    elsewhere = [name for name in Settings.model_fields if name in SET_ELSEWHERE]
    return page(
        "# Settings",
        MADE,
        "Environment variables of controller and API. Times are in seconds and may have fractions; a variable that is "
        "empty counts as unset. What cannot work is refused at start with one line that names the variable.",
        "## In the chart under `config`",
        f"`{to_camel(in_chart[0])}` there is `{in_chart[0].upper()}` here.",
        _settings_table(in_chart),
        "## In the chart by values of their own",
        "Or without a meaning in a cluster: see the [chart](../../deploy/helm/README.md).",
        _settings_table(elsewhere),
    )


def _settings_table(names: Sequence[str]) -> str:
    schema, told = Settings.model_json_schema()["properties"], docstrings(Settings)
    rows = [
        [
            code(name.upper()),
            shown(Settings.model_fields[name].get_default(call_default_factory=True)),
            _as_variable(schema[name]),
            prose(told.get(name, "")),
        ]
        for name in names
    ]
    return table(["Variable", "Default", "Value", "Meaning"], rows)


def _as_variable(schema: Mapping[str, Any]) -> str:
    """Lists and maps have a spelling of their own in a variable."""
    if schema.get("type") == "array":
        return f"{kind(schema['items'])}, with commas between"
    if schema.get("type") == "object":
        return f"`NAME=VALUE` with commas between; VALUE: {kind(schema['additionalProperties'])}"
    return kind(schema)


def docstrings(cls: type) -> dict[str, str]:
    """What is written below each field or member of a class, by its name."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    found = {}
    for node, below in pairwise(definition.body if isinstance(definition, ast.ClassDef) else ()):
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        text = below.value.value if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) else None
        if isinstance(target, ast.Name) and isinstance(text, str):
            found[target.id] = text
    return found


# Custom resource


def custom_resource_page() -> str:
    """Every field of the definition, what is checked of it, and the words that its status uses."""
    spec = yaml.safe_load(DEFINITION.read_text())["spec"]
    names, version = spec["names"], spec["versions"][-1]
    root = version["schema"]["openAPIV3Schema"]
    found = list(fields(root))
    parts = [_fields_of(name, found) for name in root["properties"]]
    return page(
        f"# Custom resource {names['kind']}",
        MADE,
        f"`apiVersion: {spec['group']}/{version['name']}`, {spec['scope'].lower()}. For kubectl: "
        + ", ".join(code(name) for name in (names["plural"], names["singular"], *names["shortNames"]))
        + ".",
        prose(root["description"]),
        *(block for part in parts for block in part),
        "## What the API server checks",
        table(["Field", "Message", "Rule"], [row for item in (Field("", root, False), *found) for row in _rules(item)]),
        "## Columns of `kubectl get`",
        table(["Column", "From", "Shown", "Meaning"], [_column(item) for item in version["additionalPrinterColumns"]]),
        "`--field-selector` takes "
        + " and ".join(code(item["jsonPath"].lstrip(".")) for item in version.get("selectableFields", ()))
        + ".",
        "## Conditions",
        "For `kubectl wait --for=condition=…`. Reason and message of a condition say why.",
        _members(Condition),
        "## Reasons",
        "Stable words. A failed attempt's reason is its error code, where that is one of ours "
        "([what each means](../launchers.md#what-a-workers-end-is-called)); any other code gives "
        f"{code(reason_from_code(None))} with the code in the message.",
        _members(Reason),
        table(
            ["Reason", "Error code"], [[code(reason_from_code(item)), code(item)] for item in sorted(OUR_ERROR_CODES)]
        ),
    )


def _fields_of(name: str, found: Sequence[Field]) -> Iterator[str]:
    whole = next(item for item in found if item.path == name)
    yield f"## {code(name)}"
    yield prose(whole.schema.get("description", ""))
    rows = [
        [code(item.path), _kind_of(item), prose(item.schema.get("description", ""))]
        for item in found
        if item.path.startswith(f"{name}.")
    ]
    yield table(["Field", "Value", "Meaning"], rows)


def _kind_of(item: Field) -> str:
    schema = item.schema
    told = [
        kind(schema),
        "required" if item.is_required else "",
        f"default {code(json.dumps(schema['default']))}" if "default" in schema else "",
        "further fields are kept" if schema.get("x-kubernetes-preserve-unknown-fields") and "type" in schema else "",
        f"one for each {', '.join(schema.get('x-kubernetes-list-map-keys', ()))}"
        if "x-kubernetes-list-map-keys" in schema
        else "",
    ]
    return "; ".join(text for text in told if text)


def _rules(item: Field) -> Iterator[list[str]]:
    for rule in item.schema.get("x-kubernetes-validations", ()):
        where = f"{item.path}{rule.get('fieldPath', '')}"
        yield [code(where), prose(rule["message"]), code(" ".join(rule["rule"].split()))]


def _column(item: Mapping[str, Any]) -> list[str]:
    when = "with `-o wide`" if item.get("priority") else "always"
    return [item["name"].upper(), code(item["jsonPath"]), when, prose(item.get("description", ""))]


def _members(of: type[StrEnum]) -> str:
    told = docstrings(of)
    return table([of.__name__, "Meaning"], [[code(item.value), prose(told.get(item.name, ""))] for item in of])


# HTTP


def http_page() -> str:
    """Every route of the API, as its OpenAPI document tells."""
    paths = open_api()["paths"]
    found = [(method.upper(), path, operation) for path, item in paths.items() for method, operation in item.items()]
    common = set.intersection(
        *({_answer_key(item) for item in operation["responses"].items()} for *_, operation in found)
    )
    sections: dict[str, list[str]] = {}
    for _, group in groupby(found, key=lambda item: _told(item[2])):
        same = list(group)
        heading = ", ".join(code(f"{method} {path}") for method, path, _ in same)
        operation = same[0][2]
        blocks = [f"### {heading}", prose(operation.get("description", "")), *_parameters(operation)]
        blocks += [*_body(operation), _answers(operation["responses"], without=common)]
        sections.setdefault(operation.get("tags", ["other"])[0], []).extend(blocks)
    shared = {
        status: item for status, item in found[0][2]["responses"].items() if _answer_key((status, item)) in common
    }
    return page(
        "# HTTP",
        MADE,
        "Every route of the API; `GET /openapi.json` of a running one is the same for machines. The dashboard's routes "
        "are there where sign-in is configured. The probes are answered on `API_PROBE_PORT` too; the controller serves "
        "its probes and metrics only ([operations](../operations.md#probes)).",
        "## Answers of every route",
        _answers(shared),
        *(block for tag, blocks in sections.items() for block in (f"## {tag.capitalize()}", *blocks)),
    )


def open_api() -> dict[str, Any]:
    """The document of an API with every route switched on. It connects to nothing."""
    queue = "https://sqs.us-east-1.amazonaws.com/123456789012/tasks"
    settings = Settings.model_construct(
        env="local",
        redis_url="redis://localhost",
        task_tracking_redis_url="redis://localhost",
        sqs_queue_url=queue,
        implementation_sqs_queue_url=queue,
    )
    return create_app(open_context(settings)).openapi()


def _told(operation: Mapping[str, Any]) -> str:
    return json.dumps({name: item for name, item in operation.items() if name not in ("operationId", "summary")})


def _answer_key(item: tuple[str, Mapping[str, Any]]) -> str:
    return json.dumps(item, sort_keys=True)


def _parameters(operation: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        [
            code(item["name"]),
            item["in"],
            kind(item["schema"]) + ("; required" if item.get("required") else ""),
            shown(item["schema"].get("default")),
            prose(item.get("description", "")),
        ]
        for item in operation.get("parameters", ())
    ]
    yield table(["Parameter", "In", "Value", "Default", "Meaning"], rows)


def _body(operation: Mapping[str, Any]) -> Iterator[str]:
    body = operation.get("requestBody", {"content": {}})
    for content in body["content"].values():
        yield "The body, a JSON object:" if body.get("required") else "A body may be left out:"
        for index, schema in enumerate(content["schema"].get("oneOf", [content["schema"]])):
            yield "Or:" if index else ""
            rows = [
                [code(item.path), _kind_of(item), prose(item.schema.get("description", ""))] for item in fields(schema)
            ]
            yield table(["Field", "Value", "Meaning"], rows)
        yield from (_json_block(value) for value in _examples(content) if value)


def _answers(responses: Mapping[str, Any], *, without: Container[str] = ()) -> str:
    rows = [
        [status, prose(item["description"]), "<br>".join(code(_compact(value)) for value in _examples_of(item))]
        for status, item in sorted(responses.items())
        if _answer_key((status, item)) not in without
    ]
    return table(["Answer", "When", "Body"], rows)


def _examples_of(answer: Mapping[str, Any]) -> Iterator[Any]:
    for content in answer.get("content", {}).values():
        yield from _examples(content)


def _examples(content: Mapping[str, Any]) -> Iterator[Any]:
    yield from (item["value"] for item in content.get("examples", {}).values())
    yield from (content[name] for name in ("example",) if name in content)


def _compact(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _json_block(value: object) -> str:
    return f"```json\n{json.dumps(value, ensure_ascii=False, indent=2)}\n```"


# Metrics and alerts


def metrics_page() -> str:
    """Every collector of `executions/adapters/metrics.py`, by the name that Prometheus stores."""
    rows = [
        [code(metric_name(item)), str(item._type), ", ".join(map(code, item._labelnames)), prose(item._documentation)]
        for item in collectors()
    ]
    return page(
        "# Metrics",
        MADE,
        "At `/metrics` on `METRICS_PORT` of both processes. A histogram is stored as `…_bucket`, `…_sum` and "
        "`…_count`. What only a leader knows is told by the leader only, so gauges need no choice of a replica.",
        table(["Metric", "Type", "Labels", "Meaning"], rows),
    )


def collectors() -> list[MetricWrapperBase]:
    """In the order of their definition."""
    return [item for item in vars(metrics).values() if isinstance(item, MetricWrapperBase)]


def metric_name(collector: MetricWrapperBase) -> str:
    """As it is asked for."""
    return f"{collector._name}_total" if collector._type == "counter" else str(collector._name)


def alerts_page() -> str:
    """Every alert of the chart, with its runbook."""
    groups = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"]
    rows = [
        [
            f"[{rule['alert']}](../runbooks/{rule['alert']}.md)",
            rule["labels"]["severity"],
            f"{code(rule['expr'])} for {rule.get('for', '0s')}",
            prose(rule["annotations"]["description"]),
        ]
        for group in groups
        for rule in group["rules"]
    ]
    return page(
        "# Alerts",
        MADE,
        "Critical is worth waking somebody for, warning a look in the morning. Each alert links to what to do. The "
        "chart installs them with `prometheusRule.enabled=true`.",
        table(["Alert", "Severity", "Fires while", "Meaning"], rows),
    )


# Summary events


def events_page() -> str:
    """The catalogue of `executions/slices.py`, by component."""
    return page(
        "# Summary events",
        MADE,
        "Every slice of work ends with one JSON line at level 30, joined across components by `trace_id`: the upstream "
        "trace id, or the task id where there was none. `alakai trace` puts those of one task together.",
        table(
            ["Field", "Says"],
            [[code(name), prose(says)] for name, says in EVENT_FIELDS.items()],
        ),
        *(part for component in COMPONENTS for part in _events_of(component)),
    )


def _events_of(component: str) -> Iterator[str]:
    yield f"## {component}"
    yield prose(COMPONENTS[component])
    for kind_ in (item for item in CATALOGUE if item.component == component):
        yield f"### {component}: {kind_.name}"
        yield prose(f"When {kind_.trigger}. Steps: {', '.join(f'`{step}`' for step in kind_.steps)}.")
        yield table(["`final_status`", "Means"], [[code(name), says] for name, says in kind_.final_statuses.items()])


# Command line


def cli_page() -> str:
    """Every command of `alakai`, as its `--help` tells."""
    return page("# Command line", MADE, *(block for item in commands() for block in _command(*item)))


def commands() -> Iterator[tuple[str, Any]]:
    """Every command and group by its path, `alakai dlq list`; typed by nothing, as typer hides what it builds on."""
    yield from _below("alakai", typer.main.get_command(app))


def _below(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        if not inner.hidden:
            yield from _below(f"{path} {name}", inner)


def _command(path: str, command: Any) -> Iterator[str]:
    context = command.make_context(path, [], resilient_parsing=True)
    yield f"## {code(path)}"
    yield "\n\n".join(prose(part) for part in (command.help or "").split("\n\n"))
    yield f"```text\n{' '.join([path, *command.collect_usage_pieces(context)])}\n```"
    records = (item.get_help_record(context) for item in command.params)
    yield table(["Argument or option", "Meaning"], [[code(item[0]), prose(item[1])] for item in records if item])


PAGES: dict[str, Callable[[], str]] = {
    "reference/settings.md": settings_page,
    "reference/custom-resource.md": custom_resource_page,
    "reference/http.md": http_page,
    "reference/metrics.md": metrics_page,
    "reference/alerts.md": alerts_page,
    "reference/cli.md": cli_page,
    "events.md": events_page,
}

if __name__ == "__main__":
    sys.exit(main())
