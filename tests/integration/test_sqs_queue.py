"""The queue on SQS (a moto server): its contract, what it makes by itself, and what it says when calls fail."""

from __future__ import annotations

import asyncio
import json
import secrets
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import boto3
import pytest

from devstack.aws import ACCOUNT_ID, AwsServer
from executions.adapters.settings import Settings
from executions.adapters.sqs_queue import SqsQueue, open_queue
from executions.errors import InvalidSettings, QueueUnavailable, QueueUnclear
from executions.ports import Message
from tests.support.queue_contract import MAX_RECEIVES, QueueContract, received

REGION = "eu-west-1"
TOKEN = "FwoGZXIvYXdzEBYaDsessiontoken"
SETTINGS = Settings(sqs_queue_url="http://localhost/000000000000/tasks")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SQS", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    # Only AWS_REGION: boto3 by itself would not see it.
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDTEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")


class SqsWorld:
    """Another client of the same queue."""

    def __init__(self, aws: AwsServer) -> None:
        self._sqs = boto3.client("sqs", region_name=REGION, endpoint_url=aws.url)
        name = f"queue-{secrets.token_hex(4)}"
        self._dead_letters = self._sqs.create_queue(QueueName=f"{name}-dlq")["QueueUrl"]
        arn = self.attributes(self._dead_letters)["QueueArn"]
        redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": MAX_RECEIVES})
        self.url: str = self._sqs.create_queue(
            QueueName=name, Attributes={"VisibilityTimeout": "1", "RedrivePolicy": redrive}
        )["QueueUrl"]

    def attributes(self, url: str) -> dict[str, str]:
        found: dict[str, str] = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        return found

    async def put(self, body: str) -> str:
        sent = await asyncio.to_thread(self._sqs.send_message, QueueUrl=self.url, MessageBody=body)
        return str(sent["MessageId"])

    async def dead_letters(self) -> list[str]:
        found = await asyncio.to_thread(
            self._sqs.receive_message, QueueUrl=self._dead_letters, WaitTimeSeconds=5, MaxNumberOfMessages=10
        )
        return [message["Body"] for message in found.get("Messages", [])]

    def close(self) -> None:
        self._sqs.close()


@pytest.fixture
async def world(aws: AwsServer) -> AsyncIterator[SqsWorld]:
    world = SqsWorld(aws)
    yield world
    world.close()


@pytest.fixture
async def queue(world: SqsWorld) -> AsyncIterator[SqsQueue]:
    queue = open_queue(world.url, SETTINGS)
    yield queue
    await queue.close()


class TestSqsQueue(QueueContract):
    pass


