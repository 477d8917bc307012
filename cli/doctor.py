"""``alakai doctor``: is everything there that an installation needs, and what to do where it is not."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import StrEnum

from cli.api import Api, ApiRefused
from cli.output import Output, show_document, show_table
from executions.adapters.kube_client import KubeClient
from executions.adapters.kube_connection import open_connection
from executions.adapters.launchers import LauncherContext, open_launcher
from executions.adapters.redis_connection import redis_errors
from executions.adapters.redis_payloads import RedisPayloads
from executions.adapters.redis_store import RedisStore, open_store
from executions.adapters.s3_archive import open_archive
from executions.adapters.settings import Settings, settings_from_environment
from executions.adapters.sqs_queue import open_queue
from executions.errors import AlakaiError, InvalidSettings
from executions.ports import Listing

_REDIS_MIN = (6, 2)
_SKEW_MS = 2_000
_SECONDS = 10.0
_RIGHTS = (
    *(("alakai.dev", "workerexecutions", verb) for verb in ("get", "list", "watch", "create", "patch", "delete")),
    ("alakai.dev", "workerexecutions/status", "patch"),
    ("", "events", "create"),
    ("", "configmaps", "get"),
)


class Health(StrEnum):
    GOOD = "good"
    DOUBTFUL = "doubtful"
    """It works, and something about it will hurt some day."""
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was looked at, how it is, and what to do about it ("" where it is good)."""

    what: str
    health: Health
    found: str
    remedy: str = ""


def run(core_url: str | None, output: Output) -> bool:
    """Print all diagnoses; True when none is bad."""
    found = asyncio.run(_all(core_url))
    if output in (Output.JSON, Output.YAML):
        keys = ("what", "health", "found", "remedy")
        show_document([{key: str(getattr(item, key)) for key in keys} for item in found], output)
    else:
        rows = [[item.what, item.health.value, item.found, item.remedy] for item in found]
        show_table(("what", "health", "found", "remedy"), rows)
    return all(item.health is not Health.BAD for item in found)


async def _all(core_url: str | None) -> list[Diagnosis]:
    try:
        settings = settings_from_environment()
    except InvalidSettings as error:
        return [Diagnosis("settings", Health.BAD, str(error), "correct the environment")]
    found = [Diagnosis("settings", Health.GOOD, f"launcher {settings.launcher_name}, {settings.env}")]
    looks: dict[str, Callable[[Settings], AsyncIterator[Diagnosis]]] = {
        "redis": _redis,
        "queues": _queues,
        "archive": _archive,
        "kubernetes": _kubernetes,
        "launcher": _launcher,
    }
    for what, look in looks.items():
        try:
            async with asyncio.timeout(_SECONDS):
                found += [item async for item in look(settings)]
        except TimeoutError:
            found.append(Diagnosis(what, Health.BAD, f"no answer within {_SECONDS:g} s", "see whether it runs"))
        except AlakaiError as error:
            found.append(Diagnosis(what, Health.BAD, str(error), _REMEDIES[what]))
    found.append(await asyncio.to_thread(_api, core_url))
    return found


_REMEDIES = {
    "redis": "check REDIS_URL, and that the server runs and lets this user in",
    "queues": "check SQS_QUEUE_URL, AWS_REGION, AWS_ENDPOINT_URL and the rights of docs/iam-policy.json",
    "archive": "check TASK_TRACKING_S3_BUCKET and the rights of docs/iam-policy.json",
    "kubernetes": "check KUBECONFIG, and that the custom resource definition is installed",
    "launcher": "check the launcher's settings file and rights",
}


