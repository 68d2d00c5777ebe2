"""With nothing wrong the model of NATS keeps the contracts of a store and a log."""

from __future__ import annotations

from contextlib import asynccontextmanager

from jidosystem.testing import SimulatedLog, SimulatedNats, SimulatedRecords
from jidosystem.testing.conformance import EventLogConformance, RecordsConformance


class TestSimulatedRecords(RecordsConformance):
    @asynccontextmanager
    async def open(self, clock):
        records = SimulatedRecords(SimulatedNats(clock=clock), "a")
        yield records
        await records.close()


class TestSimulatedLog(EventLogConformance):
    @asynccontextmanager
    async def open_log(self):
        log = SimulatedLog(SimulatedNats(), "a")
        yield log
        await log.close()

    async def close_log(self, log):
        await log.close()
