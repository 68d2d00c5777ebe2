"""The promises of the three contracts as test suites. An adapter's test is one subclass that opens it.

    class TestMine(RecordsConformance):
        @asynccontextmanager
        async def open(self, clock): ...   # yields an empty adapter

The classes are collected by pytest with pytest-asyncio in auto mode.
"""

from importlib.util import find_spec

if find_spec("pytest") is None:
    raise ImportError("the conformance suites need the extra `testing`: pip install 'jidosystem[testing]'")

from .log import EventLogConformance
from .records import RecordsConformance
from .wire import WireConformance

__all__ = ["EventLogConformance", "RecordsConformance", "WireConformance"]
