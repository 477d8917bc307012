"""SQS for the benchmark: ElasticMQ, which keeps up where moto does not. It needs a JVM and is never fetched from here.

`ELASTICMQ_CLASSPATH` names its jars (`docs/benchmarks.md` says how to get them). Without it, messages are fed to the
controller behind its queue.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError
from bench.http_load import until_listening
from bench.processes import Child
from bench.tasks import message
from devstack.aws import ACCOUNT_ID
from devstack.infra import sqs_client
from devstack.ports import HOST, free_port

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient

VARIABLE = "ELASTICMQ_CLASSPATH"
REGION = "us-east-1"
_MAIN = "org.elasticmq.server.Main"
_BATCH = 10
_SENDERS = 4


@dataclass(frozen=True, slots=True)
class ElasticMq:
    """A running server."""

    values: dict[str, str]
    """The AWS variables with which a process reaches it."""
    _client: SQSClient
    _threads: ThreadPoolExecutor

    def create_queue(self, name: str) -> str:
        """Returns the queue's URL."""
        return self._client.create_queue(QueueName=name)["QueueUrl"]

    async def send(self, url: str, task_ids: Sequence[str]) -> None:
        """Send a new task's message for each id."""
        batches = [task_ids[start : start + _BATCH] for start in range(0, len(task_ids), _BATCH)]
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(self._threads, self._send, url, batch) for batch in batches))

    def _send(self, url: str, task_ids: Sequence[str]) -> None:
        entries = [{"Id": task_id, "MessageBody": json.dumps(message(task_id))} for task_id in task_ids]
        answer = self._client.send_message_batch(QueueUrl=url, Entries=entries)  # type: ignore[arg-type]
        if failed := answer.get("Failed"):
            raise BenchError(f"the queue refused {len(failed)} messages: {failed[0].get('Message')}")


def why_not() -> str | None:
    """Why there is no ElasticMQ, None when there is."""
    if not os.environ.get(VARIABLE):
        return f"{VARIABLE} is not set"
    return None if shutil.which("java") else "there is no java on PATH"


@contextmanager
def started(folder: Path) -> Iterator[ElasticMq]:
    """Run it, all in memory, on a free port. Raises BenchError when it does not listen in time."""
    port = free_port()
    configuration = folder / "elasticmq.conf"
    configuration.write_text(
        f"""include classpath("application.conf")
node-address {{ protocol = http, host = {HOST}, port = {port}, context-path = "" }}
rest-sqs {{ enabled = true, bind-port = {port}, bind-hostname = "{HOST}", sqs-limits = strict }}
rest-stats.enabled = false
aws {{ region = {REGION}, accountId = {ACCOUNT_ID} }}
"""
    )
    command = ["java", f"-Dconfig.file={configuration}", "-cp", os.environ[VARIABLE], _MAIN]
    values = {
        "AWS_ENDPOINT_URL": f"http://{HOST}:{port}",
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "NO_PROXY": HOST,
    }
    with (
        Child(command, environment={}, log=folder / "elasticmq.log") as child,
        ThreadPoolExecutor(_SENDERS, thread_name_prefix="sqs") as threads,
    ):
        asyncio.run(until_listening(port, child))
        yield ElasticMq(values, sqs_client(values), threads)
