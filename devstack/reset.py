"""`make reset`: empties what the processes fill, and nothing else: the cluster, Redis and AWS may be the user's own.

So there is no FLUSHALL, no namespace is deleted and every queue and bucket is named. Stop controller and API first:
what they hold in memory would be written again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import redis
from botocore.exceptions import ClientError
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from devstack.console import say
from devstack.environment import shown
from devstack.errors import DevstackError
from devstack.infra import kubernetes_client, queue_name, s3_client, sqs_client
from executions import names

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_sqs import SQSClient

OWN_FINALIZER = f"{names.GROUP}/"
MANAGED = "app.kubernetes.io/managed-by=alakai-operator"
DELETE_TIMEOUT_SECONDS = 120.0
PAGE = 500
PATCH_THREADS = 8
SCAN_COUNT = 1_000


def reset(values: dict[str, str]) -> None:
    """Empty everything that `values`, the variables of `.local/env`, point at. Raises DevstackError."""
    say(f"Emptying {values['KUBECONFIG']}, {shown(values['REDIS_URL'])} and {values['AWS_ENDPOINT_URL']}")
    api = kubernetes_client(values["KUBECONFIG"])
    namespace = values["EXECUTIONS_NAMESPACE"]
    say(f"Executions in {namespace}: {delete_executions(client.CustomObjectsApi(api), namespace)} deleted")
    say(f"ConfigMaps in {namespace}: {delete_config_maps(client.CoreV1Api(api), namespace)} deleted")
    sqs = sqs_client(values)
    for name in queue_names(values):
        purge_queue(sqs, name)
    bucket = values["TASK_TRACKING_S3_BUCKET"]
    say(f"Bucket {bucket}: {empty_bucket(s3_client(values), bucket)} objects deleted")
    for url in dict.fromkeys((values["REDIS_URL"], values["TASK_TRACKING_REDIS_URL"])):
        say(f"Redis: {delete_keys(url, key_patterns(values))} keys deleted")


def delete_executions(api: Any, namespace: str) -> int:
    """Delete every WorkerExecution of the namespace, taking our finalizers off; somebody else's are left to them."""
    where = {"group": names.GROUP, "version": names.VERSION, "namespace": namespace, "plural": names.PLURAL}
    try:
        found = len(list(_listed(api, where)))
        api.delete_collection_namespaced_custom_object(**where)
    except ApiException as error:
        if error.status == 404:  # no such kind yet: nothing was ever created
            return 0
        raise
    deadline = time.monotonic() + DELETE_TIMEOUT_SECONDS

    def release(item: dict[str, Any]) -> None:
        metadata = item["metadata"]
        kept = [name for name in metadata.get("finalizers", []) if not name.startswith(OWN_FINALIZER)]
        body = {"metadata": {"finalizers": kept, "resourceVersion": metadata["resourceVersion"]}}
        _unless((404, 409), partial(api.patch_namespaced_custom_object, name=metadata["name"], body=body, **where))

    with ThreadPoolExecutor(PATCH_THREADS) as threads:
        while left := [item for item in _listed(api, where) if "deletionTimestamp" in item["metadata"]]:
            if time.monotonic() > deadline:
                raise DevstackError(
                    f"{len(left)} executions keep finalizers that are not ours, such as {left[0]['metadata']}"
                )
            list(threads.map(release, left))
    return found


def _listed(api: Any, where: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Every object, page by page."""
    following = ""
    while True:
        page = api.list_namespaced_custom_object(limit=PAGE, _continue=following, **where)
        yield from page["items"]
        following = page["metadata"].get("continue", "")
        if not following:
            return


def delete_config_maps(api: Any, namespace: str) -> int:
    """Delete the ConfigMaps that carry our label, the epoch among them."""
    found = api.list_namespaced_config_map(namespace, label_selector=MANAGED).items
    for item in found:
        _unless((404,), partial(api.delete_namespaced_config_map, item.metadata.name, namespace))
    return len(found)


def queue_names(values: dict[str, str]) -> list[str]:
    """The queues we use, by name: each task queue with its dead letters, and the queues of kept outcomes."""
    tasks = [queue_name(values[name]) for name in ("SQS_QUEUE_URL", "IMPLEMENTATION_SQS_QUEUE_URL")]
    found = [f"{task}{suffix}" for task in tasks for suffix in ("", "-dlq", "-outcomes")]
    if url := values.get("OUTCOMES_SQS_QUEUE_URL"):
        found.append(queue_name(url))
    return list(dict.fromkeys(found))


def purge_queue(sqs: SQSClient, name: str) -> None:
    """Empty a queue that may not exist."""
    try:
        sqs.purge_queue(QueueUrl=sqs.get_queue_url(QueueName=name)["QueueUrl"])
    except ClientError as error:
        if "NonExistentQueue" in error.response["Error"]["Code"] or "QueueDoesNotExist" in str(error):
            return
        if "PurgeQueueInProgress" not in str(error):
            raise
        say(f"Queue {name}: purged less than a minute ago; what came since stays, repeat `make reset` in a minute")
        return
    say(f"Queue {name}: purged")


def empty_bucket(s3: S3Client, name: str) -> int:
    """Delete every object of a bucket that may not exist."""
    deleted = 0
    try:
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=name):
            keys = [item["Key"] for item in page.get("Contents", [])]
            if keys:
                s3.delete_objects(Bucket=name, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True})
            deleted += len(keys)
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchBucket":
            raise
    return deleted


def key_patterns(values: dict[str, str]) -> list[str]:
    """SCAN patterns of our keys: records, what is internal beside them, tracking and its streams."""
    records = _literal(values.get("EXECUTIONS_REDIS_KEY_PREFIX") or "alakai-executions")
    prefix = _literal(values.get("TASK_TRACKING_REDIS_KEY_PREFIX", ""))
    stream = _literal(values.get("TASK_TRACKING_REDIS_STREAM_KEY", ""))
    patterns = [f"{records}:*", f"{records}/*", "alakai-local:*", "task-tracking:*", "task-events:*"]
    return list(dict.fromkeys([*patterns, f"{prefix}task-tracking:*", *([stream] if stream else [])]))


def delete_keys(url: str, patterns: list[str]) -> int:
    """UNLINK every key that matches, batch by batch, without blocking the server."""
    deleted = 0
    with redis.Redis.from_url(url) as store:
        for pattern in patterns:
            batch: list[bytes] = []
            for key in store.scan_iter(match=pattern, count=SCAN_COUNT):
                batch.append(key)
                if len(batch) == SCAN_COUNT:
                    deleted += int(store.unlink(*batch))
                    batch.clear()
            if batch:
                deleted += int(store.unlink(*batch))
    return deleted


def _literal(prefix: str) -> str:
    """Escape what SCAN reads as a wildcard."""
    return re.sub(r"([\\*?\[\]])", r"\\\1", prefix)


def _unless(statuses: tuple[int, ...], call: Callable[[], object]) -> None:
    try:
        call()
    except ApiException as error:
        if error.status not in statuses:
            raise
