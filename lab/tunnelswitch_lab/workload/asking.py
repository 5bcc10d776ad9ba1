"""The loop that both clients share: send on time, take answers with the kernel's times, stop when told.

A client is an object that builds the next packet and reads an answer; what differs between RTP and the
probe is there.
"""

from __future__ import annotations

import argparse
import gc
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tunnelswitch import packet_sockets
from tunnelswitch_lab.workload.pacing import (
    ANCILLARY_BYTES,
    Pace,
    ask_for_realtime,
    receive_time_ns,
)
from tunnelswitch_lab.workload.packets import Reply
from tunnelswitch_lab.workload.trace import TraceWriter

_DRAIN_SECONDS = 0.2  # answers to the last packets may still come after the stop


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """Whom to ask, how often, for how long (0: until SIGTERM), and where to write.

    With a `name_server`, `host` is a name, which is asked for again whenever the answer's time to live is over.
    """

    host: str
    name_server: str
    port: int
    bind: tuple[str, int]
    interval_seconds: float
    duration_seconds: float
    realtime_priority: int
    out: Path


class Talk(Protocol):
    """What a client says and understands."""

    def build(self, sequence: int, sent_ns: int) -> bytes:
        """The packet number `sequence`."""

    def parse(self, data: bytes) -> tuple[int, int, Reply] | None:
        """(sequence, send time or 0 when the answer does not carry it, content) of an answer."""


class Client:
    """Sends and receives until the time is over or `stop` was called."""

    def __init__(self, options: ClientOptions, talk: Talk) -> None:
        self._options = options
        self._talk = talk
        self._stop_at = float("inf")
        self._sent = self._received = self._ignored = self._errors = 0

    def stop(self) -> None:
        """Send no more; answers are taken for a moment longer."""
        self._stop_at = min(self._stop_at, time.monotonic())

    def run(self) -> None:
        """Run to the end. Raises OSError when the socket cannot be made or the file cannot be written."""
        options = self._options
        realtime = ask_for_realtime(options.realtime_priority)
        with (
            TraceWriter(options.out) as trace,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock,
        ):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            sock.bind(options.bind)
            packet_sockets.stamp(sock)
            whom = _whom(options)
            inputs = [sock, *whom.sockets]
            started = time.monotonic()
            pace = Pace(options.interval_seconds, started)
            if options.duration_seconds > 0:
                self._stop_at = started + options.duration_seconds
            while (now := time.monotonic()) < self._stop_at:
                if pace.take(now):
                    self._send(sock, trace, whom.address(now))
                    continue
                wait_seconds = max(min(pace.deadline, self._stop_at) - now, 0)
                ready = select.select(inputs, [], [], wait_seconds)[0]
                if sock in ready:
                    self._receive(sock, trace)
                if len(ready) > (sock in ready):
                    whom.receive(time.monotonic())
            while (now := time.monotonic()) < self._stop_at + _DRAIN_SECONDS:
                if select.select([sock], [], [], self._stop_at + _DRAIN_SECONDS - now)[0]:
                    self._receive(sock, trace)
            trace.finish(
                {
                    "sent": self._sent,
                    "received": self._received,
                    "ignored": self._ignored,
                    "send_errors": self._errors,
                    "skipped": pace.skipped,
                    "interval_seconds": options.interval_seconds,
                    "realtime_priority": options.realtime_priority if realtime else 0,
                    "lateness_max_seconds": pace.lateness.max_seconds,
                    "lateness_p99_seconds": pace.lateness.quantile_seconds(0.99),
                }
            )

    def _send(self, sock: socket.socket, trace: TraceWriter, host: str) -> None:
        sent_ns = time.time_ns()
        data = self._talk.build(self._sent, sent_ns)
        try:
            sock.sendto(data, (host, self._options.port))
        except OSError:  # no route or a full queue: to the client that is a lost packet
            self._errors += 1
        trace.sent(self._sent, sent_ns)
        self._sent += 1

    def _receive(self, sock: socket.socket, trace: TraceWriter) -> None:
        try:
            data, ancillary, _, _ = sock.recvmsg(2048, ANCILLARY_BYTES)
        except OSError:
            return
        arrived_ns = receive_time_ns(ancillary) or time.time_ns()
        answer = self._talk.parse(data)
        if answer is None:
            self._ignored += 1
            return
        self._received += 1
        sequence, sent_ns, reply = answer
        trace.received(sequence, sent_ns, arrived_ns, reply.counter, reply.run, reply.site)


class Whom(Protocol):
    """Where the service is now, and what to wait on to learn it."""

    sockets: tuple[socket.socket, ...]

    def address(self, now: float) -> str:
        """The service's address; never waits."""

    def receive(self, now: float) -> None:
        """Take what waits on a socket."""


class Fixed:
    """An address that does not change."""

    sockets: tuple[socket.socket, ...] = ()

    def __init__(self, host: str) -> None:
        self._host = host

    def address(self, now: float) -> str:
        """That address."""
        return self._host

    def receive(self, now: float) -> None:
        """Nothing ever waits."""


def _whom(options: ClientOptions) -> Whom:
    if not options.name_server:
        return Fixed(options.host)
    from tunnelswitch_lab.workload.resolving import Resolver  # most clients know an address

    return Resolver(options.host, options.name_server)


def run_client(client: Client, name: str) -> int:
    """Run a client as the whole process: SIGTERM and SIGINT end it in order. Returns the exit status."""

    def stop(*_: object) -> None:
        client.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    gc.collect()
    gc.freeze()
    gc.disable()  # nothing here makes reference cycles, and a collection would be a late packet
    try:
        client.run()
    except OSError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    return 0


def client_options(
    name: str, port: int, interval_seconds: float, arguments: list[str] | None
) -> tuple[ClientOptions, argparse.Namespace]:
    """Read a client's command line; `port` and `interval_seconds` are its defaults."""
    parser = argparse.ArgumentParser(prog=name)
    parser.add_argument("--host", required=True, metavar="ADDRESS", help="the service's address, or its name")
    parser.add_argument(
        "--name-server", default="", metavar="ADDRESS", help="who knows the name; none: it is an address"
    )
    parser.add_argument("--port", type=int, default=port)
    parser.add_argument("--bind-address", default="0.0.0.0")
    parser.add_argument("--bind-port", type=int, default=0)
    parser.add_argument("--interval-ms", type=float, default=interval_seconds * 1000)
    parser.add_argument("--seconds", type=float, default=0.0, help="how long; 0: until SIGTERM")
    parser.add_argument("--realtime", type=int, default=0, metavar="PRIORITY", help="SCHED_FIFO; 0: no")
    parser.add_argument("--ssrc", type=int, default=0x7057, help="RTP client only")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the trace")
    given = parser.parse_args(arguments)
    if not 0.1 <= given.interval_ms <= 10_000:
        parser.error("--interval-ms must be between 0.1 and 10000")
    options = ClientOptions(
        host=given.host,
        name_server=given.name_server,
        port=given.port,
        bind=(given.bind_address, given.bind_port),
        interval_seconds=given.interval_ms / 1000,
        duration_seconds=given.seconds,
        realtime_priority=given.realtime,
        out=given.out,
    )
    return options, given
