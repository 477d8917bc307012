"""Finds a launcher by name among the installed ones, so that a third party adds one without touching this project.

A launcher is a package's entry point in the group ``alakai.launchers``: a function that takes a LauncherContext and
returns a ``ports.Launcher``. What launchers do is none of this module's business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points

from executions.adapters.settings import Settings
from executions.errors import InvalidSettings
from executions.ports import Launcher, Payloads

GROUP = "alakai.launchers"
CALLBACK_TOKEN_VARIABLE = "ALAKAI_CALLBACK_TOKEN"  # noqa: S105 - the name of a variable
"""Where a worker finds ``LaunchOrder.callback_token``."""


@dataclass(frozen=True, slots=True)
class LauncherContext:
    """What a launcher is made from."""

    settings: Settings
    payloads: Payloads
    """Where a launcher may lay down the task for workers that read it instead of claiming it."""


LauncherFactory = Callable[[LauncherContext], Launcher]


def open_launcher(name: str, context: LauncherContext) -> Launcher:
    """Make the launcher of that name. Raises InvalidSettings when it is not installed or cannot be loaded."""
    installed = {point.name: point for point in entry_points(group=GROUP)}
    if name not in installed:
        known = ", ".join(sorted(installed)) or "none"
        raise InvalidSettings(
            f"LAUNCHER names {name[:64]!r}, which is not installed (installed: {known}); "
            "correct it or install the package that provides it"
        )
    try:
        factory: LauncherFactory = installed[name].load()
    except (ImportError, AttributeError) as error:
        raise InvalidSettings(
            f"the launcher {name!r} cannot be loaded ({type(error).__name__}: {error}); repair its package"
        ) from error
    return factory(context)
