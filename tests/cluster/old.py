"""`jido` of an older release, which speaks an older protocol between nodes."""

from jidosystem.distribution import frames

frames.VERSION = frames.OLDEST_VERSION = frames.VERSION - 1

from jidosystem.__main__ import main  # noqa: E402 - it imports what was changed above

main()
