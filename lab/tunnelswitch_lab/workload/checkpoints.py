"""Checkpoints on the wire: frames, and a reader of them that trusts nobody.

Pure. A frame is a header and, for a checkpoint, the run of the active, the length of its pause and the
state. An acknowledgement is a header alone. There is no authentication: the replication link is the
operator's own (T1).
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from tunnelswitch_lab.workload.state import MAX_STATE_BYTES, ServiceState, StateError

_HEADER = struct.Struct("!4sBQI")
_PREFIX = struct.Struct("!8sd")
_MAGIC = b"TSWK"
MAX_BODY_BYTES = _PREFIX.size + MAX_STATE_BYTES


class FrameError(ValueError):
    """The peer sent something that is not a frame; the connection is of no use any more."""


class Kind(enum.IntEnum):
    """What a frame is."""

    CHECKPOINT = 1
    ACKNOWLEDGEMENT = 2


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One copy of the state, with the sequence number that the active gave it."""

    sequence: int
    run: bytes
    pause_seconds: float
    state: ServiceState
    size_bytes: int


def build_checkpoint(sequence: int, run: bytes, pause_seconds: float, state: bytes) -> bytes:
    """A checkpoint frame around the bytes of a state."""
    length = _PREFIX.size + len(state)
    return _HEADER.pack(_MAGIC, Kind.CHECKPOINT, sequence, length) + _PREFIX.pack(run, pause_seconds) + state


def build_acknowledgement(sequence: int) -> bytes:
    """The standby's word that it holds checkpoint `sequence`: the active may count it as committed."""
    return _HEADER.pack(_MAGIC, Kind.ACKNOWLEDGEMENT, sequence, 0)


class FrameReader:
    """Cuts a byte stream into frames; holds at most one unfinished frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Checkpoint | int]:
        """Yield every complete frame: a Checkpoint, or the sequence number of an acknowledgement.

        Raises FrameError at the first thing that is not a frame.
        """
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            magic, kind, sequence, length = _HEADER.unpack_from(self._buffer)
            if magic != _MAGIC or kind not in (Kind.CHECKPOINT, Kind.ACKNOWLEDGEMENT):
                raise FrameError("not a checkpoint frame")
            if length > MAX_BODY_BYTES:
                raise FrameError(f"a frame of {length} bytes is longer than {MAX_BODY_BYTES}")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            yield sequence if kind == Kind.ACKNOWLEDGEMENT else _parse_checkpoint(sequence, body)


def _parse_checkpoint(sequence: int, body: bytes) -> Checkpoint:
    if len(body) < _PREFIX.size:
        raise FrameError(f"a checkpoint of {len(body)} bytes is too short")
    run, pause_seconds = _PREFIX.unpack_from(body)
    try:
        state = ServiceState.load(body[_PREFIX.size :])
    except StateError as error:
        raise FrameError(str(error)) from error
    return Checkpoint(sequence, run, pause_seconds, state, len(body))
