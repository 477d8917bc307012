"""Tells outcomes to webhooks: the one of the configuration, and those that messages name on hosts that are allowed.

Each of these hosts is a channel of its own, so that one that is slow or dead delays no other. The request is signed;
a repeat carries the same ``Idempotency-Key`` and the same body. What a receiver answers is never read.
"""

from __future__ import annotations

import hashlib
import hmac

import orjson

from executions.adapters.outbound import Outbound, failure_of, place_of
from executions.adapters.secret_file import SecretFile
from executions.notification import Notification


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """What ``X-Alakai-Signature`` says: HMAC-SHA-256 of the time, a dot and the body as sent."""
    signed = b"%d." % timestamp + body
    return f"v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"


class _Signed:
    """What both kinds share."""

    def __init__(self, name: str, secret: SecretFile, outbound: Outbound) -> None:
        self.name = name
        self._secret = secret
        self._outbound = outbound

    async def _send(self, url: str, notification: Notification, now_ms: int) -> None:
        body = orjson.dumps(notification.document)
        timestamp = now_ms // 1000
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": notification.event_id,
            "X-Alakai-Timestamp": str(timestamp),
            "X-Alakai-Signature": signature(self._secret.text, timestamp, body),
        }
        reply = await self._outbound.request("POST", url, headers=headers, body=body)
        if not reply.is_success:
            raise failure_of(reply, now_ms=now_ms, who="the webhook")

    async def close(self) -> None:
        await self._outbound.close()


class WebhookChannel(_Signed):
    """``ports.Channel``: every outcome, to the URL of the configuration."""

    def __init__(self, url: str, secret: SecretFile, outbound: Outbound) -> None:
        super().__init__("webhook", secret, outbound)
        self._url = url

    def concerns(self, _: Notification) -> bool:
        return True

    async def deliver(self, notification: Notification, *, now_ms: int) -> None:
        await self._send(self._url, notification, now_ms)


class CallbackChannel(_Signed):
    """``ports.Channel``: outcomes of tasks whose message names a URL of this place (``callbacks.webhook.url``)."""

    def __init__(self, place: str, secret: SecretFile, outbound: Outbound, *, permits_http: bool = False) -> None:
        super().__init__(f"callback:{place}", secret, outbound)
        self._place = place
        self._permits_http = permits_http

    def concerns(self, notification: Notification) -> bool:
        url = notification.callbacks.get("webhook", {}).get("url")
        try:
            return url is not None and place_of(url, permits_http=self._permits_http) == self._place
        except ValueError:
            return False

    async def deliver(self, notification: Notification, *, now_ms: int) -> None:
        await self._send(notification.callbacks["webhook"]["url"], notification, now_ms)
