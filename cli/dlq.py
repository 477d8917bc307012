"""``alakai dlq``: what is in the dead-letter queue and why, and how it gets back.

Looks at messages the way SQS allows: received, kept invisible for as long as the look takes, and then made visible
again. What a message is good for is decided by the same code as in the consumer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from executions.adapters.aws_client import region_from_environment
from executions.adapters.settings import settings_from_environment
from executions.adapters.sqs_queue import dead_letters_of
from executions.errors import AlakaiError, InvalidTask
from executions.task import Task, task_from_body

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient
    from types_boto3_sqs.type_defs import MessageTypeDef

T = TypeVar("T")
_BATCH = 10
_HIDDEN_SECONDS = 120
_CUT = 100


class QueueFailed(AlakaiError):
    """SQS did not do as asked; the text says what and what to check."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message, and what stands against it: None when it is a task, which was received too often."""

    message: MessageTypeDef
    task: Task | None
    reason: str

    @property
    def sent(self) -> str:
        sent_ms = int(self.message.get("Attributes", {}).get("SentTimestamp", 0))
        return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(sent_ms / 1000))


def show() -> None:
    """Print them. Raises InvalidSettings, QueueFailed."""
    with _Queues() as queues:
        count = 0
        for letter in queues.letters():
            count += 1
            what = letter.task.task_id if letter.task else "-"
            print(f"{letter.message['MessageId']}  {letter.sent}  {what}  {letter.reason}")
        print(f"{count} dead letters in {queues.dead_name}" if count else f"{queues.dead_name} is empty")


def redrive(*, everything: bool) -> None:
    """Send back what is a task, or everything; what was done before is a no-op. Raises InvalidSettings, QueueFailed."""
    with _Queues() as queues:
        sent = kept = 0
        for letter in queues.letters():
            if letter.task is None and not everything:
                kept += 1
            else:
                queues.send_back(letter)
                sent += 1
                print(f"\r{sent} sent back", end="", flush=True)
        print(f"\r{sent} sent back to the queue, {kept} kept: they are no tasks (--all sends them too)")


class _Queues:
    """The task queue and its dead letters. Messages that are neither sent nor deleted are visible again afterwards."""

    def __init__(self) -> None:
        self._url = settings_from_environment().sqs_queue_url
        self._sqs: SQSClient = boto3.client("sqs", region_name=region_from_environment())
        self._hidden: list[str] = []
        self._dead_url = ""

    def __enter__(self) -> _Queues:
        attributes = self._asked(lambda: self._sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=["All"]))
        found = {str(name): value for name, value in attributes.get("Attributes", {}).items()}
        name = dead_letters_of(found)
        if name is None:
            raise QueueFailed("the queue of SQS_QUEUE_URL has no dead-letter queue; give it a redrive policy")
        self.dead_name = name
        self._dead_url = self._asked(lambda: self._sqs.get_queue_url(QueueName=name))["QueueUrl"]
        return self

    def __exit__(self, *_: object) -> None:
        for receipt in self._hidden:
            self._show_again(receipt)
        self._sqs.close()

    def letters(self) -> Iterator[DeadLetter]:
        """Each message once, until a receive brings nothing new."""
        seen: set[str] = set()
        while True:
            answer = self._asked(
                lambda: self._sqs.receive_message(
                    QueueUrl=self._dead_url,
                    MaxNumberOfMessages=_BATCH,
                    WaitTimeSeconds=1,
                    VisibilityTimeout=_HIDDEN_SECONDS,
                    MessageSystemAttributeNames=["SentTimestamp", "ApproximateReceiveCount"],
                )
            )
            fresh = [item for item in answer.get("Messages", []) if item["MessageId"] not in seen]
            if not fresh:
                return
            for message in fresh:
                seen.add(message["MessageId"])
                self._hidden.append(message["ReceiptHandle"])
                yield _judged(message)

    def send_back(self, letter: DeadLetter) -> None:
        """Sent first, deleted second: a crash in between leaves it twice, and the second one does nothing."""
        receipt = letter.message["ReceiptHandle"]
        self._asked(lambda: self._sqs.send_message(QueueUrl=self._url, MessageBody=letter.message.get("Body", "")))
        self._asked(lambda: self._sqs.delete_message(QueueUrl=self._dead_url, ReceiptHandle=receipt))
        self._hidden.remove(receipt)

    def _show_again(self, receipt: str) -> None:
        self._asked(
            lambda: self._sqs.change_message_visibility(
                QueueUrl=self._dead_url, ReceiptHandle=receipt, VisibilityTimeout=0
            )
        )

    @staticmethod
    def _asked(call: Callable[[], T]) -> T:
        try:
            return call()
        except (BotoCoreError, ClientError) as error:
            code = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
            text = f"SQS did not do as asked ({code}); check SQS_QUEUE_URL, the AWS variables and rights"
            raise QueueFailed(text) from None


def _judged(message: MessageTypeDef) -> DeadLetter:
    try:
        task = task_from_body(message.get("Body", ""))
    except InvalidTask as error:
        return DeadLetter(message, None, str(error)[:_CUT])
    times = message.get("Attributes", {}).get("ApproximateReceiveCount", "?")
    return DeadLetter(message, task, f"a task, received {times} times; the controller's log says what stood against it")
