"""What workers send: the claim of their launch before they work, their outcome at the end.

The rules are ``executions.lifecycle``. Here: how an outcome survives a store that is away, and the wording in HTTP.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from api import errors
from api.body import JsonBody, validated
from api.dependencies import Context, ContextOf
from api.errors import Refused, json_response, try_again_later
from api.launch_proof import proven_launch
from api.openapi import BODY_REFUSALS, Responses, answer, error, request_body
from api.schemas import ClaimAnswer, ClaimBody, KeptAnswer, NotRecordedAnswer, RecordedAnswer
from api.slices import Work
from executions.answer import Answer, Reply
from executions.automatic_retry import message_for_worker, retry_hints
from executions.callback_token import LaunchProof
from executions.errors import InvalidOutcome, InvalidTask, QueueUnavailable, QueueUnclear, StoreUnavailable
from executions.kept_outcome import kept_outcome
from executions.names import checked_task_id
from executions.outcome import Outcome, outcome_from_document
from executions.record import Attempt

CLAIM_REFUSED = "this launch is not the live one, or another worker has claimed it"
PAYLOAD_LOST = "the task payload is lost"

router = APIRouter(tags=["callbacks"])

_TASK_ID = {"type": "string", "examples": ["impl-e2e"]}
_EXTRAS = {
    "taskId": _TASK_ID,
    "attempt": {"type": "integer", "minimum": 1, "maximum": 1000},
    "launchTry": {"type": "integer", "minimum": 1, "maximum": 1000},
    "errorFamily": {"type": "string"},
    "retryNotBefore": {"type": ["string", "number"], "description": "ISO time, seconds or HTTP date"},
    "agent": {"type": "object", "properties": {"provider": {"type": "string"}, "model": {"type": "string"}}},
    "token": {"type": "string", "description": "ALAKAI_CALLBACK_TOKEN, as the launcher gave it to the worker"},
}
_OUTCOME_SCHEMA: dict[str, Any] = {
    "oneOf": [
        {
            "title": "Nested",
            "type": "object",
            "required": ["taskId", "result"],
            "properties": {
                **_EXTRAS,
                "result": {
                    "type": "object",
                    "required": ["status"],
                    "properties": {
                        "status": {"enum": ["success", "error"]},
                        "errorMessage": {"type": "string"},
                        "pullRequestUrl": {"type": "string"},
                    },
                },
            },
        },
        {
            "title": "Canonical",
            "type": "object",
            "required": ["taskId", "status"],
            "properties": {
                **_EXTRAS,
                "taskType": {"type": "string"},
                "status": {"enum": ["success", "failure"]},
                "error": {
                    "type": "object",
                    "properties": {"message": {"type": "string"}, "code": {"type": "string"}},
                },
                "pullRequestUrl": {"type": "string"},
            },
        },
    ]
}
_COMPLETE_ANSWERS: Responses = {
    **BODY_REFUSALS,
    200: answer(
        "The outcome decided the attempt, or changed nothing because it was decided before",
        RecordedAnswer | NotRecordedAnswer,
        recorded={"recorded": True, "taskId": "impl-e2e", "attempt": 1, "status": "failed"},
        repeated={"recorded": False, "reason": "already_finished"},
        superseded={"recorded": False, "reason": "superseded"},
    ),
    202: answer("The store is away; the outcome is kept", KeptAnswer, kept={"recorded": False, "queued": True}),
    401: error("The token proves no launch of this task", unauthorized=errors.CALLBACK_UNAUTHORIZED),
    429: error("Workers of this task ask too often; Retry-After says when again", too_many=errors.TOO_MANY),
    404: error("There is no record", unknown=errors.NOT_FOUND),
    503: error("Neither store nor queue took the outcome: send it again", away=errors.STORE_AWAY),
}
_CLAIM_ANSWERS: Responses = {
    **BODY_REFUSALS,
    200: answer(
        "This worker instance may work; its repeats get the same answer",
        ClaimAnswer,
        granted={
            "taskId": "impl-e2e",
            "taskType": "implementation",
            "attempt": 1,
            "launchTry": 1,
            "run": 1,
            "traceId": "impl-e2e",
            "task": {"taskId": "impl-e2e", "taskType": "implementation", "payload": {"prompt": "add retries"}},
            "retry": {},
        },
    ),
    401: error("The token proves no launch of this task", unauthorized=errors.CALLBACK_UNAUTHORIZED),
    429: error("Workers of this task ask too often; Retry-After says when again", too_many=errors.TOO_MANY),
    404: error("There is no record", unknown=errors.NOT_FOUND),
    409: error("This worker must not work", refused=CLAIM_REFUSED, payload_lost=PAYLOAD_LOST),
    503: error("The store is away: ask again", away=errors.STORE_AWAY),
}


@router.post(
    "/task-complete",
    responses=_COMPLETE_ANSWERS,
    openapi_extra=request_body(
        _OUTCOME_SCHEMA,
        nested={"taskId": "impl-e2e", "result": {"status": "error", "errorMessage": "codex provider timed out"}},
        canonical={
            "taskId": "digest-1",
            "taskType": "digest",
            "status": "failure",
            "error": {"message": "no feed", "code": "FEED_EMPTY"},
        },
    ),
)
async def task_complete(body: JsonBody, context: ContextOf) -> Response:
    """A worker's outcome. The first one for the live attempt decides it."""
    try:
        outcome = outcome_from_document(body)
    except InvalidOutcome as error_:
        raise Refused(400, str(error_)) from error_
    context.per_task.take(outcome.task_id)
    proof = proven_launch(
        context, outcome.task_id, outcome.token, attempt=outcome.attempt, launch_try=outcome.launch_try
    )
    try:
        async with Work(context, "callback", outcome.task_id) as work:
            work.tells(agent=outcome.agent, pull_request_url=outcome.pull_request_url)
            return await _recorded_or_kept(context, work, outcome, proof, body)
    except (*errors.STORE_ERRORS, QueueUnavailable, QueueUnclear) as error_:
        # Never a success that might not be one: the worker asks again until somebody has kept its outcome.
        raise try_again_later(errors.STORE_AWAY) from error_


