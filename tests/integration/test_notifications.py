"""Every outcome is told: to a flaky webhook, Slack and GitHub, by leaders that are replaced, over a real Redis."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiohttp import web

from controller.notifications import Notifications, tell
from executions.adapters import outbound as outbound_module
from executions.adapters.github_channel import GitHubChannel
from executions.adapters.metrics import NOTIFICATIONS_AGE, NOTIFICATIONS_DEAD, NOTIFICATIONS_WAITING
from executions.adapters.notification_outbox import NotificationOutbox, Standing
from executions.adapters.notifications_file import Channels
from executions.adapters.outbound import Outbound
from executions.adapters.redis_store import RedisStore
from executions.adapters.secret_file import SecretFile
from executions.adapters.settings import Settings
from executions.adapters.slack_channel import SlackChannel
from executions.adapters.told_messages import ToldMessages
from executions.adapters.webhook_channel import CallbackChannel, WebhookChannel
from executions.delivery import DeliveryRules
from executions.errors import NotDelivered, StoreUnavailable
from executions.notification import Notification
from executions.ports import Channel
from executions.record import Execution
from executions.submission import submit
from tests.integration.test_notification_outbox import POLICY, commit, finished
from tests.support.builders import NOW_MS, a_task
from tests.support.receivers import FakeGitHub, FakeSlack, FlakyWebhook, Server, cut
from tests.support.redis_group import write_certificate
from tests.support.waiting import until
from tests.unit.domain.states import at_work, claimed_again, reported

SECRET = "a-secret-of-the-webhook"
RULES = DeliveryRules(
    timeout_ms=300, first_wait_ms=20, longest_wait_ms=100, give_up_ms=60_000, refused_tries=3, lease_margin_ms=200
)
TASKS, ATTEMPTS = 50, 3
T = TypeVar("T", bound=Server)


def secret(folder: Path, text: str) -> SecretFile:
    path = folder / f"{text}.txt"
    path.write_text(text)
    return SecretFile(path)


def local(seconds: float = 0.3) -> Outbound:
    return Outbound(timeout_seconds=seconds, permits_loopback=True)


class Site:
    """One installation's notifications."""

    def __init__(self, store: RedisStore, folder: Path) -> None:
        self.store = store
        self.folder = folder
        self.outbox = NotificationOutbox(store.redis, store.keys.prefix)

    def webhook(self, server: Server) -> WebhookChannel:
        return WebhookChannel(f"{server.url}/alakai", secret(self.folder, SECRET), local())

    def callback(self, server: Server) -> CallbackChannel:
        place = f"{server.host}:{server.port}"
        return CallbackChannel(place, secret(self.folder, SECRET), local(), permits_http=True)

    def github(self, server: Server) -> GitHubChannel:
        told = ToldMessages(self.store.redis, self.store.keys.prefix, "github")
        return GitHubChannel(server.url, secret(self.folder, "github-token"), local(), told)

    def slack(self, server: Server, channel: str | None = "C1") -> SlackChannel:
        told = ToldMessages(self.store.redis, self.store.keys.prefix, "slack")
        return SlackChannel(server.url, channel, secret(self.folder, "slack-token"), local(), told)

    @asynccontextmanager
    async def leader(self, *channels: Channel, rules: DeliveryRules = RULES) -> AsyncIterator[None]:
        """Everything that a leader runs for it; it ends as one that lost its lease does."""
        settings = Settings(max_retries=99)
        notifications = Notifications(settings, self.store, Channels(channels, rules))
        tasks = [asyncio.create_task(work()) for work in notifications.parts().values()]  # type: ignore[arg-type]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await notifications.close()

    async def is_told(self, *channels: str) -> bool:
        """Everything that was put; not what the feed still holds."""
        standings = [await self.outbox.standing(name) for name in channels]
        return all(item.tasks == 0 for item in standings)


