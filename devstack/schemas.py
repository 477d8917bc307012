"""JSON Schemas of the Kubernetes API of one version, for kubeconform: made from the swagger document that each
`k8s.io/kubernetes` module carries, and kept in the cache. Nothing is fetched but the module, whose checksum is pinned.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from devstack.cache import kept
from devstack.console import say
from devstack.golang import module_files

MODULE = "k8s.io/kubernetes"
SUMS = {
    "1.30.14": "h1:MrlKXh9uhLIJpyxOeXhcndzRVSvwiV9iJ8NgH8nqPsg=",
    "1.31.14": "h1:UtjLfqvXLuSVDdJ4+NpQCIfFkKkLnAAVmxAEMsnkhjk=",
    "1.32.13": "h1:5TGYdZ6YZqdp6h/Rp1vX/4TIoybMPdgv97LCZCtPuNQ=",
    "1.33.13": "h1:bmH31xUdSzeA5vk0wZAK9MZp11mdLuzUSeKk0qN3hPQ=",
    "1.34.4": "h1:Yy6R4QB8C9kJPp25GFqEvX5XQwY5qzKeqD0Xx6oAcmk=",
    "1.35.4": "h1:o/8dBC/pHVpYoGV4OAIytAlNPZbdYVTXJHoYvXC4qzM=",
    "1.36.3": "h1:qDQdoMiluAE2Eab6Fa52YV+WjiGz9mZFFoagEA6cI+o=",
}
"""Version → checksum of the module, as go.sum would have it."""
_DEFINITIONS = "definitions.json"


def schemas(version: str) -> Path:
    """The folder with `<kind>-<group>-<version>.json` for every kind of that version. Raises DevstackError."""

    def make(folder: Path) -> None:
        say(f"Making the schemas of Kubernetes {version}: 30 MB to download, 6 MB for good.")
        with module_files(MODULE, version, SUMS[version]) as module:
            swagger = (module / "api" / "openapi-spec" / "swagger.json").read_text()
        _write(json.loads(swagger), folder)

    return kept(f"kubernetes-schemas-{version}", make)


def _write(swagger: dict[str, Any], folder: Path) -> None:
    definitions = {name: _strict(name, item) for name, item in swagger["definitions"].items()}
    (folder / _DEFINITIONS).write_text(json.dumps({"definitions": definitions}))
    for name, kind in _kinds(definitions):
        reference = {"$ref": f"{_DEFINITIONS}#/definitions/{name}"}
        (folder / kind).write_text(json.dumps(reference))


def _strict(name: str, definition: dict[str, Any]) -> dict[str, Any]:
    """As JSON Schema: quantities may be numbers, int-or-string is what it says, unknown fields are refused."""
    if name.endswith(".Quantity"):
        return {"type": ["string", "number"]}
    if name.endswith(".IntOrString"):
        return {"type": ["string", "integer"]}
    made = {key: item for key, item in definition.items() if key != "description"}
    if "properties" in made:
        made["additionalProperties"] = False
        made["properties"] = {key: _nullable(item) for key, item in made["properties"].items()}
    return made


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    """The API server takes null for a field that is left out."""
    schema = {key: item for key, item in schema.items() if key != "description"}
    return {"anyOf": [schema, {"type": "null"}]}


def _kinds(definitions: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, definition in definitions.items():
        for item in definition.get("x-kubernetes-group-version-kind", ()):
            group = item["group"].split(".")[0]
            parts = [item["kind"], *([group] if group else []), item["version"]]
            yield name, f"{'-'.join(parts).lower()}.json"
