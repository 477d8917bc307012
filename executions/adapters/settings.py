"""Settings from environment variables: validated once at start-up, then handed down as plain values.

Nothing else reads the environment (boto3 and the Kubernetes client read their own variables). A missing or
contradictory setting raises InvalidSettings with one line that names the variable and the remedy.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from executions.admission import BreakerRule, Slots
from executions.errors import InvalidSettings
from executions.names import TASK_TYPE
from executions.policy import Policy

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=0, le=65535)]
RedisKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")]


class Settings(BaseSettings):
    """What both processes are configured with. Field names are the variables' names in lower case."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    env: str = "production"
    """``local`` selects the local launcher and permits the development sign-in; refused inside a cluster."""
    port: Port = 3000
    """Where the API listens."""
    controller_port: Port = 8080
    """Where the controller's probes are."""
    api_probe_port: Port | None = None
    """Where the API's probes are answered by a thread of their own; unset: 8081, or any when it is taken."""
    metrics_port: Port | None = None
    """Prometheus metrics at ``/metrics``; unset: 9090 for the controller, 9091 for the API, or any when it is taken."""
    log_format: Literal["json", "console"] = "json"
    """``console`` is for people."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The least that is logged."""

    redis_url: str = ""
    """Where the records are: ``redis://``, ``rediss://``, ``redis+sentinel://``; TASK_TRACKING_REDIS_URL when unset."""
    redis_url_file: str = ""
    """Path of a file that holds REDIS_URL, as a mounted Secret does; the user and password in it may change."""
    task_tracking_redis_url: str = ""
    """Where task tracking is; REDIS_URL when unset. One of the two is needed."""
    task_tracking_redis_url_file: str = ""
    """The same file for TASK_TRACKING_REDIS_URL."""
    redis_wait_replicas: Annotated[int, Field(ge=0, le=10)] = 0
    """Replicas that must have a commit before it counts; 0 without replicas, or where losing seconds is bearable."""
    redis_wait_seconds: Seconds = 1
    """How long to wait for them; then the commit is repeated."""
    executions_redis_key_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$")] = (
        "alakai-executions"
    )
    """What the keys of records begin with; the same for controller and API."""
    leader_lease_seconds: Seconds = 10
    """How long a controller that vanished counts as the leader."""

    sqs_queue_url: str = ""
    """The queue that the controller reads; IMPLEMENTATION_SQS_QUEUE_URL when unset."""
    implementation_sqs_queue_url: str = ""
    """The queue that retries are sent to; SQS_QUEUE_URL when unset. One of the two is needed."""
    outcomes_sqs_queue_url: str = ""
    """Keeps outcomes while Redis is away; SQS_QUEUE_URL with ``-outcomes`` when unset, and made when it is missing."""
    ecs_events_sqs_queue_url: str = ""
    """A queue that EventBridge sends ``ECS Task State Change`` events to; empty: the sweep alone finds changes."""
    slots_total: Annotated[int, Field(ge=1)] | None = None
    """Attempts that may be live at once; unset: no limit. Who finds no slot waits in the order of age."""
    slots_per_type: Annotated[dict[str, Annotated[int, Field(ge=0)]], NoDecode] = Field(default_factory=dict)
    """The same by task type: ``implementation=20,digest=5``."""
    breaker_failures: Annotated[int, Field(ge=1)] = 10
    """The same launch failure so many times within the window holds further launches of its class back."""
    breaker_window_seconds: Seconds = 300
    """Failures that lie further back are not counted."""
    breaker_pause_seconds: Seconds = 60
    """Before one launch is let through, to try whether launches work again."""
    pending_max: Annotated[int, Field(ge=1)] = 10_000
    """Waiting attempts at which no more messages are taken."""

    launcher: str = ""
    """What starts workers, by the name of its entry point; unset: ``local`` under ENV=local, else ``ecs``."""
    ecs_launcher_file: str = ""
    """Path of the validated file that says where and how ECS runs each task type (``examples/ecs/launcher.yaml``)."""
    kubernetes_launcher_file: str = ""
    """The same for Kubernetes Jobs: a pod template for each task type (``examples/kubernetes/launcher.yaml``)."""
    task_tracking_redis_stream_key: RedisKey = "task-events:v1"
    """The stream of lifecycle events."""
    task_tracking_stream_keep: Annotated[int, Field(ge=0)] = 10_000
    """So many of the newest events stay on the stream; older ones go once projector and archiver have them."""
    task_tracking_redis_key_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{0,64}$")] = ""
    """Put before ``task-tracking:`` in the names of keys."""
    task_tracking_redis_projector_consumer_group: RedisKey = "task-status-projector"
    """The group of those that keep the latest state of each execution."""
    task_tracking_redis_archiver_consumer_group: RedisKey = "task-history-archiver"
    """The group of those that write the archive."""
    task_tracking_redis_consumer_name: RedisKey = "alakai"
    """Each replica puts something of its own behind it."""
    task_tracking_s3_archive_enabled: bool = False
    """Whether every lifecycle event is written to S3 for good."""
    task_tracking_s3_bucket: str = ""
    """The archive's bucket; it must exist."""
    task_tracking_s3_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9!_.*'()-]+(/[A-Za-z0-9!_.*'()-]+)*$")] = (
        "task-tracking"
    )
    """What the names of the archive's objects begin with."""
    task_tracking_s3_batch_seconds: Seconds = 30
    """An event waits for so long at most, until it is written with others of its project and day."""
    task_tracking_s3_batch_events: Annotated[int, Field(ge=1, le=10_000)] = 500
    """Events that are written together at most."""
    task_visibility_file: str = ""
    """Path of a file that names the responsible users of projects (``examples/visibility.yaml``); without it every
    person who may sign in sees every execution."""
    notifications_file: str = ""
    """Path of a file that says who is told of outcomes (``examples/notifications.yaml``); without it nobody is."""

    callback_url: str = "http://localhost:3000/task-complete"
    """Where workers report; they claim their launch at ``task-claim`` beside it."""
    callback_token_keys_file: str = ""
    """Path of the keys that callback tokens are made and verified with; without it callbacks carry none."""
    callback_token_required: bool = False
    """Whether a callback without a token is refused."""
    local_worker: Annotated[
        str, Field(pattern=r"^(manual|succeed|slow|(fail|transient|die|hang)(:([1-9][0-9]{0,2}|all))?)$")
    ] = "manual"
    """What a local worker does when its message names no ``payload.scenario``."""
    executions_namespace: str = ""
    """Where the resources are; unset: the pod's namespace, else that of the kubeconfig's context."""
    installation: Annotated[str, Field(max_length=200)] = ""
    """The name of this installation, the same on all its replicas: none of another name gets its queue or prefix."""

    task_dashboard_google_client_ids: str = ""
    """Audiences of the Google ID tokens that the dashboard's routes accept, with commas between; none: they are off."""
    task_dashboard_google_domains: str = ""
    """Google Workspace domains (the token's ``hd``, compared exactly) whose people are let in; empty: any account."""
    task_dashboard_allowed_users: str = ""
    """E-mail addresses or Google's ids (``sub``) of those who are let in; empty: everybody who proves who they are."""
    person_requests_per_second: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 10
    """How often one person may use the dashboard's routes, in the long run; more is answered 429. 0: no limit."""
    person_requests_burst: Annotated[int, Field(ge=1)] = 200
    """How many such requests may come at once."""
    task_requests_per_second: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5
    """How often the workers of one task may claim and report, in the long run; more is answered 429. 0: no limit."""
    task_requests_burst: Annotated[int, Field(ge=1)] = 100
    """How many such requests may come at once."""

    streams_max: Annotated[int, Field(ge=1, le=1_500)] = 800
    """Streams that may be open at one replica. The default is below what a process may have open as 1,024 files."""
    person_streams_max: Annotated[int, Field(ge=1, le=1_500)] = 250
    """The same of one person."""

    max_retries: Annotated[int, Field(ge=0, le=100)] = 1
    """Retries per task; the same for controller and API."""
    sweep_interval_seconds: Seconds = 15
    """Between two looks at live workers and due work."""
    resync_interval_seconds: Seconds = 60
    """Between two comparisons of Redis and the cluster."""
    lost_worker_grace_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 60
    """How long the callback of a worker that is gone may still come."""
    start_timeout_seconds: Seconds = 900
    """How long a launched worker may take to start."""
    attempt_timeout_seconds: Seconds | None = None
    """How long an attempt may run; unset: no limit."""
    retry_delays_seconds: Annotated[tuple[Seconds, ...], NoDecode] = (120, 600, 1800, 7200)
    """Waits before the first, second, … automatic retry: MAX_RETRIES of them at most, and never more than four."""
    retry_jitter: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.25
    """The part of a wait by which it is made shorter or longer at random, at most."""
    auto_retry_codes: Annotated[frozenset[str], NoDecode] = frozenset(
        {"codex_transient_upstream", "claude_transient_upstream"}
    )
    """Error codes that are retried automatically, beside the error family ``transient_upstream``."""
    max_launch_tries: Annotated[int, Field(ge=1, le=100)] = 5
    """Launches of one attempt whose workers never started or were taken away by the platform."""
    retry_redeliver_seconds: Seconds = 60
    """After which a requested retry that nobody took is enqueued again."""
    finished_ttl_seconds: Seconds = 86_400
    """After which finished resources are removed; records stay."""

    @model_validator(mode="before")
    @classmethod
    def _share_urls(cls, values: dict[str, object]) -> dict[str, object]:
        for name in ("redis_url", "task_tracking_redis_url"):
            if path := values.get(f"{name}_file"):
                if values.get(name):
                    raise ValueError(f"{name.upper()} and {name.upper()}_FILE are both set; keep one of them")
                values[name] = _line_of(Path(str(path)), f"{name.upper()}_FILE")
        for one, other in (
            ("redis_url", "task_tracking_redis_url"),
            ("sqs_queue_url", "implementation_sqs_queue_url"),
        ):
            values[one] = values.get(one) or values.get(other) or ""
            values[other] = values.get(other) or values[one]
        return values

    @field_validator("retry_delays_seconds", "auto_retry_codes", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("slots_per_type", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        if not all(TASK_TYPE.fullmatch(name.strip()) and limit.strip().isdecimal() for name, _, limit in pairs):
            raise ValueError("it must read TYPE=NUMBER,TYPE=NUMBER, for example implementation=20,digest=5")
        return {name.strip(): limit.strip() for name, _, limit in pairs}

    @property
    def is_local(self) -> bool:
        return self.env == "local"

    @property
    def host(self) -> str:
        """Where all servers listen. The sign-in of ENV=local takes anybody's word: it is for this machine only."""
        return "127.0.0.1" if self.is_local else "0.0.0.0"  # noqa: S104 - in a container, its address is not known

    @property
    def launcher_name(self) -> str:
        return self.launcher or ("local" if self.is_local else "ecs")

    @property
    def outcomes_queue_url(self) -> str:
        return self.outcomes_sqs_queue_url or f"{self.sqs_queue_url}-outcomes"

    @property
    def queue_urls(self) -> frozenset[str]:
        """The queues that messages of ours go through."""
        return frozenset((self.sqs_queue_url, self.implementation_sqs_queue_url, self.outcomes_queue_url))

    @property
    def claim_url(self) -> str:
        """Where a worker claims its launch: beside the callback URL."""
        return self.callback_url.rsplit("/", 1)[0] + "/task-claim"

    @property
    def google_client_ids(self) -> tuple[str, ...]:
        return _parts(self.task_dashboard_google_client_ids)

    @property
    def google_domains(self) -> frozenset[str]:
        return frozenset(_parts(self.task_dashboard_google_domains.lower()))

    @property
    def allowed_users(self) -> frozenset[str]:
        return frozenset(_parts(self.task_dashboard_allowed_users.lower()))

    @property
    def policy(self) -> Policy:
        return Policy(
            max_retries=self.max_retries,
            lost_worker_grace_ms=_ms(self.lost_worker_grace_seconds),
            start_timeout_ms=_ms(self.start_timeout_seconds),
            attempt_timeout_ms=None if self.attempt_timeout_seconds is None else _ms(self.attempt_timeout_seconds),
            retry_delays_ms=tuple(_ms(delay) for delay in self.retry_delays_seconds),
            retry_jitter=self.retry_jitter,
            auto_retry_codes=self.auto_retry_codes,
            max_launch_tries=self.max_launch_tries,
            retry_redeliver_ms=_ms(self.retry_redeliver_seconds),
            finished_ttl_ms=_ms(self.finished_ttl_seconds),
            slots=Slots(self.slots_total, self.slots_per_type),
            breaker=BreakerRule(
                self.breaker_failures, _ms(self.breaker_window_seconds), _ms(self.breaker_pause_seconds)
            ),
        )


def settings_from_environment() -> Settings:
    """Read and validate the settings. Raises InvalidSettings with one line."""
    try:
        settings = Settings()
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        variable = str(first["loc"][0]).upper() if first["loc"] else "the environment"
        raise InvalidSettings(
            f"{variable} is invalid: {first['msg'].removeprefix('Value error, ')}; correct or unset it"
        ) from error
    if settings.is_local and os.environ.get("KUBERNETES_SERVICE_HOST"):
        raise InvalidSettings(
            "ENV=local is refused inside a cluster because it permits sign-in without a token; unset ENV"
        )
    if not settings.redis_url:
        raise InvalidSettings(
            "REDIS_URL is not set; set it (or TASK_TRACKING_REDIS_URL), for example to redis://localhost:6379"
        )
    if not settings.sqs_queue_url:
        raise InvalidSettings(
            "SQS_QUEUE_URL is not set; set it (or IMPLEMENTATION_SQS_QUEUE_URL) to the URL of the task queue"
        )
    if settings.task_tracking_s3_archive_enabled and not settings.task_tracking_s3_bucket:
        raise InvalidSettings(
            "TASK_TRACKING_S3_BUCKET is not set; set it to the bucket of the archive, "
            "or unset TASK_TRACKING_S3_ARCHIVE_ENABLED"
        )
    if settings.ecs_events_sqs_queue_url in settings.queue_urls:
        raise InvalidSettings(
            "ECS_EVENTS_SQS_QUEUE_URL names a queue that is used for something else; give the events one of their own"
        )
    return settings


def _line_of(path: Path, variable: str) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ValueError(f"{variable} names a file that cannot be read: {why}") from None


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
