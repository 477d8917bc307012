"""Tells outcomes on Slack: one message per execution, in the configured channel or where its message asks, updated.

Which message that is lies in Redis. Before the first one is sent that too is written down: when its answer was lost,
the message is looked for by its metadata before another one is sent. Never reads what people write.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from executions.adapters.outbound import Outbound, failure_of
from executions.adapters.secret_file import SecretFile
from executions.adapters.told_messages import Told, ToldMessages
from executions.errors import NotDelivered
from executions.notification import Notification, slack_text

_MARK = "alakai_execution"
_LARGEST_ANSWER = 4 * 1024 * 1024
_LOOKED_THROUGH = 200
_CLOCKS_MS = 300_000
"""By how much Slack's clock and Redis' may differ."""
_GONE = frozenset({"message_not_found", "cant_update_message", "edit_window_closed", "channel_not_found"})
_BUSY = frozenset({"ratelimited", "rate_limited", "internal_error", "fatal_error", "service_unavailable"})
_BLIND = frozenset({"missing_scope", "channel_not_found", "not_in_channel", "method_not_supported_for_channel_type"})
"""Why a channel may not be looked through."""


class SlackChannel:
    """``ports.Channel``. ``channel`` is for tasks whose message names none; None: those are not told."""

    def __init__(
        self, api_url: str, channel: str | None, token: SecretFile, outbound: Outbound, told: ToldMessages
    ) -> None:
        self.name = "slack"
        self._api_url = api_url.rstrip("/")
        self._channel = channel
        self._token = token
        self._outbound = outbound
        self._told = told

    def concerns(self, notification: Notification) -> bool:
        return self._channel is not None or "slack" in notification.callbacks

    async def deliver(self, notification: Notification, *, now_ms: int) -> None:
        asked = notification.callbacks.get("slack", {})
        channel, thread = asked.get("channel") or self._channel or "", asked.get("threadTs")
        place = f"{channel}#{thread or ''}"
        known = await self._told.read(place, notification.execution_id)
        if known is not None and known.order >= notification.order:
            return  # The message says something newer.
        message_id = known.message_id if known is not None else None
        if known is not None and message_id is None:
            message_id = await self._found(channel, thread, notification, known, now_ms)
        if message_id is not None and not await self._updated(message_id, notification, now_ms):
            message_id = None
        if message_id is None:
            begun_ms = known.begun_ms if known is not None and known.begun_ms else now_ms
            await self._told.write(place, notification.execution_id, Told(begun_ms=begun_ms))
            message_id = await self._posted(channel, thread, notification, now_ms)
        await self._told.write(place, notification.execution_id, Told(message_id, notification.order))

    async def close(self) -> None:
        await self._outbound.close()

    async def _posted(self, channel: str, thread: str | None, notification: Notification, now_ms: int) -> str:
        document = {
            "channel": channel,
            "text": slack_text(notification),
            "unfurl_links": False,
            "unfurl_media": False,
            "metadata": {"event_type": _MARK, "event_payload": {"execution_id": notification.execution_id}},
            **({"thread_ts": thread} if thread else {}),
        }
        answer = await self._asked("chat.postMessage", now_ms, document)
        _check(answer)
        return _id_of(answer.get("channel"), answer.get("ts"))

    async def _updated(self, message_id: str, notification: Notification, now_ms: int) -> bool:
        channel, _, at = message_id.partition("/")
        document = {"channel": channel, "ts": at, "text": slack_text(notification)}
        answer = await self._asked("chat.update", now_ms, document)
        if answer.get("error") in _GONE:
            return False
        _check(answer)
        return True

    async def _found(
        self, channel: str, thread: str | None, notification: Notification, known: Told, now_ms: int
    ) -> str | None:
        """The message of an earlier try whose answer was lost."""
        query = {
            "channel": channel,
            "oldest": f"{(known.begun_ms - _CLOCKS_MS) / 1000:.6f}",
            "limit": str(_LOOKED_THROUGH),
            "include_all_metadata": "true",
            **({"ts": thread} if thread else {}),
        }
        answer = await self._asked("conversations.replies" if thread else "conversations.history", now_ms, query=query)
        if answer.get("error") in _BLIND:
            return None
        _check(answer)
        messages = answer.get("messages")
        for message in messages if isinstance(messages, list) else ():
            metadata = message.get("metadata") if isinstance(message, dict) else None
            if not isinstance(metadata, dict) or metadata.get("event_type") != _MARK:
                continue
            payload = metadata.get("event_payload")
            if isinstance(payload, dict) and payload.get("execution_id") == notification.execution_id:
                return _id_of(channel, message.get("ts"))
        return None

    async def _asked(
        self,
        method: str,
        now_ms: int,
        document: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
    ) -> Mapping[str, Any]:
        headers = {
            "Authorization": f"Bearer {self._token.text}",
            **({"Content-Type": "application/json; charset=utf-8"} if document is not None else {}),
        }
        reply = await self._outbound.request(
            "GET" if document is None else "POST",
            f"{self._api_url}/{method}",
            headers=headers,
            body=None if document is None else orjson.dumps(document),
            query=query,
            keep=_LARGEST_ANSWER,
        )
        if not reply.is_success:
            raise failure_of(reply, now_ms=now_ms, who="Slack", is_shared=True)
        try:
            answer = orjson.loads(reply.body)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise NotDelivered("Slack answered something else than a JSON object")
        return answer


def _check(answer: Mapping[str, Any]) -> None:
    if answer.get("ok") is not True:
        error = str(answer.get("error"))[:64]
        raise NotDelivered(f"Slack answered {error}", is_refusal=error not in _BUSY)


def _id_of(channel: object, at: object) -> str:
    if not isinstance(channel, str) or not isinstance(at, str):
        raise NotDelivered("Slack answered something else than a message")
    return f"{channel}/{at}"
