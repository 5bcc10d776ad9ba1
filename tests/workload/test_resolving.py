"""A client's resolver keeps an answer for as long as it may, and goes on with the old one while nobody answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import dns.message
import dns.rrset
import pytest

from tunnelswitch_lab.workload.resolving import Resolver

NAME = "pbx.lab."


class Server:
    """Answers with whatever address it was told; keeps silent when it was told none. It counts questions."""

    def __init__(self) -> None:
        self.address, self.asked = "192.0.2.1", 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while (received := self._socket.recvfrom(512))[0]:
            data, client = received
            question = dns.message.from_wire(data)
            self.asked += 1
            other = dns.message.make_response(question)
            other.id ^= 1
            for noise in (b"x", other.to_wire()):
                self._socket.sendto(noise, client)
            if self.address:
                answer = dns.message.make_response(question)
                answer.answer.append(dns.rrset.from_text(NAME, 1, "IN", "A", self.address))
                self._socket.sendto(answer.to_wire(), client)

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def refreshed(resolver: Resolver, now: float, most: int = 40) -> str:
    """The address after a question at `now`, as soon as it is another one, and at most so many datagrams, or times
    without one."""
    before = resolver.address(now)
    resolver.sockets[0].settimeout(0.5)
    for _ in range(most):
        if resolver.address(now) != before:
            break
        resolver.receive(now)
    return resolver.address(now)


def test_an_answer_is_kept_for_its_time_and_then_asked_for_again(server: Server) -> None:
    resolver = Resolver(NAME, "127.0.0.1", server.port)
    start, asked = resolver.asks_at, server.asked
    server.address = "192.0.2.2"
    assert resolver.address(start - 0.01) == "192.0.2.1"
    assert server.asked == asked
    assert refreshed(resolver, start) == "192.0.2.2"
    resolver.close()


def test_the_old_answer_serves_while_nobody_answers(server: Server) -> None:
    resolver = Resolver(NAME, "127.0.0.1", server.port)
    server.address = ""
    assert refreshed(resolver, resolver.asks_at, most=3) == "192.0.2.1"
    resolver.close()


def test_a_name_that_nobody_knows_is_an_error() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match=r"does not tell the address of pbx.lab"):
            Resolver(NAME, "127.0.0.1", silent.getsockname()[1], patience_seconds=0.1)
