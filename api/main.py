"""The application: routes, error answers and the guard, put together from a context. Pure wiring."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from fastapi import FastAPI

from api import errors
from api.dependencies import Context
from api.guard import Guard
from api.identity import sign_in_for
from api.measuring import Measuring
from api.page import open_page
from api.routes import bulk, callbacks, dashboard, executions, health, page

ROUTE_ENABLED = "Dashboard retry route enabled"
ROUTE_DISABLED = "Dashboard retry route disabled (TASK_DASHBOARD_GOOGLE_CLIENT_IDS is not set)"
BYPASS_ACTIVE = "Local auth bypass active on the retry route: 'x-dev-user' header accepted (ENV=local only)"
CALLBACKS_OPEN = "Callbacks are accepted without a token (CALLBACK_TOKEN_KEYS_FILE is not set)"
CALLBACKS_CHECKED = "Callback tokens are checked, and none is asked for (CALLBACK_TOKEN_REQUIRED is not set)"
CALLBACKS_FENCED = "Callbacks are accepted with a token only"

_log = structlog.get_logger(__name__)


def create_app(context: Context) -> FastAPI:
    """Wire an application. Opens nothing before its lifespan begins."""
    app = FastAPI(
        title="Alakai executions",
        version="1",
        description="Read, follow, retry and control worker executions; callbacks of workers; probes.",
        docs_url=None,  # The documentation page loads scripts from elsewhere; /openapi.json is served.
        redoc_url=None,
        redirect_slashes=False,  # A redirect would repeat the caller's path.
        lifespan=_lifespan,
    )
    bind(app, context)
    app.include_router(health.router)
    app.include_router(callbacks.router)
    if app.state.sign_in is not None:
        for part in (bulk, executions, dashboard, page):
            app.include_router(part.router)
    errors.install(app)
    app.add_middleware(Guard)
    app.add_middleware(Measuring)
    return app


def bind(app: FastAPI, context: Context) -> None:
    """Give an application its context. It keeps no other state, so that a test may bind another one."""
    app.state.context = context
    app.state.sign_in = sign_in_for(context.settings, context.identity)
    app.state.page = open_page(context.settings)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    context: Context = app.state.context
    _log.info(ROUTE_ENABLED if app.state.sign_in is not None else ROUTE_DISABLED)
    if context.settings.is_local:
        _log.warning(BYPASS_ACTIVE)
    _log.info(_callbacks(context))
    works = [context.health.beat()]
    if app.state.sign_in is not None:
        works.append(context.live.run())
    beside = [asyncio.create_task(work) for work in works]
    try:
        async with context.resources():
            yield
    finally:
        for task in beside:
            task.cancel()


def _callbacks(context: Context) -> str:
    if context.callback_keys is None:
        return CALLBACKS_OPEN
    return CALLBACKS_FENCED if context.settings.callback_token_required else CALLBACKS_CHECKED
