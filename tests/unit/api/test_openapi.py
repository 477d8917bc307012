"""The description of the API: an example for every answer, and every example true to its model."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from api.body import validated
from api.schemas import AssigneeBody, CancelSelectionBody, ClaimBody, ReasonBody, SelectionBody
from executions.names import checked_task_id
from executions.outcome import outcome_from_document
from tests.unit.api.harness import ROUTES, Api

STREAM = ("/dashboard/stream", "200")
READERS: dict[str, Any] = {
    "/task-complete": outcome_from_document,
    "/task-claim": lambda body: validated(ClaimBody, body),
    "/dashboard/executions/retry": lambda body: validated(SelectionBody, body),
    "/dashboard/executions/cancel": lambda body: validated(CancelSelectionBody, body),
    "/dashboard/executions/{taskId}/retry": dict,
    "/dashboard/executions/{taskId}/cancel": lambda body: validated(ReasonBody, body),
    "/dashboard/executions/{taskId}/done": lambda body: validated(ReasonBody, body),
    "/dashboard/executions/{taskId}/assign": lambda body: validated(AssigneeBody, body),
}


def operations(api: Api) -> list[tuple[str, dict[str, Any]]]:
    paths = api.app.openapi()["paths"]
    return [(path, operation) for path, methods in paths.items() for operation in methods.values()]


async def test_every_route_is_described(api: Api) -> None:
    assert {path for path, _ in operations(api)} == {route.path_format for route in ROUTES}
    assert (await api.http.get("/openapi.json")).json()["openapi"].startswith("3.")


async def test_every_answer_has_an_example_and_a_description(api: Api) -> None:
    for path, operation in operations(api):
        for code, response in operation["responses"].items():
            (kind, content), *_ = response["content"].items()
            assert kind == ("text/event-stream" if (path, code) == STREAM else "application/json"), (path, code)
            assert content["examples"], (path, code)
            assert content["schema"], (path, code)
            assert response["description"], (path, code)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_every_example_of_an_answer_fits_its_model(route: APIRoute) -> None:
    for code, response in route.responses.items():
        if (route.path, str(code)) == STREAM:
            continue
        for example in response["content"]["application/json"]["examples"].values():
            TypeAdapter(response["model"]).validate_python(example["value"], strict=True)
            if isinstance(code, int) and code >= 400 and "failed" not in example["value"]:
                assert "error" in example["value"]


async def test_every_example_of_a_body_is_one_that_the_route_takes(api: Api) -> None:
    bodies = {path: operation["requestBody"] for path, operation in operations(api) if "requestBody" in operation}
    assert set(bodies) == set(READERS)
    for path, body in bodies.items():
        content = body["content"]["application/json"]
        assert content["schema"], path
        assert content["examples"], path
        for example in content["examples"].values():
            READERS[path](example["value"])


async def test_the_task_id_is_described_by_the_rule_that_is_checked(api: Api) -> None:
    for path, operation in operations(api):
        if "{taskId}" in path:
            (parameter,) = [item for item in operation["parameters"] if item["name"] == "taskId"]
            assert parameter["schema"]["pattern"] == "^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$"
            assert checked_task_id(parameter["example"])


async def test_the_frameworks_own_error_bodies_are_gone(api: Api) -> None:
    assert not [name for name in api.app.openapi()["components"]["schemas"] if "ValidationError" in name]


def test_everything_that_the_description_refers_to_is_in_it(api: Api) -> None:
    """A tool that finds a reference leading nowhere passes over the route without a word."""
    document = api.app.openapi()
    seen: list[str] = []

    def look(part: Any) -> None:
        if isinstance(part, dict):
            if isinstance(part.get("$ref"), str):
                seen.append(part["$ref"])
            for item in part.values():
                look(item)
        elif isinstance(part, list):
            for item in part:
                look(item)

    look(document)
    assert seen
    for reference in set(seen):
        found: Any = document
        for name in reference.removeprefix("#/").split("/"):
            assert name in found, reference
            found = found[name]
