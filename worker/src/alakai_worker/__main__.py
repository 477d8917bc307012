"""``python -m alakai_worker``: the worker program. Which launch it is comes from the environment."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import alakai_worker
from alakai_worker.scenarios import SCENARIOS
from alakai_worker.worker import run


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="alakai-worker", description="Run one launch of a task.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {alakai_worker.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    scenario = commands.add_parser("scenario", help="pretend to work, to try the whole path")
    scenario.add_argument("name", choices=sorted(SCENARIOS))
    scenario.add_argument("--launch-token", help="not used here: by it the launcher finds this process again")
    chosen = parser.parse_args(arguments)
    return run(SCENARIOS[chosen.name])


if __name__ == "__main__":
    sys.exit(main())
