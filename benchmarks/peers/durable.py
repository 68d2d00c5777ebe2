"""What others do for a counter that survives a crash: eventsourcing, DBOS and LangGraph, each on SQLite, each increment fsynced."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypedDict

from ..measure import Run

FULL = 2


def _in_threads(threads: int, n: int, call: Callable[[int], object]) -> Callable[[], None]:
    executor = ThreadPoolExecutor(threads)

    def caller(number: int) -> None:
        for _ in range(n // threads):
            call(number)

    return lambda: [None for _ in executor.map(caller, range(threads))] and None


# -- eventsourcing -------------------------------------------------------------------------------------------------


def _eventsourcing(run: Run, threads: int, n: int) -> None:
    from eventsourcing.application import Application
    from eventsourcing.domain import Aggregate, event

    class Counter(Aggregate):
        value = 0

        @event("Added")
        def add(self, amount: int) -> None:
            self.value += amount

    environment = {
        "PERSISTENCE_MODULE": "eventsourcing.sqlite",
        "SQLITE_DBNAME": str(run.scratch / "eventsourcing.db"),
        "SQLITE_LOCK_TIMEOUT": "60",
    }
    application: Any = Application(env=environment)
    with application.recorder.datastore.transaction(commit=False) as cursor:
        cursor.execute("PRAGMA synchronous")
        assert next(iter(cursor.fetchone())) == FULL
    counters = [Counter() for _ in range(threads)]
    application.save(*counters)

    def call(number: int) -> None:
        counters[number].add(1)
        application.save(counters[number])

    run.repeat_sync(n, _in_threads(threads, n, call))
    application.close()


def eventsourcing_1(run: Run) -> None:
    """One caller."""
    _eventsourcing(run, 1, run.some(1_000, 50))


def eventsourcing_64(run: Run) -> None:
    """64 threads."""
    _eventsourcing(run, 64, run.some(64 * 30, 64))


def eventsourcing_back(run: Run) -> None:
    """Stored aggregates brought back, one caller."""
    from eventsourcing.application import Application
    from eventsourcing.domain import Aggregate, event

    class Counter(Aggregate):
        value = 0

        @event("Added")
        def add(self, amount: int) -> None:
            self.value += amount

    n = run.some(5_000, 100)
    application: Any = Application(env={"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(run.scratch / "eventsourcing.db")})
    counters = [Counter() for _ in range(n)]
    for counter in counters:
        counter.add(1)
    application.save(*counters)
    ids = [counter.id for counter in counters]

    def once() -> None:
        for identifier in ids:
            application.repository.get(identifier)

    run.repeat_sync(n, once)
    application.close()


# -- DBOS ----------------------------------------------------------------------------------------------------------


def _dbos(run: Run, threads: int, n: int) -> None:
    from dbos import DBOS

    logging.disable(logging.WARNING)
    url = f"sqlite:///{run.scratch / 'dbos.db'}"
    DBOS(config={"name": "bench", "system_database_url": url, "run_admin_server": False, "log_level": "ERROR"})
    lock = threading.Lock()
    values = dict.fromkeys(range(threads), 0)

    @DBOS.step()
    def add(number: int) -> int:
        with lock:
            values[number] += 1
        return values[number]

    @DBOS.workflow()
    def increment(number: int) -> int:
        return add(number)

    DBOS.launch()
    run.repeat_sync(n, _in_threads(threads, n, increment))
    DBOS.destroy()


def dbos_1(run: Run) -> None:
    """A workflow of one step, one caller."""
    _dbos(run, 1, run.some(200, 10))


def dbos_64(run: Run) -> None:
    """A workflow of one step, 64 threads."""
    _dbos(run, 64, run.some(64 * 5, 64))


# -- LangGraph -----------------------------------------------------------------------------------------------------


class State(TypedDict):
    value: int


async def _langgraph(run: Run, callers: int, n: int) -> None:
    import aiosqlite
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
    from langgraph.graph import END, START, StateGraph

    def add(state: State) -> State:
        return {"value": state["value"] + 1}

    async with aiosqlite.connect(run.scratch / "langgraph.db") as connection:
        await connection.execute("PRAGMA synchronous=FULL")
        graph: Any = StateGraph(State)
        graph.add_node("add", add)
        graph.add_edge(START, "add")
        graph.add_edge("add", END)
        compiled = graph.compile(checkpointer=AsyncSqliteSaver(connection))
        turn = 0

        async def caller(number: int) -> None:
            nonlocal turn
            for _ in range(n // callers):
                # A thread of its own for each increment: its checkpoints would grow, and the peer slow down, otherwise.
                turn += 1
                await compiled.ainvoke({"value": turn}, {"configurable": {"thread_id": f"{number}-{turn}"}}, durability="sync")

        async def once() -> None:
            await asyncio.gather(*map(caller, range(callers)))

        await run.repeat(n, once)


async def langgraph_1(run: Run) -> None:
    """A graph of one node, one caller."""
    await _langgraph(run, 1, run.some(200, 10))


async def langgraph_64(run: Run) -> None:
    """A graph of one node, 64 callers."""
    await _langgraph(run, 64, run.some(64 * 4, 64))
