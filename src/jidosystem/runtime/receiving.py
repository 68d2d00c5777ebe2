"""Requests for a sensor with `http=`: each is a run of its generator, and is answered when the turns of its items are durable.

Whoever sends keeps what isn't answered with success, and sends it again: so nothing is repeated here, and there are no dead
letters. The requests of one agent are taken one after another, in the order of their coming; other agents don't wait for them.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from ..core.errors import InvalidArguments, InvalidKey, JidoError, RefusedError, Rejected, StoreError
from ..core.hooks import HttpRequest, HttpResponse
from ..core.ids import check_key
from .sensing import Sensing, is_ended_from_outside
from .status import Status

if TYPE_CHECKING:
    from .activation import Activation
    from .host import Host
    from .sensor import SensorSpec
    from .sensors import Sensors

MAX_WAITING = 100
"""How many requests for one sensor of one agent may wait; one more is answered with 503."""


class Reception:
    """One sensor of a type."""

    __slots__ = ("_host", "_lines", "_sensors", "_spec")

    def __init__(self, sensors: Sensors, host: Host, spec: SensorSpec) -> None:
        self._sensors, self._host, self._spec = sensors, host, spec
        self._lines: dict[str, tuple[asyncio.Lock, list[None]]] = {}

    async def receive(self, request: HttpRequest, key: str) -> HttpResponse:
        """The answer to a request: 204; or what its sender may make of it, 5xx being worth a repetition."""
        try:
            key = check_key(self._spec.options.key or key)
        except InvalidKey as error:
            return _text(404, str(error))
        lock, waiting = self._lines.setdefault(key, (asyncio.Lock(), []))
        if len(waiting) > MAX_WAITING:
            return _text(503, f"{len(waiting)} requests wait for {self._host.prefix}{key}; send it again later")
        waiting.append(None)
        try:
            async with lock:
                return await self._take(request, key)
        except JidoError as error:
            return _refused(error)
        finally:
            waiting.pop()
            if not waiting:
                del self._lines[key]

    async def _take(self, request: HttpRequest, key: str) -> HttpResponse:
        activation = await self._host.find(key).ready()
        if self._host.node.closing:
            raise self._host.shutting_down(key)
        if activation.status is not Status.LIVE:
            return _text(503, f"{activation.address} takes nothing just now; send it again later")
        task = self._sensors.start(activation, self._spec, partial(self._run, activation, request))
        try:
            _done, late = await asyncio.wait([task], timeout=self._host.node.limits.default_timeout)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if late:
            task.cancel()
            return _text(504, "it wasn't taken in time; send it again")
        if task.cancelled():
            return _text(503, f"{activation.address} ended meanwhile; send it again")
        answer: HttpResponse = task.result()
        return answer

    async def _run(self, activation: Activation, request: HttpRequest) -> HttpResponse:
        sensing = Sensing(self._sensors, activation, self._spec, request.headers.get("traceparent"))
        try:
            await sensing.load()
            await sensing.run({"request": request}, patient=False)
        except (InvalidArguments, Rejected, RefusedError, StoreError) as error:
            return _refused(error)
        except BaseException as error:  # whatever the application's code raises: its sender sends it again
            if is_ended_from_outside(error):
                raise
            self._sensors.failed(activation, self._spec.name, error, steady=True)
            return _text(500, "it wasn't taken because of an error here; send it again")
        return HttpResponse(204)


def _refused(error: JidoError) -> HttpResponse:
    if isinstance(error, InvalidArguments | Rejected):
        return _text(422, str(error))
    if isinstance(error, RefusedError | StoreError):
        return _text(503, "it can't be taken just now; send it again later")
    return _text(500, "it wasn't taken because of an error here; send it again")


def _text(status: int, told: str) -> HttpResponse:
    headers = {"content-type": "text/plain; charset=utf-8"}
    if status == 503:
        headers["retry-after"] = "1"
    return HttpResponse(status, told.encode(), headers)
