"""Both ends of the checkpoint stream over TCP: the active's sender, the standby's receiver.

Neither ever blocks and neither keeps time: the owner's loop calls `ready` when a socket can be used and
`expire` when `deadline()` has passed. One checkpoint is in flight at most: a slow peer gets fewer of them,
a hanging peer is given up, and the service goes on in both cases.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
from collections.abc import Callable
from dataclasses import dataclass

from tunnelswitch_lab.workload.checkpoints import (
    Checkpoint,
    FrameError,
    FrameReader,
    build_acknowledgement,
    build_checkpoint,
)

Address = tuple[str, int]
_IP_FREEBIND = 15  # ip(7): bind before the address is configured
_FIRST_BACKOFF_SECONDS = 0.05
_MAX_BACKOFF_SECONDS = 1.0
_CONNECT_SECONDS = 0.5
_MAX_CONNECTIONS = 4
_READ_BYTES = 65536
_HASTE_SECONDS = 0.25
_HASTE_INTERVAL_SECONDS = 0.001


@dataclass(frozen=True, slots=True)
class Committed:
    """A checkpoint that the standby has acknowledged."""

    sequence: int
    pause_seconds: float
    size_bytes: int
    commit_seconds: float


class CheckpointSender:
    """The active's end: connects to the peer, sends a copy of the state every interval, awaits each answer.

    `copy` returns (state in bytes, seconds the service was paused for it). `on_peer(connected, reason)`
    tells of the first commit on a connection and of its loss; `on_commit` of every commit.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        peer: Address,
        run: bytes,
        interval_seconds: float,
        first_sequence: int,
        copy: Callable[[], tuple[bytes, float]],
        on_commit: Callable[[Committed], None],
        on_peer: Callable[[bool, str], None],
    ) -> None:
        self._selector = selector
        self._peer = peer
        self._run = run
        self._interval = interval_seconds
        self._answer_seconds = max(0.5, 4 * interval_seconds)
        self._copy = copy
        self._on_commit = on_commit
        self._on_peer = on_peer
        self._sequence = first_sequence - 1
        self._socket: socket.socket | None = None
        self._connected = False
        self.in_sync = False
        self._reader = FrameReader()
        self._unsent = b""
        self._in_flight: tuple[int, float, int, float] | None = None  # sequence, pause, bytes, sent at
        self._next_copy = 0.0
        self._haste_until = 0.0
        self._give_up_at = 0.0
        self._retry_at = 0.0
        self._backoff = _FIRST_BACKOFF_SECONDS

    def deadline(self) -> float:
        """When `expire` must be called next (seconds, the owner's monotonic clock)."""
        if self._socket is None:
            return self._retry_at
        if not self._connected or self._in_flight is not None:
            return self._give_up_at
        return self._next_copy

    def expire(self, now: float) -> None:
        """Do what is due: connect, copy and send, or give the peer up."""
        if now < self.deadline():
            return
        if self._socket is None:
            self._connect(now)
        elif not self._connected:
            self._lose(now, "no answer to the connection request")
        elif self._in_flight is not None:
            self._lose(now, f"checkpoint {self._sequence} not acknowledged")
        else:
            self._send_copy(now)

    def hasten(self, now: float) -> None:
        """Copy at once, and again as soon as each copy is acknowledged, for a moment."""
        self._haste_until, self._next_copy = now + _HASTE_SECONDS, now

    def close(self) -> None:
        """Close the connection, silently."""
        if self._socket is not None:
            self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None

    def _connect(self, now: float) -> None:
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket, self._connected, self._reader = connection, False, FrameReader()
        self._unsent, self._in_flight = b"", None
        self._give_up_at = now + _CONNECT_SECONDS
        self._selector.register(connection, selectors.EVENT_WRITE, self.ready)
        error = connection.connect_ex(self._peer)  # later errors arrive as writability and SO_ERROR
        if error not in (0, errno.EINPROGRESS):
            self._lose(now, os.strerror(error))

    def ready(self, mask: int, now: float) -> None:
        """The socket can be read or written."""
        connection = self._socket
        if connection is None:
            return
        try:
            if not self._connected:
                error = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error:
                    raise OSError(error, os.strerror(error))
                self._connected, self._next_copy = True, now
                self._selector.modify(connection, selectors.EVENT_READ, self.ready)
                return
            if mask & selectors.EVENT_WRITE:
                self._flush(connection)
            if mask & selectors.EVENT_READ:
                self._read(connection, now)
        except BlockingIOError:
            return
        except (OSError, FrameError) as error:
            self._lose(now, str(error))

    def _read(self, connection: socket.socket, now: float) -> None:
        data = connection.recv(_READ_BYTES)
        if not data:
            raise OSError("closed by the peer")
        for frame in self._reader.feed(data):
            flight = self._in_flight
            if flight is None or frame != flight[0]:
                raise FrameError("an answer to nothing that was asked")
            self._in_flight = None
            self._backoff = _FIRST_BACKOFF_SECONDS
            if not self.in_sync:
                self.in_sync = True
                self._on_peer(True, "checkpoint acknowledged")
            self._on_commit(Committed(flight[0], flight[1], flight[2], now - flight[3]))

    def _send_copy(self, now: float) -> None:
        connection = self._socket
        if connection is None:
            return
        state, pause_seconds = self._copy()
        self._sequence += 1
        self._unsent = build_checkpoint(self._sequence, self._run, pause_seconds, state)
        self._in_flight = (self._sequence, pause_seconds, len(self._unsent), now)
        self._give_up_at = now + self._answer_seconds
        interval = _HASTE_INTERVAL_SECONDS if now < self._haste_until else self._interval
        self._next_copy = max(self._next_copy + interval, now + interval / 2)
        try:
            self._flush(connection)
        except OSError as error:
            self._lose(now, str(error))

    def _flush(self, connection: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            self._unsent = self._unsent[connection.send(self._unsent) :]
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
        if self._selector.get_key(connection).events != wanted:
            self._selector.modify(connection, wanted, self.ready)

    def _lose(self, now: float, reason: str) -> None:
        self.close()
        self._in_flight, self._unsent = None, b""
        self._retry_at = now + self._backoff
        self._backoff = min(self._backoff * 2, _MAX_BACKOFF_SECONDS)
        if self.in_sync:
            self.in_sync = False
            self._on_peer(False, reason)


@dataclass(slots=True)
class _Inbound:
    """One connection to the standby, and the last checkpoint that came over it."""

    reader: FrameReader
    expires_at: float
    sequence: int = 0


class CheckpointReceiver:
    """The standby's end: keeps the last whole checkpoint, acknowledges it, and refuses everything else.

    The connection that last delivered a valid checkpoint is the active's; another that delivers one takes its
    place (the old one may be half open after a host died). `ignored` counts refused connections and frames.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        bind: Address,
        peer_host: str,
        interval_seconds: float,
        on_checkpoint: Callable[[Checkpoint], None],
        on_peer: Callable[[bool, str], None],
    ) -> None:
        self._selector = selector
        self._peer_host = peer_host
        self._silence_seconds = max(1.0, 5 * interval_seconds)
        self._on_checkpoint = on_checkpoint
        self._on_peer = on_peer
        self._connections: dict[socket.socket, _Inbound] = {}
        self._current: socket.socket | None = None
        self.committed: Checkpoint | None = None
        self.ignored = 0
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
            self._listener.bind(bind)
            self._listener.listen(_MAX_CONNECTIONS)
        except OSError:
            self._listener.close()
            raise
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def deadline(self) -> float:
        """When `expire` must be called next (seconds, the owner's monotonic clock)."""
        return min((inbound.expires_at for inbound in self._connections.values()), default=float("inf"))

    def expire(self, now: float) -> None:
        """Drop connections that have been silent for too long."""
        for connection in [c for c, inbound in self._connections.items() if inbound.expires_at <= now]:
            self._drop(connection, "silent")

    def close(self) -> None:
        """Close the listener and all connections, silently: from now on nobody can replace the state."""
        self._current = None
        for connection in list(self._connections):
            self._drop(connection, "closed")
        self._selector.unregister(self._listener)
        self._listener.close()

    def _accept(self, mask: int, now: float) -> None:
        try:
            connection, (host, _) = self._listener.accept()
        except OSError:
            return
        if host != self._peer_host or len(self._connections) >= _MAX_CONNECTIONS:
            self.ignored += 1
            connection.close()
            return
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        inbound = _Inbound(FrameReader(), now + self._silence_seconds)
        self._connections[connection] = inbound
        self._selector.register(
            connection, selectors.EVENT_READ, lambda mask, now: self._read(connection, inbound, now)
        )

    def _read(self, connection: socket.socket, inbound: _Inbound, now: float) -> None:
        if connection not in self._connections:
            return
        try:
            data = connection.recv(_READ_BYTES)
            if not data:
                self._drop(connection, "closed by the peer")
                return
            for frame in inbound.reader.feed(data):
                if not isinstance(frame, Checkpoint) or frame.sequence <= inbound.sequence:
                    raise FrameError("out of sequence")
                inbound.sequence, inbound.expires_at = frame.sequence, now + self._silence_seconds
                self._commit(connection, frame)
        except BlockingIOError:
            return
        except (OSError, FrameError) as error:
            self.ignored += isinstance(error, FrameError)
            self._drop(connection, str(error))

    def _commit(self, connection: socket.socket, checkpoint: Checkpoint) -> None:
        self.committed = checkpoint
        connection.send(build_acknowledgement(checkpoint.sequence))
        if self._current is not connection:
            previous, self._current = self._current, connection
            if previous is not None:
                self._drop(previous, "replaced")
            self._on_peer(True, "checkpoint received")
        self._on_checkpoint(checkpoint)

    def _drop(self, connection: socket.socket, reason: str) -> None:
        if self._connections.pop(connection, None) is None:
            return
        self._selector.unregister(connection)
        connection.close()
        if connection is self._current:
            self._current = None
            self._on_peer(False, reason)
