"""Settings: one line that names the variable and the remedy, or the right values."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from executions.adapters.settings import Settings, settings_from_environment
from executions.admission import BreakerRule, Slots
from executions.errors import InvalidSettings

REDIS = "redis://localhost:7000"
QUEUE = "http://localhost:4566/000000000000/q"
ENOUGH = {"REDIS_URL": REDIS, "SQS_QUEUE_URL": QUEUE}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*(field.upper() for field in Settings.model_fields), "KUBERNETES_SERVICE_HOST"]:
        monkeypatch.delenv(name, raising=False)


def settings(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return settings_from_environment()


def test_the_defaults_are_those_of_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(monkeypatch, ENOUGH)
    assert (found.env, found.is_local, found.launcher_name) == ("production", False, "ecs")
    assert (found.port, found.controller_port, found.api_probe_port, found.metrics_port) == (3000, 8080, None, None)
    assert found.executions_redis_key_prefix == "alakai-executions"
    assert (found.local_worker, found.pending_max) == ("manual", 10_000)
    assert (found.sweep_interval_seconds, found.resync_interval_seconds) == (15, 60)
    assert found.callback_url == "http://localhost:3000/task-complete"
    assert found.claim_url == "http://localhost:3000/task-claim"
    assert found.outcomes_queue_url == f"{QUEUE}-outcomes"
    policy = found.policy
    assert (policy.max_retries, policy.max_launch_tries) == (1, 5)
    assert (policy.lost_worker_grace_ms, policy.start_timeout_ms, policy.attempt_timeout_ms) == (60_000, 900_000, None)
    assert (policy.retry_redeliver_ms, policy.finished_ttl_ms) == (60_000, 86_400_000)
    assert (policy.retry_delays_ms, policy.retry_jitter) == ((120_000, 600_000, 1_800_000, 7_200_000), 0.25)
    assert policy.auto_retry_codes == {"codex_transient_upstream", "claude_transient_upstream"}
    assert policy.slots == Slots()
    assert policy.breaker == BreakerRule(failures=10, window_ms=300_000, pause_ms=60_000)


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("SLOTS_PER_TYPE", "implementation=20, digest=0", "slots", Slots(None, {"implementation": 20, "digest": 0})),
        ("SLOTS_TOTAL", "9", "slots", Slots(9)),
        ("RETRY_DELAYS_SECONDS", "1.5, 2", "retry_delays_ms", (1_500, 2_000)),
        ("RETRY_DELAYS_SECONDS", ",", "retry_delays_ms", ()),
        ("RETRY_JITTER", "0", "retry_jitter", 0.0),
        ("AUTO_RETRY_CODES", "WORKER_LOST,E1", "auto_retry_codes", frozenset({"WORKER_LOST", "E1"})),
    ],
)
def test_lists_are_read_as_people_write_them(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, field: str, value: object
) -> None:
    assert getattr(settings(monkeypatch, {**ENOUGH, variable: text}).policy, field) == value


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        *(("SLOTS_PER_TYPE", text) for text in ("implementation", "implementation=x", "a b=3", "digest=-1", "=3")),
        *(("RETRY_DELAYS_SECONDS", text) for text in ("1,x", "0", "-1", "inf")),
        *(("RETRY_JITTER", text) for text in ("1", "-0.1", "much")),
        *(("SLOTS_TOTAL", text) for text in ("0", "many")),
    ],
)
def test_lists_that_cannot_work_are_named(monkeypatch: pytest.MonkeyPatch, variable: str, text: str) -> None:
    with pytest.raises(InvalidSettings, match=f"^{variable} is invalid: .*; correct or unset it$"):
        settings(monkeypatch, {**ENOUGH, variable: text})


@pytest.mark.parametrize(
    ("variables", "field", "value"),
    [
        pytest.param({"TASK_TRACKING_REDIS_URL": REDIS, "SQS_QUEUE_URL": QUEUE}, "redis_url", REDIS, id="one Redis"),
        pytest.param(ENOUGH, "task_tracking_redis_url", REDIS, id="each defaults to the other"),
        pytest.param(
            {**ENOUGH, "TASK_TRACKING_REDIS_URL": "redis://two"},
            "task_tracking_redis_url",
            "redis://two",
            id="two Redis",
        ),
        pytest.param(
            {"REDIS_URL": REDIS, "IMPLEMENTATION_SQS_QUEUE_URL": QUEUE}, "sqs_queue_url", QUEUE, id="the other queue"
        ),
        pytest.param(ENOUGH, "implementation_sqs_queue_url", QUEUE, id="one queue serves for both"),
        pytest.param({**ENOUGH, "OUTCOMES_SQS_QUEUE_URL": "http://o"}, "outcomes_queue_url", "http://o", id="outcomes"),
        pytest.param({**ENOUGH, "ENV": "local"}, "launcher_name", "local", id="ENV=local takes the local launcher"),
        pytest.param({**ENOUGH, "ENV": "local", "LAUNCHER": "ecs"}, "launcher_name", "ecs", id="LAUNCHER wins"),
        pytest.param({**ENOUGH, "ENV": "Local"}, "is_local", False, id="only the very word permits the bypass"),
        pytest.param({**ENOUGH, "REDIS_URL": REDIS, "ENV": ""}, "env", "production", id="an empty variable is unset"),
        pytest.param(
            {**ENOUGH, "TASK_DASHBOARD_GOOGLE_CLIENT_IDS": " a, ,b,"}, "google_client_ids", ("a", "b"), id="audiences"
        ),
        pytest.param({**ENOUGH, "LOCAL_WORKER": "die:3"}, "local_worker", "die:3", id="a scenario"),
        pytest.param(
            {**ENOUGH, "CALLBACK_URL": "https://api/x/task-complete"},
            "claim_url",
            "https://api/x/task-claim",
            id="claim",
        ),
    ],
)
def test_a_value(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], field: str, value: object) -> None:
    assert getattr(settings(monkeypatch, variables), field) == value


def test_durations_take_fractions(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(
        monkeypatch,
        {
            **ENOUGH,
            "LOST_WORKER_GRACE_SECONDS": "0.25",
            "START_TIMEOUT_SECONDS": "1.5",
            "ATTEMPT_TIMEOUT_SECONDS": "0.001",
            "RETRY_REDELIVER_SECONDS": "2.5",
            "FINISHED_TTL_SECONDS": "0.5",
        },
    ).policy
    assert (found.lost_worker_grace_ms, found.start_timeout_ms, found.attempt_timeout_ms) == (250, 1500, 1)
    assert (found.retry_redeliver_ms, found.finished_ttl_ms) == (2500, 500)


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        pytest.param({"SQS_QUEUE_URL": QUEUE}, "REDIS_URL is not set; set it", id="no Redis"),
        pytest.param({"REDIS_URL": REDIS}, "SQS_QUEUE_URL is not set; set it", id="no queue"),
        pytest.param({**ENOUGH, "REDIS_URL": ""}, "REDIS_URL is not set", id="an empty Redis"),
        pytest.param(
            {**ENOUGH, "ECS_EVENTS_SQS_QUEUE_URL": QUEUE},
            "ECS_EVENTS_SQS_QUEUE_URL names a queue that is used for something else",
            id="events among the tasks",
        ),
        pytest.param(
            {**ENOUGH, "ECS_EVENTS_SQS_QUEUE_URL": f"{QUEUE}-outcomes"},
            "ECS_EVENTS_SQS_QUEUE_URL names a queue that is used for something else",
            id="events among the outcomes",
        ),
        pytest.param(
            {**ENOUGH, "ENV": "local", "KUBERNETES_SERVICE_HOST": "10.0.0.1"},
            "ENV=local is refused inside a cluster",
            id="the bypass inside a cluster",
        ),
        pytest.param({**ENOUGH, "MAX_RETRIES": "-1"}, "MAX_RETRIES is invalid", id="a negative budget"),
        pytest.param({**ENOUGH, "MAX_RETRIES": "one"}, "MAX_RETRIES is invalid", id="a budget in words"),
        pytest.param({**ENOUGH, "PORT": "70000"}, "PORT is invalid", id="a port that is none"),
        pytest.param({**ENOUGH, "SWEEP_INTERVAL_SECONDS": "0"}, "SWEEP_INTERVAL_SECONDS is invalid", id="no interval"),
        pytest.param({**ENOUGH, "START_TIMEOUT_SECONDS": "nan"}, "START_TIMEOUT_SECONDS is invalid", id="no number"),
        pytest.param({**ENOUGH, "LOST_WORKER_GRACE_SECONDS": "-1"}, "LOST_WORKER_GRACE_SECONDS is", id="below zero"),
        pytest.param({**ENOUGH, "MAX_LAUNCH_TRIES": "0"}, "MAX_LAUNCH_TRIES is invalid", id="no launches"),
        pytest.param({**ENOUGH, "LOG_LEVEL": "LOUD"}, "LOG_LEVEL is invalid", id="a level that is none"),
        pytest.param({**ENOUGH, "LOCAL_WORKER": "dance"}, "LOCAL_WORKER is invalid", id="a scenario that is none"),
        pytest.param(
            {**ENOUGH, "EXECUTIONS_REDIS_KEY_PREFIX": "a/b"},
            "EXECUTIONS_REDIS_KEY_PREFIX is invalid",
            id="a slash",
        ),
        pytest.param(
            {**ENOUGH, "EXECUTIONS_REDIS_KEY_PREFIX": "a*"}, "EXECUTIONS_REDIS_KEY_PREFIX is invalid", id="a pattern"
        ),
    ],
)
def test_a_setting_that_cannot_work_stops_with_one_line(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], text: str
) -> None:
    with pytest.raises(InvalidSettings, match=text) as caught:
        settings(monkeypatch, variables)
    assert "\n" not in str(caught.value)


def test_a_wrong_value_is_not_echoed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidSettings) as caught:
        settings(monkeypatch, {**ENOUGH, "LOCAL_WORKER": "hunter2canary"})
    assert "canary" not in str(caught.value)
