"""``alakai send``: a task message onto the queue, as an upstream service would."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping
from typing import Any

import orjson

from executions.adapters.settings import settings_from_environment
from executions.adapters.sqs_queue import open_queue
from executions.errors import InvalidTask


def run(values: Mapping[str, str | None]) -> None:
    """``values``: TASK_ID, REPO, PROMPT, or a whole MESSAGE_BODY. Prints the task id and the MessageId."""
    document = message(values, now_ms=round(time.time() * 1000))
    settings = settings_from_environment()

    async def send() -> str:
        queue = open_queue(settings.sqs_queue_url, settings)
        try:
            return await queue.send(document)
        finally:
            await queue.close()

    message_id = asyncio.run(send())
    print(f"task-id: {document.get('taskId')}")
    print(f"message-id: {message_id}")


def message(values: Mapping[str, str | None], *, now_ms: int) -> dict[str, Any]:
    """The message to send. A given MESSAGE_BODY goes out as it is: wrong ones are how the consumer is tried out."""
    body = values.get("MESSAGE_BODY")
    if body:
        try:
            document = orjson.loads(body)
        except ValueError as error:
            raise InvalidTask("MESSAGE_BODY is not JSON; quote it for the shell: MESSAGE_BODY='{…}'") from error
        if not isinstance(document, dict):
            raise InvalidTask("MESSAGE_BODY must be a JSON object")
        return document
    task_id = values.get("TASK_ID") or f"impl-{secrets.token_hex(4)}"
    repo = values.get("REPO") or "my-org/my-repo"
    return {
        "taskId": task_id,
        "taskType": "implementation",
        "payload": {
            "repo": repo,
            "source": "coding.implementation",
            "prompt": values.get("PROMPT") or "say hello",
        },
        "metadata": {"createdAt": now_ms, "trace_id": task_id},
        "callbacks": {"github": {"repo": repo, "issueNumber": 1}},
    }
