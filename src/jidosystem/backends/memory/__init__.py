"""Everything in memory: the default of `Platform()`. Nothing survives the process; all promises but durability hold."""

from .log import MemoryLog
from .records import MemoryRecords
from .wire import MemoryWire

__all__ = ["MemoryLog", "MemoryRecords", "MemoryWire"]
