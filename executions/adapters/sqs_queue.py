"""``ports.Queue`` on SQS.

Decides nothing about messages: that is ``controller.loops``. Error texts name the queue, the operation and AWS's code
and nothing more, because AWS's own text can quote signed headers, session token included.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import SplitResult, urlsplit

import orjson
import structlog
from botocore.exceptions import (
    BotoCoreError,
    ChecksumError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
    SSLError,
)
from botocore.parsers import ResponseParserError

from executions.adapters.aws_client import AwsClient, endpoint_is_configured, region_from_environment
from executions.adapters.settings import Settings
from executions.errors import InvalidSettings, QueueUnavailable, QueueUnclear
from executions.ports import Message

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient
    from types_boto3_sqs.type_defs import MessageTypeDef

_VARIABLE = "SQS_QUEUE_URL"
_BATCH = 10
"""SQS takes and gives at most ten messages in one call."""
_LONGEST_WAIT_SECONDS = 20
_ANSWER_SECONDS = 10.0
_RETENTION_SECONDS = 14 * 24 * 3600
"""The longest that SQS keeps a message."""
_MAX_RECEIVES = 10
_OWNER_TAG = "alakai-installation"
_TAG_SECONDS = 0.5
_MISSING = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"})
_REGION_IN_HOST = re.compile(r"(?:^|\.)sqs(?:-fips)?\.([a-z]{2}(?:-[a-z]+)+-\d)\.|^([a-z]{2}(?:-[a-z]+)+-\d)\.queue\.")
_FAILURES = (BotoCoreError, ClientError, ResponseParserError)
_ANSWER_LOST = (HTTPClientError, IncompleteReadError, ChecksumError)

_log = structlog.get_logger(__name__)
Result = TypeVar("Result")


class _QueueMissing(QueueUnavailable):
    """The service answers and does not know the queue."""


@dataclass(frozen=True, slots=True)
class Depths:
    """Approximately: SQS counts on many machines. ``dead_letters`` is None without a dead-letter queue."""

    messages: int
    dead_letters: int | None


class SqsQueue:
    """One standard queue. A receive should not be cancelled: its thread goes on, and what it gets stays invisible.

    ``create_missing`` makes the queue, with a dead-letter queue, when it turns out not to exist. One that does not
    exist and may not be made holds nothing: receiving from it is an empty long poll.
    """

    def __init__(
        self, url: str, *, region: str, endpoint_url: str | None, create_missing: bool, answer_seconds: float
    ) -> None:
        self._url = url
        self._name = _parts(url).path.rstrip("/").rsplit("/", 1)[-1] or "without a name"
        self._create_missing = create_missing
        self._closed = False
        self._urls: dict[str, str] = {}
        """Of queues beside this one, by name."""
        self.what = f"the queue {self._name}"
        self.remedy = (
            "set SQS_QUEUE_URL to another one, or, when that installation is gone for good, "
            f"remove the queue's tag {_OWNER_TAG}"
        )

        def client(attempts: int, answer_seconds: float) -> AwsClient[SQSClient]:
            return AwsClient(
                "sqs", region=region, endpoint_url=endpoint_url, attempts=attempts, answer_seconds=answer_seconds
            )

        # A read time-out shorter than a long poll would lose what the poll then brings.
        self._receiving = client(1, _LONGEST_WAIT_SECONDS + answer_seconds)
        # A second attempt could enqueue twice.
        self._sending = client(1, answer_seconds)
        # Deleting and releasing twice is harmless.
        self._steady = client(3, answer_seconds)

    async def receive(self, *, maximum: int = 10, wait_seconds: float = 20) -> list[Message]:
        """Long-poll. The wait is rounded up to whole seconds, because a wait of 0 asks only some of SQS' servers."""
        wait = min(math.ceil(wait_seconds), _LONGEST_WAIT_SECONDS)
        try:
            answer = await self._call(
                "receive",
                self._receiving,
                lambda sqs: sqs.receive_message(
                    QueueUrl=self._url,
                    MaxNumberOfMessages=max(1, min(maximum, _BATCH)),
                    WaitTimeSeconds=wait,
                    MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
                ),
            )
        except _QueueMissing:
            if not await self._created():
                await asyncio.sleep(wait_seconds)
            return []
        return [_message(item) for item in answer.get("Messages", [])]

    async def delete(self, messages: Sequence[Message]) -> list[Message]:
        return [kept for batch in _batches(messages) for kept in await self._delete(batch)]

    async def release(self, messages: Sequence[Message]) -> None:
        for batch in _batches(messages):
            await self._release(batch)

    async def waiting(self) -> int:
        """Needs sqs:GetQueueAttributes. A queue that does not exist and may not be made holds nothing."""
        try:
            return _count(await self._call("attributes", self._steady, lambda sqs: _attributes(sqs, self._url)))
        except _QueueMissing:
            await self._created()
            return 0

    async def send(self, document: Mapping[str, Any]) -> str:
        body = orjson.dumps(document).decode()
        try:
            return await self._send(body)
        except _QueueMissing:
            if not await self._created():
                raise
            return await self._send(body)

    async def depths(self) -> Depths:
        """How many messages there are, and how many dead letters. Needs sqs:GetQueueAttributes on both queues."""
        found = await self._call("attributes", self._steady, lambda sqs: _attributes(sqs, self._url))
        dead: int | None = None
        if name := dead_letters_of(found):

            def look(sqs: SQSClient) -> Mapping[str, str]:
                if name not in self._urls:
                    self._urls[name] = sqs.get_queue_url(QueueName=name)["QueueUrl"]
                return _attributes(sqs, self._urls[name])

            dead = _count(await self._call("dead letters", self._steady, look))
        return Depths(_count(found), dead)

    async def owner(self, name: str) -> str | None:
        """Whose queue this is by its tag, which is set to ``name`` where there is none; None where we may not ask.

        Two that tag it at the same moment read what the later one wrote.
        """
        try:
            found = await self._tag()
            if found is None:
                await self._call(
                    "tag", self._steady, lambda sqs: sqs.tag_queue(QueueUrl=self._url, Tags={_OWNER_TAG: name})
                )
                await asyncio.sleep(_TAG_SECONDS)
                found = await self._tag()
        except QueueUnavailable as error:
            _log.info("The queue's owner is not known", queue=self._name, reason=str(error))
            return None
        return found

    async def close(self) -> None:
        """Ends when the calls under way have: a long poll is waited for."""
        self._closed = True
        await asyncio.gather(*(client.close() for client in (self._receiving, self._sending, self._steady)))

    async def _tag(self) -> str | None:
        answer = await self._call("tags", self._steady, lambda sqs: sqs.list_queue_tags(QueueUrl=self._url))
        return answer.get("Tags", {}).get(_OWNER_TAG)

    async def _delete(self, batch: Sequence[Message]) -> list[Message]:
        answer = await self._call(
            "delete",
            self._steady,
            lambda sqs: sqs.delete_message_batch(
                QueueUrl=self._url,
                Entries=[{"Id": str(index), "ReceiptHandle": item.receipt} for index, item in enumerate(batch)],
            ),
        )
        # HTTP 200 says nothing about the single entries.
        return [batch[int(failed["Id"])] for failed in answer.get("Failed", [])]

    async def _release(self, batch: Sequence[Message]) -> None:
        answer = await self._call(
            "release",
            self._steady,
            lambda sqs: sqs.change_message_visibility_batch(
                QueueUrl=self._url,
                Entries=[
                    {"Id": str(index), "ReceiptHandle": item.receipt, "VisibilityTimeout": 0}
                    for index, item in enumerate(batch)
                ],
            ),
        )
        if failed := answer.get("Failed", []):
            codes = sorted({item["Code"] for item in failed})
            _log.warning("Not released; back after the visibility time-out", queue=self._name, codes=codes)

    async def _send(self, body: str) -> str:
        answer = await self._call(
            "send", self._sending, lambda sqs: sqs.send_message(QueueUrl=self._url, MessageBody=body)
        )
        if message_id := answer.get("MessageId"):
            return message_id
        raise QueueUnclear(f"queue {self._name}: the answer to send was not one of SQS; check AWS_ENDPOINT_URL")

    async def _created(self) -> bool:
        """Make the missing queue. False where that is not wanted or not permitted."""
        if not self._create_missing:
            raise _QueueMissing(f"queue {self._name} does not exist; create it or correct its URL")
        try:
            made = await self._call("create", self._steady, lambda sqs: _create(sqs, self._name))
        except QueueUnavailable as error:
            _log.warning("Queue does not exist and was not created", queue=self._name, reason=str(error))
            return False
        if _parts(made).path != _parts(self._url).path:
            _log.error("Queue was created elsewhere than its URL says; correct the URL", queue=self._name, made=made)
            return False
        _log.info("Queue created", queue=self._name)
        return True

    async def _call(self, operation: str, client: AwsClient[SQSClient], use: Callable[[SQSClient], Result]) -> Result:
        if self._closed:
            raise QueueUnavailable(f"queue {self._name} is closed")
        try:
            return await client.call(use)
        except _FAILURES as error:
            # "from None": a traceback would bring AWS's own text back.
            raise self._failure(operation, error) from None

    def _failure(self, operation: str, error: Exception) -> QueueUnavailable | QueueUnclear:
        code, text = "", type(error).__name__
        if isinstance(error, ClientError):
            code = str(error.response.get("Error", {}).get("Code", "unknown"))
            text = f"{code}, HTTP {_http_status(error)}"
        text = f"queue {self._name}: {operation} failed ({text}); check the queue's URL, the AWS variables and rights"
        if code in _MISSING:
            return _QueueMissing(text)
        if operation != "send" or _had_no_effect(error):
            return QueueUnavailable(text)
        return QueueUnclear(text)


