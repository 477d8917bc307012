"""One execution as one version keeps it: every key in Redis, byte for byte, and the custom resource that it writes.

``of_later_version`` adds to each document what a later version might; ``unknown_in`` finds it again. Decides nothing
about what may be lost: the tests do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
from redis.asyncio import Redis

from executions.write import record_digest

FOLDER = Path(__file__).parent / "fixtures"
Document = dict[str, Any]
_MARK = "later"
LATER: Document = {
    f"{_MARK}Text": "ünknown",
    f"{_MARK}Null": None,
    f"{_MARK}Number": 9_007_199_254_740_993,
    f"{_MARK}Fraction": 0.1,
    f"{_MARK}List": [1, None, {"a": None, "b": []}],
    f"{_MARK}Object": {"deep": {"empty": {}, "not": False}},
}
"""Of every JSON type, and what is easily lost: nulls, empty values, a whole number that no float can hold."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """``keys``: what follows the key prefix → [type, content]; hashes, strings, sets, sorted sets, streams."""

    version: str
    name: str
    task_id: str
    keys: dict[str, list[Any]]
    resource: Document
    """``manifest`` and ``status`` as the mirror sends them."""

    def __str__(self) -> str:
        return f"{self.version}: {self.name}"

    async def put(self, redis: Redis, prefix: str) -> None:
        """Make it the content of that prefix."""
        writes = redis.pipeline(transaction=True)
        for tail, (kind, content) in self.keys.items():
            key = prefix + tail
            match kind:
                case "hash":
                    writes.hset(key, mapping=content)
                case "string":
                    writes.set(key, content)
                case "set":
                    writes.sadd(key, *content)
                case "zset":
                    writes.zadd(key, content)
                case "stream":
                    for fields in content:
                        writes.xadd(key, fields)
        await writes.execute()

    def path(self) -> Path:
        return FOLDER / self.version / f"{self.name}.json"


async def taken(redis: Redis, prefix: str) -> dict[str, list[Any]]:
    """All keys of a prefix, in order."""
    found = {}
    async for key in redis.scan_iter(match=f"{prefix}*"):
        found[key.decode().removeprefix(prefix)] = await _content(redis, key)
    return dict(sorted(found.items()))


async def _content(redis: Redis, key: bytes) -> list[Any]:
    kind = (await redis.type(key)).decode()
    content: Any
    match kind:
        case "hash":
            content = _texts(await redis.hgetall(key))  # type: ignore[misc]
        case "string":
            content = (await redis.get(key)).decode()
        case "set":
            content = sorted(item.decode() for item in await redis.smembers(key))  # type: ignore[misc]
        case "zset":
            content = {item.decode(): score for item, score in await redis.zrange(key, 0, -1, withscores=True)}
        case "stream":
            content = [_texts(fields) for _, fields in await redis.xrange(key)]
        case _:
            raise AssertionError(f"nobody thought of a {kind}")
    return [kind, content]


def _texts(found: dict[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in found.items()}


def every_recording() -> list[Recorded]:
    """Of all versions that were recorded."""
    return [
        Recorded(path.parent.name, path.stem, **json.loads(path.read_text()))
        for path in sorted(FOLDER.glob("*/*.json"))
    ]


def of_later_version(recorded: Recorded, **changes: Any) -> Recorded:
    """As a later version might have written it: every document knows more than we do.

    ``changes`` are to the latest attempt: a path in wire names joined by ``__`` → its new value.
    """
    keys = {tail: [kind, _later_content(content)] for tail, (kind, content) in recorded.keys.items()}
    (_, record) = keys[f":{recorded.task_id}"]
    number = max(record, key=int)
    attempt = json.loads(record[number])
    for path, value in changes.items():
        *parents, last = path.split("__")
        target = attempt
        for parent in parents:
            target = target[parent]
        target[last] = value
    record[number] = orjson.dumps(attempt).decode()
    if (state := keys.get(f"/state:{recorded.task_id}")) is not None:
        state[1]["digest"] = record_digest({name: text.encode() for name, text in record.items()})
    manifest, status = recorded.resource["manifest"], recorded.resource["status"]
    resource = {"manifest": {**manifest, "spec": _later_document(manifest["spec"])}, "status": _later_document(status)}
    return replace(recorded, version=f"later than {recorded.version}", keys=keys, resource=resource)


def _later_content(content: Any) -> Any:
    if isinstance(content, str):
        return _later_text(content)
    if isinstance(content, list):
        return [_later_content(item) for item in content]
    return {name: _later_text(value) if isinstance(value, str) else value for name, value in content.items()}


def _later_text(text: str) -> str:
    return orjson.dumps(_later_document(json.loads(text))).decode() if text.startswith("{") else text


def _later_document(document: Any) -> Any:
    if isinstance(document, list):
        return [_later_document(item) for item in document]
    if isinstance(document, dict):
        return {**{name: _later_document(value) for name, value in document.items()}, **LATER}
    return document


def unknown_in(document: Any, path: str = "") -> Iterator[tuple[str, str, bytes]]:
    """(path of the object, name, JSON text) of what only a later version knows."""
    if isinstance(document, list):
        for number, item in enumerate(document):
            yield from unknown_in(item, f"{path}[{number}]")
    elif isinstance(document, dict):
        for name, value in document.items():
            if name.startswith(_MARK):
                yield path, name, orjson.dumps(value)
            else:
                yield from unknown_in(value, f"{path}.{name}")


def objects_in(document: Any, path: str = "") -> Iterator[str]:
    """The paths of all objects."""
    if isinstance(document, list):
        for number, item in enumerate(document):
            yield from objects_in(item, f"{path}[{number}]")
    elif isinstance(document, dict):
        yield path
        for name, value in document.items():
            if not name.startswith(_MARK):
                yield from objects_in(value, f"{path}.{name}")