@pytest.fixture
def site(redis_store: RedisStore, tmp_path: Path) -> Site:
    return Site(redis_store, tmp_path)


@pytest.fixture
async def servers() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def started(stack: AsyncExitStack, server: T) -> T:
    await server.start()
    stack.push_async_callback(server.stop)
    return server


def steps(taken: Sequence[Any]) -> dict[str, list[int]]:
    """The attempts that were told of each task, in the order in which they came."""
    found = defaultdict[str, list[int]](list)
    for item in taken:
        found[item.task_id].append(item.attempt)
    return found


# The webhook


async def test_a_flaky_webhook_gets_each_outcome_in_order_although_leaders_are_replaced(
    site: Site, servers: AsyncExitStack
) -> None:
    receiver = await started(servers, FlakyWebhook(trouble=0.5))
    tasks = [f"task-{number:02}" for number in range(TASKS)]
    expected = {task_id: set(range(1, ATTEMPTS + 1)) for task_id in tasks}

    def is_complete() -> bool:
        return {task_id: set(found) for task_id, found in steps(receiver.taken).items()} == expected

    async def work() -> None:
        for task_id in tasks:
            await finished(site.store, task_id, attempts=ATTEMPTS)

    working = asyncio.create_task(work())
    async with site.leader(site.webhook(receiver)):
        await until(lambda: len(receiver.taken) > 20, seconds=20)
    async with site.leader(site.webhook(receiver)):
        await until(lambda: len(receiver.taken) > 60, seconds=20)
        await receiver.stop()
        await asyncio.sleep(0.1)
        await receiver.start()
        await until(is_complete, seconds=30)
        receiver.trouble = 0.0
        await working
        await until(lambda: site.is_told("webhook"), seconds=10)
    assert receiver.asked > len(receiver.taken), "it was flaky"
    for task_id, told in steps(receiver.taken).items():
        assert told == sorted(told), f"{task_id} was told out of order"
    keys = defaultdict[tuple[str, int], set[str]](set)
    for item in receiver.taken:
        keys[item.task_id, item.attempt].add(item.key)
    assert {len(found) for found in keys.values()} == {1}, "a repeat has the same key"
    assert len({key for found in keys.values() for key in found}) == TASKS * ATTEMPTS
    bodies = Counter((item.key, item.body) for item in receiver.taken)
    assert len(bodies) == TASKS * ATTEMPTS, "and the same body"
    assert await site.outbox.dead("webhook") == []


async def test_two_leaders_at_once_tell_nothing_twice_and_nothing_out_of_order(
    site: Site, servers: AsyncExitStack
) -> None:
    receiver = await started(servers, FlakyWebhook())
    async with site.leader(site.webhook(receiver)), site.leader(site.webhook(receiver)):
        for number in range(20):
            await finished(site.store, f"task-{number}", attempts=2)
        await until(lambda: len(receiver.taken) >= 40, seconds=10)
        await until(lambda: site.is_told("webhook"))
    assert set(map(tuple, steps(receiver.taken).values())) == {(1, 2)}


