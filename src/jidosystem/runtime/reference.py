"""References: what `platform.agent(Counter, "a")` returns. Typed as the agent class; each action is a call to wherever the agent lives."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any

from ..core.context import current
from ..core.errors import InvalidArguments, NotAnAction
from ..core.near import near_or_all
from ..core.reply import Reply
from ..core.shown import table
from ..core.traces import Leaving, leave
from . import calls
from .activation import Activation
from .boundary import IMMUTABLE
from .commits import commit_at_once, commit_soon
from .definition import ActionSpec
from .effects import called_instead
from .endings import watch
from .host import Host
from .status import Status
from .turn import CastTurn, RunningTurn, Turn, TurnTask

LIVE = Status.LIVE
get_current: Callable[[], Turn | None] = current.get  # type: ignore[assignment]


class Ref:
    """An agent's address and the way to it; does no I/O when made. Equal if type and key are."""

    __slots__ = ("_activation", "_host", "_key")
    _carried_instead = ": hand over the agent's key, and make the reference where it is needed"
    _activation: Activation | None
    _host: Host
    _key: str

    def __init__(self, host: Host, key: str) -> None:
        _set_host(self, host)
        _set_key(self, key)
        _set_activation(self, None)

    @property
    def key(self) -> str:
        """The agent's key. No field or action can have the name."""
        return self._key

    def __getattr__(self, name: str) -> Any:
        host = object.__getattribute__(self, "_host")
        if name.startswith("__"):
            raise AttributeError(name)
        kind = host.type
        what = "is a field" if name in kind.codec.names else "is no action"
        has = near_or_all(name, kind.actions, "its actions are")
        told = f"{kind.name}.{name} {what}: through a reference only actions can be reached{has}"
        with Leaving(host.node.name):
            raise NotAnAction(told, agent=f"{kind.name}/{self._key}", agent_type=kind.name, name=name)

    def __setattr__(self, name: str, value: object) -> None:
        with Leaving(self._host.node.name):
            raise NotAnAction(f"{self!r}.{name} can't be set: state belongs to the agent; write an action that changes it")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ref) and self._key == other._key and self._host is other._host

    def __hash__(self) -> int:
        return hash((self._host.type.name, self._key))

    def __repr__(self) -> str:
        return f"<{self._host.type.name}/{self._key}>"

    def _repr_html_(self) -> str:
        rows = [(name, f"({', '.join(spec.signature.names)})") for name, spec in self._host.type.actions.items()]
        return table(f"{self._host.type.name}/{self._key}", rows)

    def __reduce__(self) -> Any:
        raise TypeError(f"{self!r} can't be pickled; pass the agent's type and key")


# Past the refusal of __setattr__, and five times as fast.
_set_host: Callable[[Ref, Host], None] = Ref.__dict__["_host"].__set__
_set_key: Callable[[Ref, str], None] = Ref.__dict__["_key"].__set__
_set_activation: Callable[[Ref, Activation | None], None] = Ref.__dict__["_activation"].__set__


def make_ref_class(host: Host) -> type[Ref]:
    """The class of references to one host's agents: a coroutine function for each action."""
    kind = host.type
    make = _short_way if host.plain else _only_long_way
    members: dict[str, Any] = {name: make(host, spec) for name, spec in kind.actions.items()}
    for name, spec in kind.actions.items():
        at_once = host.casts_at_once and not spec.readonly
        members[name].__jido_cast__ = spec, spec.signature.arities if at_once else frozenset[int]()
    members["__slots__"] = ()
    members["__doc__"] = kind.description
    return type(f"{kind.cls.__name__}Ref", (Ref,), members)


def _only_long_way(host: Host, spec: ActionSpec) -> Callable[..., Coroutine[Any, Any, Any]]:
    call, node = calls.call, host.node

    @functools.wraps(spec.function)
    async def method(self: Ref, *args: Any, **kwargs: Any) -> Any:
        try:
            return await call(host, self._key, spec, args, kwargs, None, None)
        except Exception as error:
            leave(error, node.name)
            raise

    method.__jido_spec__ = spec  # type: ignore[attr-defined]
    return method


