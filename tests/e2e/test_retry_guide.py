"""The guides, walked through as a reader would: their commands, in their order, in a fresh clone's folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.aws import AwsServer
from devstack.kubernetes import ControlPlane
from devstack.ports import free_port
from devstack.redis import RedisServer
from tests.e2e.installation import QUICK, ROOT
from tests.support.guide import Step, Walk, is_answered, json_matches, steps, text_matches

GUIDES = ROOT / "docs" / "guides"
CODE = ("api", "cli", "controller", "crds", "devstack", "examples", "executions", "worker")
LINKED = ("Makefile", "pyproject.toml", "requirements", *CODE)
VARIABLES_OF_OURS = ("ENV", "LOCAL_WORKER")
PASSED_ON = ("PATH", "HOME", "LANG", "XDG_CACHE_HOME", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
MAKE_DOWN_SECONDS = 60


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder that looks like a clone in which everything is installed, with a `.local` of its own."""
    assert shutil.which("curl"), "the guides use curl: install it"
    folder = tmp_path / "clone"
    (folder / ".venv").mkdir(parents=True)
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)
    for path in Path(sys.prefix).iterdir():
        if path.name != ".installed":
            (folder / ".venv" / path.name).symlink_to(path)
    (folder / ".venv" / ".installed").touch()  # newer than everything it depends on: nothing is installed again
    return folder


@pytest.fixture
def environ(clone: Path) -> Iterator[dict[str, str]]:
    """A user's environment with ports of this test's own and short intervals; what `make up` starts is ended."""
    ports = ("DEV_REDIS_PORT", "DEV_AWS_PORT", "DEV_KUBERNETES_PORT", "PORT", "CONTROLLER_PORT")
    values = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    values |= {name: text for name, text in QUICK.items() if name not in VARIABLES_OF_OURS}
    values |= {name: str(free_port()) for name in ports}
    values["PYTHONUNBUFFERED"] = "1"  # output in the order in which a terminal shows it
    yield values
    subprocess.run(["make", "down"], cwd=clone, env=values, check=True, timeout=MAKE_DOWN_SECONDS, capture_output=True)


def test_the_retry_guide(clone: Path, environ: dict[str, str], tmp_path: Path) -> None:
    page = GUIDES / "retry.md"
    with Walk(clone, environ, tmp_path) as walk:
        walk.through(page, before="Tear down")
        controller, api = walk.terminals
        assert "Dropping over-budget dispatch" in controller.log.read_text()
        walk.interrupt()
        assert controller.log.read_text().rstrip().endswith('"msg":"Stopped"}')
        assert api.log.read_text().rstrip().endswith('"msg":"API stopped"}')
        walk.section(page, "Tear down")


def test_the_kubectl_guide(
    clone: Path,
    environ: dict[str, str],
    tmp_path: Path,
    kube: ControlPlane,
    redis_server: RedisServer,
    aws: AwsServer,
) -> None:
    """With a cluster, a Redis and an AWS of the reader's own, for which nothing is started."""
    own = {"KUBECONFIG": str(kube.kubeconfig), "REDIS_URL": redis_server.url, "AWS_ENDPOINT_URL": aws.url}
    tools = os.pathsep.join([str(kube.kubectl.parent), str(redis_server.cli.parent), environ["PATH"]])
    with Walk(clone, environ | own | {"PATH": tools}, tmp_path) as walk:
        walk.through(GUIDES / "kubectl.md")


# The reader of the guides is itself held to what it says


def test_commands_are_found_with_their_answers() -> None:
    page = "# A\n```sh\none\n```\n```json\n{}\n```\nx\n```bash\nshown\n```\n"
    page += "## B\n```sh terminal\ntwo\n```\n```sh\nthree\n```\n"
    assert list(steps(page)) == [
        Step(3, "A", "one", False, "{}\n", True),
        Step(14, "B", "two", True),
        Step(17, "B", "three", False),
    ]


@pytest.mark.parametrize(
    ("expected", "actual", "matches"),
    [
        ("a b\n", "a    b  \n\n", True),
        ("a\n", "a\nb\n", False),
        ("a\n…\n", "a\nb\nc\n", True),
        ("a … c\n", "a b c\n", True),
        ("a … c\n", "a b d\n", False),
        ("a.c\n", "abc\n", False),
    ],
)
def test_text_answers(expected: str, actual: str, matches: bool) -> None:
    assert text_matches(expected, actual) is matches


@pytest.mark.parametrize(
    ("expected", "actual", "matches"),
    [
        ({"a": 1}, {"a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": 1, "…": "…"}, {"a": 1, "b": 2}, True),
        ({"a": 1, "…": "…"}, {"b": 2}, False),
        ({"a": "…"}, {"a": [1]}, True),
        ({"a": "x-…"}, {"a": "x-1"}, True),
        ({"a": "x-…"}, {"a": "y-1"}, False),
        ({"a": True}, {"a": 1}, False),
        ([{"a": 1}], [{"a": 2}], False),
    ],
)
def test_json_answers(expected: object, actual: object, matches: bool) -> None:
    assert json_matches(expected, actual) is matches


def test_an_answer_that_is_no_json_is_wrong() -> None:
    assert not is_answered(Step(1, "", "x", False, json.dumps({"…": "…"}), True), "not found")
