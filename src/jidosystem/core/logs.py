"""Structured log lines with ids, through the standard library's logging.

Nothing is configured here, neither logging nor structlog: lines of `jidosystem` and below go wherever the application's
handlers send them, as one JSON object each, or laid out for people if standard error is a terminal. A line carries what
its logger was bound to, and the agent, correlation id and trace of the code that wrote it. structlog is loaded with the
first line whose level is wanted.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from functools import lru_cache
from typing import Any

from .context import current_causality
from .tracing import parse_traceparent


class Log:
    """A logger bound to ids. Lines are written as `log.info("what happened", agent=…)`."""

    __slots__ = ("_bound", "_logger")

    def __init__(self, logger: logging.Logger, bound: dict[str, object]) -> None:
        self._logger = logger
        self._bound = bound

    def bind(self, **ids: object) -> Log:
        """A logger whose lines carry these too."""
        return Log(self._logger, {**self._bound, **ids})

    def debug(self, event: str, **fields: object) -> None:
        """For who follows every step."""
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        """Worth knowing afterwards."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Something failed that is dealt with."""
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Somebody has to look into it. `exc_info=True` or an exception adds the traceback."""
        self._write(logging.ERROR, event, fields)

    def critical(self, event: str, **fields: object) -> None:
        """Somebody has to look into it now."""
        self._write(logging.CRITICAL, event, fields)

    def exception(self, event: str, **fields: object) -> None:
        """An error with the traceback of the exception being handled."""
        self._write(logging.ERROR, event, {"exc_info": True, **fields})

    def _write(self, level: int, event: str, fields: dict[str, object]) -> None:
        logger = self._logger
        if logger.isEnabledFor(level):
            terminal = sys.stderr is not None and sys.stderr.isatty()  # pyright: ignore[reportUnnecessaryComparison]
            _structured(logger, terminal).bind(**self._bound).log(level, event, **fields)


def logger(name: str) -> Log:
    """A structured logger over `logging.getLogger(name)`."""
    return Log(logging.getLogger(name), {})


def _add_ids(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    acting = current_causality()
    if acting is not None:
        line.setdefault("agent", acting.source)
        if acting.correlation_id is not None:
            line.setdefault("correlation_id", acting.correlation_id)
        trace = parse_traceparent(acting.traceparent)
        if trace is not None:
            line.setdefault("trace_id", trace.trace_id)
    return line


@lru_cache(maxsize=64)
def _structured(logger: logging.Logger, terminal: bool) -> Any:
    import structlog

    if terminal:
        render: list[Any] = [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    else:
        render = [structlog.processors.format_exc_info, structlog.processors.UnicodeDecoder(), structlog.processors.JSONRenderer()]
    return structlog.wrap_logger(
        logger,
        processors=[
            _add_ids,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *render,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        context_class=dict,
        cache_logger_on_first_use=False,
    )
