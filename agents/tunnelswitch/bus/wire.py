"""nats-py's client with a short way in and out: the one place that touches its inner parts.

nats-py queues every message for a task per subscription, hands every publish to a flusher task, and reconnects by
itself, where a half-open socket can block it (nats.py issue 671). Here a message goes from the parser straight to its
handler, a publish straight to the socket, and a connection that is lost stays lost: `connection.py` makes a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
from typing import TYPE_CHECKING

from nats.aio.client import Client
from nats.aio.transport import TcpTransport
from nats.errors import Error as NatsError
from nats.errors import UnexpectedEOF

if TYPE_CHECKING:
    from collections.abc import Callable

    from tunnelswitch.bus.access import Access

    Handler = Callable[[bytes, bytes], None]
    """Takes subject and payload."""

_NEVER_SECONDS = 86_400
"""nats-py's own pings: ours are quicker."""
_PING = b"PING\r\n"
_DRAIN_POLL_SECONDS = 0.0005
_NO_LINGER = struct.pack("ii", 1, 0)


class WireClient(Client):
    """One connection to one server, for one life.

    Args:
        url: the server's.
        on_error: gets what the server complains about once connected, such as a missing permission.
    """

    def __init__(self, url: str, on_error: Callable[[str], None]) -> None:
        super().__init__()
        self.url = url
        self.lost = asyncio.Event()
        self.reason = ""
        self._on_error = on_error
        self._is_open = False
        self._handlers: dict[int, Handler] = {}

    async def open(self, *, access: Access, name: str, no_echo: bool, timeout_seconds: float) -> None:
        """Connect and authenticate.

        Raises:
            OSError: no way to the server, or none in time.
            nats.errors.Error: the server refuses.
            BusError: the key or a certificate cannot be used.
        """
        async with asyncio.timeout(timeout_seconds):
            await self.connect(
                servers=[self.url],
                name=name,
                **access.options(),
                no_echo=no_echo,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=max(1, round(timeout_seconds)),
                ping_interval=_NEVER_SECONDS,
                error_cb=self._error,
                closed_cb=self._closed,
            )
        writer = self._stream_writer()
        if access.ca is not None and (writer is None or writer.get_extra_info("ssl_object") is None):
            raise ConnectionError("the server does not offer TLS, and cluster.tls wants it")
        quiet_under_tls(self)
        self._is_open = True
        for transport in self._transports():
            transport.set_write_buffer_limits(high=0)  # so that drain() means: all of it has left

    async def listen(self, subject: str, handler: Handler) -> None:
        """Give every message on `subject` to `handler`, in the reader's own step."""
        subscription = await self.subscribe(subject)
        self._handlers[subscription._id] = handler

    def write(self, data: bytes, backlog_bytes: int) -> bool:
        """Send protocol bytes now. False if the connection is lost, or more than `backlog_bytes` wait already."""
        writer = self._stream_writer()
        if writer is None or self.lost.is_set() or self._unsent_bytes() > backlog_bytes:
            return False
        writer.write(data)
        return True

    async def drain(self) -> None:
        """Return when nothing waits to leave the socket, or the connection is gone."""
        writer = self._stream_writer()
        if writer is not None and not self.lost.is_set():
            with contextlib.suppress(OSError):
                await writer.drain()
            # Under TLS, drain() knows what is above the socket only, and below nothing can be awaited.
            while self._unsent_bytes() and not self.lost.is_set():  # noqa: ASYNC110
                await asyncio.sleep(_DRAIN_POLL_SECONDS)

    async def answers(self, timeout_seconds: float) -> bool:
        """Does the server answer a ping, or send anything else, in time?"""
        heard = self.stats["in_msgs"]
        pong = asyncio.get_running_loop().create_future()
        if not self.write(_PING, sys.maxsize):
            return False
        self._pongs.append(pong)
        try:
            async with asyncio.timeout(timeout_seconds):
                await pong
        except TimeoutError:
            return bool(self.stats["in_msgs"] != heard)
        return True

    def lose(self, reason: str) -> None:
        """This connection is of no more use."""
        if not self.lost.is_set():
            self.reason = reason
            self.lost.set()

    async def discard(self, timeout_seconds: float) -> None:
        """Give everything back, within the time given, whatever state the socket is in."""
        self.lose("closed")
        writer = self._stream_writer()
        if writer is not None:
            raw = writer.get_extra_info("socket")
            if raw is not None:
                with contextlib.suppress(OSError):  # what a dead peer has not taken must not reach it later
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            writer.transport.abort()
        self._pending.clear()
        self._pending_data_size = 0
        if self._flush_queue is None:
            return  # it never got as far as connecting, and nats-py wants to flush what it has not
        with contextlib.suppress(NatsError, OSError, TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self.close()

    def _stream_writer(self) -> asyncio.StreamWriter | None:
        return self._transport._io_writer if isinstance(self._transport, TcpTransport) else None

    def _transports(self) -> list[asyncio.WriteTransport]:
        """The one that is written to, and under TLS the one below it, which has the socket."""
        if not isinstance(self._transport, TcpTransport):
            return []
        writers = (self._transport._io_writer, self._transport._bare_io_writer)
        return list(dict.fromkeys(writer.transport for writer in writers if writer is not None))

    def _unsent_bytes(self) -> int:
        return sum(transport.get_write_buffer_size() for transport in self._transports())

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        handler = self._handlers.get(sid)
        if handler is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        self.stats["in_msgs"] += 1
        try:
            handler(subject, data)
        except Exception as error:  # noqa: BLE001  reported; a handler's fault must not end the reader
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a bus message's handler failed", "exception": error}
            )

    async def _process_pong(self) -> None:
        """A pong may come after its ping was given up: nats-py would end the reader over that."""
        if self._pongs:
            waiter = self._pongs.pop(0)
            if not waiter.done():
                waiter.set_result(True)
        self._pings_outstanding = 0

    async def _process_op_err(self, e: Exception) -> None:
        self.lose(describe(e))

    async def _error(self, error: Exception) -> None:
        self.reason = describe(error)
        if self._is_open and not isinstance(error, UnexpectedEOF):
            self._on_error(self.reason)

    async def _closed(self) -> None:
        self.lose(self.reason or "the server closed the connection")


def quiet_under_tls(client: Client) -> None:
    """nats-py makes the stream's protocol itself and does not tell it of TLS: asyncio would warn of that at the end."""
    if isinstance(client._transport, TcpTransport) and client._transport._io_writer is not None:
        writer = client._transport._io_writer
        if writer.get_extra_info("ssl_object") is not None:
            writer.transport.get_protocol()._over_ssl = True  # type: ignore[attr-defined]


def publish_command(subject: str, payload: bytes) -> bytes:
    """The protocol bytes of one publish (NATS client protocol, PUB)."""
    return b"PUB %s %d\r\n%s\r\n" % (subject.encode(), len(payload), payload)


def describe(error: BaseException) -> str:
    """An error in a few words; asyncio's timeouts have none of their own."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
