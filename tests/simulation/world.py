"""The agents of the storms, and how the answers of the platform are taken: as known to have failed, or as unknown."""

from __future__ import annotations

from jidosystem import Agent, Event, action, errors, field, on_event

ACCOUNTS, OPENING = 4, 100


class Register(Agent):
    """A value that is written, read, and exchanged."""

    value: str = ""

    @action
    async def write(self, value: str) -> None:
        self.value = value

    @action(readonly=True)
    async def read(self) -> str:
        return self.value

    @action
    async def exchange(self, expected: str, new: str) -> bool:
        if self.value != expected:
            return False
        self.value = new
        return True


class Counter(Agent):
    """Counts calls that have idempotency keys."""

    total: int = 0

    @action
    async def add(self, amount: int) -> int:
        self.total += amount
        return self.total

    @action(readonly=True)
    async def read(self) -> int:
        return self.total


class Account(Agent):
    """Holds money, and sends it to others by casts."""

    balance: int = OPENING

    @action
    async def send(self, to: str, amount: int) -> bool:
        if self.balance < amount:
            return False
        self.balance -= amount
        self.cast(self.agent(Account, to).receive, amount)
        return True

    @action
    async def receive(self, amount: int) -> None:
        self.balance += amount

    @action(readonly=True)
    async def holds(self) -> int:
        return self.balance


class Emitter(Agent):
    """Says what it is told, and remembers it."""

    said: list[str] = field(default_factory=list)

    @action
    async def say(self, word: str) -> None:
        self.said.append(word)
        self.emit("storm.said", {"to": self.key, "word": word})

    @action(readonly=True)
    async def words(self) -> list[str]:
        return self.said


class Listener(Agent):
    """Hears what emitters of its key say."""

    heard: list[str] = field(default_factory=list)

    @on_event("storm.said", key="data.to")
    async def hear(self, event: Event) -> None:
        self.heard.append(event.data["word"])

    @action(readonly=True)
    async def words(self) -> list[str]:
        return self.heard


class Bell(Agent, resident=True):
    """Is always there, and rings when it was told to."""

    rung: list[str] = field(default_factory=list)

    @action
    async def ring(self, name: str, after: float) -> None:
        self.remind(name, after=after, action=self.rings, args={"name": name})

    @action
    async def rings(self, name: str) -> None:
        self.rung.append(name)

    @action(readonly=True)
    async def names(self) -> list[str]:
        return self.rung


AGENTS = [Register, Counter, Account, Emitter, Listener, Bell]
UNKNOWN = (errors.OutcomeError, errors.CommitUnknown, errors.AgentCrashed)


def is_known(error: errors.JidoError) -> bool:
    """Whether an error says that nothing has happened."""
    if isinstance(error, errors.CallTimeout):
        return not error.uncertain
    return not isinstance(error, UNKNOWN)
