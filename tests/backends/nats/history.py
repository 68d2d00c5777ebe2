"""Writers that append to lists in heads, and what must hold of what they were told: a list is a record whose whole history can be read."""

from __future__ import annotations

import asyncio
import itertools
import json

from jidosystem.core.errors import CommitUnknown, Conflict, StoreUnavailable


class History:
    """What was told of every attempt, and when."""

    def __init__(self):
        self.acknowledged: dict[str, list[tuple[int, str]]] = {}  # agent -> (revision, entry)
        self.refused: dict[str, set[str]] = {}
        self.unknown: dict[str, set[str]] = {}
        self.winners: dict[tuple[str, int], list[str]] = {}
        self.stale: list[str] = []
        self._last: dict[str, int] = {}
        self.attempts = 0
        self.longest_s = 0.0
        self._numbers = itertools.count()
        self._more = asyncio.Event()

    async def reached(self, more):
        """Until so many more were acknowledged."""
        wanted = self.won + more
        while self.won < wanted:
            self._more.clear()
            await self._more.wait()

    @property
    def won(self):
        """How many were acknowledged."""
        return len(self.winners)

    async def append(self, records, agent, writer):
        """One attempt: read, then commit the list with one entry more. Whether it is known to have happened."""
        clock = asyncio.get_running_loop().time
        began_s = clock()
        known = self._last.get(agent, 0)
        try:
            found = await records.read(agent)
        except StoreUnavailable:
            self.longest_s = max(self.longest_s, clock() - began_s)
            return False
        if (0 if found is None else found.revision) < known:
            self.stale.append(f"{agent} was read at {found}, and revision {known} had been acknowledged before")
        expected, entries = (0, []) if found is None else (found.revision, json.loads(found.head))
        entry = f"{writer}-{next(self._numbers)}"
        self.attempts += 1
        try:
            done = await records.commit(agent, expected, json.dumps([*entries, entry]).encode())
        except (Conflict, StoreUnavailable):
            self.refused.setdefault(agent, set()).add(entry)
            return False
        except CommitUnknown:
            self.unknown.setdefault(agent, set()).add(entry)
            return False
        finally:
            self.longest_s = max(self.longest_s, clock() - began_s)
        self.acknowledged.setdefault(agent, []).append((done.revision, entry))
        self.winners.setdefault((agent, expected), []).append(entry)
        self._last[agent] = max(self._last.get(agent, 0), done.revision)
        self._more.set()
        return True

    async def wrong(self, records):
        """What doesn't hold; empty: all is well."""
        problems = [
            f"{entries} all replaced revision {expected} of {agent}" for (agent, expected), entries in self.winners.items() if len(entries) > 1
        ]
        for agent in self.acknowledged | self.refused | self.unknown:
            found = await records.read(agent)
            entries = [] if found is None else json.loads(found.head)
            told = self.acknowledged.get(agent, [])
            if len(set(entries)) != len(entries):
                problems.append(f"{agent} has an entry twice: {entries}")
            if [entry for _revision, entry in sorted(told)] != [entry for entry in entries if entry in {e for _r, e in told}]:
                problems.append(f"{agent}: acknowledged {sorted(told)}, there are {entries}")
            if there := self.refused.get(agent, set()) & set(entries):
                problems.append(f"{agent}: {there} were refused and are there")
            if others := set(entries) - {e for _r, e in told} - self.unknown.get(agent, set()):
                problems.append(f"{agent}: nobody wrote {others}")
        return problems