def open_queue(
    url: str, settings: Settings, *, answer_seconds: float = _ANSWER_SECONDS, variable: str = _VARIABLE
) -> SqsQueue:
    """The queue of a URL; connects on first use. The outcomes queue is ours and is made when it is missing.

    Region: the one in the URL, else the environment's. A URL with ``http:`` (never AWS itself) also says where the
    service is, unless the environment names an endpoint. Raises InvalidSettings that names the ``variable``.
    """
    parts = _parts(url, variable)
    if parts.path.endswith(".fifo"):
        raise InvalidSettings(
            f"the queue URL names a FIFO queue; set {variable} to a standard one (attempt numbers keep the order)"
        )
    found = _REGION_IN_HOST.search(parts.hostname or "")
    endpoint = None
    if not endpoint_is_configured("sqs") and parts.scheme == "http":
        endpoint = f"http://{parts.netloc.rpartition('@')[2]}"
    return SqsQueue(
        url,
        region=(found[1] or found[2]) if found else region_from_environment(),
        endpoint_url=endpoint,
        create_missing=url == settings.outcomes_queue_url,
        answer_seconds=answer_seconds,
    )


def dead_letters_of(attributes: Mapping[str, str]) -> str | None:
    """The name of a queue's dead-letter queue, by the queue's own attributes; None where it has none."""
    target = json.loads(attributes.get("RedrivePolicy") or "{}").get("deadLetterTargetArn")
    return str(target).rsplit(":", 1)[-1] if target else None


