"""The four ECS calls of the launcher, typed, each in a lane of its own: threads, connections and a token bucket.

The lanes keep apart what may not hold up each other: launches that are throttled, the sweep's looks, and the lists
that verify a refusal. No call is ever repeated here, neither by botocore nor by us: what a failure means for a launch
is decided in ``ecs_launcher``, which also knows what may be sent again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from alakai_worker.redaction import sanitised
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
from botocore.parsers import ResponseParserError

from executions.adapters.aws_client import AwsClient
from executions.adapters.token_bucket import BucketEmpty, TokenBucket
from executions.errors import AlakaiError

if TYPE_CHECKING:
    from types_boto3_ecs import ECSClient
    from types_boto3_ecs.type_defs import (
        DescribeTasksResponseTypeDef,
        ListTasksResponseTypeDef,
        RunTaskResponseTypeDef,
        TaskTypeDef,
    )

DESCRIBE_BATCH = 100
"""DescribeTasks takes at most 100 tasks (botocore service model)."""
_ANSWER_SECONDS = 10.0
SEND_WITHIN_SECONDS = 5.0
"""How long a call may wait until it is sent: what was true before it must still be true then."""
_PAGES = 50
_THROTTLED = frozenset({"ThrottlingException", "Throttling", "RequestLimitExceeded", "TooManyRequestsException"})
_DECLARED = frozenset(
    {
        "AccessDeniedException",
        "BlockedException",
        "ClientException",
        "ClusterNotFoundException",
        "InvalidParameterException",
        "PlatformTaskDefinitionIncompatibilityException",
        "PlatformUnknownException",
        "UnsupportedFeatureException",
    }
)
"""The refusals that the service model declares for our calls. Any other code (a clock that is wrong, credentials that
ran out) says nothing about the request, and its text may quote signed headers."""
_FAILURES = (BotoCoreError, ClientError, ResponseParserError)

Result = TypeVar("Result")


class EcsUnclear(AlakaiError):
    """No answer, a throttled one, or one about us and not about the request: nothing is known about its effect."""


class EcsRefused(AlakaiError):
    """ECS read the request and refused it. ``code`` is the exception's name, the text may be shown."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class EcsConflict(AlakaiError):
    """The client token was used with other parameters. ``tasks`` are the ARNs that it started."""

    def __init__(self, message: str, tasks: tuple[str, ...]) -> None:
        super().__init__(message)
        self.tasks = tasks


@dataclass(frozen=True, slots=True)
class _Lane:
    client: AwsClient[ECSClient]
    bucket: TokenBucket


class Buckets(Protocol):
    """Makes a bucket of so many calls at once and per second."""

    def __call__(self, burst: int, per_second: float) -> TokenBucket: ...


