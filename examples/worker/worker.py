"""A worker of your own: counts the words of a task's prompt. A launcher starts it; `pip install alakai-worker`.

The message comes from the claim and the outcome goes back by itself; all that is written here is the work.
"""

from __future__ import annotations

import sys

from alakai_worker import Claimed, Outcome, run


def work(claimed: Claimed) -> Outcome:
    prompt = claimed.payload.get("prompt")
    if not isinstance(prompt, str):
        return Outcome.failure("the task has no prompt; put one into payload.prompt", code="NO_PROMPT")
    repository = claimed.payload.get("repo", "my-org/my-repo")
    return Outcome.success(pull_request_url=f"https://github.com/{repository}/pull/{len(prompt.split())}")


if __name__ == "__main__":
    sys.exit(run(work))
