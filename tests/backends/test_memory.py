"""The memory adapters keep the contracts."""

from contextlib import asynccontextmanager

from jidosystem.backends.memory import MemoryRecords, MemoryWire
from jidosystem.core.clock import SystemClock
from jidosystem.testing.conformance import EventLogConformance, RecordsConformance, WireConformance


class TestMemoryRecords(RecordsConformance):
    @asynccontextmanager
    async def open(self, clock):
        records = MemoryRecords(clock=clock)
        yield records
        await records.close()


class TestMemoryLog(EventLogConformance):
    @asynccontextmanager
    async def open_log(self):
        self.records = MemoryRecords(clock=SystemClock())
        yield self.records.log
        await self.records.close()

    async def close_log(self, log):
        await self.records.close()


class TestMemoryWire(WireConformance):
    @asynccontextmanager
    async def open(self):
        wire = MemoryWire()
        yield wire
        await wire.close()
