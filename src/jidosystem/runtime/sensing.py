"""One sensor of one activation: its generator is run, and each item becomes a turn that is durable before the next is asked for.

The generator runs outside of turns, in a task that lasts as long as the activation is live, or for one request. The position
of an item is written with the state, in the commit of its turn, so that both are there or neither; it is given to the next
run, also by the next process. A turn that fails is repeated as deliveries are and goes to the dead letters in the end, its
position behind it. A generator that fails is run again from the last position, after a pause that grows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from ..core.codec import encode
from ..core.errors import InvalidArguments, JidoError, RecordUnreadable, describe
from ..core.tracing import ambient_traceparent
from ..core.troubles import is_cancelled_from_outside, is_passing
from .deliveries import settle
from .folders import Watched, folder_of
from .occasions import Calendar, Occasion, Periodic
from .outbox import LONGEST_WAIT_S, MAX_ATTEMPTS, backoff_s
from .turn import DELIVERY, SensorOrigin, Turn

if TYPE_CHECKING:
    from .activation import Activation
    from .definition import ActionSpec
    from .sensor import SensorSpec
    from .sensors import Sensors

STEADY_S = 30.0
"""A run that has lasted so long before it failed is forgiven the failures before it."""


class Kept(NamedTuple):
    """What an agent's record keeps of a sensor: the last position, encoded, and when the last good run of a calendar began."""

    position: bytes | None = None
    ran_s: float | None = None


class Packed(NamedTuple):
    """What was yielded, as it is stored: the arguments of its turn by name, and its position."""

    arguments: bytes
    position: bytes | None


_kept = msgspec.msgpack.Decoder(tuple[bytes | None, float | None])


def decode_kept(value: bytes, address: str, name: str) -> Kept:
    """What a row says; `RecordUnreadable` naming agent and sensor if it is none."""
    try:
        return Kept(*_kept.decode(value))
    except (msgspec.MsgspecError, ValueError) as error:
        raise RecordUnreadable(f"what is stored of the sensor {name} of {address} can't be read: {error}", agent=address) from error


