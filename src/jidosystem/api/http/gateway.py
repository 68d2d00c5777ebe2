"""The application that a node serves: routes over its running `Platform`, behind the guard.

Sources of work that listen to HTTP come in before the routes: a request to the path of a sensor with `http=` is the sensor's.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...core.errors import JidoError
from ...core.observability import logger
from .agents import AgentRoutes
from .answers import answer, plain_refusal, refusal
from .cluster import ClusterRoutes
from .events import EventRoutes
from .guard import MAX_BODY_BYTES, Guard, too_large
from .node import NodeRoutes

if TYPE_CHECKING:
    from ..platform import Platform


def application(platform: Platform, *, closing: asyncio.Event, program: str = "") -> FastAPI:
    """The routes, without the guard. Setting `closing` ends what is being followed."""
    from ... import __version__

    app = FastAPI(
        title="JidoSystem", version=__version__, docs_url=None, redoc_url=None, openapi_url="/v1/openapi.json", redirect_slashes=False,
        max_body_size=MAX_BODY_BYTES,
    )  # fmt: skip
    app.add_api_route("/health", _health, methods=["GET"], tags=["node"])
    for routes in (EventRoutes(platform, closing), NodeRoutes(platform, program), ClusterRoutes(platform), AgentRoutes(platform)):
        app.include_router(routes.router())
    app.add_middleware(_Refusals)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(RequestValidationError, _bad_request)
    return app


def gateway(platform: Platform, token: str, **options: Any) -> Guard:
    """`application` and the sensors behind the guard: what a node serves."""
    return Guard(platform.hooks(application(platform, **options)), token)


async def _health() -> Response:
    """Whether the node is there; needs no token."""
    return answer({"status": "ok"})


class _Refusals:
    """Answers with what a route raised. One that isn't an error of ours is a mistake of ours, and is logged too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            if not isinstance(error, JidoError):
                logger("jidosystem.http").exception("a request failed", path=scope.get("path"))
            if started:
                raise
            await refusal(error)(scope, receive, send)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 413:
        return too_large()
    if error.status_code == 405:
        return plain_refusal("no-such-method", f"{request.method} isn't for {request.url.path}", 405, error.headers)
    return plain_refusal("no-such-path", f"there is nothing at {request.url.path}; /v1/openapi.json lists what there is", error.status_code)


async def _bad_request(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    told = "; ".join(f"{'.'.join(str(part) for part in e['loc'][1:]) or e['loc'][0]}: {e['msg']}" for e in error.errors())
    return plain_refusal("invalid-arguments", told, 400)
