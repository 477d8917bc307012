"""What axe finds wrong with a page for people who do not see it, or use no mouse.

The wheel axe-playwright-python carries axe-core. Its source goes to the page through the debugging protocol, so that
a strict policy of the page neither stops it nor has to be weakened for it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

SERIOUS = ("serious", "critical")
IMPACTS = ("minor", "moderate", *SERIOUS)


def axe_violations(page: Page, impact: Collection[str] = SERIOUS) -> list[str]:
    """One line for each rule that the page, as it is now, breaks with one of these impacts: rule, help, where."""
    answer: dict[str, Any] = Axe().run(page).response
    return [
        f"{broken['id']} ({broken['impact']}): {broken['help']}, at {', '.join(map(_selector, broken['nodes']))}"
        for broken in answer["violations"]
        if broken["impact"] in impact
    ]


def _selector(node: dict[str, Any]) -> str:
    """Elements in frames and shadow trees have a selector for each step of the way."""
    return " > ".join(step if isinstance(step, str) else " >>> ".join(step) for step in node["target"])
