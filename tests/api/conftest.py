"""The fixtures of the runtime's tests serve here too."""

from tests.runtime.conftest import clock, file_url, platform, stored, url, world

__all__ = ["clock", "file_url", "platform", "stored", "url", "world"]
