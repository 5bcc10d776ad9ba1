"""What a client sent and received, as a file of fixed records: compact, append-only, readable after a kill.

A summary of the run stands beside it in FILE.json. Times are CLOCK_REALTIME in nanoseconds, so that all
traces of one machine can be compared.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

_MAGIC = b"TSWTRC1\n"
_RECORD = struct.Struct("<BQQQQ8s16s")
_SENT, _RECEIVED = 0, 1


class TraceError(ValueError):
    """A file is not a trace."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One packet that the client sent."""

    sequence: int
    sent_ns: int


@dataclass(frozen=True, slots=True)
class Received:
    """One answer: when it was asked for, when it came, which copy gave it, and that copy's counter."""

    sequence: int
    sent_ns: int
    received_ns: int
    counter: int
    run: str
    site: str


class TraceWriter:
    """Writes a trace; a context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO = path.open("wb", buffering=1 << 16)
        self._file.write(_MAGIC)

    def sent(self, sequence: int, sent_ns: int) -> None:
        """Record a packet that went out."""
        self._file.write(_RECORD.pack(_SENT, sequence, sent_ns, 0, 0, b"", b""))

    def received(self, sequence: int, sent_ns: int, received_ns: int, counter: int, run: bytes, site: str) -> None:
        """Record an answer."""
        name = site.encode()
        self._file.write(_RECORD.pack(_RECEIVED, sequence, sent_ns, received_ns, counter, run, name))

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the summary beside the trace."""
        self._path.with_name(self._path.name + ".json").write_text(json.dumps(summary), encoding="utf-8")

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def read_trace(path: Path) -> Iterator[Sent | Received]:
    """Every whole record of a trace. Raises TraceError when the file is not one; a cut last record is ignored."""
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise TraceError(f"{path} is not a trace of the lab's clients")
        while len(data := file.read(_RECORD.size)) == _RECORD.size:
            kind, sequence, sent_ns, received_ns, counter, run, site = _RECORD.unpack(data)
            if kind == _SENT:
                yield Sent(sequence, sent_ns)
            else:
                name = site.rstrip(b"\0").decode(errors="replace")
                yield Received(sequence, sent_ns, received_ns, counter, run.hex(), name)


def read_trace_summary(path: Path) -> dict[str, Any]:
    """The summary beside a trace; empty when the client did not end in order."""
    try:
        summary: dict[str, Any] = json.loads(path.with_name(path.name + ".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return summary
