"""What every test lives under: nothing in the package may block the event loop, and nothing may be left behind.

`blockbuster` raises in any function of the package that sleeps, reads a file or waits for a lock on the thread of a
running event loop. A test that does so on purpose says `@pytest.mark.blocking`. With `--loop uvloop` all of them run on uvloop.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import HealthCheck, settings

# How long an example takes says something of the machine, not of the code.
settings.register_profile("jidosystem", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("jidosystem")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--loop", choices=("asyncio", "uvloop"), default="asyncio", help="the event loop that the tests run on")


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell leaves it to what runs in its background, and processes to their children
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("--loop") == "uvloop":
        config.pluginmanager.register(OnUvloop())


class OnUvloop:
    """The plugin of `--loop uvloop`."""

    @pytest.hookimpl
    def pytest_asyncio_loop_factories(self) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
        import uvloop

        return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def _nothing_blocks_the_loop(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.node.get_closest_marker("blocking") is not None:
        yield
        return
    with blockbuster_ctx("jidosystem") as detector:
        for function in detector.functions.values():
            # The first use of a heavy library imports it; that happens once in a process and isn't what is looked for.
            function.can_block_in("<frozen importlib._bootstrap>", {"_find_and_load"})
            # So does the first use of a time zone: a few kilobytes are read.
            function.can_block_in("core/schedule.py", {"_zone"})
            # Servers are started and hurt by the test itself: the kernel ends them with the thread that started them.
            function.can_block_in("backends/nats/server.py", {"find_binary", "free_ports", "start", "wait_ready", "_end", "log", "monitoring"})
        yield