def _parts(url: str, variable: str = _VARIABLE) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidSettings(f"the queue URL is not a URL; set {variable} to https://sqs.REGION.amazonaws.com/…/NAME")
    return parts


def _message(item: MessageTypeDef) -> Message:
    attributes = item.get("Attributes", {})
    sent = attributes.get("SentTimestamp")
    return Message(
        message_id=item["MessageId"],
        body=item.get("Body", ""),
        receipt=item["ReceiptHandle"],
        receive_count=int(attributes.get("ApproximateReceiveCount", 1)),
        sent_ms=int(sent) if sent else None,
    )


def _batches(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    for start in range(0, len(messages), _BATCH):
        yield messages[start : start + _BATCH]


def _attributes(sqs: SQSClient, url: str) -> Mapping[str, str]:
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"]).get("Attributes", {})
    return {str(name): value for name, value in found.items()}


def _count(attributes: Mapping[str, str]) -> int:
    return sum(int(attributes.get(f"ApproximateNumberOfMessages{which}", 0)) for which in ("", "NotVisible", "Delayed"))


def _create(sqs: SQSClient, name: str) -> str:
    """Make the queue and its dead-letter queue; both may exist already. Returns the queue's URL."""
    retention = str(_RETENTION_SECONDS)
    dead_letters = sqs.create_queue(QueueName=f"{name}-dlq", Attributes={"MessageRetentionPeriod": retention})
    found = sqs.get_queue_attributes(QueueUrl=dead_letters["QueueUrl"], AttributeNames=["QueueArn"])
    redrive = json.dumps({"deadLetterTargetArn": found["Attributes"]["QueueArn"], "maxReceiveCount": _MAX_RECEIVES})
    # In one call with its attributes: a crash in between would leave a queue without dead letters for good.
    made = sqs.create_queue(QueueName=name, Attributes={"MessageRetentionPeriod": retention, "RedrivePolicy": redrive})
    return made["QueueUrl"]


def _http_status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500))


def _had_no_effect(error: Exception) -> bool:
    """Whether a send that failed like this provably enqueued nothing."""
    if isinstance(error, ClientError):
        return _http_status(error) < 500
    if isinstance(error, SSLError):
        # A refused certificate, but also an answer that broke off.
        return "CERTIFICATE_VERIFY_FAILED" in str(error)
    if isinstance(error, ConnectionError):
        return True
    return isinstance(error, BotoCoreError) and not isinstance(error, _ANSWER_LOST)
