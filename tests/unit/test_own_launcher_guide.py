"""The example of the guide to own launchers is what it says: the test that it shows passes on the launcher it shows."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guides" / "own-launcher.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


def shown() -> dict[str, Any]:
    """What the guide's Python defines; the example launcher is imported as if it were installed."""
    (text,) = blocks("python")
    names: dict[str, Any] = {"__name__": __name__}
    sys.path.insert(0, str(ROOT / "examples" / "launcher"))
    try:
        exec(compile(text, "own-launcher.md", "exec"), names)  # noqa: S102 - our own page
    finally:
        sys.path.remove(str(ROOT / "examples" / "launcher"))
        sys.modules.pop("spool_launcher", None)
    return names


TestSpoolLauncher = shown()["TestSpoolLauncher"]


def test_the_package_is_the_example() -> None:
    (project,) = blocks("toml")
    assert project in (ROOT / "examples" / "launcher" / "pyproject.toml").read_text()