async def _redis(settings: Settings) -> AsyncIterator[Diagnosis]:
    store = open_store(settings)
    try:
        with redis_errors():
            info = await store.redis.info()
        version = str(info.get("redis_version", "0"))
        is_new = tuple(int(part) for part in version.split(".")[:2]) >= _REDIS_MIN
        yield _judged("redis version", is_new, version, "Redis 6.2 or newer is needed")
        policy = str(info.get("maxmemory_policy", "unknown"))
        is_safe = policy == "noeviction" or not info.get("maxmemory")
        yield _judged("redis eviction", is_safe, policy, "set maxmemory-policy noeviction: records must not vanish")
        is_kept = bool(info.get("aof_enabled"))
        text = "append-only file" if is_kept else "no append-only file"
        yield _judged("redis persistence", is_kept, text, "set appendonly yes", otherwise=Health.DOUBTFUL)
        skew_ms = abs(await store.now_ms() - time.time_ns() // 1_000_000)
        remedy = "set this machine's clock, or Redis' (NTP)"
        yield _judged("clock", skew_ms < _SKEW_MS, f"{skew_ms} ms from Redis'", remedy, otherwise=Health.DOUBTFUL)
        yield await _epoch(store)
        with redis_errors():
            leads = bool(await store.redis.exists(store.keys.leader))
        text = "a controller leads" if leads else "nobody leads"
        yield _judged("leader", leads, text, "start a controller, or see its log")
    finally:
        await store.close()


async def _epoch(store: RedisStore) -> Diagnosis:
    try:
        await store.ping()
    except AlakaiError as error:
        return Diagnosis("redis data", Health.BAD, str(error), "a controller makes the epoch at its first start")
    return Diagnosis("redis data", Health.GOOD, f"prefix {store.keys.prefix}")


async def _queues(settings: Settings) -> AsyncIterator[Diagnosis]:
    for what, url in (("task queue", settings.sqs_queue_url), ("outcomes queue", settings.outcomes_queue_url)):
        queue = open_queue(url, settings)
        try:
            depths = await queue.depths()
        finally:
            await queue.close()
        if depths.dead_letters is None:
            yield Diagnosis(what, Health.DOUBTFUL, "it has no dead-letter queue", "give it a redrive policy")
        elif depths.dead_letters:
            text = f"{depths.messages} messages, {depths.dead_letters} dead letters"
            yield Diagnosis(what, Health.DOUBTFUL, text, "alakai dlq list says why")
        else:
            yield Diagnosis(what, Health.GOOD, f"{depths.messages} messages, no dead letters")


async def _archive(settings: Settings) -> AsyncIterator[Diagnosis]:
    if not settings.task_tracking_s3_archive_enabled:
        yield Diagnosis("archive", Health.GOOD, "switched off")
        return
    archive = open_archive(settings)
    try:
        await archive.check()
        yield Diagnosis("archive", Health.GOOD, archive.where)
    finally:
        await archive.close()


async def _kubernetes(settings: Settings) -> AsyncIterator[Diagnosis]:
    connection = open_connection()
    cluster = KubeClient(connection, settings.executions_namespace or connection.namespace)
    try:
        version = await cluster.server_version()
        yield Diagnosis("kubernetes", Health.GOOD, f"{version} at {connection.server}, namespace {cluster.namespace}")
        await cluster.check()
        yield Diagnosis("custom resource", Health.GOOD, "WorkerExecution is served")
        refused = [
            f"{verb} {resource}" for group, resource, verb in _RIGHTS if not await cluster.may(verb, group, resource)
        ]
        text = f"may not {', '.join(refused)}" if refused else "all that a controller needs"
        yield _judged("rights", not refused, text, "bind the chart's Role to this identity", otherwise=Health.DOUBTFUL)
    finally:
        await cluster.close()


async def _launcher(settings: Settings) -> AsyncIterator[Diagnosis]:
    store = open_store(settings)
    try:
        payloads = RedisPayloads(store.redis, store.keys.prefix)
        launcher = open_launcher(settings.launcher_name, LauncherContext(settings, payloads))
        try:
            seen = f", {len(await launcher.workers())} live workers" if isinstance(launcher, Listing) else ""
            yield Diagnosis("launcher", Health.GOOD, f"{launcher.name}{seen}")
        finally:
            await launcher.close()
    finally:
        await store.close()


def _api(core_url: str | None) -> Diagnosis:
    try:
        api = Api.of(core_url or os.environ.get("core_url"), dev_user=None, auth_token=None)  # noqa: SIM112
        status, body = api.get("/readyz")
    except ApiRefused as error:
        return Diagnosis("api", Health.BAD, str(error), "start it, or give --core-url")
    if status == 200:
        return Diagnosis("api", Health.GOOD, f"ready at {api.url}")
    return Diagnosis("api", Health.BAD, f"HTTP {status}: {body[:200]}", "see its log")


def _judged(what: str, is_good: bool, found: str, remedy: str, *, otherwise: Health = Health.BAD) -> Diagnosis:
    return Diagnosis(what, Health.GOOD if is_good else otherwise, found, "" if is_good else remedy)
