"""The Dockerfile as far as it can be tried without a container engine: its stages, and what it installs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text()


def stages() -> dict[str, str]:
    """The instructions of each stage, by its name."""
    found: dict[str, str] = {}
    for part in re.split(r"^FROM ", TEXT, flags=re.MULTILINE)[1:]:
        head, _, body = part.partition("\n")
        found[head.rsplit(" AS ", 1)[1]] = body if not head.startswith("runtime") else found["runtime"] + body
    return found


def test_there_is_a_target_for_each_image_of_the_chart() -> None:
    values = yaml.safe_load((ROOT / "deploy" / "helm" / "values.yaml").read_text())
    wanted = {values[name]["image"]["repository"].removeprefix("alakai-") for name in ("controller", "api")}
    assert wanted | {"worker"} <= set(stages())


@pytest.mark.parametrize("target", ["controller", "api", "worker"])
def test_an_image_runs_as_nobody_and_holds_no_tools_of_the_build(target: str) -> None:
    body = stages()[target]
    assert re.findall(r"^USER (.*)$", body, re.MULTILINE) == ["65532:65532"]
    assert "RUN " not in body
    assert re.findall(r"^COPY (\S+)", body, re.MULTILINE) == ["--from=install"]


def test_the_commands_are_those_of_the_chart() -> None:
    for name in ("controller", "api"):
        assert f'CMD ["python", "-m", "{name}"]' in stages()[name]


def test_ports_are_the_defaults() -> None:
    from executions.adapters.settings import Settings

    settings = Settings()
    assert f"EXPOSE {settings.controller_port} 9090" in stages()["controller"]
    assert f"EXPOSE {settings.port} 8081 9091" in stages()["api"]


def test_all_that_is_installed_is_checked_against_a_sum() -> None:
    installs = re.findall(r"pip install ((?:[^&\\]|\\\n)*)", TEXT)
    assert len(installs) == 3
    assert all("--require-hashes" in item or "--no-index" in item for item in installs)
    assert "sha256sum --check SHA256SUMS" in TEXT


def test_the_context_holds_what_is_copied_and_nothing_else() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    assert "*" in ignored
    assert {line for line in ignored if line.startswith("!")} == {
        "!requirements/run.txt",
        "!dist/*.whl",
        "!dist/SHA256SUMS",
    }


@pytest.mark.timeout(120)
def test_the_sums_are_those_of_the_wheels(tmp_path: Path) -> None:
    """`make dist`, by its last line: the build itself is tried where the wheels run."""
    (tmp_path / "a-1.whl").write_bytes(b"one")
    (tmp_path / "b-1.whl").write_bytes(b"two")
    line = next(item for item in (ROOT / "Makefile").read_text().splitlines() if "SHA256SUMS" in item)
    code = re.search(r"-c '(.*)' >", line)
    assert code is not None
    made = subprocess.run(["python3", "-c", code[1]], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    (tmp_path / "SHA256SUMS").write_text(made)
    done = subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout.count(": OK")) == (0, 2)
