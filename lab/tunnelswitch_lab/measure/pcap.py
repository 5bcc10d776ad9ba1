"""Capture files with nanoseconds (pcap, magic 0xa1b23c4d): writing, reading, and the UDP packets inside.

Ethernet link type, IPv4 and UDP without options to spare: what the lab's clients send. Not a dissector.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

_MAGIC_NANOSECONDS = 0xA1B23C4D
_MAGIC_MICROSECONDS = 0xA1B2C3D4
_LINKTYPE_ETHERNET = 1
_SNAPSHOT_BYTES = 65535
_FILE_HEADER = struct.Struct("IHHiIII")
_PACKET_HEADER_FIELDS = "IIII"
_ETHERTYPE_IPV4 = 0x0800
_UDP = 17


class PcapError(ValueError):
    """A file is not a capture that this module reads."""


@dataclass(frozen=True, slots=True)
class UdpPacket:
    """One UDP datagram of a capture; the time in nanoseconds since 1970."""

    time_ns: int
    source: tuple[str, int]
    destination: tuple[str, int]
    payload: bytes


class PcapWriter:
    """Writes a capture; a context manager. The header is on disk at once, packets when flushed or full."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("wb", buffering=1 << 16)
        header = _FILE_HEADER.pack(_MAGIC_NANOSECONDS, 2, 4, 0, 0, _SNAPSHOT_BYTES, _LINKTYPE_ETHERNET)
        self._file.write(header)
        self._file.flush()
        self._header = struct.Struct(_PACKET_HEADER_FIELDS)

    def write(self, time_ns: int, frame: bytes) -> None:
        """Add one Ethernet frame."""
        seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
        kept = frame[:_SNAPSHOT_BYTES]
        self._file.write(self._header.pack(seconds, nanoseconds, len(kept), len(frame)))
        self._file.write(kept)

    def flush(self) -> None:
        """Hand everything to the kernel."""
        self._file.flush()

    def __enter__(self) -> PcapWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def read_pcap(path: Path) -> Iterator[tuple[int, bytes]]:
    """(time in nanoseconds, frame) of every whole packet; a cut last packet is ignored.

    Raises PcapError when the file is no Ethernet capture, OSError when it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_FILE_HEADER.size)
        order, nanoseconds_per_unit = _byte_order(path, head)
        if struct.unpack_from(order + "I", head, 20)[0] != _LINKTYPE_ETHERNET:
            raise PcapError(f"{path} is not a capture of Ethernet frames")
        packet = struct.Struct(order + _PACKET_HEADER_FIELDS)
        while len(header := file.read(packet.size)) == packet.size:
            seconds, fraction, kept, _ = packet.unpack(header)
            if kept > 1 << 20:
                raise PcapError(f"{path} holds a packet of {kept} bytes: damaged")
            frame = file.read(kept)
            if len(frame) < kept:
                return
            yield seconds * 1_000_000_000 + fraction * nanoseconds_per_unit, frame


def _byte_order(path: Path, head: bytes) -> tuple[str, int]:
    if len(head) == _FILE_HEADER.size:
        for order in ("<", ">"):
            magic = struct.unpack_from(order + "I", head)[0]
            if magic == _MAGIC_NANOSECONDS:
                return order, 1
            if magic == _MAGIC_MICROSECONDS:
                return order, 1000
    raise PcapError(f"{path} is not a pcap file")


def parse_udp(time_ns: int, frame: bytes) -> UdpPacket | None:
    """The UDP datagram in an Ethernet frame, or None: other protocols, fragments, cut frames."""
    if len(frame) < 42 or frame[12:14] != b"\x08\x00" or frame[14] >> 4 != 4 or frame[23] != _UDP:
        return None
    if int.from_bytes(frame[20:22], "big") & 0x3FFF:
        return None
    start = 14 + (frame[14] & 0x0F) * 4
    if len(frame) < start + 8:
        return None
    source_port, destination_port, length = struct.unpack_from("!HHH", frame, start)
    payload = frame[start + 8 : start + max(length, 8)]
    return UdpPacket(
        time_ns,
        (socket.inet_ntoa(frame[26:30]), source_port),
        (socket.inet_ntoa(frame[30:34]), destination_port),
        payload,
    )


def build_udp_frame(source: tuple[str, int], destination: tuple[str, int], payload: bytes) -> bytes:
    """An Ethernet frame with one UDP datagram, for synthetic captures; no UDP checksum (RFC 768 allows that)."""
    udp = struct.pack("!HHHH", source[1], destination[1], 8 + len(payload), 0) + payload
    addresses = socket.inet_aton(source[0]) + socket.inet_aton(destination[0])
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0x4000, 64, _UDP, 0)
    total = sum(struct.unpack("!10H", head + addresses))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~(total + (total >> 16)) & 0xFFFF
    ip = head[:10] + struct.pack("!H", checksum) + addresses
    return bytes(12) + struct.pack("!H", _ETHERTYPE_IPV4) + ip + udp


def read_udp(path: Path) -> Iterator[UdpPacket]:
    """Every UDP datagram of a capture."""
    for time_ns, frame in read_pcap(path):
        packet = parse_udp(time_ns, frame)
        if packet is not None:
            yield packet
