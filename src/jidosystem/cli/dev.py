"""`jido dev counter.py`: a node that reloads its program on every save, with its agents' state.

A store has one owner, so a new program is imported in a fresh process first. Only when that stands ready does the old process
close its platform; if the new one can't open its own then, the old one, which still has the old modules, opens again. The
listening socket is held here: calls that come meanwhile wait in its queue. A process with everything imported but the
program always stands by.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from . import node
from .output import FAILED, INTERRUPTED, OK, Failure, Json, Quiet, say, tell_json, told
from .program import place_of
from .run import AgentsOption, HostOption, NameOption, PathArgument, PortOption, StoreOption, free_name, store_of

app = typer.Typer(rich_markup_mode=None, add_completion=False)

LAST_S = 30.0
"""How long a worker may take to open, to close or to end, if nothing else is wished; a platform closes within its `platform.shutdown_timeout`."""
SETTLED_S = 2.0
"""A program that dies sooner after its start isn't started again before the next save."""


@app.command()
def dev(
    target: PathArgument,
    store: StoreOption = None,
    port: PortOption = None,
    host: HostOption = "127.0.0.1",
    name: NameOption = None,
    agents: AgentsOption = None,
    patience: Annotated[float, typer.Option("--patience", min=0.1, help="Seconds that the program may take to open or to close.")] = LAST_S,
    as_json: Json = False,
) -> None:
    """Host the agents of a program, checking, and reload it on every save; the agents keep their state."""
    from ..api.http.loopback import listen, url_of

    module, root = place_of(target)
    program = module.rpartition(".")[2]
    store_url = store_of(store, program)
    with listen(host, port) as listening:
        written = node.NodeFile(free_name(name, program), url_of(listening), os.getpid(), target, secrets.token_urlsafe(32))
        place = [written.name, target, store_url, written.token]
        told_to = _Told(as_json)
        code = asyncio.run(Supervisor(written, place, [target, agents], listening, root, told_to, patience).run())
    raise Quiet(code)


