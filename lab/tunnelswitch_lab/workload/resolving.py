"""A stub resolver for one name that honours the time to live (RFC 1034, 1035), beside a loop that must not wait.

While a new answer is on its way, and if none comes, the old one serves (RFC 8767). It keeps no other names.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time

import dns.exception
import dns.message
import dns.rdatatype

_PORT = 53
_ASK_AGAIN_SECONDS = 0.5
_FIRST_ANSWER_SECONDS = 5.0
_MAX_BYTES = 4096


class Resolver:
    """The address of `name` as `server` tells it; the first answer is waited for. Raises OSError if none comes."""

    def __init__(
        self, name: str, server: str, port: int = _PORT, patience_seconds: float = _FIRST_ANSWER_SECONDS
    ) -> None:
        self._name = name
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.connect((server, port))
        self.sockets: tuple[socket.socket, ...] = (self._socket,)
        self._address = ""
        self._asked: int | None = None
        self.asks_at = 0.0  # when the answer is too old
        deadline = time.monotonic() + patience_seconds
        while not self._address:
            now = time.monotonic()
            if now > deadline:
                self.close()
                raise OSError(f"{server} does not tell the address of {name}")
            self.address(now)
            if select.select([self._socket], [], [], min(_ASK_AGAIN_SECONDS, patience_seconds))[0]:
                self.receive(time.monotonic())

    def address(self, now: float) -> str:
        """The address to use now; asks for it anew when its time is over."""
        if now >= self.asks_at:
            query = dns.message.make_query(self._name, dns.rdatatype.A)
            self._asked, self.asks_at = query.id, now + _ASK_AGAIN_SECONDS
            with contextlib.suppress(OSError):  # the server or the way to it is gone: asked again later
                self._socket.send(query.to_wire())
        return self._address

    def receive(self, now: float) -> None:
        """Take an answer to the question that is open; everything else is ignored."""
        try:
            answer = dns.message.from_wire(self._socket.recv(_MAX_BYTES))
        except (OSError, dns.exception.DNSException):
            return
        if answer.id != self._asked:
            return
        for records in answer.answer:
            if records.rdtype == dns.rdatatype.A:
                self._asked = None
                self._address, self.asks_at = records[0].address, now + records.ttl
                return

    def close(self) -> None:
        """Ask no more."""
        self._socket.close()
