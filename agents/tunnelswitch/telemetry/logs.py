"""Logs that cannot hold a decision: JSON lines, or coloured ones on a terminal, written by a thread of their own.

A full pipe or a stuck journal blocks that thread alone; what does not fit in the queue is dropped and counted. Values
and their number are bounded. Never writes a traceback unless the level is debug.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import sys
import threading
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO

import structlog

from tunnelswitch.errors import TunnelswitchError

LEVEL_VARIABLE = "TUNNELSWITCH_LOG_LEVEL"
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
QUEUE_MAX_LINES = 1000
VALUE_MAX_CHARACTERS = 1000
KEYS_MAX = 32
FLUSH_SECONDS = 1.0


class QueuedSink:
    """A file-like thing whose `write` never blocks. `dropped` counts the lines that did not fit."""

    def __init__(self, stream: TextIO, maximum: int = QUEUE_MAX_LINES) -> None:
        self.dropped = 0
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(maximum)
        self._thread = threading.Thread(target=self._drain, name="logs", daemon=True)
        self._thread.start()

    def write(self, text: str) -> None:
        """Hand one line over, or count it."""
        try:
            self._lines.put_nowait(text)
        except queue.Full:
            self.dropped += 1

    def flush(self) -> None:
        """Part of the interface; the thread flushes."""

    def close(self) -> None:
        """Write what is queued, within a bound."""
        try:
            self._lines.put(None, timeout=FLUSH_SECONDS)
        except queue.Full:
            return
        self._thread.join(FLUSH_SECONDS)

    def _drain(self) -> None:
        told = 0
        while (line := self._lines.get()) is not None:
            try:
                if self.dropped > told:
                    told = self.dropped
                    self._stream.write(f'{{"level": "warning", "event": "log lines dropped", "count": {told}}}\n')
                self._stream.write(line)
                self._stream.flush()
            except (OSError, ValueError):  # nobody reads any more; there is nowhere to say so
                self.dropped += 1


def level_from(environment: Mapping[str, str], otherwise: str = "info") -> int:
    """The level that TUNNELSWITCH_LOG_LEVEL asks for; `otherwise` without it.

    Raises:
        TunnelswitchError: it is no level.
    """
    name = environment.get(LEVEL_VARIABLE, "") or otherwise
    if name.lower() not in LEVELS:
        raise TunnelswitchError(f"{LEVEL_VARIABLE} is {name!a}", f"use one of {', '.join(LEVELS)}")
    return LEVELS[name.lower()]


def set_up_logs(
    stream: TextIO | None = None,
    *,
    level: int | None = None,
    quiet: bool = False,
    context: Mapping[str, str] | None = None,
) -> QueuedSink:
    """Send structlog's and the standard library's logs to `stream` (standard error). `context` goes with every line;
    `quiet` leaves out what is no trouble, unless the environment names a level.

    Raises:
        TunnelswitchError: the environment names no level.
    """
    stream = sys.stderr if stream is None else stream
    if level is None:
        level = level_from(os.environ, "warning" if quiet else "info")
    sink = QueuedSink(stream)
    atexit.register(sink.close)
    renderer: Any
    if stream.isatty():
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    else:
        renderer = structlog.processors.JSONRenderer(sort_keys=False)
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _show_error if level > logging.DEBUG else structlog.processors.format_exc_info,
        _bound,
        renderer,
    ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sink),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )
    if context:
        structlog.contextvars.bind_contextvars(**context)
    logging.basicConfig(handlers=[_Forward()], level=max(level, logging.WARNING), force=True)
    return sink


class _Forward(logging.Handler):
    """Libraries' records, in our form."""

    def emit(self, record: logging.LogRecord) -> None:
        level = max(logging.DEBUG, min(record.levelno, logging.ERROR)) // 10 * 10
        logger = structlog.get_logger(record.name)
        logger.log(level, record.getMessage(), logger=record.name, exc_info=record.exc_info)


def _show_error(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """An exception as one line."""
    info = event.pop("exc_info", None)
    error = info[1] if isinstance(info, tuple) else info if isinstance(info, BaseException) else sys.exc_info()[1]
    if info and error is not None:
        event["error"] = repr(error)
    return event


def _bound(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Keep a line small, whatever is put into it."""
    bounded: dict[str, Any] = {}
    for key, value in list(event.items())[-KEYS_MAX:]:
        if isinstance(value, bool | int | float) or value is None:
            bounded[key] = value
            continue
        text = value if isinstance(value, str) else repr(value)
        limit = VALUE_MAX_CHARACTERS * (8 if key == "exception" else 1)
        bounded[key] = text if len(text) <= limit else text[: limit - 3] + "..."
    return bounded
