"""The pytest plugin of JidoSystem's test kit: a platform under virtual time for each test that asks for one.

It stands beside the package so that pytest, which loads it everywhere, loads nothing else: `jidosystem` is imported by the
first test that uses it. A test that neither takes `jido_platform` nor is marked `jido` isn't touched. Event loops,
fixtures and the running of coroutines are pytest-asyncio's, in either mode; all that is added is the loop's kind.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from jidosystem.testing import TestPlatform

PLATFORM = pytest.StashKey["TestPlatform"]()
OWN_OPTIONS = {"patience_s", "seed", "seeds"}
"""What the marker takes beside the options of `TestPlatform`."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The seed, or how many of them."""
    group = parser.getgroup("jidosystem")
    group.addoption("--jido-seed", type=int, default=None, metavar="N", help="the seed of every platform under virtual time, to run a failure again")
    group.addoption("--jido-seeds", type=_count, default=None, metavar="N", help="run each test with a platform under virtual time under N seeds")


def _count(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise ValueError("a whole number, at least 1")
    return int(text)


def pytest_configure(config: pytest.Config) -> None:
    """The marker."""
    config.addinivalue_line(
        "markers",
        "jido(**options): run the test on an event loop of virtual time; options of its platform (agents, start, url, store, config, …),"
        " its seed, seeds=N to run it under N of them, patience_s",
    )


def _options(item: pytest.Item) -> dict[str, Any]:
    """What the markers say, the closest one strongest."""
    options: dict[str, Any] = {}
    for marker in reversed(list(item.iter_markers("jido"))):
        if marker.args:
            raise pytest.UsageError(f"{item.nodeid}: @pytest.mark.jido takes options by name, agents=[…] for example")
        options |= marker.kwargs
    return options


# -- whose tests run under virtual time ----------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: pytest.Module | pytest.Class, obj: object) -> None:
    """In strict mode pytest-asyncio runs only what is marked; a coroutine that uses the test kit is meant to be run."""
    function = getattr(obj, "__func__", obj)
    if inspect.iscoroutinefunction(function) and collector.config.pluginmanager.hasplugin("asyncio"):
        marks = {mark.name for mark in getattr(function, "pytestmark", ())}
        wanted = "jido" in marks or collector.get_closest_marker("jido") or "jido_platform" in inspect.signature(function).parameters
        if wanted and "asyncio" not in marks and not collector.get_closest_marker("asyncio"):
            pytest.mark.asyncio(function)


class OnVirtualTime:
    """The loops of one test, while pytest-asyncio asks for them."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._loop_options = {name: value for name, value in options.items() if name == "patience_s"}

    @pytest.hookimpl(tryfirst=True)
    def pytest_asyncio_loop_factories(self) -> dict[str, Callable[[], AbstractEventLoop]]:
        """Loops of virtual time only."""
        return {"virtual": self.new_loop}

    def new_loop(self) -> AbstractEventLoop:
        """A loop of virtual time."""
        from jidosystem.testing import VirtualLoop

        return VirtualLoop(**self._loop_options)


@pytest.hookimpl(wrapper=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Generator[None, None, None]:
    """Give the tests that use the test kit their loop and their seeds; leave all others alone."""
    item, manager = metafunc.definition, metafunc.config.pluginmanager
    if "jido_platform" not in metafunc.fixturenames and item.get_closest_marker("jido") is None:
        return (yield)
    options = _options(item)
    seeds = metafunc.config.getoption("--jido-seeds") or options.get("seeds")
    if seeds and metafunc.config.getoption("--jido-seed") is None and "jido_seed" in metafunc.fixturenames:
        first = options.get("seed", 0)
        metafunc.parametrize("jido_seed", range(first, first + seeds), indirect=True, ids=lambda seed: f"seed={seed}")
    loops = OnVirtualTime(options)
    manager.register(loops)
    try:
        return (yield)
    finally:
        manager.unregister(loops)


# -- fixtures ------------------------------------------------------------------------------------------------------


@pytest.fixture
def jido_seed(request: pytest.FixtureRequest) -> int:
    """The seed of the test: of `--jido-seed`, of `--jido-seeds`, of its marker, or 0."""
    given: int | None = request.config.getoption("--jido-seed")
    return given if given is not None else getattr(request, "param", _options(request.node).get("seed", 0))


try:
    import pytest_asyncio
except ImportError:

    @pytest.fixture(name="jido_platform")
    def platform_that_is_missing() -> None:
        """Say what is missing."""
        pytest.fail("jido_platform needs pytest-asyncio: pip install 'jidosystem[testing]'", pytrace=False)
else:

    @pytest_asyncio.fixture(loop_scope="function", name="jido_platform")
    async def platform_of_the_test(request: pytest.FixtureRequest, jido_seed: int) -> AsyncIterator[TestPlatform]:
        """A `TestPlatform` of the options in `@pytest.mark.jido(…)`, closed after the test."""
        from jidosystem.testing import TestPlatform

        options = {name: value for name, value in _options(request.node).items() if name not in OWN_OPTIONS}
        async with TestPlatform(seed=jido_seed, **options) as platform:
            request.node.stash[PLATFORM] = platform
            yield platform


# -- failures ------------------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say under which seed a test has failed, what was made to fail, and how to see it again."""
    report = yield
    platform = item.stash.get(PLATFORM, None)
    if report.failed and platform is not None:
        again = f"pytest '{item.nodeid.partition('[')[0]}' --jido-seed={platform.faults.seed}"
        report.sections.append(("JidoSystem", f"virtual time: {platform.now.isoformat()}\n{platform.faults!r}\nrun it again: {again}"))
    return report
