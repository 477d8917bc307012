"""``alakai``: executions from a terminal, also found as ``kubectl executions``. A module beside this one per command.

Errors are one line on standard error with the remedy, and exit code 1. Commands import what they need by themselves:
most of a short one's time would be the imports of the others.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import structlog
import typer

from cli.output import Output
from executions.errors import AlakaiError

if TYPE_CHECKING:
    from cli.api import Api

T = TypeVar("T")
app = typer.Typer(
    name="alakai",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="Executions of Alakai: show, explain, steer, compare, mend.",
)

_FromEnv = Annotated[
    bool, typer.Option("--from-env", help="Take what is not given from environment variables (used by make).")
]


_Output = Annotated[Output, typer.Option("-o", "--output", help="How to show it.")]
_CoreUrl = Annotated[str | None, typer.Option(help="Where the API listens; the variable core_url when absent.")]
_DevUser = Annotated[str | None, typer.Option(help="E-mail for the ENV=local sign-in; the variable dev_user.")]
_AuthToken = Annotated[
    str | None, typer.Option(help="Google ID token; better given as the variable auth_token.", show_default=False)
]
_Phase = Annotated[str | None, typer.Option(help="Only those in this phase, for example Failed.")]
_Type = Annotated[str | None, typer.Option("--type", help="Only those of this task type.")]
_Project = Annotated[str | None, typer.Option(help="Only those of this project, owner/repo.")]
_Reason = Annotated[str | None, typer.Option(help="Only those with this reason, for example SlotUnavailable.")]


@app.callback()
def _quietly() -> None:
    """What modules log on the way is no part of an answer: warnings go to standard error."""
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )


def _env(name: str) -> str | None:
    return os.environ.get(name) or None


@app.command()
def seed(
    repo: Annotated[str | None, typer.Option(help="Project as owner/repo.")] = None,
    task_name: Annotated[str | None, typer.Option(help="Name on the dashboard.")] = None,
    actor_provider: Annotated[str | None, typer.Option(help="slack or github.")] = None,
    actor_id: Annotated[str | None, typer.Option()] = None,
    actor_display: Annotated[str | None, typer.Option()] = None,
    execution_id: Annotated[str | None, typer.Option(help="Dashboard row key; made up when absent.")] = None,
    attempt: Annotated[str | None, typer.Option(help="Number of the failed attempt.")] = None,
    from_env: _FromEnv = False,
) -> None:
    """Write a failed implementation execution into Redis, as the retry guide begins."""
    from cli import seed as seed_command

    given = {
        "repo": repo,
        "task_name": task_name,
        "actor_provider": actor_provider,
        "actor_id": actor_id,
        "actor_display": actor_display,
        "execution_id": execution_id,
        "attempt": attempt,
    }
    values = {name: value or (_env(name) if from_env else None) for name, value in given.items()}
    _run(lambda: seed_command.run(values))


@app.command()
def send(
    task_id: Annotated[str | None, typer.Option()] = None,
    repo: Annotated[str | None, typer.Option(help="Project as owner/repo.")] = None,
    prompt: Annotated[str | None, typer.Option()] = None,
    message_body: Annotated[str | None, typer.Option(help="A whole message as JSON, instead of the rest.")] = None,
    from_env: _FromEnv = False,
) -> None:
    """Send a task message to the queue of SQS_QUEUE_URL."""
    from cli import send as send_command

    given = {"TASK_ID": task_id, "REPO": repo, "PROMPT": prompt, "MESSAGE_BODY": message_body}
    values = {name: value or (_env(name) if from_env else None) for name, value in given.items()}
    _run(lambda: send_command.run(values))


@app.command()
def explain(
    name: Annotated[str, typer.Argument(help="The execution's task id, or its name in the cluster.")],
    output: _Output = Output.TABLE,
) -> None:
    """Say where a task stands and why, what happens next and when, and what was seen of its workers."""
    from cli import explain as explain_command

    _run(lambda: explain_command.run(name, output))


@app.command()
def hold(
    reason: Annotated[str, typer.Option(help="Why, for everybody who looks at what waits.")] = "no reason was given",
    by: Annotated[str | None, typer.Option(help="Who; your user name when absent.")] = None,
) -> None:
    """Put the installation on hold: nothing is taken in, nothing is launched; callbacks and cancels go on."""
    from cli import hold as hold_command

    _run(lambda: hold_command.hold(reason, by))


@app.command()
def resume() -> None:
    """End the hold: what waited begins within a second."""
    from cli import hold as hold_command

    _run(hold_command.resume)


@app.command()
def get(
    name: Annotated[str | None, typer.Argument(help="One execution, by name or task id; all when absent.")] = None,
    phase: _Phase = None,
    task_type: _Type = None,
    project: _Project = None,
    reason: _Reason = None,
    output: _Output = Output.TABLE,
) -> None:
    """Show executions, as the cluster has them."""
    from cli import get as get_command
    from cli.resources import Filter

    _run(lambda: get_command.run(name, Filter(phase, task_type, project, reason), output))


@app.command()
def watch(
    phase: _Phase = None,
    task_type: _Type = None,
    project: _Project = None,
    reason: _Reason = None,
    wide: Annotated[bool, typer.Option("--wide", help="Project, launcher and worker too.")] = False,
) -> None:
    """Show the newest executions in a table that follows them, until Ctrl-C."""
    from cli import get as get_command
    from cli.resources import Filter

    _run(lambda: get_command.watch(Filter(phase, task_type, project, reason), wide=wide))


@app.command()
def trace(
    trace_id: Annotated[str, typer.Argument(help="A trace id, or a task id.")],
    sources: Annotated[list[str] | None, typer.Argument(help="Log files or folders; - is standard input.")] = None,
    output: _Output = Output.TABLE,
) -> None:
    """Show every slice of work of one trace, in order, from logs of API, controller and workers."""
    from cli import trace as trace_command

    _run(lambda: trace_command.run(trace_id, sources or [], output))


@app.command()
def cancel(
    task_id: Annotated[str, typer.Argument()],
    reason: Annotated[str, typer.Option(help="Why; it is kept with the execution.")] = "no reason was given",
    core_url: _CoreUrl = None,
    dev_user: _DevUser = None,
    auth_token: _AuthToken = None,
) -> None:
    """Stop the live worker and drop a scheduled retry, through the API."""
    from cli import control as control_command

    _run(lambda: control_command.act(_api(core_url, dev_user, auth_token), task_id, "cancel", {"reason": reason}))


@app.command()
def done(
    task_id: Annotated[str, typer.Argument()],
    reason: Annotated[str, typer.Option(help="Why; it is kept with the execution.")] = "no reason was given",
    core_url: _CoreUrl = None,
    dev_user: _DevUser = None,
    auth_token: _AuthToken = None,
) -> None:
    """Drop a scheduled retry and leave a live worker alone, through the API."""
    from cli import control as control_command

    _run(lambda: control_command.act(_api(core_url, dev_user, auth_token), task_id, "done", {"reason": reason}))


@app.command()
def assign(
    task_id: Annotated[str, typer.Argument()],
    assignee: Annotated[str, typer.Argument(help="Who takes it over.")],
    core_url: _CoreUrl = None,
    dev_user: _DevUser = None,
    auth_token: _AuthToken = None,
) -> None:
    """Give an execution to somebody else, whose attempt begins at once, through the API."""
    from cli import control as control_command

    _run(lambda: control_command.act(_api(core_url, dev_user, auth_token), task_id, "assign", {"assignee": assignee}))


@app.command()
def fsck(
    repair: Annotated[bool, typer.Option("--repair", help="Mend what does not fit together.")] = False,
    settle_seconds: Annotated[float, typer.Option(help="Between the two looks that must agree.", min=0)] = 5.0,
    output: _Output = Output.TABLE,
) -> None:
    """Compare records, lists, resources, workers, dashboard and archive. Exit: 0 good, 1 repaired, 4 found or left."""
    from cli import fsck as fsck_command

    code = _run(lambda: fsck_command.run(repair=repair, settle_seconds=settle_seconds, output=output))
    raise typer.Exit(code)


@app.command()
def rebuild() -> None:
    """Make the dashboard's rows anew from the records."""
    from cli import rebuild as rebuild_command

    _run(rebuild_command.run)


