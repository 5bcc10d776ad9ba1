"""One connection to ovsdb-server: JSON-RPC (RFC 7047 section 4) on an asyncio transport, with its own liveness.

It also has the methods that python-ovs' Idl calls on its `ovs.jsonrpc.Session`, so that the Idl runs unchanged on
the event loop. The stock session has no probe on unix sockets and waits at least a second between attempts.

It does NOT reconnect: a session lives once, and Database makes the next.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ovs.jsonrpc

from aioovs.errors import ConnectionLost
from aioovs.framing import FramingError, JsonSplitter

_log = logging.getLogger(__name__)
_ECHO_ID = "aioovs-echo"
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
MAX_BACKLOG_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Timing:
    """The bounds of a connection, in seconds; see Database."""

    connect_deadline_seconds: float
    liveness_interval_seconds: float
    liveness_deadline_seconds: float
    reconnect_wait_seconds: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value <= 3600:
                raise ValueError(f"{name} must be above 0 and at most 3600, not {value!r}")


class Session(asyncio.Protocol):
    """A connection. `on_lost(reason)` is called once, at once, when it ends for any reason.

    An echo is sent every `liveness_interval_seconds`; when nothing at all arrives within
    `liveness_deadline_seconds` of one, the server is declared dead.
    """

    def __init__(self, name: str, timing: Timing, on_lost: Callable[[str], None]) -> None:
        self._name = name
        self._interval_seconds = timing.liveness_interval_seconds
        self._deadline_seconds = timing.liveness_deadline_seconds
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._closed = self._loop.create_future()
        self._lost_reason: str | None = None
        self._splitter = JsonSplitter(MAX_MESSAGE_BYTES)
        self._inbox: deque[Any] = deque()
        self._requests: dict[Any, asyncio.Future[Any]] = {}
        self._run: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._echo_sent_at: float | None = None
        self._around: tuple[Sequence[Any], Sequence[Any]] | None = None

    # -- asyncio.Protocol ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Starts the liveness timer."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._timer = self._loop.call_later(self._interval_seconds, self._tick)

    def data_received(self, data: bytes) -> None:
        """Splits, dispatches and lets the Idl digest, all in this loop step."""
        self._echo_sent_at = None
        try:
            for decoded in self._splitter.feed(data):
                self._dispatch(decoded)
        except FramingError as error:
            self.drop(f"the server does not speak OVSDB: {error}")
            return
        self.pump()

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone."""
        self._lose(f"connection broken: {exc}" if exc else "the server closed the connection")
        if not self._closed.done():
            self._closed.set_result(None)

    # -- for Database ----------------------------------------------------------------------------------------

    @property
    def lost_reason(self) -> str | None:
        """Why the session ended; None while it lives."""
        return self._lost_reason

    def attach(self, run: Callable[[], None]) -> None:
        """From now on `run` (which must consume at least one message a call) digests what arrives."""
        self._run = run
        run()
        self.pump()

    def pump(self) -> None:
        """Digests all that has arrived. Whatever the Idl cannot digest ends the session."""
        try:
            while self._inbox and self._run is not None:
                self._run()
        except Exception as error:  # noqa: BLE001 - python-ovs meets bad updates with whatever comes
            self.drop(f"the replica cannot digest what the server sent: {error!r}")

    async def request(self, method: str, params: list[Any]) -> Any:
        """Sends one request and returns its reply (an ovs.jsonrpc.Message). Raises ConnectionLost."""
        message = ovs.jsonrpc.Message.create_request(method, params)
        if self.send(message):
            raise ConnectionLost(f"{self._name}: {self._lost_reason}")
        future = self._requests[message.id] = self._loop.create_future()
        try:
            return await future
        finally:
            self._requests.pop(message.id, None)

    def surround(self, before: Sequence[Any], after: Sequence[Any]) -> None:
        """The next `transact` sent gets these operations first and last (Idl.add_op can only append)."""
        self._around = (before, after)

    def drop(self, reason: str) -> None:
        """Ends the session at once, without a goodbye that a dead peer could delay."""
        self._lose(reason)
        if self._transport is not None:
            self._transport.abort()

    async def wait_closed(self) -> None:
        """Until the descriptor is closed (after drop())."""
        if self._transport is not None:
            await asyncio.shield(self._closed)

    # -- what python-ovs' Idl calls --------------------------------------------------------------------------

    def run(self) -> None:
        """Nothing to do: the event loop moves the bytes."""

    def is_connected(self) -> bool:
        """Whether messages can be sent."""
        return self._transport is not None and self._lost_reason is None

    def get_seqno(self) -> int:
        """Constant: a session connects once."""
        return 1

    def get_name(self) -> str:
        """The remote, for log lines."""
        return self._name

    def recv(self) -> Any:
        """The next message, or None."""
        return self._inbox.popleft() if self._inbox else None

    def send(self, message: Any) -> int:
        """Sends now; returns 0 or an errno."""
        if self._transport is None or self._lost_reason is not None:
            return errno.ENOTCONN
        if message.method == "transact" and self._around is not None:
            (before, after), self._around = self._around, None
            database, *operations = message.params
            message.params = [database, *before, *operations, *after]
        if self._transport.get_write_buffer_size() > MAX_BACKLOG_BYTES:
            self.drop(f"the server has left more than {MAX_BACKLOG_BYTES} bytes unread")
            return errno.ENOTCONN
        self._transport.write(json.dumps(message.to_json(), separators=(",", ":")).encode())
        return 0

    def close(self) -> None:
        """Idl.close()."""
        self.drop("closed")

    def force_reconnect(self) -> None:
        """The Idl finds this server unfit (database absent, not the leader, inconsistent)."""
        self.drop("the server does not serve this database now (absent, not yet joined, or not the leader)")

    def reset_backoff(self) -> None:
        """No backoff here."""

    # -- inside ----------------------------------------------------------------------------------------------

    def _dispatch(self, decoded: dict[str, Any]) -> None:
        message = ovs.jsonrpc.Message.from_json(decoded)
        if isinstance(message, str):
            raise FramingError(message)
        if message.type == ovs.jsonrpc.Message.T_REQUEST and message.method == "echo":
            self.send(ovs.jsonrpc.Message.create_reply(message.params, message.id))
        elif message.type == ovs.jsonrpc.Message.T_NOTIFY and message.method == "monitor_canceled":
            self.drop("the database was converted or removed; connecting again to read its schema")
        elif message.type == ovs.jsonrpc.Message.T_REPLY and message.id == _ECHO_ID:
            pass
        elif isinstance(message.id, int) and message.id in self._requests:
            future = self._requests.pop(message.id)
            if not future.done():
                future.set_result(message)
        else:
            self._inbox.append(message)

    def _tick(self) -> None:
        now = self._loop.time()
        remaining_seconds = self._deadline_seconds
        if self._echo_sent_at is None:
            echo = ovs.jsonrpc.Message.create_request("echo", [])
            echo.id = _ECHO_ID
            self._echo_sent_at = now
            self.send(echo)
        else:
            remaining_seconds -= now - self._echo_sent_at
            if remaining_seconds <= 0.001:
                self.drop(f"no answer to an echo within {self._deadline_seconds:g} s")
                return
        self._timer = self._loop.call_later(min(self._interval_seconds, remaining_seconds), self._tick)

    def _lose(self, reason: str) -> None:
        if self._lost_reason is not None:
            return
        self._lost_reason = reason
        self._inbox.clear()
        self._run = None
        if self._timer is not None:
            self._timer.cancel()
        for future in self._requests.values():
            if not future.done():
                future.set_exception(ConnectionLost(f"{self._name}: {reason}"))
        self._requests.clear()
        self._on_lost(reason)
