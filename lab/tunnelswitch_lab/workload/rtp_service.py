"""A small stateful RTP server whose state is copied to a peer: the lab's protected service.

The active answers every RTP packet and probe, counts them, and sends its peer a copy of the counters every
interval (Remus in small: pause, copy, resume, send, commit on acknowledgement). The standby keeps the last
committed copy and answers nobody: a filter in the kernel drops what arrives on its sockets, until SIGUSR1
promotes it. SIGUSR2 has an active copy its state in quick succession for a moment. It is not a voice server:
it echoes headers, there is no RTCP, no signalling, and nothing here knows about agents or tunnels.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tunnelswitch import packet_sockets
from tunnelswitch_lab.workload.checkpoints import Checkpoint
from tunnelswitch_lab.workload.pacing import ask_for_realtime
from tunnelswitch_lab.workload.packets import (
    Identity,
    build_probe_reply,
    build_rtp_reply,
    is_reply,
    parse_probe,
    parse_rtp,
)
from tunnelswitch_lab.workload.replication import Address, CheckpointReceiver, CheckpointSender, Committed
from tunnelswitch_lab.workload.reporting import Reporter
from tunnelswitch_lab.workload.state import ServiceState

_IP_FREEBIND = 15  # ip(7)
_SO_DETACH_FILTER = 27  # socket(7)
_BATCH = 64  # datagrams taken at once before other sockets get their turn
_IDLE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """Where the service listens, whom it copies to, and how often. With a `health_port`, probes of its own host are
    answered there, on the loopback, while it serves: clients' packets may go to the other copy."""

    site: str
    role: str
    listen: str
    rtp_port: int
    probe_port: int
    replicate_bind: Address
    replicate_peer: Address
    checkpoint_interval_seconds: float
    state_directory: Path
    notify: Path | None
    realtime_priority: int = 0
    health_port: int = 0


def _drop_everything(sock: socket.socket) -> None:
    """Have the kernel drop all that arrives: classic BPF `ret #0`."""
    packet_sockets.attach(sock, packet_sockets.program([(packet_sockets.RETURN, 0, 0, 0)]))


