"""For tests: a platform under virtual time with seeded faults, judges of what clients saw (`checkers`), and what adapters must keep (`conformance`).

    from jidosystem import testing

    async def main():
        async with testing.TestPlatform(agents=[Reminder], start="2026-01-01T00:00Z") as platform:
            await platform.advance(days=365)

    testing.run(main())

Nothing here needs pytest, which has a plugin (`plugin`) and the suites (`conformance`).
"""

from .checkers import (
    Contradiction,
    Verdict,
    check_bank,
    check_counters,
    check_events,
    check_exercised,
    check_registers,
    check_sets,
    check_writers,
)
from .cluster import ClusterNode, TestCluster
from .faults import Faults, StoreFaults, WireFaults
from .histories import Asked, FaultSpan, History, Operation, Recording
from .loop import Stuck, VirtualLoop, outside, run
from .nats_model import NatsOdds, SimulatedNats
from .nats_store import SimulatedLog, SimulatedRecords
from .nodes import Nodes, NodeWire
from .platform import DueReminder, PendingCast, TestPlatform
from .store import FaultyRecords
from .wire import FaultyWire

__all__ = [
    "Asked",
    "ClusterNode",
    "Contradiction",
    "DueReminder",
    "FaultSpan",
    "Faults",
    "FaultyRecords",
    "FaultyWire",
    "History",
    "NatsOdds",
    "NodeWire",
    "Nodes",
    "Operation",
    "PendingCast",
    "Recording",
    "SimulatedLog",
    "SimulatedNats",
    "SimulatedRecords",
    "StoreFaults",
    "Stuck",
    "TestCluster",
    "TestPlatform",
    "Verdict",
    "VirtualLoop",
    "WireFaults",
    "check_bank",
    "check_counters",
    "check_events",
    "check_exercised",
    "check_registers",
    "check_sets",
    "check_writers",
    "outside",
    "run",
]
