"""Capture one device to a nanosecond pcap, as a process of its own: `python -m
tunnelswitch_lab.measure.capture`.

An AF_PACKET socket (packet(7)) with a filter in the kernel for UDP on given ports, both directions, the
kernel's times. It ends on SIGTERM with everything on disk, and says in FILE.json how many packets the
kernel dropped.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import selectors
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunnelswitch import packet_sockets
from tunnelswitch_lab.measure.pcap import PcapWriter
from tunnelswitch_lab.workload.pacing import (
    ANCILLARY_BYTES,
    ask_for_realtime,
    receive_time_ns,
)

_PACKET_OUTGOING = 4
_BUFFER_BYTES = 4 << 20
_FLUSH_SECONDS = 0.5
_MAX_PORTS = 8

_LOAD_INDEX_IP_LENGTH, _LOAD_HALF_INDEXED = 0xB1, 0x48  # linux/filter.h


def udp_filter(ports: Sequence[int]) -> bytes:
    """Classic BPF: IPv4, UDP, not a later fragment, and one of `ports` at either end (any when empty)."""
    if len(ports) > _MAX_PORTS:
        raise ValueError(f"at most {_MAX_PORTS} ports")
    reject = 7 + (2 * (1 + len(ports)) if ports else 0)
    accept = reject + 1

    def jump(code: int, value: int, at: int, if_true: int, if_false: int) -> tuple[int, int, int, int]:
        return code, if_true - at - 1, if_false - at - 1, value

    program = [
        (packet_sockets.LOAD_HALF, 0, 0, 12),
        jump(packet_sockets.IF_EQUAL, packet_sockets.ETH_P_IP, 1, 2, reject),
        (packet_sockets.LOAD_BYTE, 0, 0, 23),
        jump(packet_sockets.IF_EQUAL, 17, 3, 4, reject),
        (packet_sockets.LOAD_HALF, 0, 0, 20),
        jump(packet_sockets.IF_ANY_BIT, 0x1FFF, 5, reject, 6 if ports else accept),
        (_LOAD_INDEX_IP_LENGTH, 0, 0, 14),
    ]
    for offset in (14, 16) if ports else ():  # source port, destination port
        program.append((_LOAD_HALF_INDEXED, 0, 0, offset))
        for port in ports:
            at = len(program)
            program.append(jump(packet_sockets.IF_EQUAL, port, at, accept, at + 1))
    # The last miss falls through to the reject.
    program += [(packet_sockets.RETURN, 0, 0, 0), (packet_sockets.RETURN, 0, 0, 0xFFFF)]
    return packet_sockets.program(program)


class Capture:
    """An open capture: the socket sees packets from the constructor on. Raises OSError (no device, no right)."""

    def __init__(self, device: str, ports: Sequence[int], received_only: bool) -> None:
        self._received_only = received_only
        self.packets = 0
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        try:
            packet_sockets.attach(self._socket, udp_filter(ports))
            packet_sockets.enlarge(self._socket, _BUFFER_BYTES)
            packet_sockets.stamp(self._socket)
            self._socket.bind((device, packet_sockets.ETH_P_ALL))  # only now packets arrive: filtered and stamped
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """The socket's descriptor, to wait on."""
        return self._socket.fileno()

    def drain(self, writer: PcapWriter) -> None:
        """Write all packets that wait."""
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, ancillary, _, address = self._socket.recvmsg(65535, ANCILLARY_BYTES)
                if self._received_only and address[2] == _PACKET_OUTGOING:
                    continue
                writer.write(receive_time_ns(ancillary) or time.time_ns(), frame)
                self.packets += 1

    def dropped(self) -> int:
        """Packets the kernel could not keep since the last call (the kernel resets its counter)."""
        return packet_sockets.missed(self._socket)

    def close(self) -> None:
        """Stop capturing."""
        self._socket.close()


def record(capture: Capture, out: Path) -> None:
    """Write to `out` until SIGTERM or SIGINT; the result stands in `out`.json. Raises OSError."""
    reader, writer_end = socket.socketpair()
    selector = selectors.DefaultSelector()
    with reader, writer_end, selector, PcapWriter(out) as pcap:
        writer_end.setblocking(False)
        signal.set_wakeup_fd(writer_end.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        selector.register(capture, selectors.EVENT_READ)
        selector.register(reader, selectors.EVENT_READ)
        stopped, flush_at = False, 0.0
        while not stopped:
            ready = selector.select(_FLUSH_SECONDS)
            stopped = any(key.fileobj is reader for key, _ in ready)
            capture.drain(pcap)
            if (now := time.monotonic()) >= flush_at:
                pcap.flush()
                flush_at = now + _FLUSH_SECONDS
        signal.set_wakeup_fd(-1)
    summary: dict[str, Any] = {"packets": capture.packets, "dropped": capture.dropped()}
    out.with_name(out.name + ".json").write_text(json.dumps(summary), encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="capture", description="UDP on one device to a nanosecond pcap.")
    parser.add_argument("--dev", required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--port", type=int, action="append", default=[], help="at either end; repeatable")
    parser.add_argument("--received-only", action="store_true", help="not what this host sends")
    parser.add_argument("--realtime", type=int, default=0, metavar="PRIORITY", help="SCHED_FIFO; 0: no")
    given = parser.parse_args(arguments)
    ask_for_realtime(given.realtime)
    try:
        capture = Capture(given.dev, given.port, given.received_only)
    except (OSError, ValueError) as error:
        print(f"capture: cannot capture on {given.dev}: {error}", file=sys.stderr)
        return 1
    gc.freeze()
    try:
        record(capture, given.out)
    except OSError as error:
        print(f"capture: {error}", file=sys.stderr)
        return 1
    finally:
        capture.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
