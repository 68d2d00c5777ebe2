"""The embedded default: records and log in one SQLite file that this process owns."""

from .inspection import inspect_file
from .records import SqliteRecords, open_store

__all__ = ["SqliteRecords", "inspect_file", "open_store"]
