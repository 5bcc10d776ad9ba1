"""The capture process on loopback, its filter, and the files it writes."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelswitch_lab.measure.capture import udp_filter
from tunnelswitch_lab.measure.pcap import (
    PcapError,
    PcapWriter,
    build_udp_frame,
    parse_udp,
    read_pcap,
    read_udp,
)

HERE, THERE = ("10.1.2.3", 5004), ("10.3.2.1", 40000)


def test_capture_writes_what_the_filter_lets_through(tmp_path: Path) -> None:
    out = tmp_path / "call.pcap"
    command = f"{sys.executable} -m tunnelswitch_lab.measure.capture --dev lo --out {out} --received-only"
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind(("127.77.2.1", 0))
        sender.bind(("127.77.2.2", 0))
        port = receiver.getsockname()[1]
        before = time.time_ns()
        with subprocess.Popen([*command.split(), "--port", str(port), "--port", "9"]) as process:
            end = time.monotonic() + 20
            while not (out.exists() and out.stat().st_size >= 24):
                assert time.monotonic() < end
                time.sleep(0.01)
            for number in range(100):
                sender.sendto(b"packet %d" % number, receiver.getsockname())
                sender.sendto(b"other", ("127.77.2.1", 10))
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 0
        packets = [packet for packet in read_udp(out) if packet.source == sender.getsockname()]
    assert [packet.payload for packet in packets] == [b"packet %d" % number for number in range(100)]
    assert {packet.destination for packet in packets} == {("127.77.2.1", port)}
    assert all(before < packet.time_ns < time.time_ns() for packet in packets)
    assert len({packet.time_ns % 1000 for packet in packets}) > 1, "nanoseconds, not microseconds"
    assert json.loads((tmp_path / "call.pcap.json").read_text(encoding="utf-8")) == {
        "packets": 100,
        "dropped": 0,
    }


def test_a_device_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    command = f"{sys.executable} -m tunnelswitch_lab.measure.capture --dev nodev9 --out {tmp_path}/x"
    result = subprocess.run(command.split(), capture_output=True, text=True, timeout=20, check=False)
    assert result.returncode == 1
    assert result.stderr == "capture: cannot capture on nodev9: [Errno 19] No such device\n"


def run_filter(program: bytes, frame: bytes) -> int:
    """A tiny interpreter of the classic BPF instructions that the filter uses."""
    import struct

    instructions = [struct.unpack_from("HBBI", program, at) for at in range(0, len(program), 8)]
    at = accumulator = index = 0
    while True:
        code, if_true, if_false, value = instructions[at]
        at += 1
        if code == 0x06:
            return int(value)
        if code in (0x28, 0x48):
            start = value + (index if code == 0x48 else 0)
            accumulator = int.from_bytes(frame[start : start + 2], "big")
        elif code == 0x30:
            accumulator = frame[value]
        elif code == 0xB1:
            index = 4 * (frame[value] & 0x0F)
        else:
            hit = accumulator == value if code == 0x15 else bool(accumulator & value)
            at += if_true if hit else if_false


@given(st.lists(st.integers(1, 65535), max_size=8, unique=True), st.integers(1, 65535), st.integers(1, 65535))
def test_filter_accepts_exactly_its_ports(ports: list[int], source: int, destination: int) -> None:
    frame = build_udp_frame(("10.0.0.1", source), ("10.0.0.2", destination), b"x" * 20)
    wanted = not ports or source in ports or destination in ports
    assert bool(run_filter(udp_filter(ports), frame)) is wanted
    assert run_filter(udp_filter(ports), frame[:23] + b"\x06" + frame[24:]) == 0, "TCP"
    assert run_filter(udp_filter(ports), frame[:12] + b"\x86\xdd" + frame[14:]) == 0, "IPv6"
    assert run_filter(udp_filter(ports), frame[:20] + b"\x00\x01" + frame[22:]) == 0, "a later fragment"


@given(st.lists(st.tuples(st.integers(0, 2**62), st.binary(max_size=100)), max_size=20))
def test_captures_survive_the_file(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, bytes]]) -> None:
    path = tmp_path_factory.mktemp("pcap") / "x.pcap"
    rows = [(time_ns % (2**32 * 10**9), frame) for time_ns, frame in rows]
    with PcapWriter(path) as pcap:
        for time_ns, frame in rows:
            pcap.write(time_ns, frame)
    assert list(read_pcap(path)) == rows
    if rows and rows[-1][1]:
        path.write_bytes(path.read_bytes()[:-1])
        assert list(read_pcap(path)) == rows[:-1], "a capture that was cut off is read as far as it goes"


@given(st.binary(max_size=200))
def test_no_frame_breaks_the_parser(frame: bytes) -> None:
    parse_udp(0, frame)


def test_only_whole_udp_datagrams_are_read() -> None:
    frame = build_udp_frame(HERE, THERE, b"payload")
    packet = parse_udp(5, frame)
    assert packet is not None
    assert (packet.time_ns, packet.source, packet.destination, packet.payload) == (5, HERE, THERE, b"payload")
    assert parse_udp(5, frame[:20] + b"\x20\x00" + frame[22:]) is None, "a first fragment"
    assert parse_udp(5, frame + b"padding") == packet


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(b"hello")
    with pytest.raises(PcapError, match="not a pcap"):
        list(read_pcap(path))
    with PcapWriter(path):
        pass
    path.write_bytes(path.read_bytes()[:20] + b"\x71\x00\x00\x00")
    with pytest.raises(PcapError, match="Ethernet"):
        list(read_pcap(path))
