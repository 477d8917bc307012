"""The file that names the responsible users of projects, checked once at start-up."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from executions.adapters.settings_file import SettingsFile, StrictModel, model_from_file
from executions.visibility import Visibility

EXAMPLE = "examples/visibility.yaml"

_Pattern = Annotated[str, StringConstraints(pattern=r"^(\*|[A-Za-z0-9._-]{1,100}/(\*|[A-Za-z0-9._-]{1,100}))$")]
_User = Annotated[str, StringConstraints(pattern=r"^[^\s@]+@[^\s@]+$", max_length=320)]


class VisibilityFile(StrictModel):
    """``projects`` maps ``owner/repo``, ``owner/*`` or ``*`` to e-mail addresses."""

    projects: dict[_Pattern, Annotated[tuple[_User, ...], Field(max_length=200)]]


def visibility_from(path: str) -> Visibility:
    """An empty path: nobody is named anywhere. Raises InvalidSettings with one line that says what to correct."""
    if not path:
        return Visibility()
    file = SettingsFile("task tracking", "TASK_VISIBILITY_FILE", EXAMPLE)
    return Visibility(model_from_file(VisibilityFile, Path(path), file).projects)
