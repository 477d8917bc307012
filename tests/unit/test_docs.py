"""What the pages point to, name and tell to type is there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

from devstack import reference
from devstack.markdown import code, fields, kind, prose, table
from devstack.site import with_links_out, with_plain_fences
from executions.adapters.settings import Settings
from executions.names import OUR_ERROR_CODES

ROOT = Path(__file__).parents[2]
SITE = ROOT / "docs"
PAGES = sorted(
    path
    for folder in (ROOT, SITE, ROOT / "deploy", ROOT / "examples", ROOT / "worker")
    for path in (folder.glob("*.md") if folder == ROOT else folder.rglob("*.md"))
)
BY_HAND = [path for path in PAGES if path.parent != SITE / "reference"]
SOURCES = ("*.py", "*.sh", "*.yaml", "*.yml", "*.toml", "Makefile", "Dockerfile", "*.tpl", "*.acl")
FOLDERS = (
    *(".ci", "api", "bench", "cli", "controller", "deploy", "devstack", "examples", "executions", "worker"),
    "tests/e2e",
)
VARIABLE = re.compile(r"(?<![\w.$/-])[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+(?![\w*…-])")
METRIC = re.compile(r"\balakai_[a-z_]+[a-z]\b")
NOT_OURS = frozenset({"EX_TEMPFAIL", "GITHUB_TOKEN"})
PACKAGES = frozenset({"alakai_worker", "alakai_operator", "alakai_spool_launcher"})


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {anchor(item) for item in re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)}


@cache
def known_variables() -> frozenset[str]:
    """Settings, error codes, and every other word of that form that stands in the code."""
    found = {name.upper() for name in Settings.model_fields} | OUR_ERROR_CODES | NOT_OURS
    files = [ROOT / "Makefile", ROOT / "Dockerfile"]
    files += [path for folder in FOLDERS for pattern in SOURCES for path in (ROOT / folder).rglob(pattern)]
    for path in files:
        found.update(VARIABLE.findall(path.read_text()))
    return frozenset(found)


def unknown_variables(text: str) -> list[str]:
    own = set(re.findall(r"^([A-Z_]+)=", text, re.MULTILINE)) & set(re.findall(r"\$\{?([A-Z_]+)", text))
    return sorted(set(VARIABLE.findall(text)) - known_variables() - own)


def unknown_metrics(text: str) -> list[str]:
    known = set(PACKAGES)
    for collector in reference.collectors():
        name = reference.metric_name(collector)
        known |= {
            name,
            *(f"{name}_{suffix}" for suffix in ("bucket", "sum", "count") if collector._type == "histogram"),
        }
    return sorted(set(METRIC.findall(text)) - known)


def typed(text: str) -> Iterator[str]:
    """What a page tells to type: lines of code blocks, continued ones joined, and code within sentences."""
    for block in re.findall(r"^ *```\w*.*?\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            yield line.strip().removeprefix("$ ")
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL))


def wrong_commands(text: str) -> list[str]:
    """Commands of `alakai` that it does not have, or options that the command does not have."""
    known = dict(reference.commands())
    wrong = []
    for line in typed(text):
        match = re.match(r"(?:.* -- |(?:\S*/)?)(?<![\w-])alakai (?P<rest>[a-z-].*)", line)
        if not match:
            continue
        words = shlex.split(match["rest"].split(" # ")[0].rstrip("…"))
        path = "alakai"
        while words and f"{path} {words[0]}" in known:
            path = f"{path} {words.pop(0)}"
        options = {option for parameter in known[path].params for option in parameter.opts} | {"--help"}
        given = {word.partition("=")[0] for word in words if word.startswith("--")}
        if path == "alakai" or (words and hasattr(known[path], "commands")) or not given <= options:
            wrong.append(line)
    return wrong


def test_there_are_pages() -> None:
    assert len(PAGES) > 35
    assert len(BY_HAND) > 30


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]+`", "", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        found = page if not path else (page.parent / path).resolve()
        if not found.exists() or (fragment and found.suffix == ".md" and fragment not in anchors(found)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_make_target_that_is_named_is_there(page: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z.-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z][a-z-]+)", page.read_text()))
    named |= {word for line in typed(page.read_text()) for word in re.findall(r"^make ([a-z][a-z-]+)", line)}
    assert named <= targets


@pytest.mark.parametrize("page", BY_HAND, ids=name_of)
def test_every_variable_metric_and_command_that_is_named_is_there(page: Path) -> None:
    text = page.read_text()
    assert unknown_variables(text) == []
    assert unknown_metrics(text) == []
    assert wrong_commands(text) == []


@pytest.mark.parametrize(
    ("find", "text"),
    [
        (unknown_variables, "set `MAX_RETRYS` to 2"),
        (unknown_variables, "```\nLAUNCHR_X=ecs python -m controller\n```"),
        (unknown_metrics, "`alakai_lost_worker_total` rises"),
        (wrong_commands, "`alakai explian TASK` says why"),
        (wrong_commands, "```sh\n$ alakai hold --becuase x\n```"),
        (wrong_commands, "```sh\nkubectl exec deploy/alakai -- alakai dlq lsit\n```"),
    ],
)
def test_a_typo_is_found(find: Any, text: str) -> None:
    assert len(find(text)) == 1


def test_what_is_right_is_not_called_a_typo() -> None:
    assert unknown_variables("`MAX_RETRIES`, `WORKER_LOST`, `ALAKAI_TASK_ID`, `UPGRADE=1`") == []
    assert unknown_metrics("`alakai_lost_workers_total`, `alakai_http_request_seconds_bucket`, `alakai_worker`") == []
    assert wrong_commands("`alakai dlq list`\n```sh\nalakai send --task-id a \\\n  --prompt 'b c'\n```") == []


# The site


def test_the_build_is_strict_and_hears_its_own_warnings() -> None:
    """`--quiet` silences the warnings that `--strict` counts: a broken link then passed."""
    (line,) = re.findall(r"mkdocs build.*", (ROOT / "Makefile").read_text())
    assert "--strict" in line
    assert "quiet" not in line
    found = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert found["strict"] is True
    assert {level for group in found["validation"].values() for level in group.values()} == {"warn"}


def nav_pages(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for item in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from nav_pages(item)


def test_the_navigation_lists_every_page_once() -> None:
    nav = list(nav_pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(nav) == sorted(str(path.relative_to(SITE)) for path in SITE.rglob("*.md"))


def test_the_site_loads_nothing_from_elsewhere() -> None:
    found = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert found["theme"]["font"] is False
    assert not {"repo_url", "extra_css", "extra_javascript"} & found.keys()


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("[a](../../worker/README.md#signals)", "[a](R/worker/README.md#signals)"),
        ("[a](../retries.md)", "[a](../retries.md)"),
        ("[a](https://kind.sigs.k8s.io/)", "[a](https://kind.sigs.k8s.io/)"),
        ("[a](#here), [b](../../examples)", "[a](#here), [b](R/examples)"),
    ],
)
def test_links_that_leave_the_site_lead_into_the_repository(written: str, shown: str) -> None:
    assert with_links_out(written, "docs/guides", "R") == shown


def test_a_code_block_begins_with_its_language_alone() -> None:
    assert with_plain_fences("```sh terminal\nls -l\n```\n") == "```sh\nls -l\n```\n"


# What is generated


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return reference.pages()


def test_generated_pages_are_up_to_date(made: dict[str, str]) -> None:
    assert [name for name, text in made.items() if (SITE / name).read_text() != text] == []


def test_a_stale_page_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reference, "DOCS", tmp_path)
    monkeypatch.setattr(reference, "PAGES", {"reference/one.md": lambda: "one\n"})
    monkeypatch.setattr("sys.argv", ["reference", "--check"])
    assert reference.main() == 1
    assert capsys.readouterr().err == "docs/reference/one.md is stale; run `make docs`\n"
    monkeypatch.setattr("sys.argv", ["reference"])
    assert reference.main() == 0
    assert (tmp_path / "reference/one.md").read_text() == "one\n"


def test_every_setting_is_told_with_its_meaning(made: dict[str, str]) -> None:
    told = reference.docstrings(Settings)
    assert [name for name in Settings.model_fields if name not in told] == []
    assert all(f"| `{name.upper()}` |" in made["reference/settings.md"] for name in Settings.model_fields)


def test_every_metric_that_prometheus_may_read_is_told(made: dict[str, str]) -> None:
    found = {metric.name for metric in REGISTRY.collect() if metric.name.startswith("alakai_")}
    assert {item._name for item in reference.collectors()} >= found
    assert all(f"`{reference.metric_name(item)}`" in made["reference/metrics.md"] for item in reference.collectors())


def test_every_route_command_and_alert_is_told(made: dict[str, str]) -> None:
    routes = [f"`{method.upper()} {path}`" for path, item in reference.open_api()["paths"].items() for method in item]
    assert [route for route in routes if route not in made["reference/http.md"]] == []
    assert "`POST /dashboard/executions/{taskId}/retry`" in routes
    assert [path for path, _ in reference.commands() if f"## `{path}`" not in made["reference/cli.md"]] == []
    assert sorted(re.findall(r"runbooks/(\w+)\.md", made["reference/alerts.md"])) == sorted(
        path.stem for path in (SITE / "runbooks").glob("*.md")
    )


def test_every_field_of_the_resource_is_told(made: dict[str, str]) -> None:
    definition = yaml.safe_load((ROOT / "crds" / "workerexecutions.alakai.dev.yaml").read_text())
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    below = [item.path for item in fields(schema) if "." in item.path]
    assert len(below) > 80
    assert [path for path in below if f"| `{path}` |" not in made["reference/custom-resource.md"]] == []


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 0, "maximum": 65535.0}, "integer, 0 to 65535"),
        ({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "null"}]}, "number, above 0"),
        ({"type": "array", "maxItems": 16, "items": {"type": "string"}}, "list of 16 at most: text"),
        ({"enum": ["json", "console"]}, "`json` or `console`"),
        ({"type": "string", "pattern": "^(a|b)$"}, "text, matching <code>^(a&#124;b)$</code>"),
        ({"type": ["string", "number"]}, "text or number"),
        ({}, "anything"),
    ],
)
def test_a_schema_in_words(schema: dict[str, Any], words: str) -> None:
    assert kind(schema) == words


def test_prose_is_never_taken_for_markup() -> None:
    assert prose("set ``a|b``\n to <new value> | `x`") == "set <code>a&#124;b</code> to &lt;new value> \\| `x`"


def test_code_of_several_lines_stays_in_its_cell() -> None:
    """As the example of an event stream has it."""
    assert code("event: a\ndata: {}\n\n") == "<code>event: a<br>data: {}</code>"


def test_a_column_with_nothing_in_it_is_left_out() -> None:
    assert table(["A", "B"], [["1", ""]]) == "| A |\n| --- |\n| 1 |"
    assert table(["A"], []) == ""
