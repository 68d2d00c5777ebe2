"""blinker (https://blinker.readthedocs.io) and pyee (https://pyee.readthedocs.io): one event to 100 functions."""

from __future__ import annotations

from ..measure import Run


async def blinker_async(run: Run) -> None:
    """blinker's `send_async` to 100 coroutine functions."""
    from blinker import Signal

    n = run.some(2_000, 50)
    signal = Signal()
    seen = 0

    def listener() -> object:
        async def happened(_sender: object, **_data: object) -> None:
            nonlocal seen
            seen += 1

        return happened

    kept = [signal.connect(listener()) for _ in range(100)]

    async def once() -> None:
        for number in range(n):
            await signal.send_async("bench", number=number)

    await run.repeat(n * len(kept), once)
    assert seen == n * 100 * (run.repetitions + 1)


def pyee_sync(run: Run) -> None:
    """pyee's `emit` to 100 plain functions."""
    from pyee import EventEmitter

    n = run.some(10_000, 50)
    emitter = EventEmitter()
    seen = 0

    def listener() -> object:
        def happened(_number: int) -> None:
            nonlocal seen
            seen += 1

        return happened

    for _ in range(100):
        emitter.on("happened", listener())

    def once() -> None:
        for number in range(n):
            emitter.emit("happened", number)

    run.repeat_sync(n * 100, once)
    assert seen == n * 100 * (run.repetitions + 1)