class EcsClient:
    """ECS of one region. All methods raise EcsUnclear and EcsRefused."""

    def __init__(
        self,
        *,
        region: str,
        endpoint_url: str | None = None,
        answer_seconds: float = _ANSWER_SECONDS,
        buckets: Buckets = TokenBucket,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.region = region
        self._clock = clock

        def lane(threads: int, bucket: TokenBucket) -> _Lane:
            client: AwsClient[ECSClient] = AwsClient(
                "ecs",
                region=region,
                endpoint_url=endpoint_url,
                attempts=1,
                answer_seconds=answer_seconds,
                threads=threads,
            )
            return _Lane(client, bucket)

        # ECS gives 100 calls at once and 40 per second to RunTask and StopTask together, and 100 and 20 to
        # DescribeTasks and ListTasks. The second pair is shared out, so that a storm of refusals, which are verified
        # by lists, cannot use up what the sweep needs.
        self._changing = lane(8, buckets(100, 40))
        self._looking = lane(4, buckets(60, 12))
        self._verifying = lane(4, buckets(40, 8))

    async def run_task(
        self,
        request: Mapping[str, Any],
        *,
        token: str,
        started_by: str,
        send_within_seconds: float = SEND_WITHIN_SECONDS,
    ) -> RunTaskResponseTypeDef:
        """Start one task, or get the one that the token started. Raises EcsConflict too."""
        return await self._call(
            self._changing,
            "RunTask",
            lambda ecs: ecs.run_task(**{**request, "count": 1, "clientToken": token, "startedBy": started_by}),
            send_within_seconds,
        )

    async def stop_task(self, cluster: str, task: str, reason: str) -> str:
        """Ask a task to stop; returns its status, which is ``STOPPED`` only when it is gone."""
        answer = await self._call(
            self._changing, "StopTask", lambda ecs: ecs.stop_task(cluster=cluster, task=task, reason=reason)
        )
        return answer.get("task", {}).get("lastStatus", "")

    async def describe_tasks(self, cluster: str, tasks: Sequence[str]) -> DescribeTasksResponseTypeDef:
        """Look at up to 100 tasks."""
        return await self._describe(self._looking, cluster, tasks)

    async def live_tasks(self, cluster: str, started_by: str) -> list[str]:
        """ARNs of tasks with that tag that are not to stop. ``startedBy`` must be the only filter of ListTasks."""
        return await self._list({"cluster": cluster, "startedBy": started_by})

    async def running_tasks(self, cluster: str) -> list[TaskTypeDef]:
        """Every task of a cluster that is not to stop. Costs two calls per hundred."""
        arns = await self._list({"cluster": cluster})
        found: list[TaskTypeDef] = []
        for start in range(0, len(arns), DESCRIBE_BATCH):
            answer = await self._describe(self._verifying, cluster, arns[start : start + DESCRIBE_BATCH])
            found += answer.get("tasks", [])
        return found

    async def stopped_tasks(self, cluster: str, started_by: str) -> list[str]:
        """ARNs of tasks with that tag that stopped within about an hour. Costs two calls per hundred stopped tasks."""
        stopped = await self._list({"cluster": cluster, "desiredStatus": "STOPPED"})
        found = []
        for start in range(0, len(stopped), DESCRIBE_BATCH):
            answer = await self._describe(self._verifying, cluster, stopped[start : start + DESCRIBE_BATCH])
            found += [item["taskArn"] for item in answer.get("tasks", []) if item.get("startedBy") == started_by]
        return found

    async def close(self) -> None:
        """Waits for the calls under way."""
        await asyncio.gather(*(lane.client.close() for lane in (self._changing, self._looking, self._verifying)))

    async def _describe(self, lane: _Lane, cluster: str, tasks: Sequence[str]) -> DescribeTasksResponseTypeDef:
        return await self._call(
            lane, "DescribeTasks", lambda ecs: ecs.describe_tasks(cluster=cluster, tasks=list(tasks))
        )

    async def _list(self, query: dict[str, Any]) -> list[str]:
        found: list[str] = []
        for _ in range(_PAGES):
            answer = await self._call(self._verifying, "ListTasks", _listing(query))
            found += answer.get("taskArns", [])
            # A page may be short or empty and still not be the last.
            if not answer.get("nextToken"):
                return found
            query = {**query, "nextToken": answer["nextToken"]}
        raise EcsUnclear(f"ListTasks has more than {_PAGES} pages; the list would not be complete")

    async def _call(
        self,
        lane: _Lane,
        operation: str,
        use: Callable[[ECSClient], Result],
        send_within_seconds: float = SEND_WITHIN_SECONDS,
    ) -> Result:
        send_by = self._clock() + send_within_seconds

        def in_time(ecs: ECSClient) -> Result:
            # In the thread, right before the call: it may have waited for a thread, or the whole process for its
            # turn, until what it was decided on was no longer true.
            if self._clock() > send_by:
                raise EcsUnclear(f"{operation} was not sent: it waited for too long")
            return use(ecs)

        try:
            await lane.bucket.take(longest_wait_seconds=send_within_seconds)
        except BucketEmpty:
            raise EcsUnclear(f"{operation} was not sent: too many calls are waiting, or ECS throttles us") from None
        try:
            answer = await lane.client.call(in_time)
        except _FAILURES as error:
            # "from None": a traceback would bring AWS's own text back.
            raise self._failure(operation, error, lane.bucket) from None
        except RuntimeError:
            # The threads were shut down: the controller is about to end.
            raise EcsUnclear(f"{operation} was not sent: the launcher is closed") from None
        lane.bucket.answered()
        return answer

    def _failure(self, operation: str, error: Exception, bucket: TokenBucket) -> AlakaiError:
        if isinstance(error, ParamValidationError):
            return EcsRefused("InvalidParameterException", sanitised(f"{operation} is malformed: {error}"))
        if not isinstance(error, ClientError):
            return EcsUnclear(f"{operation} failed ({type(error).__name__}); check the network and the AWS variables")
        said = error.response.get("Error", {})
        code = str(said.get("Code", "unknown"))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if code in _THROTTLED or status == 429:
            bucket.throttled()
            return EcsUnclear(f"{operation} was throttled ({code})")
        if code == "ConflictException":
            response: Mapping[str, Any] = {**error.response}
            tasks = tuple(str(item) for item in response.get("resourceIds") or ())
            return EcsConflict(f"{operation}: the client token was used with other parameters", tasks)
        if code in _DECLARED and status is not None and status < 500:
            bucket.answered()
            return EcsRefused(code, sanitised(f"{operation} was refused ({code}): {said.get('Message', '')}"))
        return EcsUnclear(f"{operation} failed ({code}, HTTP {status}); check the AWS variables and rights")


def _listing(query: Mapping[str, Any]) -> Callable[[ECSClient], ListTasksResponseTypeDef]:
    return lambda ecs: ecs.list_tasks(**query)