def _service_socket(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        _drop_everything(sock)  # before bind: not one packet gets in
        sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


class RtpService:
    """The service: one thread, one loop. Construct (OSError when a socket cannot be made), then `run`."""

    def __init__(self, options: ServiceOptions) -> None:
        self._options = options
        self._identity = Identity(options.site, os.urandom(8))
        self.run_id = self._identity.run.hex()
        self._state = ServiceState()
        self._selector = selectors.SelectSelector()  # few sockets; timeouts finer than epoll's
        self._opened = contextlib.ExitStack()
        self._stopping = False
        self._role = "standby"
        self._sequence = 0
        self._sender: CheckpointSender | None = None
        self.ignored = 0
        self.unsent = 0
        self._receiver: CheckpointReceiver | None = None
        try:
            self._open()
        except OSError:
            self._opened.close()
            raise

    def _open(self) -> None:
        options, keep = self._options, self._opened.enter_context
        self._reporter = Reporter(options.state_directory, options.notify, self.run_id)
        self._opened.callback(self._reporter.close)
        self._rtp = keep(_service_socket(options.listen, options.rtp_port))
        self._probe = keep(_service_socket(options.listen, options.probe_port))
        self._health = keep(_service_socket("127.0.0.1", options.health_port)) if options.health_port else None
        self._wake_reader, self._wake_writer = map(keep, socket.socketpair())
        for end in (self._wake_reader, self._wake_writer):
            end.setblocking(False)
        self._selector.register(self._wake_reader, selectors.EVENT_READ, self._signalled)
        self._receiver = CheckpointReceiver(
            self._selector,
            options.replicate_bind,
            options.replicate_peer[0],
            options.checkpoint_interval_seconds,
            self._received,
            self._peer_changed,
        )

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Installs signal handlers: call it in the main thread."""
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        if self._options.role == "active":
            self._activate(time.monotonic())
        else:
            self._report_role()
        self._reporter.write_pid()
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            while not self._stopping:
                self._turn()
        finally:
            self._close()

    def _turn(self) -> None:
        replication = self._sender or self._receiver
        due = replication.deadline() if replication is not None else float("inf")
        timeout = min(max(due - time.monotonic(), 0.0), _IDLE_SECONDS)
        for key, mask in self._selector.select(timeout):
            handler: Callable[[int, float], None] = key.data
            handler(mask, time.monotonic())
        replication = self._sender or self._receiver  # a promotion may have exchanged them
        if replication is not None:
            replication.expire(time.monotonic())
        self._reporter.flush()

    def _signalled(self, mask: int, now: float) -> None:
        numbers = self._wake_reader.recv(64)
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self._stopping = True
        elif signal.SIGUSR1 in numbers and self._role == "standby":
            self._activate(now)
        if signal.SIGUSR2 in numbers and self._sender is not None:
            self._sender.hasten(now)

    def _activate(self, now: float) -> None:
        """Serve from the last committed checkpoint (an empty state when there is none)."""
        receiver, self._receiver = self._receiver, None
        committed = receiver.committed if receiver is not None else None
        if committed is not None:
            self._state, self._sequence = committed.state, committed.sequence
        self._role = "active"
        answering: list[tuple[socket.socket, Callable[[int, float], None]]] = [(self._rtp, self._answer_rtp)]
        answering += [(sock, partial(self._answer_probes, sock)) for sock in (self._probe, self._health) if sock]
        for sock, handler in answering:
            self._selector.register(sock, selectors.EVENT_READ, handler)
            sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
        if receiver is not None:
            receiver.close()
            self.ignored += receiver.ignored
        self._sender = CheckpointSender(
            self._selector,
            self._options.replicate_peer,
            self._identity.run,
            self._options.checkpoint_interval_seconds,
            self._sequence + 1,
            self._copy,
            self._committed,
            self._peer_changed,
        )
        self._report_role()

    def _answer_rtp(self, mask: int, now: float) -> None:
        for _ in range(_BATCH):
            try:
                data, client = self._rtp.recvfrom(2048)
            except OSError:  # nothing more, or the ICMP error of an earlier reply
                return
            packet = parse_rtp(data)
            if packet is None or is_reply(data):
                self.ignored += 1
                continue
            total, mine = self._state.count_packet(packet.ssrc)
            self._reply(self._rtp, build_rtp_reply(packet, self._identity, total, mine), client)

    def _answer_probes(self, sock: socket.socket, mask: int, now: float) -> None:
        for _ in range(_BATCH):
            try:
                data, client = sock.recvfrom(2048)
            except OSError:
                return
            probe = parse_probe(data)
            if probe is None:
                self.ignored += 1
                continue
            self._state.probes += 1
            self._reply(sock, build_probe_reply(*probe, self._identity, self._state.probes), client)

    def _reply(self, sock: socket.socket, data: bytes, client: Address) -> None:
        try:
            sock.sendto(data, client)
        except OSError:
            self.unsent += 1

    def _copy(self) -> tuple[bytes, float]:
        # One thread: while the state is copied, nobody is served. That is the pause.
        started = time.perf_counter()
        data = self._state.dump()
        return data, time.perf_counter() - started

    def _committed(self, commit: Committed) -> None:
        self._sequence = commit.sequence
        self._reporter.send(
            "checkpoint",
            role="active",
            sequence=commit.sequence,
            pause_seconds=commit.pause_seconds,
            bytes=commit.size_bytes,
            commit_seconds=commit.commit_seconds,
        )

    def _received(self, checkpoint: Checkpoint) -> None:
        self._sequence = checkpoint.sequence
        self._reporter.send(
            "checkpoint",
            role="standby",
            sequence=checkpoint.sequence,
            pause_seconds=checkpoint.pause_seconds,
            bytes=checkpoint.size_bytes,
            active_run=checkpoint.run.hex(),
        )

    def _peer_changed(self, connected: bool, reason: str) -> None:
        self._write_status()
        self._reporter.send("peer", role=self._role, connected=connected, in_sync=self._in_sync(), reason=reason)

    def _report_role(self) -> None:
        self._write_status()
        self._reporter.send(
            "role", role=self._role, in_sync=self._in_sync(), sequence=self._sequence, ignored=self.ignored
        )

    def _in_sync(self) -> bool:
        """Active: the peer holds our state. Standby: there is a state to resume from."""
        if self._sender is not None:
            return self._sender.in_sync
        return self._receiver is not None and self._receiver.committed is not None

    def _write_status(self) -> None:
        try:
            self._reporter.write_status(self._role, self._in_sync(), self._sequence)
        except OSError as error:  # a full disk must not stop the service
            print(f"rtp_service: cannot write the status: {error}", file=sys.stderr, flush=True)

    def _close(self) -> None:
        for part in (self._sender, self._receiver):
            if part is not None:
                part.close()
        signal.set_wakeup_fd(-1)
        self._opened.close()
        self._selector.close()


def parse_address(text: str) -> Address:
    """`HOST:PORT` as a pair. Raises argparse.ArgumentTypeError with the remedy."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, for example 10.8.0.1:7000")
    return host, int(port)


