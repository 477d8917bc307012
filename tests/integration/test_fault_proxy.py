"""The fault proxy does to a real Redis' connections what its faults say, and undoes it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from devstack.redis import RedisServer
from tests.support.fault_proxy import Fault, FaultProxy


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[FaultProxy]:
    with FaultProxy(redis_server.port or 0) as found:
        yield found


def client(port: int, seconds: float = 0.3) -> redis.Redis:
    return redis.Redis(host="127.0.0.1", port=port, socket_timeout=seconds, retry=Retry(NoBackoff(), 0))


@pytest.fixture
def key(prefix: str) -> str:
    return f"{prefix}/counter"


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.CUT, redis.ConnectionError),
        (Fault.BLACKHOLE, redis.TimeoutError),
        (Fault.DROP_REPLIES, redis.TimeoutError),
    ],
)
@pytest.mark.parametrize("is_open", [True, False], ids=["an open connection", "a new one"])
def test_a_fault_hits_connections_and_ends(
    proxy: FaultProxy, redis_server: RedisServer, key: str, fault: Fault, error: type[Exception], is_open: bool
) -> None:
    with client(proxy.port) as through, client(redis_server.port or 0) as direct:
        if is_open:
            through.ping()
        proxy.set(fault)
        with pytest.raises(error):
            through.incr(key)
        # Only where replies are dropped has the request been acted on.
        assert direct.get(key) == (b"1" if fault is Fault.DROP_REPLIES and is_open else None)
        proxy.set(Fault.NONE)
        assert through.ping()


def test_delayed_requests_arrive(proxy: FaultProxy, key: str) -> None:
    with client(proxy.port, seconds=30) as through:
        proxy.set(Fault.DELAY)
        assert through.incr(key) == 1


def test_its_end_closes_everything(redis_server: RedisServer) -> None:
    with FaultProxy(redis_server.port or 0) as proxy, client(proxy.port) as through:
        through.ping()
        assert proxy.connections == 1
    with pytest.raises(redis.ConnectionError), client(proxy.port) as through:
        through.ping()
