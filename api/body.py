"""From a request's bytes to a JSON object, or a 4xx. Parsed here because the framework's own parsing can be crashed.

Refuses what different parsers read differently (duplicate keys, NaN, numbers beyond a double, lone surrogates, deep
nesting) before anybody looks at a field. The size is bounded before, in ``guard``.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import Headers

from api.errors import Refused

MAX_DEPTH = 64
"""Levels of nesting. orjson reads 1,024 but writes only 254: a deeper document could be taken and not be kept."""
EMPTY_CODE = "FST_ERR_CTP_EMPTY_JSON_BODY"
EMPTY = "Body cannot be empty when content-type is set to 'application/json'"
NOT_AN_OBJECT = "the body must be a JSON object"
NOT_JSON = "the body is not valid JSON"
WRONG_TYPE = "the content type must be application/json in UTF-8, without a content encoding"

_Model = TypeVar("_Model", bound=BaseModel)


async def _required(request: Request) -> dict[str, Any]:
    return object_from_body(await request.body(), request.headers, required=True)


async def _optional(request: Request) -> dict[str, Any]:
    return object_from_body(await request.body(), request.headers, required=False)


JsonBody = Annotated[dict[str, Any], Depends(_required)]
OptionalJsonBody = Annotated[dict[str, Any], Depends(_optional)]
"""For a route that needs no body; one that is sent must be a JSON object all the same."""


def object_from_body(body: bytes, headers: Headers, *, required: bool) -> dict[str, Any]:
    """The JSON object in ``body``. Raises Refused with 400 or 415; the text never repeats the input."""
    is_json = _is_json(headers)
    if not body:
        if is_json:
            raise Refused(400, EMPTY, code=EMPTY_CODE)
        if required:
            raise Refused(400, NOT_AN_OBJECT)
        return {}
    if not is_json:
        raise Refused(415, WRONG_TYPE)
    try:
        document = orjson.loads(body)
    except ValueError as error:
        raise Refused(400, NOT_JSON) from error
    if not isinstance(document, dict):
        raise Refused(400, NOT_AN_OBJECT)
    if _is_deeper_than(document, MAX_DEPTH):
        raise Refused(400, f"the body is nested deeper than {MAX_DEPTH} levels")
    # orjson keeps the last of equal keys without a word; the standard parser tells, and is safe at this depth.
    json.loads(body, object_pairs_hook=_refuse_duplicates, parse_int=len)
    return document


def validated(model: type[_Model], document: dict[str, Any]) -> _Model:
    """The known fields of ``document``. Raises Refused 400 that names the first wrong field, never its value."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise Refused(400, f"the field {str(first['loc'][0])!r} is invalid: {first['type']}") from error


def _is_json(headers: Headers) -> bool:
    media_type, *parameters = (part.strip().lower() for part in headers.get("content-type", "").split(";"))
    charsets = [part.split("=", 1)[1].strip('"') for part in parameters if part.startswith("charset=")]
    return (
        media_type == "application/json"
        and all(charset in ("utf-8", "utf8") for charset in charsets)
        and headers.get("content-encoding", "identity").lower() == "identity"
    )


def _is_deeper_than(document: Any, limit: int) -> bool:
    """Level by level instead of by recursion, which a deep document would exhaust."""
    level = [document]
    for _ in range(limit):
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return False
    return any(isinstance(item, dict | list) for item in level)


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise Refused(400, "the body has the same key twice in one object")
