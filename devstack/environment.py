"""`.local/env`: every variable that the processes and the guide's commands need, for `set -a; . .local/env; set +a`.

A component of the user's own is recognised by its variable (KUBECONFIG, REDIS_URL, AWS_ENDPOINT_URL). What we start is
written a second time as DEVSTACK_<variable>, so that a shell that has read the file is not taken for such a user.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from devstack.aws import ACCOUNT_ID
from devstack.errors import DevstackError

ROOT = Path(__file__).parent.parent
LOCAL = ROOT / ".local"
QUEUE = "alakai-queue"
BUCKET = "alakai-task-history"
LOOPBACK = "localhost,127.0.0.1"
COMPONENT_VARIABLES = ("KUBECONFIG", "REDIS_URL", "AWS_ENDPOINT_URL")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def users_own(variable: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """The user's value of a component's variable, None when it is unset or comes from a `.local/env`."""
    value = environ.get(variable)
    return value if value and value != environ.get(f"DEVSTACK_{variable}") else None


def build_environment(
    ours: Mapping[str, str], namespace: str, environ: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Every variable of `.local/env` but PATH; `ours` maps the variable of each component we run to its value.

    Settings of the user are kept where they cannot contradict what we started.
    """
    components = {name: ours.get(name) or environ[name] for name in COMPONENT_VARIABLES}
    redis_url, aws_url = components["REDIS_URL"], components["AWS_ENDPOINT_URL"].rstrip("/")
    redis_is_ours, aws_is_ours = "REDIS_URL" in ours, "AWS_ENDPOINT_URL" in ours
    queue_url = f"{aws_url}/{ACCOUNT_ID}/{QUEUE}"
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    port = environ.get("PORT") or "3000"

    def kept(name: str, default: str, *, unless: bool = False) -> str:
        return default if unless else environ.get(name) or default

    values = {
        **components,
        **{f"DEVSTACK_{name}": value for name, value in ours.items()},
        "EXECUTIONS_NAMESPACE": kept("EXECUTIONS_NAMESPACE", namespace),
        "TASK_TRACKING_REDIS_URL": kept("TASK_TRACKING_REDIS_URL", redis_url, unless=redis_is_ours),
        "TASK_TRACKING_REDIS_STREAM_KEY": kept("TASK_TRACKING_REDIS_STREAM_KEY", "task-tracking:events:v1"),
        "TASK_TRACKING_REDIS_KEY_PREFIX": kept("TASK_TRACKING_REDIS_KEY_PREFIX", "alakai-local:"),
        "TASK_TRACKING_S3_BUCKET": kept("TASK_TRACKING_S3_BUCKET", BUCKET),
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "SQS_QUEUE_URL": kept("SQS_QUEUE_URL", queue_url, unless=aws_is_ours),
        "IMPLEMENTATION_SQS_QUEUE_URL": kept("IMPLEMENTATION_SQS_QUEUE_URL", queue_url, unless=aws_is_ours),
        "PORT": port,
        "CONTROLLER_PORT": kept("CONTROLLER_PORT", "8080"),
        # Free ones: nobody has to know them, both processes read this file, and there may be clones.
        "API_PROBE_PORT": kept("API_PROBE_PORT", "0"),
        "METRICS_PORT": kept("METRICS_PORT", "0"),
        "CALLBACK_URL": f"http://localhost:{port}/task-complete",
    }
    has_keys = bool(environ.get("AWS_PROFILE") or environ.get("AWS_ACCESS_KEY_ID"))
    if aws_is_ours or not has_keys:  # never the user's keys against a stand-in, and never written down
        values |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    for name in ("NO_PROXY", "no_proxy"):  # a company proxy cannot reach our loopback
        given = environ.get(name, "")
        values[name] = given if LOOPBACK in given else ",".join(filter(None, (given, LOOPBACK)))
    return values


def render(values: Mapping[str, str], path_folders: tuple[Path, ...]) -> str:
    """The text of the file: one quoted assignment a line, readable by every POSIX shell."""
    for name in values:
        if not _NAME.match(name):
            raise ValueError(f"not a variable name: {name!r}")
    lines = [f"{name}={shlex.quote(value)}" for name, value in values.items()]
    folders = shlex.quote(os.pathsep.join(map(str, path_folders)))
    return "\n".join(["# Made by `make up`. Use: set -a; . .local/env; set +a", *lines, f'PATH={folders}:"$PATH"', ""])


def write(path: Path, text: str) -> None:
    """Write the file whole or not at all, readable by its owner only: a Redis URL may hold a password."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.touch(mode=0o600)
    partial.write_text(text)
    partial.rename(path)


def shown(url: str) -> str:
    """A URL without user name and password, fit for a terminal."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def current(path: Path, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What `read` gives, refused when the user now names another component than the one it was made for."""
    values = read(path)
    for name in COMPONENT_VARIABLES:
        if (own := users_own(name, environ)) and own != values[name]:
            raise DevstackError(
                f"{name} is {shown(own)}, but .local/env was made for {shown(values[name])}: "
                f"unset {name}, or run `make up` to use yours"
            )
    return values


def read(path: Path) -> dict[str, str]:
    """The variables of a file that `render` made, PATH completed with the present one. Raises DevstackError."""
    if not path.exists():
        raise DevstackError(f"{path} is not there: run `make up` first")
    values: dict[str, str] = {}
    for assignment in shlex.split(path.read_text(), comments=True):
        name, _, value = assignment.partition("=")
        values[name] = value
    values["PATH"] = values["PATH"].replace("$PATH", os.environ.get("PATH", os.defpath))
    return values
