"""Routes on the node itself: what it is, its configuration, its metrics."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgspec
from fastapi import APIRouter, Request, Response

from ...core.errors import InvalidArguments
from .answers import answer, object_of

if TYPE_CHECKING:
    from ..platform import Platform


class NodeRoutes:
    """See the module. `program`: what the node runs, as it was named when it was started."""

    def __init__(self, platform: Platform, program: str) -> None:
        self._platform = platform
        self._program = program

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(prefix="/v1", tags=["node"])
        router.add_api_route("/node", self.node, methods=["GET"])
        router.add_api_route("/metrics", self.metrics, methods=["GET"])
        router.add_api_route("/config", self.config, methods=["GET"])
        router.add_api_route("/config/history", self.history, methods=["GET"])
        router.add_api_route("/config/rollback", self.rollback, methods=["POST"])
        router.add_api_route("/config/{path}", self.value, methods=["GET"])
        router.add_api_route("/config/{path}", self.update, methods=["PUT"])
        return router

    async def node(self) -> Response:
        """Name, process, program and store of the node."""
        from ... import __version__

        platform = self._platform
        return answer({"name": platform.name, "pid": os.getpid(), "program": self._program, "store": platform._url, "version": __version__})

    async def metrics(self) -> Response:
        """Everything counted so far, as Prometheus text."""
        return Response(self._platform.metrics(), media_type="text/plain; version=0.0.4")

    # -- configuration -----------------------------------------------------------------------------------------

    async def config(self) -> Response:
        """The configuration by section, as it is now."""
        config = self._platform.config
        return answer({name: config.section(name) for name in config.names()})

    async def value(self, path: str) -> Response:
        """The value of `section.key`."""
        return answer({"path": path, "value": self._platform.config.get(path)})

    async def update(self, path: str, request: Request) -> Response:
        """Validate, store and apply a value: the body, as JSON. The answer has the version's number."""
        try:
            value: Any = msgspec.json.decode(await request.body())
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise InvalidArguments(f"the body is no JSON: {error}", path="$") from error
        version = await self._platform.config.update(path, value)
        return answer({"path": path, "value": self._platform.config.get(path), "version": version})

    async def history(self) -> Response:
        """The stored updates, the oldest first."""
        return answer({"versions": self._platform.config.history()})

    async def rollback(self, request: Request) -> Response:
        """Make the stored updates what they were at `version` (0: none)."""
        given = object_of(await request.body(), {"version": int}, frozenset({"version"}))
        return answer({"version": await self._platform.config.rollback(given["version"])})
