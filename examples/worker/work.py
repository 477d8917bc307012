"""The same work as a command, in any language: the task comes in a file, the result goes into another."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

task = json.loads(Path(os.environ["ALAKAI_TASK_FILE"]).read_text(encoding="utf-8"))
prompt = task["payload"].get("prompt")
if not isinstance(prompt, str):
    sys.exit("the task has no prompt; put one into payload.prompt")
repository = task["payload"].get("repo", "my-org/my-repo")
result = {"status": "success", "pullRequestUrl": f"https://github.com/{repository}/pull/{len(prompt.split())}"}
Path(os.environ["ALAKAI_RESULT_FILE"]).write_text(json.dumps(result), encoding="utf-8")
