"""``python -m alakai_worker``: the worker program. Which launch it is comes from the environment."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import alakai_worker
from alakai_worker.command import STOP_SECONDS, Command
from alakai_worker.scenarios import SCENARIOS
from alakai_worker.worker import run


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="alakai-worker", description="Run one launch of a task.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {alakai_worker.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    scenario = commands.add_parser("scenario", help="pretend to work, to try the whole path")
    scenario.add_argument("name", choices=sorted(SCENARIOS))
    scenario.add_argument("--launch-token", help="not used here: by it the launcher finds this process again")
    command = commands.add_parser(
        "run", help="run a command as the work", usage="alakai-worker run [--stop-seconds N] -- COMMAND …"
    )
    command.add_argument(
        "--stop-seconds", type=float, default=STOP_SECONDS, help="between SIGTERM and SIGKILL when we are stopped"
    )
    command.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    chosen = parser.parse_args(arguments)
    if chosen.command == "scenario":
        return run(SCENARIOS[chosen.name])
    words = chosen.words[1:] if chosen.words[:1] == ["--"] else chosen.words
    if not words:
        parser.error("run needs a command, for example: alakai-worker run -- python work.py")
    return run(Command(words, stop_seconds=chosen.stop_seconds))


if __name__ == "__main__":
    sys.exit(main())
