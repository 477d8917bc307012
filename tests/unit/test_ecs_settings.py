"""The ECS launcher's settings file: what it means, and what is said about a wrong one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from executions.adapters.ecs_settings import EcsSettings, ecs_settings_from_file
from executions.errors import InvalidSettings

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/ecs/launcher.yaml"
ENTRY: dict[str, Any] = {"taskDefinition": "worker:1", "container": "worker", "launchType": "EC2"}


def read(tmp_path: Path, document: object) -> EcsSettings:
    path = tmp_path / "launcher.yaml"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return ecs_settings_from_file(path)


def with_entry(**fields: Any) -> dict[str, Any]:
    entry = {name: value for name, value in {**ENTRY, **fields}.items() if value is not None}
    return {"cluster": "workers", "taskTypes": {"default": entry}}


def test_the_example_is_valid_and_its_entries_differ_as_they_say() -> None:
    settings = ecs_settings_from_file(EXAMPLE)
    assert (settings.cluster, settings.region) == ("alakai-workers", "eu-west-1")
    default, implementation = settings.for_task_type("digest"), settings.for_task_type("implementation")
    assert default is not None
    assert implementation is not None
    assert (default.task_definition, implementation.task_definition) == ("alakai-worker:12", "alakai-worker-large:7")
    assert implementation.subnets == default.subnets
    assert default.placement() == {
        "capacityProviderStrategy": [
            {"capacityProvider": "FARGATE_SPOT", "weight": 3, "base": 0},
            {"capacityProvider": "FARGATE", "weight": 1, "base": 0},
        ],
        "networkConfiguration": {
            "awsvpcConfiguration": {
                "subnets": ["subnet-0123456789abcdef0", "subnet-0fedcba9876543210"],
                "securityGroups": ["sg-0123456789abcdef0"],
                "assignPublicIp": "DISABLED",
            }
        },
    }


def test_plain_variables_are_accepted(tmp_path: Path) -> None:
    names = {"LOG_LEVEL": "info", "MAX_TOKENS": "4096", "TOKENIZERS_PARALLELISM": "no", "URL": "https://a/b:c@d"}
    entry = read(tmp_path, with_entry(environment=names)).for_task_type("x")
    assert entry is not None
    assert entry.environment == names


def test_without_a_default_other_task_types_have_no_entry(tmp_path: Path) -> None:
    settings = read(tmp_path, {"cluster": "workers", "taskTypes": {"digest": ENTRY}})
    assert settings.for_task_type("digest") is not None
    assert settings.for_task_type("implementation") is None


@pytest.mark.parametrize(
    ("fields", "placement"),
    [
        ({}, {"launchType": "EC2"}),
        ({"launchType": None}, {}),
        ({"launchType": None, "capacityProviders": [{"provider": "mine"}]},
         {"capacityProviderStrategy": [{"capacityProvider": "mine", "weight": 1, "base": 0}]}),
        ({"subnets": ["s"], "assignPublicIp": True},
         {"launchType": "EC2", "networkConfiguration": {"awsvpcConfiguration":
             {"subnets": ["s"], "securityGroups": [], "assignPublicIp": "ENABLED"}}}),
    ],
)  # fmt: skip
def test_where_tasks_run(tmp_path: Path, fields: dict[str, Any], placement: dict[str, Any]) -> None:
    entry = read(tmp_path, with_entry(**fields)).for_task_type("x")
    assert entry is not None
    assert entry.placement() == placement


@pytest.mark.parametrize(
    "definition",
    ["worker:1", "my_worker-2:123", "arn:aws:ecs:eu-west-1:000000000000:task-definition/worker:3",
     "arn:aws-us-gov:ecs:us-gov-west-1:000000000000:task-definition/worker:3"],
)  # fmt: skip
def test_pinned_task_definitions_are_accepted(tmp_path: Path, definition: str) -> None:
    assert read(tmp_path, with_entry(taskDefinition=definition))


PROVIDERS = [{"provider": "FARGATE", "weight": 1}]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("", "the file: Input should be an object"),
        ("- a", "the file: Input should be an object"),
        ("cluster: [", "is not YAML in line"),
        ("cluster: a\ncluster: b\n", "names cluster twice; keep one of them"),
        ("taskTypes:\n  digest: {}\n  digest: {}\n", "names digest twice"),
        ("? [a]\n: b\n", "is not YAML in line 1"),
        ("1: b\n", "has a key or value that is not text"),
        ("cluster: !!python/object/apply:os.system [x]\n", "is not YAML in line 1"),
        ({}, "cluster: Field required"),
        ({"cluster": "workers"}, "taskTypes: Field required"),
        ({"cluster": "workers", "taskTypes": {}}, "taskTypes: Dictionary should have at least 1 item"),
        ({"cluster": "workers", "taskTypes": {"a b": ENTRY}}, "names a task type that no task can have"),
        ({**with_entry(), "cluster": "a b"}, "cluster: String should match"),
        ({**with_entry(), "region": "Ireland"}, "region: String should match"),
        ({**with_entry(), "profile": "dev"}, "profile: Extra inputs are not permitted"),
        (with_entry(taskDefinition="worker"), "taskTypes.default.taskDefinition: must be pinned as family:revision"),
        (with_entry(taskDefinition="worker:latest"), "as family:revision (for example alakai-worker:12)"),
        (with_entry(taskDefinition="worker:0"), "must be pinned"),
        (with_entry(taskDefinition="arn:aws:ecs:eu-west-1:000000000000:task-definition/worker"), "must be pinned"),
        (with_entry(taskDefinition="arn:aws:ecs:eu-west-1:000000000000:task-definition/worker:*"), "must be pinned"),
        (with_entry(container=None), "taskTypes.default.container: Field required"),
        (with_entry(container=""), "taskTypes.default.container: String should have at least 1 character"),
        (with_entry(command=["x"]), "taskTypes.default.command: Extra inputs are not permitted"),
        (with_entry(launchType="LAMBDA"), "taskTypes.default.launchType: Input should be 'FARGATE', 'EC2' or"),
        (with_entry(capacityProviders=PROVIDERS), "launchType and capacityProviders, which exclude each other"),
        (with_entry(launchType=None, capacityProviders=[{"provider": "a", "weight": 0}]), "the weight 0; give at"),
        (with_entry(launchType=None, capacityProviders=[{"provider": "a", "weight": 1001}]), "than or equal to 1000"),
        (with_entry(launchType=None, capacityProviders=[{"provider": "a", "weight": "1"}]), "a valid integer"),
        (with_entry(launchType=None, capacityProviders=[{"weight": 1}]), "0.provider: Field required"),
        (with_entry(launchType=None, capacityProviders=[{"provider": n, "base": 1} for n in "ab"]), "a base; ECS"),
        (with_entry(launchType=None, capacityProviders=PROVIDERS), "runs on Fargate without subnets"),
        (with_entry(launchType="FARGATE"), "runs on Fargate without subnets; add at least one"),
        (with_entry(securityGroups=["sg-1"]), "names securityGroups or assignPublicIp without subnets"),
        (with_entry(subnets=["s"] * 17), "taskTypes.default.subnets: Tuple should have at most 16 items"),
        (with_entry(subnets=["s"], securityGroups=["g"] * 6), "securityGroups: Tuple should have at most 5 items"),
        (with_entry(assignPublicIp="yes"), "assignPublicIp: Input should be a valid boolean"),
        (with_entry(environment={"PORT": 1}), "environment.PORT: Input should be a valid string"),
        (with_entry(environment={"A-B": "1"}), "environment.A-B: is not a variable's name"),
        (with_entry(environment={"ALAKAI_TASK_ID": "1"}), "ALAKAI_TASK_ID: begins with one of ALAKAI_, AWS_, ECS_"),
        (with_entry(environment={"AWS_REGION": "1"}), "AWS_REGION: begins with"),
        (with_entry(environment={"GITHUB_TOKEN": "hush"}), "GITHUB_TOKEN: looks like a secret"),
        (with_entry(environment={"DATABASE": "redis://:hush@db:6379"}), "environment.DATABASE: holds a password"),
        (with_entry(environment={"db_password": "hush"}), "refer to a secret instead"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, document: object, said: str) -> None:
    with pytest.raises(InvalidSettings) as invalid:
        read(tmp_path, document)
    text = str(invalid.value)
    assert said in text
    assert "launcher.yaml" in text
    assert "\n" not in text
    assert "hush" not in text


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="cannot be read: No such file or directory; correct ECS_LAUNCHER_FILE"):
        ecs_settings_from_file(tmp_path / "none.yaml")
    with pytest.raises(InvalidSettings, match="cannot be read: Is a directory"):
        ecs_settings_from_file(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidSettings, match="cannot be read: not UTF-8 text"):
        ecs_settings_from_file(tmp_path / "binary")
