"""The catalogue of summary events knows every step that the code names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from executions.slices import CATALOGUE

ROOT = Path(__file__).parents[2]
STEP = re.compile(r"""\b(?:part|piece|work)\.(?:ok|failed|left_out|step)\((?:"(\w+)"( if [^)]* else "\w+")?)""")
SOURCES = {"core": ("api",), "orchestrator": ("controller",)}


def named(component: str) -> set[str]:
    found: set[str] = set()
    for folder in SOURCES[component]:
        for path in (ROOT / folder).rglob("*.py"):
            for match in STEP.finditer(path.read_text()):
                found |= set(re.findall(r'"(\w+)"', match[0]))
    return found


@pytest.mark.parametrize("component", SOURCES)
def test_every_step_in_the_code_is_in_the_catalogue(component: str) -> None:
    known = {step for kind in CATALOGUE if kind.component == component for step in kind.steps}
    assert len(named(component)) > 3
    assert named(component) - known == set()


def test_every_step_of_the_catalogue_is_in_the_code() -> None:
    dynamic = {"cancel", "done", "assign"}  # the operation's own name
    for component in SOURCES:
        known = {step for kind in CATALOGUE if kind.component == component for step in kind.steps}
        assert known - named(component) - dynamic == set()


def test_every_final_status_says_something() -> None:
    for kind in CATALOGUE:
        assert kind.steps
        assert all(kind.final_statuses.values())
