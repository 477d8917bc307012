"""``alakai``: seed, send and retry executions from a terminal. Each command is one module beside this one.

Errors are one line on standard error with the remedy, and exit code 1.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from cli import dlq as dlq_command
from cli import explain as explain_command
from cli import hold as hold_command
from cli import notifications as notifications_command
from cli import retry as retry_command
from cli import seed as seed_command
from cli import send as send_command
from executions.errors import AlakaiError

app = typer.Typer(
    name="alakai", no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, help=__doc__
)

_FromEnv = Annotated[
    bool, typer.Option("--from-env", help="Take what is not given from environment variables (used by make).")
]


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
    given = {"TASK_ID": task_id, "REPO": repo, "PROMPT": prompt, "MESSAGE_BODY": message_body}
    values = {name: value or (_env(name) if from_env else None) for name, value in given.items()}
    _run(lambda: send_command.run(values))


@app.command()
def explain(task_id: Annotated[str, typer.Argument(help="The execution's task id.")]) -> None:
    """Say where a task stands and why, what happens next, and what was seen of its workers."""
    _run(lambda: explain_command.run(task_id))


@app.command()
def hold(
    reason: Annotated[str, typer.Option(help="Why, for everybody who looks at what waits.")] = "no reason was given",
    by: Annotated[str | None, typer.Option(help="Who; your user name when absent.")] = None,
) -> None:
    """Put the installation on hold: nothing is taken in, nothing is launched; callbacks and cancels go on."""
    _run(lambda: hold_command.hold(reason, by))


@app.command()
def resume() -> None:
    """End the hold: what waited begins within a second."""
    _run(hold_command.resume)


dlq = typer.Typer(no_args_is_help=True, help="The dead letters of the queue of SQS_QUEUE_URL.")
app.add_typer(dlq, name="dlq")


@dlq.command("list")
def dlq_list() -> None:
    """Show each dead letter with the reason why it is one."""
    _run(dlq_command.show)


@dlq.command("redrive")
def dlq_redrive(
    everything: Annotated[bool, typer.Option("--all", help="Send back what is no task too.")] = False,
) -> None:
    """Send dead letters that are tasks back to the queue; what was done already does nothing."""
    _run(lambda: dlq_command.redrive(everything=everything))


notifications = typer.Typer(no_args_is_help=True, help="Notifications of outcomes that could not be delivered.")
app.add_typer(notifications, name="notifications")
_Channel = Annotated[str | None, typer.Option(help="webhook, callback, slack or github; all when absent.")]


@notifications.command("dead")
def notifications_dead(channel: _Channel = None) -> None:
    """Show each one that was given up, with the reason."""
    _run(lambda: notifications_command.show(channel))


@notifications.command("redrive")
def notifications_redrive(channel: _Channel = None) -> None:
    """Put those that were given up into the outbox again; receivers know a repeat by its key."""
    _run(lambda: notifications_command.redrive(channel))


@app.command()
def retry(
    task_id: Annotated[str | None, typer.Argument(help="The execution's task id.")] = None,
    core_url: Annotated[str | None, typer.Option(help="Where the API listens.")] = None,
    dev_user: Annotated[str | None, typer.Option(help="E-mail for the ENV=local sign-in.")] = None,
    auth_token: Annotated[
        str | None, typer.Option(help="Google ID token; better given as the variable auth_token.", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")] = False,
    from_env: _FromEnv = False,
) -> None:
    """Retry a failed execution through the API."""
    given = {"task_id": task_id, "core_url": core_url, "dev_user": dev_user, "auth_token": auth_token}
    values = {name: value or (_env(name) if from_env else None) for name, value in given.items()}
    _run(lambda: retry_command.run(values, dry_run=dry_run))


def _run(command: Callable[[], None]) -> None:
    try:
        command()
    except AlakaiError as error:
        sys.stderr.write(f"alakai: {error}\n")
        raise typer.Exit(1) from None


if __name__ == "__main__":
    app()
