"""The embedded default: records and log in one SQLite file that this process owns."""

from .records import SqliteRecords, open_store

__all__ = ["SqliteRecords", "open_store"]
