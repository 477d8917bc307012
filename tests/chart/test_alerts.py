"""Each alert fires on what the processes really tell when that goes wrong, and stops when it is over: with promtool.

The good and the bad minutes are pages of metrics, read from the product's own registry after it was told so by the
product's own means; promtool evaluates the chart's rules on them.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from prometheus_client import REGISTRY

from devstack import binaries
from executions.adapters import metrics
from executions.adapters.metrics import count_commit, tell_admission
from executions.admission import Breaker, Slots, Standing
from executions.record import Grade
from tests.chart.charts import CHART
from tests.support.builders import NOW_MS, running
from tests.unit.domain.states import reported
from tests.unit.test_metrics import judgement, late, lost

RULES = CHART / "files" / "alerts.yaml"
Page = dict[str, float]
GOOD_MINUTES, BAD_MINUTES, AFTER_MINUTES = 10, 75, 75


def page() -> Page:
    """Every sample of ours as Prometheus would store it."""
    found: Page = {}
    for metric in REGISTRY.collect():
        for sample in metric.samples:
            if sample.name.startswith("alakai_") and not sample.name.endswith(("_created", "_bucket")):
                labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
                found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def well() -> None:
    """A healthy leader with nothing to do."""
    metrics.forget_leadership()
    metrics.LEADER.set(1)
    metrics.REDIS_SERVED.set(1)
    for queue in ("mirror", "reconcile", "operations"):
        metrics.WORK_QUEUE_AGE.labels(queue).set(0)
    metrics.DEAD_LETTERS.labels("tasks").set(0)
    metrics.NOTIFICATIONS_DEAD.labels("webhook").set(0)
    tell_admission(Standing({}, {}), Slots(), is_held=False)
    metrics.HTTP_REQUESTS.labels("/task-complete", "POST", "200").inc(10)
    count_commit(running(), reported(running(), succeeded=True))


@dataclass(frozen=True)
class Trouble:
    """What goes wrong; ``each_minute`` for what has to go on happening."""

    begins: Callable[[], object] = lambda: None
    each_minute: Callable[[], object] = lambda: None


def times(count: int, act: Callable[[], object]) -> Callable[[], None]:
    def acted() -> None:
        for _ in range(count):
            act()

    return acted


BREAKER = Breaker("ecs", "digest", "LAUNCH_CAPACITY", NOW_MS, NOW_MS)
TROUBLES = {
    "AlakaiHasNoLeader": Trouble(metrics.forget_leadership),
    "AlakaiRedisNotServed": Trouble(lambda: metrics.REDIS_SERVED.set(0)),
    "AlakaiSweepIsLate": Trouble(lambda: metrics.SWEEP_AGE.set(400)),
    "AlakaiMirrorIsLate": Trouble(lambda: metrics.WORK_QUEUE_AGE.labels("mirror").set(90)),
    "AlakaiFeedIsBehind": Trouble(lambda: metrics.FEED_LAG.set(6000)),
    "AlakaiTasksWaitTooLong": Trouble(lambda: metrics.OLDEST_WAITING.set(2000)),
    "AlakaiBreakerIsOpen": Trouble(
        lambda: tell_admission(Standing({}, {}), Slots(), is_held=False, breakers=[BREAKER])
    ),
    "AlakaiIsOnHold": Trouble(lambda: tell_admission(Standing({}, {}), Slots(), is_held=True)),
    "AlakaiLosesWorkers": Trouble(each_minute=lambda: count_commit(running(), lost(running()))),
    "AlakaiJudgesTooEarly": Trouble(
        each_minute=lambda: count_commit(
            lost(running(), judgement(grade=Grade.PRESUMED)), late(lost(running(), judgement(grade=Grade.PRESUMED)))
        )
    ),
    "AlakaiAttemptsFail": Trouble(each_minute=times(3, lambda: count_commit(running(), reported(running())))),
    "AlakaiHasDeadLetters": Trouble(lambda: metrics.DEAD_LETTERS.labels("tasks").set(2)),
    "AlakaiHasDeadNotifications": Trouble(lambda: metrics.NOTIFICATIONS_DEAD.labels("webhook").set(1)),
    "AlakaiApiFails": Trouble(each_minute=lambda: metrics.HTTP_REQUESTS.labels("/task-complete", "POST", "502").inc(5)),
}


def names() -> list[str]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule["alert"] for group in groups for rule in group["rules"]]


def test_every_alert_has_its_trouble() -> None:
    assert sorted(TROUBLES) == sorted(names())


def pages(trouble: Trouble) -> list[Page]:
    """One for each minute: all is well, then it is not, then it is again."""
    made = []
    for minute in range(GOOD_MINUTES + BAD_MINUTES + AFTER_MINUTES):
        is_bad = GOOD_MINUTES <= minute < GOOD_MINUTES + BAD_MINUTES
        well()
        if is_bad:
            trouble.begins()
            trouble.each_minute()
        made.append(page())
    return made


@pytest.mark.parametrize("name", sorted(TROUBLES))
def test_an_alert_fires_and_clears(name: str, tmp_path: Path) -> None:
    made = pages(TROUBLES[name])
    series = [
        {"series": key, "values": " ".join(f"{item[key]:g}" if key in item else "_" for item in made)}
        for key in sorted(set().union(*made))
    ]
    moments = [GOOD_MINUTES - 1, GOOD_MINUTES + BAD_MINUTES - 1, GOOD_MINUTES + BAD_MINUTES + AFTER_MINUTES - 1]
    queries = [
        {
            "expr": f'count(ALERTS{{alertname="{other}",alertstate="firing"}}) or vector(0)',
            "eval_time": f"{minute}m",
            "exp_samples": [{"labels": "{}", "value": 1 if other == name and minute == moments[1] else 0}],
        }
        for minute in moments
        for other in ([name] if minute == moments[1] else names())
    ]
    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": queries}],
    }
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump(test))
    done = subprocess.run([binaries.promtool(), "test", "rules", path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_valid() -> None:
    done = subprocess.run([binaries.promtool(), "check", "rules", RULES], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
