"""Logs: one bounded JSON object a line, never a traceback, and never a wait for whoever reads them."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import time
from collections.abc import Iterator
from typing import Any, TextIO

import pytest
import structlog

from tunnelswitch.errors import TunnelswitchError
from tunnelswitch.telemetry import logs
from tunnelswitch.telemetry.logs import QueuedSink, level_from, set_up_logs


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.setLevel(before[0])
    root.handlers[:] = before[1]


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is queued gets written, however long the machine stands still."""
    monkeypatch.setattr(logs, "FLUSH_SECONDS", 20.0)


def written(stream: io.StringIO, sink: QueuedSink) -> list[dict[str, Any]]:
    sink.close()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_with_context() -> None:
    stream = io.StringIO()
    sink = set_up_logs(stream, level=logging.INFO, context={"site": "here"})
    structlog.get_logger("x").info("started", epoch=7)
    structlog.get_logger("x").debug("not shown")
    (line,) = written(stream, sink)
    assert {key: line[key] for key in ("event", "level", "site", "epoch")} == {
        "event": "started",
        "level": "info",
        "site": "here",
        "epoch": 7,
    }
    assert line["timestamp"].endswith("Z")


def test_libraries_speak_our_form_and_errors_are_one_line() -> None:
    stream = io.StringIO()
    sink = set_up_logs(stream, level=logging.INFO)
    try:
        raise ValueError("bad\nnews")
    except ValueError:
        logging.getLogger("nats").exception("lost %s", "it")
        structlog.get_logger("x").exception("ours")
    first, second = written(stream, sink)
    assert (first["event"], first["logger"], first["level"]) == ("lost it", "nats", "error")
    assert first["error"] == second["error"] == "ValueError('bad\\nnews')"
    assert "Traceback" not in stream.getvalue()


def test_lines_are_bounded() -> None:
    stream = io.StringIO()
    sink = set_up_logs(stream, level=logging.INFO)
    structlog.get_logger("x").info(
        "big", text="x" * 100_000, thing=list(range(100_000)), **{f"k{n}": n for n in range(99)}
    )
    (line,) = written(stream, sink)
    assert len(stream.getvalue()) < 40_000
    assert len(line) <= logs.KEYS_MAX


def test_a_terminal_gets_text() -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w", encoding="utf-8") as terminal:
        sink = set_up_logs(terminal, level=logging.INFO)
        structlog.get_logger("x").info("started", epoch=7)
        sink.close()
        text = os.read(ours, 4096).decode()
    os.close(ours)
    assert "started" in text
    assert not text.startswith("{")


class Stuck(io.StringIO):
    """A reader that takes nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.stuck = True

    def write(self, text: str) -> int:
        while self.stuck:
            time.sleep(0.005)
        return super().write(text)


def test_a_stuck_reader_holds_nobody_and_learns_what_it_missed() -> None:
    stream = Stuck()
    sink = QueuedSink(_as_text(stream), maximum=10)
    started_at = time.monotonic()
    for number in range(1000):
        sink.write(f'{{"n": {number}}}\n')
    assert time.monotonic() - started_at < 20
    assert sink.dropped >= 980
    stream.stuck = False
    lines = written(stream, sink)
    assert {"level": "warning", "event": "log lines dropped", "count": sink.dropped} in lines


def test_a_closed_reader_ends_nothing() -> None:
    stream = io.StringIO()
    stream.close()
    sink = QueuedSink(_as_text(stream))
    sink.write("x\n")
    sink.close()
    assert sink.dropped == 1


def _as_text(stream: io.StringIO) -> TextIO:
    return stream


def test_levels() -> None:
    assert level_from({}) == logging.INFO
    assert level_from({"TUNNELSWITCH_LOG_LEVEL": "DEBUG"}) == logging.DEBUG
    with pytest.raises(TunnelswitchError) as caught:
        level_from({"TUNNELSWITCH_LOG_LEVEL": "loud"})
    assert caught.value.diagnostics() == "TUNNELSWITCH_LOG_LEVEL is 'loud'; use one of debug, info, warning, error"