async def test_an_endpoint_in_the_environment_wins_over_the_urls_host(
    world: SqsWorld, aws: AwsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
    name = world.url.rsplit("/", 1)[1]
    queue = open_queue(f"http://localhost:1/{ACCOUNT_ID}/{name}", SETTINGS)
    await world.put("x")
    assert [message.body for message in await received(queue, 1)] == ["x"]
    await queue.close()


async def test_the_region_in_the_url_wins_over_the_environments(
    world: SqsWorld, aws: AwsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    name = world.url.rsplit("/", 1)[1]
    there = open_queue(f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT_ID}/{name}", SETTINGS)
    await world.put("x")
    assert [message.body for message in await received(there, 1)] == ["x"]
    await there.close()
    elsewhere = open_queue(f"https://sqs.us-east-2.amazonaws.com/{ACCOUNT_ID}/{name}", SETTINGS)
    with pytest.raises(QueueUnavailable, match=f"queue {name} does not exist; create it"):
        await elsewhere.receive(wait_seconds=0)
    await elsewhere.close()


async def test_a_queue_that_is_not_ours_to_make_is_not_made(aws: AwsServer) -> None:
    url = f"{aws.url}/{ACCOUNT_ID}/never-{secrets.token_hex(4)}?token=hush"
    queue = open_queue(url, SETTINGS)
    for call in (queue.receive(wait_seconds=0), queue.send({})):
        with pytest.raises(QueueUnavailable, match=r"queue never-\w+ does not exist") as caught:
            await call
        assert "hush" not in str(caught.value)
    await queue.close()


@pytest.mark.parametrize("first", ["receive", "send"])
async def test_the_outcomes_queue_is_made_with_its_dead_letters(world: SqsWorld, aws: AwsServer, first: str) -> None:
    settings = Settings(sqs_queue_url=f"{aws.url}/{ACCOUNT_ID}/tasks-{secrets.token_hex(4)}")
    queue = open_queue(settings.outcomes_queue_url, settings)
    if first == "receive":
        assert await queue.receive(wait_seconds=0) == []
    await queue.send({"a": 1})
    assert [message.body for message in await received(queue, 1)] == ['{"a":1}']
    made = world.attributes(settings.outcomes_queue_url)
    assert made["MessageRetentionPeriod"] == "1209600"
    redrive = json.loads(made["RedrivePolicy"])
    assert redrive["deadLetterTargetArn"].endswith("-outcomes-dlq")
    again = open_queue(settings.outcomes_queue_url, settings)
    assert await again.receive(wait_seconds=0) == []
    await asyncio.gather(queue.close(), again.close())


Answer = Callable[[bytes], bytes | None]


@asynccontextmanager
async def served(answer: Answer) -> AsyncIterator[str]:
    """A queue URL behind which requests get raw bytes as their answer; None closes, b"" never answers."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                raw = answer(await reader.readexactly(length))
                if raw is None:
                    return
                if not raw:
                    await reader.read()
                    return
                writer.write(raw)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/{ACCOUNT_ID}/jobs"
    finally:
        server.close()
        await server.wait_closed()


def http(status: int, body: object, kind: str = "application/x-amz-json-1.0") -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(raw)}\r\n\r\n".encode() + raw


REFUSED = http(
    403,
    {
        "__type": "com.amazonaws.sqs#SignatureDoesNotMatch",
        "message": f"The Canonical String should have been 'x-amz-security-token:{TOKEN}'",
    },
)
FAILING = http(500, {"__type": "com.amazonaws.sqs#InternalFailure", "message": "x"})
NONSENSE = http(200, b"<html>sign in</html>", "text/html")


@pytest.mark.parametrize(
    ("raw", "error", "text"),
    [
        (REFUSED, QueueUnavailable, "SignatureDoesNotMatch, HTTP 403"),
        (FAILING, QueueUnclear, "HTTP 500"),
        (NONSENSE, QueueUnclear, "check"),
        (None, QueueUnclear, "ConnectionClosedError"),
        (b"", QueueUnclear, "ReadTimeoutError"),
    ],
    ids=["refused", "failing", "nonsense", "closed", "silent"],
)
async def test_a_send_that_failed_is_told_apart_and_made_once(
    raw: bytes | None, error: type[Exception], text: str
) -> None:
    requests: list[bytes] = []

    def answer(request: bytes) -> bytes | None:
        requests.append(request)
        return raw

    async with served(answer) as url:
        queue = open_queue(f"{url}?secret=hush", SETTINGS, answer_seconds=0.2)
        with pytest.raises(error, match=text) as caught:
            await queue.send({"prompt": "hello"})
        await queue.close()
    assert len(requests) == 1
    told = "".join(traceback.format_exception(caught.value, chain=True))
    assert "queue jobs" in told
    for secret in (TOKEN, "hush", "AKIDTEST"):
        assert secret not in told


async def test_a_send_to_nobody_provably_sent_nothing() -> None:
    queue = open_queue(f"http://127.0.0.1:1/{ACCOUNT_ID}/jobs", SETTINGS)
    with pytest.raises(QueueUnavailable, match="EndpointConnectionError"):
        await queue.send({})
    await queue.close()


async def test_a_send_without_credentials_provably_sent_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    queue = open_queue(f"http://127.0.0.1:1/{ACCOUNT_ID}/jobs", SETTINGS)
    with pytest.raises(QueueUnavailable, match="NoCredentialsError"):
        await queue.send({})
    await queue.close()


@pytest.mark.parametrize("raw", [FAILING, None, b"", REFUSED], ids=["failing", "closed", "silent", "refused"])
@pytest.mark.parametrize(
    "use",
    [
        lambda queue: queue.receive(wait_seconds=0),
        lambda queue: queue.delete([Message("m", "", "r")]),
        lambda queue: queue.release([Message("m", "", "r")]),
    ],
    ids=["receive", "delete", "release"],
)
async def test_other_calls_that_failed_are_unavailable(
    raw: bytes | None, use: Callable[[SqsQueue], Awaitable[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("executions.adapters.sqs_queue._LONGEST_WAIT_SECONDS", 0)
    async with served(lambda _: raw) as url:
        queue = open_queue(url, SETTINGS, answer_seconds=0.1)
        with pytest.raises(QueueUnavailable, match="queue jobs: "):
            await use(queue)
        await queue.close()


async def test_entries_that_failed_within_a_good_answer_are_read() -> None:
    def answer(request: bytes) -> bytes:
        entries = json.loads(request)["Entries"]
        failed = [
            {"Id": item["Id"], "SenderFault": False, "Code": "InternalError"}
            for item in entries
            if item["ReceiptHandle"] in ("r3", "r11")
        ]
        return http(200, {"Successful": [], "Failed": failed})

    messages = [Message(f"m{number}", "", f"r{number}") for number in range(12)]
    async with served(answer) as url:
        queue = open_queue(url, SETTINGS)
        assert await queue.delete(messages) == [messages[3], messages[11]]
        await queue.release(messages)
        await queue.close()


@pytest.mark.parametrize(
    ("url", "environ", "text"),
    [
        ("alakai-queue", {}, "SQS_QUEUE_URL"),
        ("http://[::1/q", {}, "SQS_QUEUE_URL"),
        ("https://sqs.us-east-1.amazonaws.com/1/tasks.fifo", {}, "FIFO queue; set SQS_QUEUE_URL"),
        ("http://localhost:4566/1/tasks", {"AWS_ENDPOINT_URL": "localhost:4566"}, "AWS_ENDPOINT_URL is not a URL"),
        (
            "http://localhost:4566/1/tasks",
            {"AWS_REGION": "", "AWS_CONFIG_FILE": "/nowhere"},
            "AWS_REGION is not set; set it",
        ),
    ],
)
def test_a_queue_that_cannot_be_opened_says_what_to_do(
    url: str, environ: dict[str, str], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettings, match=text):
        open_queue(url, SETTINGS)


def test_a_queue_url_that_is_wrong_is_called_by_its_own_variable() -> None:
    with pytest.raises(InvalidSettings, match="set ECS_EVENTS_SQS_QUEUE_URL to https"):
        open_queue("events", SETTINGS, variable="ECS_EVENTS_SQS_QUEUE_URL")
