"""What can't be stored is refused in the turn that asks for it, by name; the agent, its neighbours and the store go on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from jidosystem import Agent, JidoError, Platform, action

HALF = "\ud800"  # half of a surrogate pair: a str that no encoding of Unicode can hold


class Mischief(Agent):
    text: str = ""
    number: int = 0
    done: int = 0

    @action
    async def do(self, what: str) -> Any:  # noqa: C901 - one case each
        self.done += 1
        match what:
            case "data of an event":
                self.emit("mischief.done", {"text": HALF})
            case "bare data of an event":
                self.emit("mischief.done", HALF)
            case "object as data":
                self.emit("mischief.done", {"object": object()})
            case "stream":
                self.emit("mischief.done", stream=HALF)
            case "empty stream":
                self.emit("mischief.done", stream="")
            case "endless stream":
                self.emit("mischief.done", stream="x" * 1_001)
            case "no string as stream":
                self.emit("mischief.done", stream=5)  # type: ignore[arg-type]
            case "metadata":
                self.emit("mischief.done", metadata={"text": HALF})
            case "state":
                self.text = HALF
            case "number":
                self.number = 2**70
            case "result":
                return object()
            case "name of a reminder":
                self.remind(HALF, action=self.do, after=1, args={"what": ""})
            case "arguments of a reminder":
                self.remind("r", action=self.do, after=1, args={"what": HALF})
            case "argument of a reminder that doesn't fit":
                self.remind("r", action=self.do, after=1, args={"what": 5})
            case "time of a reminder":
                self.remind("r", action=self.do, after=math.nan, args={"what": ""})
            case "cast":
                self.cast(self.agent(Mischief, "b").do, HALF)
            case "child":
                self.child(Mischief, HALF)
            case _:
                return self.done
        return None


WHAT = [
    "data of an event", "bare data of an event", "object as data", "stream", "no string as stream", "empty stream", "endless stream", "metadata",
    "state", "number", "result", "name of a reminder", "arguments of a reminder", "time of a reminder", "cast", "child",
    "argument of a reminder that doesn't fit",
]  # fmt: skip


@pytest.mark.parametrize("what", WHAT)
async def test_what_cannot_be_stored_fails_its_turn_alone(what: str, tmp_path: Path) -> None:
    async with Platform(f"sqlite:///{tmp_path}/x.db", agents=[Mischief]) as platform:
        ref = platform.agent(Mischief, "a")
        assert await ref.do("count") == 1
        with pytest.raises(JidoError):
            await ref.do(what)
        assert await ref.do("count") == 2
        assert await platform.agent(Mischief, "b").do("count") == 1
        assert [event async for event in platform.events.read_all()] == []
