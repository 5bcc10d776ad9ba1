"""Wire formats of the service and its clients: RTP (RFC 3550, section 5.1), its replies, probes.

Pure functions on bytes. Replies say which copy answered and what its state is, so that packets alone prove
who served the client and how much state a failover lost. This is not an RTP library: no CSRC lists,
extensions or RTCP.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

PCMU_PAYLOAD_TYPE = 0
PCMU_CLOCK_HZ = 8000
PAYLOAD_BYTES = 160  # 20 ms of G.711
PACKET_SPACING_SECONDS = 0.02

_RTP = struct.Struct("!BBHII")
_REPLY = struct.Struct("!4sQQ8s16s")
_PROBE = struct.Struct("!4sQQ")
_PROBE_REPLY = struct.Struct("!4sQQQ8s16s")
_REPLY_MAGIC = b"TSWR"
_PROBE_MAGIC = b"TSWP"
_PROBE_REPLY_MAGIC = b"TSWQ"
_PADDING = bytes([0xFF]) * (PAYLOAD_BYTES - _REPLY.size)  # 0xFF is silence in mu-law
_SILENCE = bytes([0xFF]) * PAYLOAD_BYTES
_VERSION_2 = 0x80
_RTCP_TYPES = range(72, 77)  # what RTCP packets look like when read as RTP (RFC 5761, section 4)


@dataclass(frozen=True, slots=True)
class Identity:
    """Which copy of the service this is: the site's name and an id that is new at every process start."""

    site: str
    run: bytes

    def __post_init__(self) -> None:
        if not self.site or len(self.site.encode()) > 16:
            raise ValueError(f"site name {self.site!r} must be 1 to 16 bytes long")
        if len(self.run) != 8:
            raise ValueError("a run id has 8 bytes")


@dataclass(frozen=True, slots=True)
class RtpPacket:
    """The fields of an RTP header that the lab uses."""

    sequence: int
    timestamp: int
    ssrc: int
    payload_type: int
    marker: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """What the service wrote into a reply; `counter` is its total of answered packets, this one included."""

    counter: int
    client_counter: int
    run: bytes
    site: str


@dataclass(frozen=True, slots=True)
class ProbeReply:
    """An answered probe: `sent_ns` is the client's own clock, sent back untouched."""

    sequence: int
    sent_ns: int
    reply: Reply


def parse_rtp(data: bytes) -> RtpPacket | None:
    """The header of an RTP packet, or None when `data` is not one (too short, other version, RTCP)."""
    if len(data) < _RTP.size:
        return None
    first, second, sequence, timestamp, ssrc = _RTP.unpack_from(data)
    payload_type = second & 0x7F
    if first & 0xC0 != _VERSION_2 or payload_type in _RTCP_TYPES:
        return None
    return RtpPacket(sequence, timestamp, ssrc, payload_type, bool(second & 0x80))


def build_rtp(packet: RtpPacket, payload: bytes = _SILENCE) -> bytes:
    """Bytes of an RTP packet without CSRCs and extension."""
    second = packet.payload_type | (0x80 if packet.marker else 0)
    return _RTP.pack(_VERSION_2, second, packet.sequence, packet.timestamp, packet.ssrc) + payload


def is_reply(data: bytes) -> bool:
    """Whether an RTP packet is a reply of the service: such a packet must never be answered (loops)."""
    return data[_RTP.size : _RTP.size + 4] == _REPLY_MAGIC


def build_rtp_reply(request: RtpPacket, identity: Identity, counter: int, client_counter: int) -> bytes:
    """The answer to one packet: the same header, 160 bytes that begin with the copy's identity and state."""
    stamp = _REPLY.pack(_REPLY_MAGIC, counter, client_counter, identity.run, identity.site.encode())
    return build_rtp(request, stamp + _PADDING)


def parse_rtp_reply(data: bytes) -> tuple[RtpPacket, Reply] | None:
    """Header and content of a reply, or None when `data` is not one."""
    packet = parse_rtp(data)
    if packet is None or not is_reply(data) or len(data) < _RTP.size + _REPLY.size:
        return None
    _, counter, client_counter, run, site = _REPLY.unpack_from(data, _RTP.size)
    return packet, Reply(counter, client_counter, run, _site_name(site))


def build_probe(sequence: int, sent_ns: int) -> bytes:
    """One probe datagram."""
    return _PROBE.pack(_PROBE_MAGIC, sequence, sent_ns)


def parse_probe(data: bytes) -> tuple[int, int] | None:
    """(sequence, send time in nanoseconds) of a probe, or None when `data` is not one."""
    if len(data) != _PROBE.size or data[:4] != _PROBE_MAGIC:
        return None
    _, sequence, sent_ns = _PROBE.unpack(data)
    return sequence, sent_ns


def build_probe_reply(sequence: int, sent_ns: int, identity: Identity, counter: int) -> bytes:
    """The answer to one probe."""
    return _PROBE_REPLY.pack(_PROBE_REPLY_MAGIC, sequence, sent_ns, counter, identity.run, identity.site.encode())


def parse_probe_reply(data: bytes) -> ProbeReply | None:
    """Content of an answered probe, or None when `data` is not one."""
    if len(data) != _PROBE_REPLY.size or data[:4] != _PROBE_REPLY_MAGIC:
        return None
    _, sequence, sent_ns, counter, run, site = _PROBE_REPLY.unpack(data)
    return ProbeReply(sequence, sent_ns, Reply(counter, 0, run, _site_name(site)))


def _site_name(field: bytes) -> str:
    return field.rstrip(b"\0").decode(errors="replace")
