"""What must hold in every world that can be reached."""

from __future__ import annotations

from collections import Counter

from tests.model.world import World


def two_launches(world: World) -> str | None:
    """An attempt has one worker at a time, whether it works or not."""
    there = Counter((item.life, item.attempt) for item in world.workers if item.is_there)
    found = next(((key, count) for key, count in there.items() if count > 1), None)
    return None if found is None else f"attempt {found[0][1]} of life {found[0][0]} has {found[1]} workers"


def violation(world: World) -> str | None:
    """The first invariant that does not hold, in words; None when all do."""
    worked = Counter(
        (item.life, item.attempt) for item in world.workers if item.state in ("working", "reported", "dead")
    )
    for (life, attempt), count in worked.items():
        if count > 1:
            return f"{count} workers worked on attempt {attempt} of life {life}"
    final = Counter((life, attempt) for life, attempt, _ in world.resolved)
    for (life, attempt), count in final.items():
        if count > 1:
            return f"attempt {attempt} of life {life} was decided {count} times"
    for life, attempt, worker in world.resolved_by:
        if (worker.life, worker.attempt) != (life, attempt):
            return (
                f"attempt {attempt} of life {life} was decided by {worker.name}, "
                f"which worked on attempt {worker.attempt} of life {worker.life}"
            )
    return _of_record(world)


def _of_record(world: World) -> str | None:
    execution = world.execution
    if execution is None:
        return None
    numbers = [item.number for item in execution.attempts]
    if numbers != list(range(1, len(numbers) + 1)):
        return f"the attempts are {numbers}"
    if len(numbers) > world.asked:
        return f"there are {len(numbers)} attempts, and {world.asked} were asked for"
    latest = execution.latest
    worker = next((item for item in world.workers if item.name == latest.worker_id), None)
    if worker is not None and worker.life != world.life:
        return f"life {world.life} adopted {worker.name}, a worker of life {worker.life}"
    if latest.error_code == "WORKER_LOST" and worker is not None and worker.is_there:
        return f"{worker.name} was judged lost while it worked"
    on_its_way = [item.worker for item in world.callbacks if item.worker.name == latest.worker_id]
    if latest.error_code == "WORKER_LOST" and on_its_way:
        return f"{latest.worker_id} was judged lost while its outcome was on its way"
    return None