class _Told:
    """What a developer, or a program that looks on, is told."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json

    def happened(self, event: str, text: str, **facts: Any) -> None:
        if self._as_json:
            tell_json({"event": event, **facts})
        else:
            say(text, "dim")

    def failed(self, answer: Mapping[str, str], then: str) -> None:
        if self._as_json:
            tell_json({"event": "failed", "then": then, **{name: answer[name] for name in ("code", "message", "lines")}})
        else:
            told(Failure(answer["message"], code=answer["code"], hint=then, lines=answer["lines"]))


class Worker:
    """A process, `worker.py`, and this end of what connects it."""

    def __init__(self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.process = process
        self.gone = asyncio.ensure_future(process.wait())
        self.since_s = time.monotonic()
        self._reader, self._writer = reader, writer

    @classmethod
    async def start(cls, listening: socket.socket) -> Worker:
        """A new one, that gets everything ready but the program."""
        ours, theirs = socket.socketpair()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C isn't for it, not even before it can say so
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "jidosystem.cli.worker", str(theirs.fileno()), str(listening.fileno()),
                pass_fds=(theirs.fileno(), listening.fileno()),
            )  # fmt: skip
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            theirs.close()
        return cls(process, *await asyncio.open_connection(sock=ours))

    async def ask(self, patience_s: float | None = None, **what: Any) -> dict[str, Any]:
        """Its answer; one that is gone has failed, and one that takes too long is killed."""
        try:
            self._writer.write(json.dumps(what).encode() + b"\n")
            async with asyncio.timeout(patience_s):
                line = await self._reader.readline()
            if line:
                answer: dict[str, Any] = json.loads(line)
                return answer
        except TimeoutError:
            self.process.kill()
            await self.gone
            message = f"the program took longer than {patience_s:g} s to {what['do']} and was killed"
            return {"told": "failed", "code": "timeout", "message": message, "lines": ""}
        except ConnectionError:
            pass
        code = await self.gone
        return {"told": "failed", "code": "process-ended", "message": f"the program's process ended ({_how(code)})", "lines": ""}

    def leave(self) -> None:
        """It is to end: what it serves is closed first."""
        self._writer.close()

    async def end(self, patience_s: float) -> None:
        """Wait until it is gone; kill it if that takes too long."""
        self.leave()
        await asyncio.wait((self.gone,), timeout=patience_s)
        if not self.gone.done():
            self.process.kill()
            await self.gone


class Supervisor:
    """See the module. Owns every worker; whatever ends it ends them."""

    def __init__(
        self,
        written: node.NodeFile,
        place: list[str],
        load: list[str | None],
        listening: socket.socket,
        root: Path,
        told_to: _Told,
        patience_s: float,
    ) -> None:
        self._written, self._place, self._load, self._listening, self._root, self._told = written, place, load, listening, root, told_to
        self._patience_s = patience_s
        self._current: Worker | None = None
        self._spare: Worker | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._saved = asyncio.Event()
        self._ended = asyncio.Event()
        self._code = OK

    async def run(self) -> int:
        """Until a signal; the exit code."""
        loop = asyncio.get_running_loop()
        for number, code in ((signal.SIGINT, INTERRUPTED), (signal.SIGTERM, OK)):
            loop.add_signal_handler(number, self._signalled, code)
        work = asyncio.create_task(self._work())
        watching = asyncio.create_task(self._watch())
        ended = asyncio.create_task(self._ended.wait())
        try:
            await asyncio.wait((work, watching, ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._ended.set()
            work.cancel()
            results = await asyncio.gather(work, watching, ended, return_exceptions=True)
            await self._close()
        for result in results:
            if isinstance(result, Exception):
                raise result
        return self._code

    def _signalled(self, code: int) -> None:
        if self._ended.is_set():
            for worker in (self._current, self._spare):
                if worker is not None and worker.process.returncode is None:
                    worker.process.kill()
            os._exit(code or FAILED)
        self._code = code
        self._ended.set()

    async def _close(self) -> None:
        await asyncio.to_thread(node.remove, self._written)
        if self._spare is not None:
            self._spare.process.kill()
        endings = [worker.end(self._patience_s) for worker in (self._current, self._spare) if worker is not None]
        await asyncio.gather(*endings, *self._leaving)

    async def _watch(self) -> None:
        import watchfiles

        kinds = watchfiles.PythonFilter(extra_extensions=(".toml",))
        async for _changes in watchfiles.awatch(self._root, watch_filter=kinds, stop_event=self._ended, step=20, debounce=200, rust_timeout=500):
            self._saved.set()

    # -- reloading -------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        await self._reload()
        while True:
            saved = asyncio.ensure_future(self._saved.wait())
            await asyncio.wait((saved, *([self._current.gone] if self._current is not None else [])), return_when=asyncio.FIRST_COMPLETED)
            if not saved.done():
                saved.cancel()
                await self._died()
            else:
                await self._reload()

    async def _died(self) -> None:
        worker, self._current = self._current, None
        assert worker is not None
        again = time.monotonic() - worker.since_s > SETTLED_S
        text = f"the program's process ended ({_how(worker.gone.result())}); " + ("starting it again" if again else "it waits for the next save")
        self._told.happened("ended", text, code=worker.gone.result(), again=again)
        if again:
            await self._reload()

    async def _reload(self) -> None:
        """Put a new program in the place of the old one, if it can be."""
        started_s = time.monotonic()
        fresh = await self._loaded()
        if fresh is None:
            return
        old = self._current
        try:
            closed = await old.ask(self._patience_s, do="close") if old is not None else {"told": "closed"}
            if closed["told"] == "failed":
                self._told.failed(closed, "the new program takes its place")
            answer = await fresh.ask(self._patience_s, do="open")
        except asyncio.CancelledError:
            self._let_go(fresh)
            raise
        if answer["told"] == "open":
            self._current, fresh.since_s = fresh, time.monotonic()
            if old is None:
                await asyncio.to_thread(node.write, self._written)
                name, url = self._written.name, self._written.url
                text = f"{name} on {self._place[2]} at {url}, checking; reloads on every save (Ctrl-C ends)"
                self._told.happened("serving", text, name=name, url=url, pid=fresh.process.pid)
            else:
                took_s = round(time.monotonic() - started_s, 3)
                self._told.happened("reloaded", f"reloaded in {took_s:g} s", took_s=took_s, pid=fresh.process.pid)
                self._let_go(old)
        else:
            self._let_go(fresh)
            await self._back_to(old, answer)
        await self._stand_by()

    async def _back_to(self, old: Worker | None, failure: Mapping[str, str]) -> None:
        if old is None:
            self._told.failed(failure, "waiting for the next save")
            return
        again = await old.ask(self._patience_s, do="open")
        if again["told"] == "open":
            self._told.failed(failure, "the old program goes on")
        else:
            self._told.failed(failure, "the old program can't go on either: waiting for the next save")
            self._told.failed(again, "waiting for the next save")
            self._current = None
            self._let_go(old)

    async def _loaded(self) -> Worker | None:
        """A worker that has imported the program as it is now; None if it can't be imported, which has been told then."""
        while True:
            self._saved.clear()
            worker = await self._stand_by()
            loading = asyncio.create_task(worker.ask(load=self._load, place=self._place))
            saved = asyncio.create_task(self._saved.wait())
            try:
                await asyncio.wait((loading, saved), return_when=asyncio.FIRST_COMPLETED)
            finally:
                saved.cancel()
                if not loading.done():  # saved again meanwhile, or ended: what it imports is old
                    loading.cancel()
                    worker.process.kill()
            self._spare = None
            if not loading.done():
                self._let_go(worker)
                continue
            answer = loading.result()
            if answer["told"] == "loaded":
                if answer["hint"]:
                    self._told.happened("hint", answer["hint"], message=answer["hint"])
                return worker
            self._told.failed(answer, "waiting for the next save" if self._current is None else "the old program goes on")
            self._let_go(worker)
            await self._stand_by()
            return None

    async def _stand_by(self) -> Worker:
        if self._spare is None or self._spare.process.returncode is not None:
            self._spare = await Worker.start(self._listening)
        return self._spare

    def _let_go(self, worker: Worker) -> None:
        """Let a worker end by itself, and see that it does."""
        task = asyncio.create_task(worker.end(self._patience_s))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


def _how(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