@app.command()
def doctor(core_url: _CoreUrl = None, output: _Output = Output.TABLE) -> None:
    """Look whether everything is there that an installation needs, and say what to do where it is not."""
    from cli import doctor as doctor_command

    if not _run(lambda: doctor_command.run(core_url, output)):
        raise typer.Exit(1)


@app.command()
def prune(
    archived_before: Annotated[str, typer.Option(help="A day (UTC), for example 2026-03-15.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove records that were finished before a day and whose events are all in the archive."""
    from cli import prune as prune_command

    _run(lambda: prune_command.run(archived_before, dry_run=dry_run))


archive = typer.Typer(no_args_is_help=True, help="The archive of lifecycle events in S3.")
app.add_typer(archive, name="archive")


@archive.command("read")
def archive_read(
    wanted: Annotated[str, typer.Argument(help="A task id or an execution id.")],
    project: Annotated[str | None, typer.Option(help="Look only there, when Redis does not know where.")] = None,
    output: _Output = Output.TABLE,
) -> None:
    """Show the history of a task, from S3."""
    from cli import archive as archive_command

    _run(lambda: archive_command.read(wanted, project, output))


@archive.command("verify")
def archive_verify() -> None:
    """Compare every object with its receipt."""
    from cli import archive as archive_command

    _run(archive_command.verify)


dlq = typer.Typer(no_args_is_help=True, help="The dead letters of the queue of SQS_QUEUE_URL.")
app.add_typer(dlq, name="dlq")


@dlq.command("list")
def dlq_list() -> None:
    """Show each dead letter with the reason why it is one."""
    from cli import dlq as dlq_command

    _run(dlq_command.show)


@dlq.command("redrive")
def dlq_redrive(
    everything: Annotated[bool, typer.Option("--all", help="Send back what is no task too.")] = False,
) -> None:
    """Send dead letters that are tasks back to the queue; what was done already does nothing."""
    from cli import dlq as dlq_command

    _run(lambda: dlq_command.redrive(everything=everything))


notifications = typer.Typer(no_args_is_help=True, help="Notifications of outcomes that could not be delivered.")
app.add_typer(notifications, name="notifications")
_Channel = Annotated[str | None, typer.Option(help="webhook, callback, slack or github; all when absent.")]


@notifications.command("dead")
def notifications_dead(channel: _Channel = None, output: _Output = Output.TABLE) -> None:
    """Show each one that was given up, with the reason."""
    from cli import notifications as notifications_command

    _run(lambda: notifications_command.show(channel, output))


@notifications.command("redrive")
def notifications_redrive(channel: _Channel = None) -> None:
    """Put those that were given up into the outbox again; receivers know a repeat by its key."""
    from cli import notifications as notifications_command

    _run(lambda: notifications_command.redrive(channel))


@app.command()
def retry(
    task_id: Annotated[str | None, typer.Argument(help="The execution's task id.")] = None,
    core_url: _CoreUrl = None,
    dev_user: _DevUser = None,
    auth_token: _AuthToken = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")] = False,
    from_env: _FromEnv = False,
) -> None:
    """Retry a failed execution through the API."""
    from cli import control as control_command

    given = task_id or (_env("task_id") if from_env else None)
    _run(lambda: control_command.act(_api(core_url, dev_user, auth_token), given, "retry", {}, dry_run=dry_run))


def _api(core_url: str | None, dev_user: str | None, auth_token: str | None) -> Api:
    from cli.api import Api

    return Api.of(
        core_url or _env("core_url"),
        dev_user=dev_user or _env("dev_user"),
        auth_token=auth_token or _env("auth_token"),
    )


def _run(command: Callable[[], T]) -> T:
    try:
        return command()
    except AlakaiError as error:
        sys.stderr.write(f"alakai: {error}\n")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


if __name__ == "__main__":
    app()
