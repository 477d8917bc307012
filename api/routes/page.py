"""The dashboard page and its files. What it shows comes from ``dashboard``, what it does goes to ``executions``.

Open to everybody: there is nothing in it that is not in our sources, but how to sign in.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.errors import ROUTE_NOT_FOUND, Refused
from api.page import File, Page

router = APIRouter(prefix="/dashboard", include_in_schema=False)

_ASKED_EACH_TIME = "no-cache"
"""Kept by the browser, and used only after we said that it is still the same: a page never mixes two versions."""


@router.get("")
async def page(request: Request) -> Response:
    """The page."""
    found: Page = request.app.state.page
    return _told(request, found.index, dict(found.headers))


@router.get("/assets/{name:path}")
async def asset(request: Request) -> Response:
    """A file of the page. Raises Refused with 404."""
    found: Page = request.app.state.page
    file = found.assets.get(request.path_params["name"])
    if file is None:
        raise Refused(404, ROUTE_NOT_FOUND)
    return _told(request, file, {})


def _told(request: Request, file: File, headers: dict[str, str]) -> Response:
    headers |= {"etag": file.tag, "cache-control": _ASKED_EACH_TIME}
    if file.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.media_type)
