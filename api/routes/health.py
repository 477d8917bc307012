"""Probes, for load balancers and people; the kubelet asks the same of ``executions.adapters.probes``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from api.dependencies import ContextOf
from api.errors import json_response
from api.openapi import GUARD_REFUSALS, Responses, answer, error
from api.schemas import HealthAnswer, UnhealthyAnswer
from executions.adapters.health import Probe
from executions.adapters.probes import answer_of

router = APIRouter(tags=["health"])

Exclude = Annotated[
    list[Annotated[str, Field(max_length=64)]],
    Query(max_length=16, description="Names of checks to leave out, for an operator in an incident"),
]

Latch = Annotated[bool, Query(description="A store that has never answered is no reason for a restart")]

_GOOD = answer("Every check is good", HealthAnswer, ok={"ok": True})
_UNUSABLE = error("A parameter is not usable", exclude="the parameter 'exclude' is invalid: too_long")
_STUCK = {"ok": False, "failed": {"loop": "the event loop has not turned for 12 s"}}
_STARTUP_ANSWERS: Responses = {
    **GUARD_REFUSALS,
    200: _GOOD,
    422: _UNUSABLE,
    503: answer("Restart this process when it stays so", UnhealthyAnswer, loop=_STUCK),
}
_LIVE_ANSWERS: Responses = {
    **GUARD_REFUSALS,
    200: _GOOD,
    422: _UNUSABLE,
    503: answer(
        "Restart this process when it stays so",
        UnhealthyAnswer,
        store={"ok": False, "failed": {"store": "no answer within 1 s"}},
        loop=_STUCK,
    ),
}
_READY_ANSWERS: Responses = {
    **GUARD_REFUSALS,
    200: _GOOD,
    422: _UNUSABLE,
    503: answer(
        "Send no traffic here",
        UnhealthyAnswer,
        draining={"ok": False, "failed": {"draining": "shutting down"}},
        trust={"ok": False, "failed": {"trust": "this Redis has no epoch, or not ours: it is new, or was emptied"}},
    ),
}


@router.get("/health", responses={**GUARD_REFUSALS, 200: _GOOD})
async def health() -> Response:
    """Says that the server answers, and nothing about what is behind it."""
    return json_response(200, {"ok": True})


@router.get("/startupz", responses=_STARTUP_ANSWERS)
async def startupz(context: ContextOf, exclude: Exclude = []) -> Response:  # noqa: B006 - FastAPI copies it
    """Says that this process has begun, whatever else is away: a restart would not help with that."""
    return _told(await context.health.problems(Probe.STARTUP, exclude))


@router.get("/livez", responses=_LIVE_ANSWERS)
@router.get("/v0/livez", responses=_LIVE_ANSWERS)
async def livez(context: ContextOf, exclude: Exclude = [], latch: Latch = False) -> Response:  # noqa: B006
    """Whether the process works and its store answers a ping."""
    return _told(await context.health.problems(Probe.LIVENESS, exclude, latch=latch))


@router.get("/readyz", responses=_READY_ANSWERS)
@router.get("/v0/healthz", responses=_READY_ANSWERS)
async def readyz(context: ContextOf, exclude: Exclude = []) -> Response:  # noqa: B006
    """Whether to send traffic here: the store is the one we know, and we are not stopping."""
    return _told(await context.health.problems(Probe.READINESS, exclude))


def _told(problems: dict[str, str]) -> Response:
    return json_response(*answer_of(problems))
