"""For tests: a platform under virtual time with seeded faults, and what adapters must keep (`conformance`).

    from jidosystem import testing

    async def main():
        async with testing.TestPlatform(agents=[Reminder], start="2026-01-01T00:00Z") as platform:
            await platform.advance(days=365)

    testing.run(main())

Nothing here needs pytest, which has a plugin (`plugin`) and the suites (`conformance`).
"""

from .faults import Faults, StoreFaults, WireFaults
from .loop import Stuck, VirtualLoop, outside, run
from .platform import DueReminder, PendingCast, TestPlatform
from .store import FaultyRecords
from .wire import FaultyWire

__all__ = [
    "DueReminder",
    "Faults",
    "FaultyRecords",
    "FaultyWire",
    "PendingCast",
    "StoreFaults",
    "Stuck",
    "TestPlatform",
    "VirtualLoop",
    "WireFaults",
    "outside",
    "run",
]
