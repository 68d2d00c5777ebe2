"""The promises of the three contracts as test suites. An adapter's test is one subclass that opens it.

    class TestMine(RecordsConformance):
        @asynccontextmanager
        async def open(self, clock): ...   # yields an empty adapter

The classes are collected by pytest with pytest-asyncio in auto mode.
"""

from .log import EventLogConformance
from .records import RecordsConformance
from .wire import WireConformance

__all__ = ["EventLogConformance", "RecordsConformance", "WireConformance"]