def _parse(arguments: list[str] | None) -> ServiceOptions:
    parser = argparse.ArgumentParser(prog="rtp_service", description="A stateful RTP server with a standby.")
    parser.add_argument("--site", required=True, help="name of this copy, in every reply (at most 16 bytes)")
    parser.add_argument("--role", required=True, choices=("active", "standby"))
    parser.add_argument("--listen", required=True, metavar="ADDRESS", help="the service's address")
    parser.add_argument("--rtp-port", type=int, default=5004)
    parser.add_argument("--probe-port", type=int, default=5006)
    parser.add_argument("--replicate-bind", type=parse_address, required=True, metavar="HOST:PORT")
    parser.add_argument("--replicate-peer", type=parse_address, required=True, metavar="HOST:PORT")
    parser.add_argument("--checkpoint-interval-ms", type=float, default=25.0, metavar="N")
    parser.add_argument("--state-dir", type=Path, required=True, metavar="DIR")
    parser.add_argument("--realtime", type=int, default=0, metavar="PRIORITY", help="SCHED_FIFO; 0: no")
    parser.add_argument("--health-port", type=int, default=0, metavar="PORT", help="probes on the loopback; 0: no")
    parser.add_argument("--notify", type=Path, metavar="SOCKETPATH", help="unix datagram socket for events")
    given = parser.parse_args(arguments)
    if not 1 <= given.checkpoint_interval_ms <= 60_000:
        parser.error("--checkpoint-interval-ms must be between 1 and 60000")
    if not 1 <= len(given.site.encode()) <= 16:
        parser.error("--site must be 1 to 16 bytes long")
    return ServiceOptions(
        site=given.site,
        role=given.role,
        listen=given.listen,
        rtp_port=given.rtp_port,
        probe_port=given.probe_port,
        replicate_bind=given.replicate_bind,
        replicate_peer=given.replicate_peer,
        checkpoint_interval_seconds=given.checkpoint_interval_ms / 1000,
        state_directory=given.state_dir,
        notify=given.notify,
        realtime_priority=given.realtime,
        health_port=given.health_port,
    )


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = _parse(arguments)
    try:
        options.state_directory.mkdir(parents=True, exist_ok=True)
        service = RtpService(options)
    except OSError as error:
        print(f"rtp_service: cannot start at {options.site}: {error}", file=sys.stderr)
        return 1
    if options.realtime_priority and not ask_for_realtime(options.realtime_priority):
        print("rtp_service: no right to SCHED_FIFO, going on without it", file=sys.stderr)
    service.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
