"""Which launch sent this? The callback token of workers, checked before anything else is done.

Where no keys are configured there is nothing to check with, and callbacks are taken as in the guide. Tokens are made by
the controller (``executions/callback_token.py``) and are never logged.
"""

from __future__ import annotations

import structlog

from api.dependencies import Context
from api.errors import CALLBACK_UNAUTHORIZED, Refused
from executions.callback_token import BadToken, LaunchProof

_log = structlog.get_logger(__name__)


def proven_launch(
    context: Context, task_id: str, token: str | None, *, attempt: int | None, launch_try: int | None
) -> LaunchProof | None:
    """The launch that the token proves; None where none is asked for. Raises Refused with 401.

    ``attempt`` and ``launch_try`` are what the body says: a body that contradicts its token is refused.
    """
    if context.callback_keys is None:
        return None
    if token is None:
        if context.settings.callback_token_required:
            raise _refused(task_id, "no token")
        return None
    try:
        proof = context.callback_keys.ring.proof(token, task_id, now_ms=context.clock_ms())
    except BadToken as error:
        raise _refused(task_id, str(error)) from error
    if attempt not in (None, proof.attempt) or launch_try not in (None, proof.launch_try):
        raise _refused(task_id, "the token is for another launch than the body")
    return proof


def _refused(task_id: str, reason: str) -> Refused:
    _log.warning("A callback was refused", task_id=task_id, reason=reason)
    return Refused(401, CALLBACK_UNAUTHORIZED)