def _short_way(host: Host, spec: ActionSpec) -> Callable[..., Coroutine[Any, Any, Any]]:  # noqa: C901 - one straight path, for speed
    """An idle agent of a plain type runs the action within this very step; everything else takes the long way.

    What is written out here is `Activation.run` and `Activation.ended` for the commonest case, a turn that never
    waits: they must agree. What the closure binds is what every call would otherwise look up.
    """
    function, readonly, copied = spec.function, spec.readonly, spec.copy
    call, live, node = calls.call, host.live, host.node
    later, loop, time, expect, new_future = not node.records.at_once, node.loop, node.loop.time, node.committing.add, node.loop.create_future
    encode_checked, step, buckets, clock = host.type.codec.encode_checked, host.node.step, host.meter.buckets, node.monotonic

    @functools.wraps(function)
    async def method(self: Ref, *args: Any, **kwargs: Any) -> Any:  # noqa: C901
        try:
            activation = self._activation
            if activation is None or not activation.idle or kwargs:
                value = await call(host, self._key, spec, args, kwargs, None, None)
                _set_activation(self, live.get(self._key))
                return value
            for value in args:
                if type(value) not in IMMUTABLE and copied:
                    return await _long_way(self, spec, args, kwargs)
            caller = get_current()
            if caller is not None:
                if not caller.open:  # code that outlived its turn calls on its own behalf
                    caller = None
                elif caller.activation.inflight is not None or caller.activation.batch is not None or caller.spec.threaded:
                    return await _long_way(self, spec, args, kwargs)
            turn = RunningTurn(activation, spec, args, caller)
            instance = activation.for_reading() if readonly else activation.instance
            try:
                coro = function(instance, *args)
            except TypeError as error:
                raise InvalidArguments(f"{activation.address}.{spec.name}{spec.signature.signature}: {error}", path="$") from None
            activation.last_used = started = clock()
            activation.idle = False
            if readonly:
                activation.readers = 1
            else:
                activation.writer = turn
            value = step(coro, turn)
            if type(value) is TurnTask:
                turn.started = started
                return await _answer_of(turn, value)
            if type(value) in IMMUTABLE and turn.effects is None and not activation.queue and activation.status is LIVE:
                try:
                    after = activation.state if readonly else encode_checked(instance, activation.state)
                except BaseException:  # sorted out below, the long way
                    after = None
                if after is not None:
                    if after is activation.state or (not later and commit_at_once(activation, after)):
                        turn.open = False
                        activation.writer = None
                        activation.readers = 0
                        activation.idle = True
                        buckets[int((clock() - started) * 1e6).bit_length()] += 1
                        return value
                    if later:
                        if caller is None:
                            turn.deadline = time() + node.limits.default_timeout
                            turn.reply = Reply(loop=loop) if expect(turn) else new_future()
                        if commit_soon(activation, turn, value, after):
                            buckets[int((clock() - started) * 1e6).bit_length()] += 1
                            return await (turn.reply or calls.answer(turn))
            turn.started = started
            activation.ended(turn, value, None)
            activation.proceed()
            return await calls.answer(turn)
        except Exception as error:
            leave(error, node.name)
            raise

    method.__jido_spec__ = spec  # type: ignore[attr-defined]
    return method


async def _answer_of(turn: Turn, task: TurnTask) -> Any:
    """The answer of a turn whose first step has left a task behind."""
    activation = turn.activation
    if task.done():
        activation.task_ended(turn, task)
        activation.proceed()
    else:
        turn.task = task
        watch(activation, turn, task)
    return await calls.answer(turn)


async def _long_way(ref: Ref, spec: ActionSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    host = ref._host
    value = await calls.call(host, ref._key, spec, args, kwargs, None, None)
    _set_activation(ref, host.live.get(ref._key))
    return value


def target_of(bound: Any) -> tuple[Ref, ActionSpec]:
    """The reference and the action of `ref.action`, as `call` and `cast` take it."""
    try:
        ref, spec = bound.__self__, bound.__jido_spec__
    except AttributeError:
        ref = spec = None
    if not isinstance(ref, Ref) or spec is None:
        name = getattr(bound, "__name__", "")
        if getattr(getattr(bound, "__self__", None), "__jido_type__", None) is not None:
            told = f"the agent's own method {name!r} isn't an action of a reference: await it, or take a reference: self.cast(self.ref.{name})"
            raise InvalidArguments(told, path="$")
        if called := called_instead(bound):
            told = f"{called}(…) isn't an action of a reference but a call of it: give the action, then its arguments, as in cast(ref.{called}, …)"
            raise InvalidArguments(told, path="$")
        raise InvalidArguments(f"{bound!r} isn't an action of a reference; write platform.call(ref.add, 2), without calling ref.add itself", path="$")
    return ref, spec


def cast_at_once(bound: Any, args: tuple[Any, ...]) -> bool:
    """The commonest cast, to a live agent of a plain type and with arguments that nobody can change. False: it takes the long way."""
    try:
        activation, (spec, arities) = bound.__self__._activation, bound.__jido_cast__
    except AttributeError:
        return False
    if type(activation) is not Activation or activation.status is not LIVE or len(args) not in arities:
        return False
    if spec.copy:
        for value in args:
            if type(value) not in IMMUTABLE:
                return False
    activation.post(CastTurn(activation, spec, args, None))
    return True


def by_name(spec: ActionSpec, args: tuple[Any, ...], named: Any) -> dict[str, Any]:
    """The arguments given as `args={…}`, checked against the action's type hints."""
    if named is None:
        return {}
    if args:
        raise InvalidArguments("give an action's arguments by position or as args={…}, not both", path="$.args")
    return spec.signature.from_plain(spec.signature.encode_by_name(named))
