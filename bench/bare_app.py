"""A route that does nothing, on the same path and server as the retry route: `python -m bench.bare_app PORT`."""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Queued(BaseModel):
    """The body of the retry route's 202."""

    taskId: str
    attempt: int
    status: str


@app.post("/dashboard/executions/{task_id}/retry", status_code=202)
async def retry(task_id: str) -> Queued:
    return Queued(taskId=task_id, attempt=2, status="queued")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False)
