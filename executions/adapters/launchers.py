"""What launchers have in common, and how one is found by its name.

So a third party adds one without touching this project.

A launcher is a package's entry point in the group ``alakai.launchers``: a function that takes a LauncherContext and
returns a ``ports.Launcher``. What launchers do is none of this module's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points

from executions.adapters.settings import Settings
from executions.errors import InvalidSettings, LaunchRefused, LaunchUnclear, StoreUnavailable
from executions.names import TASK_ID_VARIABLE
from executions.ports import FoundWorker, Launcher, LaunchOrder, Payloads

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


def worker_variables(order: LaunchOrder, settings: Settings) -> dict[str, str]:
    """The environment that tells a worker which launch it is; without the callback token, which is a secret.

    Raises LaunchRefused for a trace id that no process can be given.
    """
    if "\0" in order.trace_id:
        raise LaunchRefused(
            "the task's trace id holds a character that no process can be given", code="LAUNCH_REJECTED", permanent=True
        )
    return {
        TASK_ID_VARIABLE: order.task_id,
        "ALAKAI_TASK_TYPE": order.task_type,
        "ALAKAI_ATTEMPT": str(order.attempt),
        "ALAKAI_LAUNCH_TRY": str(order.launch_try),
        "ALAKAI_CLAIM_URL": settings.claim_url,
        "ALAKAI_CALLBACK_URL": settings.callback_url,
        "ALAKAI_TRACE_ID": order.trace_id,
    }


def found_worker(worker_id: str, variables: Mapping[str, str], settings: Settings) -> FoundWorker | None:
    """What a live worker's environment says of it; None for one of another installation, or of nobody's."""
    if variables.get("ALAKAI_CALLBACK_URL") != settings.callback_url:
        return None
    try:
        numbers = int(variables["ALAKAI_ATTEMPT"]), int(variables["ALAKAI_LAUNCH_TRY"])
        return FoundWorker(worker_id, variables[TASK_ID_VARIABLE], *numbers)
    except (KeyError, ValueError):
        return None


async def lay_down(payloads: Payloads, order: LaunchOrder) -> None:
    """Lay down the task for workers that read it. Raises LaunchUnclear: nothing is launched without it."""
    try:
        await payloads.put(order.task_id, order.task)
    except StoreUnavailable as error:
        raise LaunchUnclear(f"the payload of task {order.task_id} could not be laid down: {error}") from error
