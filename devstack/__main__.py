"""`python -m devstack up|infra|reset|down|status|binaries`: what the make targets of the same names call."""

from __future__ import annotations

import argparse
import os
import sys

import botocore.exceptions
import redis
import urllib3.exceptions
from kubernetes.client.exceptions import ApiException

from devstack import binaries, environment, infra, reset, stack
from devstack.console import say
from devstack.errors import DevstackError

COMMANDS = {
    "up": "start what is missing, in the background, and write .local/env",
    "infra": "create custom resource definitions, queues and bucket",
    "reset": "empty executions, queues, bucket and our Redis keys",
    "down": "end every process that `up` started",
    "status": "say what runs",
    "binaries": "only get the executables ready, which takes minutes the first time",
}
SERVICES: dict[type[Exception], str] = {
    redis.RedisError: "Redis",
    botocore.exceptions.BotoCoreError: "AWS",
    urllib3.exceptions.HTTPError: "the Kubernetes API",
}


def main() -> int:
    """Exit status 0, or 1 with one message that says what to do."""
    parser = argparse.ArgumentParser(prog="python -m devstack")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text)
    try:
        return _run(parser.parse_args().command)
    except DevstackError as error:
        say(f"error: {error}")
    except tuple(SERVICES) as error:
        service = next(name for kind, name in SERVICES.items() if isinstance(error, kind))
        say(
            f"error: {service} does not answer ({type(error).__name__}): "
            "`make status` says what runs, `make up` starts it"
        )
    except (ApiException, botocore.exceptions.ClientError) as error:
        say(f"error: refused: {str(error).splitlines()[0]}")
    except KeyboardInterrupt:
        say("interrupted; what was started runs on: `make down` ends it")
    return 1


def _run(command: str) -> int:
    if command == "up":
        stack.up()
        say("Ready. Next: `make infra`, then `set -a; . .local/env; set +a`")
    elif command == "down":
        stack.down()
    elif command == "status":
        return 0 if stack.status() else 1
    elif command == "binaries":
        binaries.everything()
    else:
        values = os.environ | environment.current(environment.LOCAL / "env")
        os.environ.update(values)  # the proxy settings, for the clients
        infra.infra(values) if command == "infra" else reset.reset(values)
    return 0


if __name__ == "__main__":
    sys.exit(main())
