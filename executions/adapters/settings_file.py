"""A launcher's settings file: YAML, checked once at start-up, what is wrong told in one line.

What each launcher's file says is in ``ecs_settings.py`` and ``kubernetes_settings.py``; here is what they have in
common: how a file is read, and which environment variables it may give to workers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import orjson
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from executions.errors import InvalidSettings
from executions.names import TASK_TYPE

DEFAULT = "default"
"""The entry for task types that have none of their own."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_SECRET = re.compile(r"SECRET|TOKEN(?:_|$)|PASSW|CREDENTIAL|PRIVATE|API_?KEY|ACCESS_?KEY", re.IGNORECASE)
_PASSWORD_IN_URL = re.compile(r"://[^/\s@]*:[^/\s@]+@")
_REMEDY = "which anybody who may look at workers could read; refer to a secret instead"
_RESERVED = ("ALAKAI_", "AWS_", "ECS_", "KUBERNETES_")


class StrictModel(BaseModel):
    """Unknown fields and values of another type are refused; names are written in camel case."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, alias_generator=to_camel)


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """How a file is spoken of: whose it is, which variable names its path, and where a good one stands."""

    owner: str
    variable: str
    example: str


def plain_variable(name: str) -> str:
    """The name, if it is one that a file may set in the open. Raises ValueError."""
    if not _VARIABLE.fullmatch(name):
        raise ValueError("is not a variable's name; use letters, digits and _")
    if name.upper().startswith(_RESERVED):
        raise ValueError(f"begins with one of {', '.join(_RESERVED)}, which others set; rename it")
    if _SECRET.search(name):
        raise ValueError(f"looks like a secret, {_REMEDY}")
    return name


def plain_value(value: str) -> str:
    """The value, if it may stand in the open. Raises ValueError."""
    if _PASSWORD_IN_URL.search(value):
        raise ValueError(f"holds a password, {_REMEDY}")
    return value


def _task_type_name(name: str) -> str:
    if not TASK_TYPE.fullmatch(name):
        raise ValueError("names a task type that no task can have; use letters, digits and . _ -")
    return name


PlainVariable = Annotated[str, AfterValidator(plain_variable)]
PlainValue = Annotated[str, AfterValidator(plain_value)]
TaskTypeName = Annotated[str, AfterValidator(_task_type_name)]
Model = TypeVar("Model", bound=StrictModel)


def model_from_file(model: type[Model], path: Path, file: SettingsFile) -> Model:
    """Read and check a file. Raises InvalidSettings with one line that names the file, the field and the remedy."""

    def invalid(text: str) -> InvalidSettings:
        return InvalidSettings(f"{file.owner}'s settings file {path.name} {text} (see {file.example})")

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8 text"
        raise invalid(f"cannot be read: {why}; correct {file.variable}") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        repeated = next(_repeated_keys(node), None) if node is not None else None
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise invalid(f"is not YAML{where}: {getattr(error, 'problem', None) or 'malformed'}") from None
    if repeated is not None:
        raise invalid(f"names {repeated} twice; keep one of them")
    try:
        # By way of JSON: in strict mode only JSON's lists become the models' tuples.
        return model.model_validate_json(orjson.dumps(document))
    except TypeError:
        raise invalid("has a key or value that is not text, a number or a list; quote it") from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"] if part != "[key]") or "the file"
        said = first["msg"].removeprefix("Value error, ")
        raise invalid(f"{field}: {said}") from None


def _repeated_keys(node: yaml.Node) -> Iterator[str]:
    """Keys that stand twice in one mapping: YAML keeps the last of them and says nothing."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _repeated_keys(item)
    if isinstance(node, yaml.MappingNode):
        seen = set[str]()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    yield key.value
                seen.add(key.value)
            yield from _repeated_keys(value)