class Sensing:
    """See the module. `traceparent`: where its turns belong, for one that serves a request."""

    __slots__ = ("_activation", "_kept", "_node", "_sensors", "_spec", "_traceparent")

    def __init__(self, sensors: Sensors, activation: Activation, spec: SensorSpec, traceparent: str | None = None) -> None:
        self._sensors = sensors
        self._node = activation.host.node
        self._activation = activation
        self._spec = spec
        self._traceparent = traceparent
        self._kept = Kept()

    # -- for as long as the agent is live ------------------------------------------------------------------------

    async def go_on(self) -> None:
        """Run on every occasion, for ever. What fails is told, and tried again."""
        address, spec, sensors = self._activation.address, self._spec, self._sensors
        occasion: Occasion | None = None
        try:
            while True:
                await asyncio.sleep(sensors.pause_s(address, spec.name))
                began = monotonic()
                try:
                    if occasion is None:
                        occasion = await self._begin()
                    given = await occasion.wait()
                    began = monotonic()
                    await self.run(given)
                    await occasion.done()
                except BaseException as error:  # whatever the application's generator raises is its failure, not the platform's
                    if is_ended_from_outside(error):
                        raise
                    sensors.failed(self._activation, spec.name, error, steady=monotonic() - began > STEADY_S)
                    stop_if_cancelled()
                else:
                    sensors.went_well(address, spec.name)
        finally:
            if isinstance(occasion, Watched):
                occasion.close()

    async def _begin(self) -> Occasion:
        """Read what is stored, and see that there is something stored: whoever has work without being called comes back uncalled."""
        await self.load()
        options, node = self._spec.options, self._node
        ran_s = self._kept.ran_s
        if options.cron is not None and ran_s is None:
            ran_s = node.clock.time_s()
            await self._note(ran_s)
        elif self._activation.turns == 0:
            await self._write(None)
        if options.cron is not None and ran_s is not None:
            return Calendar(options.cron, ran_s, node.clock, self._note)
        if options.watch is not None:
            return Watched(self._sensors.folders, folder_of(options.watch, self._activation.key))
        assert options.every is not None
        return Periodic(options.every)

    async def load(self) -> None:
        """Read what is stored of the sensor."""
        value = await self._node.records.read_row(self._activation.address, "sensor", self._spec.name)
        self._kept = Kept() if value is None else decode_kept(value, self._activation.address, self._spec.name)

    async def _note(self, ran_s: float) -> None:
        await self._write(self._kept._replace(ran_s=ran_s))

    # -- one run -------------------------------------------------------------------------------------------------

    async def run(self, given: Mapping[str, Any], *, patient: bool = True) -> None:
        """Run the generator to its end. `patient`: a turn that fails is repeated and then put aside, else its error ends the run.
        Raises what the generator raises."""
        items: AsyncGenerator[Any, None] = self._spec.function(self._spec.look(self._activation), **self._arguments(given))
        try:
            mistake: InvalidArguments | None = None
            while True:
                try:
                    yielded = await (anext(items) if mistake is None else items.athrow(mistake))
                except StopAsyncIteration:
                    stop_if_cancelled()
                    return
                stop_if_cancelled()
                try:
                    packed, mistake = Packed(*self._spec.pack(yielded)), None
                except InvalidArguments as error:  # of the generator: it is told where it yields
                    mistake = error
                    continue
                with self._sensors.waiting(self):
                    await (self._see_through(packed) if patient else self._turn(packed))
                self._activation.host.meter.sensed += 1
        finally:
            if _loop_runs():  # else this is being destroyed after its loop, given up
                await items.aclose()

    def _arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        spec, kept = self._spec, self._kept
        arguments = {name: value for name, value in given.items() if name in spec.takes}
        if "position" in spec.takes and not (kept.position is None and spec.position_optional):
            arguments["position"] = None if kept.position is None else spec.position_from(kept.position)
        return arguments

    # -- one item ------------------------------------------------------------------------------------------------

    async def _see_through(self, packed: Packed) -> None:
        """Repeat the item's turn until it is durable or has failed too often; then put it aside and go on behind it."""
        most = MAX_ATTEMPTS if self._fits(packed) else 1
        attempt = tries = 1
        while True:
            try:
                await self._turn(packed)
            except Exception as error:  # the action's own, or what refuses the turn
                failure = error
            else:
                return
            passing = is_passing(failure)  # counts as no attempt, but the pauses grow all the same
            if not passing and attempt >= most and await self._put_aside(packed, attempt, failure):
                return
            await asyncio.sleep(min(backoff_s(tries, self._node.random()), LONGEST_WAIT_S))
            attempt, tries = min(most, attempt + (not passing)), tries + 1

    def _fits(self, packed: Packed) -> bool:
        """Whether an item is what its action takes: if not, it never will be."""
        try:
            self._spec.action.signature.from_plain(packed.arguments)
        except InvalidArguments:
            return False
        return True

    async def _turn(self, packed: Packed) -> None:
        """Run the item's turn; returns when it is durable, with its position. Raises why it isn't."""
        spec = self._spec.action
        kept = None if packed.position is None else self._kept._replace(position=packed.position)
        await self._run_turn(spec, spec.signature.from_plain(packed.arguments), kept)

    async def _write(self, kept: Kept | None) -> None:
        """A turn of its own that stores what is kept of the sensor, None: that there is the agent."""
        await self._run_turn(self._sensors.nothing, {}, kept)

    async def _run_turn(self, spec: ActionSpec, arguments: dict[str, Any], kept: Kept | None) -> None:
        activation, node = self._activation, self._node
        done: asyncio.Future[None] = node.loop.create_future()
        turn = Turn(activation, spec, (), None)
        turn.kind, turn.kwargs = DELIVERY, arguments
        told = partial(self._sensors.told, activation, self._spec.name, partial(settle, done))
        turn.origin = SensorOrigin(activation, self._spec.name, None if kept is None else encode(kept), told)
        if node.tracing.enabled:
            turn.traceparent = self._traceparent or ambient_traceparent()
        try:
            activation.host.guards.check(activation, turn)
            activation.submit(turn)
            await done
        except asyncio.CancelledError:
            turn.withdraw()
            raise
        if kept is not None:
            self._kept = kept

    async def _put_aside(self, packed: Packed, attempts: int, error: BaseException) -> bool:
        """Make an item a dead letter and store its position; False: there is no room for it, or no store, just now."""
        try:
            await self._sensors.bury(self._activation, self._spec, packed, attempts, error)
            if packed.position is not None:
                await self._write(self._kept._replace(position=packed.position))
        except JidoError as refused:
            self._node.log.error(
                "a dead letter couldn't be stored yet", agent=self._activation.address, sensor=self._spec.name, error=describe(refused)
            )
            return False
        return True


def is_ended_from_outside(error: BaseException) -> bool:
    """Whether the running task is cancelled, or is destroyed after its loop; a generator may raise the same by itself."""
    return is_cancelled_from_outside(error) or (isinstance(error, GeneratorExit) and not _loop_runs())


def stop_if_cancelled() -> None:
    """`CancelledError` if the running task was asked to stop: its code may have caught what told it so."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _loop_runs() -> bool:
    return asyncio._get_running_loop() is not None
