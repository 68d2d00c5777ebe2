"""`jido run counter.py`: a node that hosts the agents of a program until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from . import node
from .output import FAILED, INTERRUPTED, OK, Json, Quiet, say, tell_json, usage
from .program import Program, load, place_of
from .workers import MAX_WORKERS, run_workers

if TYPE_CHECKING:
    import socket

    from .serving import Place

R = TypeVar("R")

app = typer.Typer(rich_markup_mode=None, add_completion=False)

PathArgument = Annotated[str, typer.Argument(metavar="PROGRAM", help="A file (counter.py) or a module's dotted name.")]
StoreOption = Annotated[
    str | None, typer.Option("--store", envvar="JIDO_STORE", show_envvar=False, help="The store's URL; by default sqlite:///PROGRAM.db here.")
]
PortOption = Annotated[int | None, typer.Option("--port", min=0, max=65535, help="By default 7450, or a free one if that is taken.")]
HostOption = Annotated[str, typer.Option("--host", help="A loopback address.")]
NameOption = Annotated[str | None, typer.Option("--name", help="The node's name; by default the program's.")]
AgentsOption = Annotated[str | None, typer.Option("--agents", help="Host these agent types only: Counter,Order.")]


@app.command()
def run(
    target: PathArgument,
    store: StoreOption = None,
    port: PortOption = None,
    host: HostOption = "127.0.0.1",
    name: NameOption = None,
    agents: AgentsOption = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, max=MAX_WORKERS, help="So many nodes, with a NATS server of their own.")] = None,
    cluster: Annotated[str | None, typer.Option("--cluster", help="Join the cluster at nats://HOST:4222; the same as --store.")] = None,
    as_json: Json = False,
) -> None:
    """Host the agents of a program, with the HTTP API, until Ctrl-C or SIGTERM; a second one ends at once."""
    program_name = place_of(target)[0].rpartition(".")[2]
    if workers is not None:
        given = (("--store", store), ("--cluster", cluster), ("--port", port))
        if wrong := [option for option, value in given if value is not None]:
            raise usage(f"{wrong[0]} doesn't go with --workers, which starts a cluster of its own with a port for each node")
        options = [*(["--agents", agents] if agents else []), *(["--json"] if as_json else []), "--host", host]
        raise Quiet(run_workers(target, program_name, workers, options, name or program_name))
    if cluster is not None and store is not None:
        raise usage("--cluster and --store are the same; give one of them")
    from ..api.http.loopback import listen

    node_name, store_url = free_name(name, program_name), store_of(cluster or store, program_name)
    with listen(host, port) as listening:
        program = load(target, agents)
        from .serving import Place, run_loop

        place = Place(node_name, target, store_url, secrets.token_urlsafe(32))
        code = run_loop(_run(place, program, listening, as_json))
    raise Quiet(code)


def store_of(wanted: str | None, program: str) -> str:
    """The store's URL: as wanted, which must be one, or a file named after the program in the working directory."""
    from ..api.assembly import check_url

    url = wanted or f"sqlite:///{program}.db"
    check_url(url)
    return url


def free_name(wanted: str | None, program: str) -> str:
    """The node's name: as wanted, which must be free, or the program's, with the process behind it if another node has that."""
    taken = {found.name for found in node.running()[0]}
    if wanted is None:
        return program if program not in taken else f"{program}-{os.getpid()}"
    if not (0 < len(wanted) <= 100 and wanted.isprintable() and "://" not in wanted):
        raise usage(f"--name {wanted!r}: 1 to 100 printable characters")
    if wanted in taken:
        raise usage(f"--name {wanted}: a node of that name runs here already")
    return wanted


async def _run(place: Place, program: Program, listening: socket.socket, as_json: bool) -> int:
    from ..api.assembly import shown
    from ..api.http.loopback import url_of
    from .serving import serve

    ending = Ending(place.name)
    async with AsyncExitStack() as stack:
        served = await ending.unless_asked(serve(place, program, listening))
        if served is None:
            return ending.code
        running = await stack.enter_async_context(served)
        written = node.NodeFile(place.name, url_of(listening), os.getpid(), place.target, place.token, running.cluster)
        await asyncio.to_thread(node.write, written)
        stack.push_async_callback(asyncio.to_thread, node.remove, written)
        names = [cls.__jido_type__.name for cls in program.agents]
        if as_json:
            tell_json({"name": place.name, "url": url_of(listening), "pid": os.getpid(), "store": shown(place.store), "agents": names})
        else:
            say(f"{place.name}: {', '.join(names) or 'no agents'} on {shown(place.store)}")
            say(f"{url_of(listening)}  (Ctrl-C ends)")
        if program.hint:
            say(program.hint)
        await ending.wait()
        if not as_json:
            say("closing; once more ends at once", "dim")
    return ending.code


class Ending:
    """The first signal asks for the end, a second one is the end."""

    def __init__(self, name: str) -> None:
        self.code = OK
        self._name = name
        self._asked = asyncio.Event()
        self._opening: asyncio.Task[Any] | None = None
        loop = asyncio.get_running_loop()
        for number, code in ((signal.SIGINT, INTERRUPTED), (signal.SIGTERM, OK)):
            loop.add_signal_handler(number, self._signalled, code)

    def _signalled(self, code: int) -> None:
        if self._asked.is_set():
            os._exit(code or FAILED)  # what was acknowledged is durable; the file is removed by whoever looks for a node next
        self.code = code
        self._asked.set()
        if self._opening is not None:
            self._opening.cancel()

    async def unless_asked(self, opening: Coroutine[Any, Any, R]) -> R | None:
        """What opens, in this task; None if a signal came before it stood: a program's lifespan may wait for ever."""
        self._opening = asyncio.current_task()
        try:
            return await opening
        except asyncio.CancelledError:
            if not self._asked.is_set():
                raise
            return None
        finally:
            self._opening = None

    async def wait(self) -> None:
        """Until the first signal."""
        await self._asked.wait()
