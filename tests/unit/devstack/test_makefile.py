"""The guide's make targets hand every value on as it is: no shell and no make expansion ever touches it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FAKE_TOOL = '#!/bin/sh\necho "$@" > arguments\nenv -0 > seen\n'


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The Makefile with an installed environment whose `alakai` only writes down what it was given."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for file in ("requirements/uv.txt", "requirements/dev.txt", "pyproject.toml", "worker/pyproject.toml"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
        os.utime(tmp_path / file, (0, 0))
    tool = tmp_path / ".venv" / "bin" / "alakai"
    tool.parent.mkdir(parents=True)
    tool.write_text(FAKE_TOOL)
    tool.chmod(0o755)
    (tmp_path / ".venv" / ".installed").touch()
    return tmp_path


def make(clone: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *arguments],
        cwd=clone,
        env={"PATH": os.environ["PATH"], **environ},
        capture_output=True,
        text=True,
        check=True,
    )


def seen(clone: Path) -> dict[str, str]:
    pairs = (entry.decode().partition("=") for entry in (clone / "seen").read_bytes().split(b"\0") if entry)
    return {name: value for name, _, value in pairs}


@pytest.mark.parametrize(
    "value",
    [
        "Fix the widget bug",
        'Jane\'s "widget"; touch pwned',
        "$HOME $(shell touch pwned) `touch pwned` $x 100% #no \\n",
        '{"a":"it\'s","$ref":[1,2],"b":null}',
    ],
)
def test_values_arrive_as_they_were_typed(value: str, clone: Path) -> None:
    make(clone, "seed-failed-implementation", f"task_name={value}", "repo=my-org/my-repo")
    assert seen(clone)["task_name"] == value
    assert seen(clone)["repo"] == "my-org/my-repo"
    assert "attempt" not in seen(clone)
    make(clone, "send-sqs", f"MESSAGE_BODY={value}")
    assert seen(clone)["MESSAGE_BODY"] == value
    assert not (clone / "pwned").exists()


@pytest.mark.parametrize(
    ("target", "command"),
    [("seed-failed-implementation", "seed"), ("retry-worker-execution", "retry"), ("send-sqs", "send")],
)
def test_each_target_calls_its_command(target: str, command: str, clone: Path) -> None:
    make(clone, target)
    assert (clone / "arguments").read_text() == f"{command} --from-env\n"


def test_a_value_of_the_environment_counts_too(clone: Path) -> None:
    make(clone, "send-sqs", PROMPT="add $retries")
    assert seen(clone)["PROMPT"] == "add $retries"


def test_a_token_is_never_echoed(clone: Path) -> None:
    arguments = ("retry-worker-execution", "task_id=a", "auth_token=hunter2")
    real, dry = make(clone, *arguments), make(clone, "-n", *arguments)
    assert seen(clone)["auth_token"] == "hunter2"
    assert "hunter2" not in real.stdout + real.stderr + dry.stdout + dry.stderr


def test_the_stacks_variables_are_loaded_but_never_over_the_callers(clone: Path) -> None:
    (clone / ".local").mkdir()
    (clone / ".local" / "env").write_text("REDIS_URL='redis://from file'\nSQS_QUEUE_URL=http://from-file\n")
    make(clone, "send-sqs", REDIS_URL="redis://it's mine")
    assert seen(clone)["REDIS_URL"] == "redis://it's mine"
    assert seen(clone)["SQS_QUEUE_URL"] == "http://from-file"


def test_help_is_the_default_and_names_every_target(clone: Path) -> None:
    told = make(clone).stdout
    phony = " ".join((ROOT / "Makefile").read_text().partition(".PHONY:")[2].partition("\n\n")[0].split("\\\n"))
    for target in phony.split():
        assert f"  {target} " in told
