"""`make infra`: what the processes expect to find: the custom resource definitions, the queues and the bucket.

Every step may be repeated and works on the user's own cluster and AWS endpoint as on ours.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import yaml
from botocore.exceptions import ClientError
from kubernetes import config, dynamic

from devstack.console import say
from devstack.environment import ROOT
from devstack.errors import DevstackError

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_sqs import SQSClient

CRDS = ROOT / "crds"
FIELD_MANAGER = "alakai-devstack"
ESTABLISHED_TIMEOUT_SECONDS = 60.0
POLL_SECONDS = 0.1
VISIBILITY_SECONDS = 30
MAX_RECEIVE_COUNT = 5


def infra(values: dict[str, str]) -> None:
    """Create what is missing; `values` are the variables of `.local/env`."""
    apply_crds(values["KUBECONFIG"])
    url = ensure_queue(sqs_client(values), queue_name(values["SQS_QUEUE_URL"]))
    if url != values["SQS_QUEUE_URL"]:
        say(f"SQS_QUEUE_URL is {values['SQS_QUEUE_URL']}; set it to {url} and run `make up` again")
    ensure_bucket(s3_client(values), values["TASK_TRACKING_S3_BUCKET"])


def apply_crds(kubeconfig: str, folder: Path = CRDS) -> None:
    """Server-side apply every file of `crds/` and wait until the API server serves each kind. Raises DevstackError."""
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise DevstackError(f"{folder} holds no *.yaml")
    api: Any = dynamic.DynamicClient(kubernetes_client(kubeconfig))  # type: ignore[no-untyped-call]
    definitions = api.resources.get(api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition")
    for file in files:
        body = yaml.safe_load(file.read_text())
        definitions.server_side_apply(body=body, field_manager=FIELD_MANAGER, force_conflicts=True)
        _wait_until_established(definitions, body["metadata"]["name"])
        say(f"CustomResourceDefinition {body['metadata']['name']}: established")


def ensure_queue(sqs: SQSClient, name: str) -> str:
    """Create or correct the queue and its dead-letter queue `<name>-dlq`; returns the queue's URL."""
    dead_letters = sqs.create_queue(QueueName=f"{name}-dlq")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead_letters, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    # Created bare and set afterwards: create_queue refuses an existing queue whose attributes differ.
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": MAX_RECEIVE_COUNT})
    sqs.set_queue_attributes(
        QueueUrl=url, Attributes={"VisibilityTimeout": str(VISIBILITY_SECONDS), "RedrivePolicy": redrive}
    )
    say(f"Queue {url}, dead letters in {name}-dlq")
    return url


def ensure_bucket(s3: S3Client, name: str) -> None:
    """Create the bucket unless it is there."""
    region: Any = s3.meta.region_name
    try:
        if region == "us-east-1":  # the one region that must not be named
            s3.create_bucket(Bucket=name)
        else:
            s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": region})
    except ClientError as error:
        if error.response["Error"]["Code"] != "BucketAlreadyOwnedByYou":
            raise
    say(f"Bucket {name}")


def queue_name(url: str) -> str:
    """The last part of a queue URL."""
    return url.rstrip("/").rsplit("/", 1)[-1]


def kubernetes_client(kubeconfig: str) -> Any:
    """An API client of the kubeconfig's current context. Raises DevstackError."""
    try:
        return config.new_client_from_config(config_file=kubeconfig)  # type: ignore[no-untyped-call]
    except config.ConfigException as error:
        raise DevstackError(f"KUBECONFIG={kubeconfig} cannot be used: {error}") from error


def sqs_client(values: dict[str, str]) -> SQSClient:
    """A client of the queue service that `values` name."""
    client: SQSClient = _aws_session(values).client("sqs", endpoint_url=values["AWS_ENDPOINT_URL"])
    return client


def s3_client(values: dict[str, str]) -> S3Client:
    """A client of the object store that `values` name."""
    client: S3Client = _aws_session(values).client("s3", endpoint_url=values["AWS_ENDPOINT_URL"])
    return client


def _aws_session(values: dict[str, str]) -> boto3.session.Session:
    return boto3.session.Session(
        region_name=values["AWS_REGION"],
        aws_access_key_id=values.get("AWS_ACCESS_KEY_ID"),  # without: the user's profile, as boto3 finds it
        aws_secret_access_key=values.get("AWS_SECRET_ACCESS_KEY"),
    )


def _wait_until_established(definitions: Any, name: str) -> None:
    deadline = time.monotonic() + ESTABLISHED_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        conditions = definitions.get(name=name).to_dict().get("status", {}).get("conditions") or []
        if any(item["type"] == "Established" and item["status"] == "True" for item in conditions):
            return
        time.sleep(POLL_SECONDS)
    raise DevstackError(f"{name} was not established after {ESTABLISHED_TIMEOUT_SECONDS:.0f} s")
