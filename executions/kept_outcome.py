"""An outcome that was received while the store was away, as the outcomes queue keeps it.

    {"receivedAtMs": 1700000000000, "outcome": {…the callback's body…},
     "launch": {"attempt": 1, "launchTry": 1, "id": "…"}}

``launch`` is there when the callback's token was good: it was verified before the outcome was kept, so that the token
itself, a secret, is not kept. Written by the API, read by ``controller/loops/outcomes.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from executions.callback_token import LaunchProof
from executions.errors import InvalidOutcome
from executions.outcome import Outcome, outcome_from_document


@dataclass(frozen=True, slots=True)
class KeptOutcome:
    """``received_ms`` is by the API's clock, the only one that there was; ``proof`` as the API verified it."""

    received_ms: int
    outcome: Outcome
    proof: LaunchProof | None = None


class _Launch(BaseModel):
    model_config = ConfigDict(strict=True)

    attempt: Annotated[int, Field(ge=1)]
    launchTry: Annotated[int, Field(ge=1)]
    id: str


def kept_outcome(body: Mapping[str, Any], proof: LaunchProof | None, *, received_ms: int) -> dict[str, Any]:
    """The message that keeps a callback's body."""
    document: dict[str, Any] = {
        "receivedAtMs": received_ms,
        "outcome": {name: value for name, value in body.items() if name != "token"},
    }
    if proof is not None:
        document["launch"] = {"attempt": proof.attempt, "launchTry": proof.launch_try, "id": proof.launch_id}
    return document


def kept_outcome_from_body(body: str) -> KeptOutcome:
    """The reverse. Raises InvalidOutcome that names what is wrong, never its value."""
    try:
        document = orjson.loads(body)
    except ValueError as error:
        raise InvalidOutcome("the kept outcome is not JSON") from error
    if not isinstance(document, dict):
        raise InvalidOutcome("the kept outcome must be a JSON object")
    received_ms = document.get("receivedAtMs")
    if not isinstance(received_ms, int) or isinstance(received_ms, bool) or received_ms < 0:
        raise InvalidOutcome("the kept outcome's receivedAtMs must be milliseconds since 1970")
    return KeptOutcome(received_ms, outcome_from_document(document.get("outcome")), _proof(document.get("launch")))


def _proof(document: object) -> LaunchProof | None:
    if document is None:
        return None
    try:
        launch = _Launch.model_validate(document)
    except ValidationError as error:
        raise InvalidOutcome("the kept outcome's launch is invalid") from error
    return LaunchProof(launch.attempt, launch.launchTry, launch.id)
