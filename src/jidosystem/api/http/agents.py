"""Routes on agents and their types: call, list, describe, start, stop, and what else there is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from fastapi import APIRouter, Header, Query, Request, Response

from ...core.errors import InvalidArguments, NoHost, NotAnAction
from ...core.ids import check_key
from ...core.near import near, near_or_all
from ...runtime import calls
from ...runtime.control import AgentInfo
from ...runtime.definition import ActionSpec
from ...runtime.host import Host
from ...runtime.keyed import check_idempotency_key
from ...runtime.types import type_info, type_info_at
from ..agents import STATES
from .answers import answer, as_from_afar

if TYPE_CHECKING:
    from ...distribution.frames import Order
    from ..platform import Platform

MAX_PAGE = 1_000
MAX_TIMEOUT_S = 24 * 3600.0
OPERATIONS = ("start", "stop", "restart", "pause", "resume")


class AgentRoutes:
    """See the module."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._node = platform._running()

    def router(self) -> APIRouter:
        """The routes. A key may hold slashes, written as they are or encoded: what follows it is the last part of a path."""
        router = APIRouter(prefix="/v1", tags=["agents"])
        router.add_api_route("/types", self.types, methods=["GET"])
        router.add_api_route("/types/{type}", self.one_type, methods=["GET"])
        router.add_api_route("/agents", self.page, methods=["GET"])
        router.add_api_route("/agents/{type}/{key:path}", self.describe, methods=["GET"])
        router.add_api_route("/agents/{type}/{key:path}", self.delete, methods=["DELETE"])
        router.add_api_route("/agents/{type}/{key:path}/{action}", self.call, methods=["POST"])
        router.add_api_route("/operations/{operation}/{type}/{key:path}", self.operate, methods=["POST"])
        return router

    # -- calling -----------------------------------------------------------------------------------------------

    async def call(
        self, request: Request, type: str, key: str, action: str,  # noqa: A002 - the word of the path
        timeout: float | None = Query(None, description="The caller's patience in seconds; by default agents.default_timeout."),
        idempotency_key: str | None = Header(None, description="A repetition with the same key takes effect once."),
    ) -> Response:  # fmt: skip
        """Call an action. The body is a JSON object of its arguments by name, the answer its result."""
        if timeout is not None and not (math.isfinite(timeout) and 0 <= timeout <= MAX_TIMEOUT_S):
            raise InvalidArguments(f"timeout={timeout!r}: seconds, 0 to {MAX_TIMEOUT_S:g}", path="$.timeout")
        if idempotency_key is not None:
            check_idempotency_key(idempotency_key)
        check_key(key)
        if self._is_elsewhere(type):
            assert self._node.router is not None
            told = await self._node.router.call_by_name(f"{type}/{key}", action, await request.body(), timeout, idempotency_key)
            return Response(told, media_type="application/json")
        host = self._host(type)
        spec = self._action(host, action)
        arguments = spec.signature.from_json(await request.body())
        with as_from_afar():
            value = await calls.call(host, key, spec, (), arguments, timeout, idempotency_key)
        return Response(spec.signature.result_to_json(value), media_type="application/json")

    def _is_elsewhere(self, name: str) -> bool:
        """Whether a type is hosted by other nodes only."""
        return name not in self._node.hosts and not name.startswith("jido.") and self._node.router is not None and self._node.router.is_hosted(name)

    def _address(self, name: str, key: str) -> str:
        """The address of an agent whose type this node or another one hosts."""
        if not self._is_elsewhere(name):
            self._host(name)
        return f"{name}/{check_key(key)}"

    def _host(self, name: str) -> Host:
        host = self._node.hosts.get(name)
        if host is None or name.startswith("jido."):
            hosted = self._hosted()
            told = near_or_all(name, hosted, "hosted are")
            where = "here" if self._node.router is None else f"by any node of the cluster ({', '.join(self._node.router.node_names())})"
            raise NoHost(f"no agent type {name!r} is hosted {where}{told}", agent_type=name)
        return host

    def _hosted(self) -> list[str]:
        return sorted(name for name in self._node.hosts if not name.startswith("jido."))

    def _action(self, host: Host, name: str) -> ActionSpec:
        spec = host.type.actions.get(name)
        if spec is None:
            told = near_or_all(name, host.type.actions, "it has")
            raise NotAnAction(f"{host.type.name} has no action {name!r}{told}", agent_type=host.type.name)
        return spec

    # -- looking -----------------------------------------------------------------------------------------------

    async def types(self) -> Response:
        """The hosted agent types, with their fields, actions and the JSON schemas of the arguments."""
        return answer({"types": [type_info(self._node.hosts[name]) for name in self._hosted()]})

    async def one_type(self, type: str) -> Response:  # noqa: A002
        """One agent type that this node or another one hosts."""
        if self._node.hosts.get(type) is None and (info := await type_info_at(self._node, type)) is not None:
            return Response(info, media_type="application/json")
        return answer(type_info(self._host(type)))

    async def page(
        self,
        type: str | None = Query(None, description="Only agents of this type."),  # noqa: A002
        state: str | None = Query(None, description="Only agents in this state."),
        limit: int = Query(100, ge=1, le=MAX_PAGE),
        after: str = Query("", description="`type/key` of the last agent of the page before: its `next`."),
        totals: bool = Query(True, description="Count the agents of each type too."),
    ) -> Response:
        """A page of agents by type and key, without their fields, and how many there are of each type."""
        if state is not None and state not in STATES:
            raise InvalidArguments(f"state={state!r}: one of {', '.join(STATES)}{near(state, STATES)}", path="$.state")
        hosts = [self._host(type)] if type is not None else [self._node.hosts[name] for name in self._hosted()]
        after_type, _, after_key = after.partition("/")
        found: list[AgentInfo] = []
        for host in hosts:
            name = host.type.name
            if name >= after_type and len(found) <= limit:
                found += await self._node.listing.page(host, after_key if name == after_type else "", limit + 1 - len(found), state)
        shown = found[:limit]
        following = f"{shown[-1].type}/{shown[-1].key}" if len(found) > limit else None
        return answer({"agents": shown, "next": following, "totals": await self._totals(hosts) if totals else None})

    async def _totals(self, hosts: Iterable[Host]) -> dict[str, dict[str, int]]:
        names = [host.type.name for host in hosts]
        by_node, count = await self._node.listing.live_counts(names), self._node.records.count_agents
        live = [counts for counts in by_node.values() if counts is not None]
        return {name: {"stored": await count(name), "live": sum(counts.get(name, 0) for counts in live)} for name in names}

    async def describe(self, type: str, key: str) -> Response:  # noqa: A002
        """One agent with its durable fields; doesn't wake it."""
        return answer(await self._node.control.order_at(self._address(type, key), "describe"))

    # -- operating ---------------------------------------------------------------------------------------------

    async def delete(self, type: str, key: str) -> Response:  # noqa: A002
        """Delete an agent: state, rows and reminders."""
        await self._node.see_through(self._node.control.order_at(self._address(type, key), "delete"))
        return answer({"deleted": f"{type}/{key}"})

    async def operate(self, operation: str, type: str, key: str) -> Response:  # noqa: A002
        """Start, stop, restart, pause or resume an agent; the answer describes it afterwards."""
        address = self._address(type, key)
        if operation not in OPERATIONS:
            raise InvalidArguments(f"there is no operation {operation!r}{near(operation, OPERATIONS)}; there are {', '.join(OPERATIONS)}", path="$")
        order, wanted = self._node.control.order_at, cast("Order", operation)
        with as_from_afar():
            await self._node.see_through(order(address, wanted))
        return answer(await order(address, "describe"))
