"""One call in a capture: jitter per packet by the paper's equations (1) and (2), outage, loss, and tshark's opinion.

Reading only. It takes any RTP, echoed or answered; who sent a packet it does not know.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunnelswitch_lab.measure.pcap import read_udp
from tunnelswitch_lab.measure.rfc3550 import Outcome, Reception
from tunnelswitch_lab.measure.tshark import rtp_streams
from tunnelswitch_lab.workload.packets import PACKET_SPACING_SECONDS, PCMU_CLOCK_HZ, parse_rtp

# tshark prints milliseconds with three decimals, and rounds them by itself.
AGREEMENT_SECONDS = 1.1e-6


@dataclass(frozen=True, slots=True)
class CallPacket:
    """One packet that the caller received; `difference_seconds` is D (1), `jitter_seconds` J after it (2)."""

    arrived_ns: int
    sequence: int
    spacing_seconds: float
    difference_seconds: float
    jitter_seconds: float


@dataclass(frozen=True, slots=True)
class Call:
    """The stream from the service to the caller; packets in the order of arrival."""

    packets: list[CallPacket]
    lost: int

    @property
    def jitter_max_seconds(self) -> float:
        return max(packet.jitter_seconds for packet in self.packets)

    @property
    def jitter_mean_seconds(self) -> float:
        """Over all packets but the first, which has none."""
        return sum(packet.jitter_seconds for packet in self.packets) / max(1, len(self.packets) - 1)

    @property
    def spacing_max_seconds(self) -> float:
        return max(packet.spacing_seconds for packet in self.packets)

    @property
    def outage_seconds(self) -> float:
        """The largest spacing less the nominal one."""
        return max(0.0, self.spacing_max_seconds - PACKET_SPACING_SECONDS)


def read_call(path: Path, service: tuple[str, int]) -> Call:
    """What the caller received from `service`, address and RTP port.

    Raises OSError or PcapError if the capture cannot be read, ValueError if nothing came.
    """
    reception = Reception(PCMU_CLOCK_HZ, min_sequential=1)  # known by its address: every packet counts, as in tshark
    packets: list[CallPacket] = []
    first_ns = last_ns = 0
    for datagram in read_udp(path):
        header = parse_rtp(datagram.payload) if datagram.source == service else None
        if header is None:
            continue
        first_ns, last_ns = first_ns or datagram.time_ns, last_ns or datagram.time_ns
        place = reception.receive(header.sequence, header.timestamp, (datagram.time_ns - first_ns) / 1e9)
        if place.outcome is Outcome.JUMP:
            continue
        spacing = (datagram.time_ns - last_ns) / 1e9
        last_ns = datagram.time_ns
        packets.append(
            CallPacket(last_ns, place.extended_sequence, spacing, place.difference_seconds, place.jitter_seconds)
        )
    if not packets:
        raise ValueError(f"{path} holds no RTP from {service[0]}:{service[1]}")
    return Call(packets, reception.lost)


def disagreements(call: Call, path: Path, service: tuple[str, int]) -> list[str]:
    """Where tshark sees another call in the same capture: counts exactly, times to a thousandth of a millisecond.

    Raises TsharkError if tshark cannot say.
    """
    streams = [stream for stream in rtp_streams(path, service[1]) if stream.source == service]
    if len(streams) != 1:
        return [f"tshark sees {len(streams)} streams from the service, not one"]
    theirs = streams[0]
    wrong = [
        f"{what}: {ours}, tshark says {said}"
        for what, ours, said in (
            ("packets", len(call.packets), theirs.packets),
            ("lost packets", call.lost, theirs.lost),
        )
        if ours != said
    ]
    return wrong + [
        f"{what}: {ours * 1000:.4f} ms, tshark says {said * 1000:.3f} ms"
        for what, ours, said in (
            ("largest spacing", call.spacing_max_seconds, theirs.max_delta_seconds),
            ("mean jitter", call.jitter_mean_seconds, theirs.mean_jitter_seconds),
            ("largest jitter", call.jitter_max_seconds, theirs.max_jitter_seconds),
        )
        if abs(ours - said) > AGREEMENT_SECONDS
    ]


def hung_up(path: Path, service_address: str) -> bool:
    """Was the end of a SIP call asked for by the caller, and confirmed by the service (RFC 3261, section 15)?"""
    asked = False
    for datagram in read_udp(path):
        if datagram.destination[0] == service_address:
            asked = asked or datagram.payload.startswith(b"BYE ")
        elif asked and datagram.payload.startswith(b"SIP/2.0 200 ") and b"BYE" in datagram.payload:
            return True
    return False
