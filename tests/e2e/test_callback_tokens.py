"""Callbacks that need a token: workers have theirs, keys are replaced under them, and neither is found anywhere."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping
from pathlib import Path

import httpx

from tests.e2e.installation import Installation, message


def put_keys(path: Path, current: str, keys: Mapping[str, str]) -> None:
    """In place of the file that is there, as Kubernetes replaces a mounted Secret."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"current": current, "keys": dict(keys)}))
    partial.rename(path)


def test_workers_prove_their_launch_while_keys_are_replaced(installation: Installation, tmp_path: Path) -> None:
    keys = {name: base64.b64encode(secrets.token_bytes(32)).decode() for name in ("first", "second")}
    path = tmp_path / "keys.json"
    put_keys(path, "first", {"first": keys["first"]})
    _, api = installation.start_both(CALLBACK_TOKEN_KEYS_FILE=str(path), CALLBACK_TOKEN_REQUIRED="true")

    installation.send(message("early", "slow", seconds=6))
    (worker,) = installation.wait_until(lambda: installation.workers("early"), 30, "its worker is at work")
    first_token = worker.environ()["ALAKAI_CALLBACK_TOKEN"]
    put_keys(path, "second", keys)
    refused = (401, {"error": "callback_unauthorized"})
    nonsense = {"taskId": "early", "status": "success", "token": "nonsense"}

    def api_has_reloaded() -> bool:
        assert post(installation, "/task-complete", nonsense) == refused
        return "keys were reloaded" in api.log_text()

    def controller_has_reloaded() -> bool:
        task_id = f"between-{secrets.token_hex(4)}"
        installation.send(message(task_id))
        installation.wait_for(task_id, 1, "succeeded")
        return installation.record(task_id)[1]["launch"]["callbackKey"] == "second"

    installation.wait_until(api_has_reloaded, 30, "the API uses the new keys")
    installation.wait_until(controller_has_reloaded, 30, "the controller uses the new keys")
    # Somebody without a token, or with that of another launch, reports for it.
    assert installation.complete("early") == refused
    stolen = {"taskId": "other", "status": "success", "token": first_token}
    assert post(installation, "/task-complete", stolen) == refused
    claim = {"taskId": "early", "attempt": 1, "launchTry": 1, "claimId": "thief"}
    assert post(installation, "/task-claim", claim) == refused

    installation.send(message("later", "fail"))
    installation.wait_for("early", 1, "succeeded")
    installation.wait_for("later", 1, "failed")
    assert installation.record("early")[1]["launch"]["callbackKey"] == "first"
    assert installation.record("later")[1]["launch"]["callbackKey"] == "second"
    put_keys(path, "second", {"second": keys["second"]})
    assert installation.retry("later")[0] == 202
    installation.wait_for("later", 2, "succeeded")
    late = {"taskId": "early", "status": "failure", "token": first_token}
    installation.wait_until(lambda: post(installation, "/task-complete", late) == refused, 30, "the first key is gone")

    told = "\n".join(
        (
            installation.logs(),
            json.dumps([installation.record(task_id) for task_id in ("early", "later")]),
            installation.kubectl("get", "executions,events,configmaps", "-o", "json"),
        )
    )
    for secret in (first_token, *keys.values(), first_token.rpartition(".")[2]):
        assert secret not in told


def post(installation: Installation, path: str, body: Mapping[str, object]) -> tuple[int, object]:
    answer: httpx.Response = installation.http.post(f"http://localhost:{installation.port}{path}", json=dict(body))
    return answer.status_code, answer.json()