async def test_a_delivery_that_could_not_be_written_down_is_made_once_more_with_the_same_key(
    site: Site, servers: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = await started(servers, FlakyWebhook())
    told = NotificationOutbox.told

    async def cut_off(self: NotificationOutbox, taken: Any) -> None:
        if len(receiver.taken) == 1:
            raise StoreUnavailable("Redis is away")
        await told(self, taken)

    monkeypatch.setattr(NotificationOutbox, "told", cut_off)
    async with site.leader(site.webhook(receiver)):
        await finished(site.store, "one", attempts=2)
        await until(lambda: len(receiver.taken) == 3)
    assert steps(receiver.taken) == {"one": [1, 1, 2]}
    assert receiver.taken[0].key == receiver.taken[1].key


async def test_the_signature_is_verified_as_the_page_says(
    site: Site, servers: AsyncExitStack, repository: Path
) -> None:
    page = (repository / "docs" / "notifications.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(snippet, names)  # noqa: S102 - what our own page tells people to use
    verify = names["is_from_alakai"]
    receiver = await started(servers, FlakyWebhook())
    async with site.leader(site.webhook(receiver)):
        await finished(site.store, "one")
        await until(lambda: bool(receiver.taken))
    (taken,) = receiver.taken
    assert verify(SECRET, taken.headers, taken.body)
    assert not verify("another", taken.headers, taken.body)
    assert not verify(SECRET, taken.headers, taken.body + b" ")
    assert not verify(SECRET, taken.headers, taken.body, now=int(taken.headers["X-Alakai-Timestamp"]) + 301)
    later = {**taken.headers, "X-Alakai-Timestamp": str(int(taken.headers["X-Alakai-Timestamp"]) + 1)}
    assert not verify(SECRET, later, taken.body)


async def test_a_dead_target_delays_no_other(site: Site, servers: AsyncExitStack) -> None:
    class Hanging(FlakyWebhook):
        async def handle(self, request: web.Request) -> web.StreamResponse:
            return await self.hang()

    hanging = await started(servers, Hanging())
    receiver = await started(servers, FlakyWebhook())
    github = await started(servers, FakeGitHub())
    dead = f"http://127.0.0.1:{free_port()}/x"
    async with site.leader(site.webhook(hanging), site.callback(receiver), site.github(github), rules=RULES):
        for number in range(40):
            url = f"{receiver.url}/hook" if number % 2 else dead
            await finished_with(site.store, f"task-{number}", webhook={"url": url})
        await until(lambda: len(receiver.taken) == 20 and len(github.comments) == 40, seconds=5)
    assert hanging.taken == []
    assert (await site.outbox.standing("webhook")).tasks == 40
    assert await site.outbox.channels() == sorted(["webhook", f"callback:127.0.0.1:{receiver.port}", "github"])


async def test_a_receiver_that_asks_to_wait_is_not_asked_before(site: Site, servers: AsyncExitStack) -> None:
    loop = asyncio.get_running_loop()
    asked: list[float] = []

    class Busy(FlakyWebhook):
        async def handle(self, request: web.Request) -> web.StreamResponse:
            asked.append(loop.time())
            if len(asked) == 1:
                return web.Response(status=429, headers={"retry-after": "0.5"})
            return await super().handle(request)

    receiver = await started(servers, Busy())
    async with site.leader(site.webhook(receiver)):
        await finished(site.store, "one")
        await until(lambda: bool(receiver.taken))
    assert asked[1] - asked[0] >= 0.45


async def test_what_is_refused_is_given_up_and_comes_back_when_it_is_redriven(
    site: Site, servers: AsyncExitStack
) -> None:
    class Refusing(FlakyWebhook):
        is_strict = True

        async def handle(self, request: web.Request) -> web.StreamResponse:
            document = await request.json()
            if self.is_strict and document["attempt"] == 1:
                self.asked += 1
                return web.Response(status=422)
            return await super().handle(request)

    receiver = await started(servers, Refusing())
    async with site.leader(site.webhook(receiver)):
        await finished(site.store, "one", attempts=2)
        await until(lambda: bool(receiver.taken))
        (dead,) = await site.outbox.dead("webhook")
        assert (dead.task_id, dead.tries, dead.reason) == ("one", RULES.refused_tries, "the webhook answered 422")
        receiver.is_strict = False
        await site.outbox.redrive(dead)
        await until(lambda: len(receiver.taken) == 2, seconds=8)
    assert steps(receiver.taken) == {"one": [2, 1]}


async def test_what_nobody_takes_is_given_up_in_time(site: Site) -> None:
    nobody = WebhookChannel(f"http://127.0.0.1:{free_port()}/", secret(site.folder, SECRET), local())
    rules = DeliveryRules(timeout_ms=300, first_wait_ms=20, give_up_ms=200, lease_margin_ms=100)
    async with site.leader(nobody, rules=rules):
        await finished(site.store, "one")
        await until(lambda: is_dead(site, "webhook"))
    (dead,) = await site.outbox.dead("webhook")
    assert "cannot be reached" in dead.reason


async def is_dead(site: Site, channel: str) -> bool:
    return bool(await site.outbox.dead(channel))


async def finished_with(store: RedisStore, task_id: str, **callbacks: Any) -> None:
    """A task that succeeds, whose message asks to be told there too."""
    document = {"github": {"repo": "my-org/my-repo", "issueNumber": 1}, **callbacks}
    task = a_task(task_id, callbacks=document)
    claimed = submit(None, task, now_ms=NOW_MS, policy=POLICY, launcher="local", incarnation="i").execution
    assert claimed is not None
    running = await commit(store, at_work(await commit(store, claimed)))
    await commit(store, reported(running, succeeded=True))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# GitHub and Slack


async def fail_then_succeed(store: RedisStore, task_id: str, *, between: Any = None) -> None:
    """Two outcomes, the second one once ``between`` is true."""
    seen = await store.read(task_id)
    assert seen.execution is None
    execution = await first_failure(store, task_id)
    if between is not None:
        await until(between)
    execution = await commit(store, at_work(await commit(store, claimed_again(execution))))
    await commit(store, reported(execution, succeeded=True))


async def first_failure(store: RedisStore, task_id: str) -> Execution:
    document = {"github": {"repo": "my-org/my-repo", "issueNumber": 1}}
    task = a_task(task_id, callbacks=document)
    claimed = submit(None, task, now_ms=NOW_MS, policy=POLICY, launcher="local", incarnation="i").execution
    assert claimed is not None
    running = await commit(store, at_work(await commit(store, claimed)))
    return await commit(store, reported(running))


@pytest.mark.parametrize("lost", [0, 1, 2, 3])
async def test_github_has_one_comment_whichever_answers_are_lost(
    site: Site, servers: AsyncExitStack, lost: int
) -> None:
    github = await started(servers, FakeGitHub(loses=lost))
    for number in range(120):
        other = {"id": number, "issue": ("my-org/my-repo", "1"), "body": "> <!-- alakai:one -->\na quote"}
        github.comments[number] = other
    async with site.leader(site.github(github)):
        await fail_then_succeed(site.store, "one", between=lambda: any("❌" in text for text in ours(github)))
        await until(lambda: any("✅" in text for text in ours(github)))
        await until(lambda: site.is_told("github"))
    (comment,) = ours(github)
    assert comment.startswith("<!-- alakai:one -->\n✅ **Succeeded**")
    assert "attempt 1 failed" in comment


def ours(github: FakeGitHub) -> list[str]:
    return [item["body"] for item in github.comments.values() if item["body"].startswith("<!-- alakai")]


async def test_a_comment_that_was_removed_is_made_anew_and_an_older_outcome_changes_nothing(
    site: Site, servers: AsyncExitStack
) -> None:
    github = await started(servers, FakeGitHub())
    channel = site.github(github)
    async with site.leader(channel):
        await fail_then_succeed(
            site.store, "one", between=lambda: bool(github.comments) and not github.comments.clear()
        )
        await until(lambda: any("✅" in text for text in ours(github)))
        await until(lambda: site.is_told("github"))
        assert len(github.comments) == 1
    writes = [item for item in github.requests if item[0] != "GET"]
    assert [method for method, _ in writes] == ["POST", "PATCH", "POST"]
    callbacks = {"github": {"repo": "my-org/my-repo", "issueNumber": 1}}
    old = Notification("old", (1, 1), "one", {"executionId": "one"}, callbacks)
    asked = len(github.requests)
    await channel.deliver(old, now_ms=NOW_MS)
    assert len(github.requests) == asked, "one that comes late, after it was given up, would turn the clock back"


async def test_a_rate_limit_pauses_all_of_github_and_nothing_is_lost(site: Site, servers: AsyncExitStack) -> None:
    github = await started(servers, FakeGitHub(limits=2))
    async with site.leader(site.github(github)):
        for number in range(5):
            await finished_with(site.store, f"task-{number}")
        await until(lambda: len(github.comments) == 5)
    assert await site.outbox.dead("github") == []


@pytest.mark.parametrize("lost", [0, 1, 2])
async def test_slack_has_one_message_whichever_answers_are_lost(site: Site, servers: AsyncExitStack, lost: int) -> None:
    slack = await started(servers, FakeSlack(loses=lost))
    async with site.leader(site.slack(slack)):
        await fail_then_succeed(site.store, "one", between=lambda: bool(slack.messages))
        await until(lambda: any("Succeeded" in item["text"] for item in slack.messages))
        await until(lambda: site.is_told("slack"))
    (message,) = slack.messages
    assert message["channel"] == "C1"


async def test_a_message_goes_into_the_thread_that_the_task_names(site: Site, servers: AsyncExitStack) -> None:
    slack = await started(servers, FakeSlack(loses=1))
    async with site.leader(site.slack(slack, channel=None)):
        await finished_with(site.store, "silent")
        await finished_with(site.store, "one", slack={"channel": "C2", "threadTs": "1.5"})
        await until(lambda: bool(slack.messages))
        await until(lambda: site.is_told("slack"))
    (message,) = slack.messages
    assert (message["channel"], message["thread_ts"]) == ("C2", "1.5")
    assert "conversations.replies" in slack.requests


async def test_without_the_right_to_read_a_message_is_sent_again(site: Site, servers: AsyncExitStack) -> None:
    slack = await started(servers, FakeSlack(loses=1, is_blind=True))
    async with site.leader(site.slack(slack)):
        await finished_with(site.store, "one")
        await until(lambda: len(slack.messages) == 2)
        await until(lambda: site.is_told("slack"))


async def test_a_bad_token_is_told_as_the_reason(site: Site, servers: AsyncExitStack) -> None:
    slack, github = await started(servers, FakeSlack()), await started(servers, FakeGitHub())
    told = ToldMessages(site.store.redis, site.store.keys.prefix, "any")
    wrong = secret(site.folder, "wrong-token")
    async with site.leader(
        SlackChannel(slack.url, "C1", wrong, local(), told), GitHubChannel(github.url, wrong, local(), told)
    ):
        await finished_with(site.store, "one")
        await until(lambda: is_dead(site, "slack"))
        await until(lambda: is_dead(site, "github"))
    reasons = {(await site.outbox.dead(name))[0].reason for name in ("slack", "github")}
    assert reasons == {"Slack answered invalid_auth", "GitHub answered 401"}
    assert "wrong-token" not in str(reasons)


# What a message cannot do


class Inside(Server):
    """Something that only we can reach."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        super().__init__(host=host)
        self.paths: list[str] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path)
        if request.path == "/away":
            raise web.HTTPFound("/secret")
        if request.path == "/long":
            return web.Response(body=b"x" * 100_000)
        if request.path == "/cut":
            return cut(request)
        return web.Response()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "[::ffff:127.0.0.1]"])
async def test_no_spelling_of_an_address_inside_is_reached(servers: AsyncExitStack, host: str) -> None:
    inside = await started(servers, Inside())
    outbound = Outbound(timeout_seconds=2)
    servers.push_async_callback(outbound.close)
    with pytest.raises(NotDelivered) as caught:
        await outbound.request("POST", f"http://{host}:{inside.port}/", headers={}, body=b"")
    assert inside.paths == []
    assert caught.value.is_refusal


async def test_a_name_that_answers_otherwise_the_second_time_gains_nothing(
    servers: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """127.0.0.2 stands for a public address; the name leads there first and inside then."""
    outside = await started(servers, Inside("127.0.0.2"))
    inside = Inside()
    inside.port = outside.port
    await started(servers, inside)
    monkeypatch.setattr(outbound_module, "is_public", lambda address: address == "127.0.0.2")
    answers = ["127.0.0.2", "127.0.0.1"]

    async def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        address = answers.pop(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, outside.port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    url = f"http://hooks.example.com:{outside.port}/"
    for _ in range(2):
        outbound = Outbound(timeout_seconds=2)
        servers.push_async_callback(outbound.close)
        if answers == ["127.0.0.1"]:
            with pytest.raises(NotDelivered, match="not at a public address"):
                await outbound.request("POST", url, headers={}, body=b"")
        else:
            assert (await outbound.request("POST", url, headers={}, body=b"")).status == 200
    assert (outside.paths, inside.paths, answers) == (["/"], [], [])


async def test_neither_redirect_nor_proxy_nor_long_answer_is_followed(
    servers: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = await started(servers, Inside())
    monkeypatch.setenv("HTTP_PROXY", inside.url)
    monkeypatch.setenv("http_proxy", inside.url)
    outbound = local(1)
    servers.push_async_callback(outbound.close)
    assert (await outbound.request("POST", f"{inside.url}/away", headers={}, body=b"")).status == 302
    assert (await outbound.request("GET", f"{inside.url}/long", headers={})).body == b""
    with pytest.raises(NotDelivered, match="larger than"):
        await outbound.request("GET", f"{inside.url}/long", headers={}, keep=1000)
    with pytest.raises(NotDelivered, match="the connection failed"):
        await outbound.request("POST", f"{inside.url}/cut", headers={})
    with pytest.raises(NotDelivered):
        await outbound.request("GET", f"http://127.0.0.1:{free_port()}/proxied", headers={})
    with pytest.raises(NotDelivered):
        await outbound.request("GET", inside.url, headers={"X": "a\nb"})
    assert inside.paths == ["/away", "/long", "/long", "/cut"]


async def test_certificates_are_verified(
    servers: AsyncExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    write_certificate(certificate, key)
    inside = Inside()
    inside.ssl_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    inside.ssl_context.load_cert_chain(certificate, key)
    await started(servers, inside)
    url = f"https://localhost:{inside.port}/x"
    untrusting = local(2)
    servers.push_async_callback(untrusting.close)
    with pytest.raises(NotDelivered, match="SSLCertVerificationError"):
        await untrusting.request("POST", url, headers={}, body=b"")
    assert inside.paths == []
    trusting = local(2)
    servers.push_async_callback(trusting.close)
    context = ssl.create_default_context(cafile=str(certificate))
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", context)
    assert (await trusting.request("POST", url, headers={}, body=b"")).status == 200


async def test_a_host_that_is_not_allowed_is_told_in_the_log_and_nowhere_else(
    site: Site, servers: AsyncExitStack, capsys: pytest.CaptureFixture[str]
) -> None:
    inside, allowed = await started(servers, Inside()), await started(servers, FlakyWebhook())
    async with site.leader(site.callback(allowed)):
        await finished_with(site.store, "one", webhook={"url": f"{inside.url}/x"})
        await finished_with(site.store, "two", webhook={"url": f"{allowed.url}/x"})
        await until(lambda: bool(allowed.taken))
    assert (inside.paths, [item.task_id for item in allowed.taken]) == ([], ["two"])
    assert await site.outbox.channels() == [f"callback:127.0.0.1:{allowed.port}"]


# What is measured


def test_the_hosts_of_callbacks_are_one_kind() -> None:
    tell({"callback:a:443": Standing(2, 5_000, 1), "callback:b:443": Standing(1, 9_000, 2)})
    gauges = (NOTIFICATIONS_WAITING, NOTIFICATIONS_AGE, NOTIFICATIONS_DEAD)
    assert [gauge.labels("callback")._value.get() for gauge in gauges] == [3, 9, 3]