@router.post(
    "/task-claim",
    responses=_CLAIM_ANSWERS,
    openapi_extra=request_body(
        ClaimBody, claim={"taskId": "impl-e2e", "attempt": 1, "launchTry": 1, "claimId": "b1946ac92492"}
    ),
)
async def task_claim(body: JsonBody, context: ContextOf) -> Response:
    """A worker instance asks whether it may work: the first one of the live launch may, every other one must not."""
    claim = validated(ClaimBody, body)
    try:
        checked_task_id(claim.taskId)
    except InvalidTask as error_:
        raise Refused(400, str(error_)) from error_
    context.per_task.take(claim.taskId)
    proof = proven_launch(context, claim.taskId, claim.token, attempt=claim.attempt, launch_try=claim.launchTry)
    try:
        async with Work(context, "claim", claim.taskId) as work:
            return await _claimed(context, work, claim, proof)
    except errors.STORE_ERRORS as error_:
        raise try_again_later(errors.STORE_AWAY) from error_


async def _recorded_or_kept(
    context: Context, work: Work, outcome: Outcome, proof: LaunchProof | None, body: dict[str, Any]
) -> Response:
    try:
        with work.step("record"):
            found = await context.commands.complete(outcome, proof=proof)
    except StoreUnavailable:
        with work.step("keep"):
            await context.outcomes.send(kept_outcome(body, proof, received_ms=context.clock_ms()))
        work.conclude("success", "queued")
        return json_response(202, {"recorded": False, "queued": True})
    if found.reply is Reply.RECORDED:
        work.conclude("success", str(found.status))
        document = {"recorded": True, "taskId": found.task_id, "attempt": found.attempt, "status": found.status}
        return json_response(200, document)
    work.conclude("skipped", found.reply.value)
    if found.reply is Reply.NOT_FOUND:
        return json_response(404, {"error": errors.NOT_FOUND})
    return json_response(200, {"recorded": False, "reason": found.reply.value})


async def _claimed(context: Context, work: Work, claim: ClaimBody, proof: LaunchProof | None) -> Response:
    with work.step("claim"):
        found = await context.commands.claim(
            claim.taskId, attempt=claim.attempt, launch_try=claim.launchTry, claim_id=claim.claimId, proof=proof
        )
    attempt = await _granted_attempt(context, found)
    if attempt is not None and attempt.task_snapshot:
        work.conclude("success", found.reply.value)
        return json_response(200, _work_order(attempt, claim.launchTry))
    work.conclude("skipped", found.reply.value)
    if found.reply is Reply.NOT_FOUND:
        return json_response(404, {"error": errors.NOT_FOUND})
    return json_response(409, {"error": PAYLOAD_LOST if found.reply is Reply.GRANTED else CLAIM_REFUSED})


async def _granted_attempt(context: Context, found: Answer) -> Attempt | None:
    if found.reply is not Reply.GRANTED or found.attempt is None:
        return None
    execution = (await context.store.read(found.task_id)).execution
    return execution.attempt(found.attempt) if execution else None


def _work_order(attempt: Attempt, launch_try: int) -> dict[str, Any]:
    return {
        "taskId": attempt.task_id,
        "taskType": attempt.task_type,
        "attempt": attempt.number,
        "launchTry": launch_try,
        "run": attempt.run,
        "traceId": attempt.trace_id or attempt.task_id,
        "task": message_for_worker(attempt),
        "retry": retry_hints(attempt),
    }
