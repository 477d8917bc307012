"""Guides as tests: the commands of a Markdown page, run in order by one shell, and the answers that the page promises.

A ```sh block is run, a ```sh terminal block is started in a terminal of its own; the ```json or ```text block right
after is the answer. In an answer `…` stands for anything: part of a line, whole lines, a JSON value, or, as a key, all
other members. A block that only reads is run again until its answer is there, as a person would look again.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import IO, Any

ANYTHING = "…"
READS = ("redis-cli", "kubectl get", "kubectl describe", "curl -sS http", 'curl -sS "http')
STEP_SECONDS = 60.0
ANSWER_SECONDS = 30.0
STOP_SECONDS = 20.0
_PART = re.compile(
    r"^#+ (?P<heading>[^\n]+)$|^```(?P<language>\w+)(?: (?P<word>\w+))?\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Step:
    """One command block. ``line`` is where its text begins in the page."""

    line: int
    section: str
    command: str
    is_terminal: bool
    answer: str | None = None
    is_json: bool = False

    @property
    def is_reading(self) -> bool:
        return self.answer is not None and self.command.startswith(READS)


def steps(markdown: str) -> Iterator[Step]:
    """The command blocks of a page, each with its answer."""
    waiting: Step | None = None
    section = ""
    for part in _PART.finditer(markdown):
        language, text = part["language"], part["text"]
        if language in ("json", "text") and waiting is not None:
            yield Step(
                waiting.line, section, waiting.command, waiting.is_terminal, answer=text, is_json=language == "json"
            )
            waiting = None
            continue
        if waiting is not None:
            yield waiting
            waiting = None
        if part["heading"]:
            section = part["heading"]
        elif language == "sh":
            line = markdown.count("\n", 0, part.start()) + 2
            waiting = Step(line, section, text.strip(), part["word"] == "terminal")
    if waiting is not None:
        yield waiting


def is_answered(step: Step, output: str) -> bool:
    """Whether the output is the promised one."""
    if step.answer is None:
        return True
    if not step.is_json:
        return text_matches(step.answer, output)
    try:
        return json_matches(json.loads(step.answer), json.loads(output))
    except ValueError:
        return False


def text_matches(expected: str, actual: str, *, is_log: bool = False) -> bool:
    """Line by line, whatever the width of columns; of a log, other lines may stand between and around."""
    pattern = "".join(
        r"(?:.*\n)*?" if line == ANYTHING else (r"(?:.*\n)*?" if is_log else "") + _part_pattern(line) + r"\n"
        for line in _lines(expected)
    )
    text = "".join(f"{line}\n" for line in _lines(actual))
    return (re.match if is_log else re.fullmatch)(pattern, text) is not None


def json_matches(expected: Any, actual: Any) -> bool:
    if expected == ANYTHING:
        return True
    if isinstance(expected, dict) and isinstance(actual, dict):
        named = expected.keys() - {ANYTHING}
        is_whole = ANYTHING in expected or named == actual.keys()
        return is_whole and all(key in actual and json_matches(expected[key], actual[key]) for key in named)
    if isinstance(expected, list) and isinstance(actual, list):
        return len(expected) == len(actual) and all(map(json_matches, expected, actual))
    if isinstance(expected, str) and isinstance(actual, str):
        return re.fullmatch(_part_pattern(expected), actual) is not None
    return type(expected) is type(actual) and bool(expected == actual)


def _lines(text: str) -> list[str]:
    return [re.sub(r"\s+", " ", line).strip() for line in text.strip().splitlines()]


def _part_pattern(text: str) -> str:
    return ".*".join(map(re.escape, text.split(ANYTHING)))


class Shell(AbstractContextManager["Shell"]):
    """One POSIX shell that runs block after block and keeps its variables in between, as a person's terminal does."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh"],
            cwd=folder,
            env=dict(environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._count = 0

    def run(self, block: str) -> str:
        """The block's output, both streams. Its exit status is not looked at: refusals are shown on purpose."""
        assert self._process.stdin is not None
        self._count += 1
        mark = f"end-of-block-{self._count}"
        self._process.stdin.write(f"{{ {block}\n}} </dev/null 2>&1\nprintf '\\n%s\\n' {mark}\n")
        self._process.stdin.flush()
        return self._until(mark)

    def _until(self, mark: str) -> str:
        assert self._process.stdout is not None
        found: list[str] = []
        for line in self._process.stdout:
            if line == f"{mark}\n":
                return "".join(found)
            found.append(line)
        raise AssertionError(f"the shell ended: {''.join(found)}")

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        finally:
            self._process.kill()
            self._process.stdout.close()


@dataclass(slots=True)
class Terminal:
    """A block that runs until Ctrl-C, its output in a file."""

    process: subprocess.Popen[bytes]
    log: Path


@dataclass(slots=True)
class Walk(AbstractContextManager["Walk"]):
    """A page walked through in a folder. Ends what it started, whatever happens."""

    folder: Path
    environ: Mapping[str, str]
    logs: Path
    terminals: list[Terminal] = field(default_factory=list)

    def through(self, page: Path, *, before: str = "") -> None:
        """Run the page's blocks, those of the section ``before`` and after it excepted. Raises AssertionError."""
        self._go(page, list(takewhile(lambda step: step.section != before, steps(page.read_text()))))

    def section(self, page: Path, name: str) -> None:
        """Run the blocks of one section."""
        self._go(page, [step for step in steps(page.read_text()) if step.section == name])

    def interrupt(self) -> None:
        """Press Ctrl-C in every terminal, and wait until their commands have ended."""
        for terminal in self.terminals:
            os.killpg(terminal.process.pid, signal.SIGINT)
        for terminal in self.terminals:
            terminal.process.wait(STOP_SECONDS)

    def _go(self, page: Path, wanted: list[Step]) -> None:
        assert wanted, f"{page} has no such commands"
        with Shell(self.folder, self.environ) as shell:
            loads = next((step for step in steps(page.read_text()) if ".local/env" in step.command), None)
            if loads is not None and (self.folder / ".local" / "env").exists():
                shell.run(loads.command)
            for step in wanted:
                self._take(shell, page, step)

    def _take(self, shell: Shell, page: Path, step: Step) -> None:
        deadline = time.monotonic() + ANSWER_SECONDS
        terminal = self._open(step) if step.is_terminal else None
        while True:
            output = terminal.log.read_text() if terminal else shell.run(step.command)
            if terminal and text_matches(step.answer or "", output, is_log=True):
                return
            if not terminal and is_answered(step, output):
                return
            may_come = terminal.process.poll() is None if terminal else step.is_reading
            if not may_come or time.monotonic() > deadline:
                raise AssertionError(
                    f"{page.name}, line {step.line}: {step.command}\n--- promised\n{step.answer}--- came\n{output}"
                )
            time.sleep(0.1)

    def _open(self, step: Step) -> Terminal:
        log = self.logs / f"terminal-{len(self.terminals) + 1}.log"
        out: IO[bytes]
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["/bin/sh", "-c", step.command],
                cwd=self.folder,
                env=dict(self.environ),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a group of its own, as a terminal gives it, for Ctrl-C
            )
        self.terminals.append(Terminal(process, log))
        return self.terminals[-1]

    def __exit__(self, *_: object) -> None:
        for terminal in self.terminals:
            if terminal.process.poll() is None:
                os.killpg(terminal.process.pid, signal.SIGKILL)
                terminal.process.wait(STOP_SECONDS)
