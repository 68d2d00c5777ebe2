"""One process of `jido dev`: it imports everything that is slow, waits to be told a program, and serves it when it is told to.

Its supervisor holds the other end of a pair of sockets, JSON lines both ways, and the listening socket. When the supervisor
is gone, however it went, the worker closes its platform and ends, in the middle of opening too.

    from above   {"load": [target, only], "place": [...]}   {"do": "open"}   {"do": "close"}
    from here    {"told": "loaded", "hint": ""}  {"told": "open"}  {"told": "closed"}  {"told": "failed", ...}
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Coroutine
from typing import Any

from .output import Failure, prepare, shape, told
from .program import Program, load
from .serving import Node, Place, rehearse, run_loop, serve


def main(control_fd: int, listening_fd: int) -> int:
    """Work until told to end."""
    signal.signal(signal.SIGINT, lambda _number, _frame: None)  # Ctrl-C reaches the whole terminal; the supervisor decides
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    prepare()
    for fd in (control_fd, listening_fd):
        os.set_inheritable(fd, False)  # what the program starts has no part in it
    with socket.socket(fileno=control_fd) as control, socket.socket(fileno=listening_fd) as listening:
        if not select.select([control], [], [], 0)[0]:  # nobody waits for it yet
            rehearse()
        with control.makefile("r", encoding="utf-8") as lines:
            line = lines.readline()
        if not line:
            return 0
        task = json.loads(line)
        sys.dont_write_bytecode = True  # two saves within a second look alike to a compiled module
        try:
            program = load(*task["load"])
        except Failure as failure:
            control.sendall(_failed(failure))
            return 1
        control.sendall(_told("loaded", hint=program.hint))
        try:
            return run_loop(_work(control, listening, Place(*task["place"]), program))
        except Failure as failure:  # of a lifespan, at its end
            return told(failure)
        except asyncio.CancelledError:  # the supervisor went while it was opening
            return 0


async def _work(control: socket.socket, listening: socket.socket, place: Place, program: Program) -> int:
    reader, writer = await asyncio.open_connection(sock=control.dup())
    ended = asyncio.ensure_future(_terminated())
    serving: Node | None = None
    leaving: list[Node] = []
    coming = asyncio.ensure_future(reader.readline())
    try:
        while True:
            await asyncio.wait((coming, ended), return_when=asyncio.FIRST_COMPLETED)
            if not coming.done() or not coming.result():
                return 0
            wanted = json.loads(coming.result())["do"]
            coming = asyncio.ensure_future(reader.readline())
            if wanted == "close":
                answer = _told("closed")
                if serving is not None:
                    leaving.append(serving)
                    try:
                        await serving.close()
                    except Exception as error:  # of a lifespan; the platform is closed nevertheless
                        answer = _failed(error)
                serving = None
                writer.write(answer)
                continue
            try:
                serving = await _unless_left(serve(place, program, listening, developing=True), coming, ended)
            except Exception as error:  # whatever it is, the supervisor tells it
                writer.write(_failed(error))
            else:
                writer.write(_told("open"))
    finally:
        if serving is not None:
            await serving.__aexit__(None, None, None)
        for node in leaving:
            await node.close_connections()
        coming.cancel()
        ended.cancel()
        writer.close()


async def _unless_left(opening: Coroutine[Any, Any, Node], *leaving: asyncio.Future[Any]) -> Node:
    """What opens, in this task, cancelled if the supervisor goes meanwhile, since a program's lifespan may wait for ever.

    It waits for nothing once that stands: a lifespan whose tasks fail cancels this task, and the node would be lost between two hands.
    """
    task = asyncio.current_task()
    assert task is not None

    def leave(_why: asyncio.Future[Any]) -> None:
        task.cancel()

    for future in leaving:
        future.add_done_callback(leave)
    try:
        return await opening
    finally:
        for future in leaving:
            future.remove_done_callback(leave)


async def _terminated() -> None:
    event = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, event.set)
    await event.wait()


def _told(what: str, **more: Any) -> bytes:
    return json.dumps({"told": what, **more}).encode() + b"\n"


def _failed(error: BaseException) -> bytes:
    failure = shape(error)
    return _told("failed", message=str(failure), code=failure.code, hint=failure.hint, lines=failure.lines)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
