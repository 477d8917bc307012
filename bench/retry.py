"""The retry route under load, beside a FastAPI route that does nothing.

The API is the real one (`python -m api`), with the real Redis and the real SQS client; only the SQS server is a stub
that accepts everything (`queue_stub`). First clicks mark the retry in Redis and send a message; second clicks find
the mark and send nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bench.http_load import Load, post, send_all, until_listening
from bench.parallel import in_parallel
from bench.percentiles import percentile
from bench.processes import Child, python
from bench.report import Figure
from bench.stage import Stage
from bench.tasks import Life
from devstack.console import say
from devstack.ports import HOST, free_port
from executions.adapters.redis_connection import connect
from executions.adapters.redis_epoch import create_epoch
from executions.adapters.redis_store import RedisStore
from executions.answer import Answer, Reply

CONNECTIONS = 32
WARM_UP = 50
_WIDTH = 32


async def measure(stage: Stage) -> list[Figure]:
    clicks, prefix = stage.scale.clicks, stage.unused_name()
    names = [f"failed-{number}" for number in range(WARM_UP + stage.scale.runs * clicks)]
    await _lay_down(stage, prefix, names)
    requests = [post(f"/dashboard/executions/{name}/retry", x_dev_user="bench@example.com") for name in names]
    bare: list[Load] = []
    first: list[Load] = []
    second: list[Load] = []
    with _servers(stage, prefix) as servers:
        (api_port, _), (bare_port, _), _ = servers
        for port, child in servers:
            await until_listening(port, child)
        for port in (api_port, bare_port):
            await send_all(port, requests[:WARM_UP], expected=202, connections=CONNECTIONS)
        for start in range(WARM_UP, len(requests), clicks):
            batch = requests[start : start + clicks]
            for loads, port in ((bare, bare_port), (first, api_port), (second, api_port)):
                loads.append(await send_all(port, batch, expected=202, connections=CONNECTIONS))
            say(
                f"  run {len(bare)}: {first[-1].per_second:.0f} retries/s, "
                f"second clicks {second[-1].per_second:.0f}/s, bare route {bare[-1].per_second:.0f}/s"
            )
    stage.notes.append("The retry route was measured with a stub in place of the SQS server; all else is real.")
    return [
        Figure("retry route", _rates(first), "1/s"),
        Figure("  p99", tuple(percentile(load.latencies_ms, 99) for load in first), "ms", 1),
        Figure("  second clicks", _rates(second), "1/s"),
        Figure("bare FastAPI route", _rates(bare), "1/s"),
        Figure("ratio, retry to bare", _ratios(first, bare), "", 3),
        Figure("ratio, second click to bare", _ratios(second, bare), "", 3),
    ]


@contextmanager
def _servers(stage: Stage, prefix: str) -> Iterator[list[tuple[int, Child]]]:
    """The API, the bare route and the queue, each on its port in a process of its own. They may not listen yet."""
    api_port, bare_port, queue_port = free_port(), free_port(), free_port()
    queue = f"http://{HOST}:{queue_port}"
    environment = {
        "PERSON_REQUESTS_PER_SECOND": "0",  # one person clicks for everybody here
        "ENV": "local",
        "PORT": str(api_port),
        "API_PROBE_PORT": "0",
        "METRICS_PORT": "0",
        "REDIS_URL": stage.redis.url,
        "EXECUTIONS_REDIS_KEY_PREFIX": prefix,
        "SQS_QUEUE_URL": f"{queue}/000000000000/bench",
        "AWS_ENDPOINT_URL": queue,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "NO_PROXY": HOST,
    }
    with (
        Child(python("api"), environment=environment, log=stage.folder / "api.log") as api,
        Child(python("bench.bare_app", str(bare_port)), environment={}, log=stage.folder / "bare.log") as bare,
        Child(python("bench.queue_stub", str(queue_port)), environment={}, log=stage.folder / "queue.log") as stub,
    ):
        yield [(api_port, api), (bare_port, bare), (queue_port, stub)]


async def _lay_down(stage: Stage, prefix: str, names: list[str]) -> None:
    """Records of executions that failed and may be retried."""
    redis = connect(stage.redis.url)
    store = RedisStore(redis, prefix)
    await create_epoch(redis, prefix)

    async def lay_down(name: str) -> None:
        failed = Life.of(name).ended(succeeded=False)
        await store.commit(await store.read(name), failed, Answer(Reply.CLAIMED, name))

    try:
        await in_parallel(names, lay_down, width=_WIDTH)
    finally:
        await store.close()


def _rates(loads: list[Load]) -> tuple[float, ...]:
    return tuple(load.per_second for load in loads)


def _ratios(loads: list[Load], others: list[Load]) -> tuple[float, ...]:
    return tuple(load.per_second / other.per_second for load, other in zip(loads, others, strict=True))
