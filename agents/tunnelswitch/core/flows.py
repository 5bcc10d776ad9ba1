"""What the clients' packets say: gaps, loss and jitter per flow, and whether clients get answers.

Pure: IPv4 packets and their kernel timestamps in, facts out. Only packets FROM a service make a flow; what clients send
counts for `unanswered` alone. It does not reassemble, decrypt, or judge TCP flows (their pauses are normal).

A gap is reported when it ends, if it was longer than four times the flow's nominal spacing (the median of its last 64
spacings) and longer than 15 ms, and if such gaps are rare in this flow: a signalling dialogue is irregular by nature
and has no downtime that spacing could show.
"""

from __future__ import annotations

import struct
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass

from tunnelswitch.core.events import ClientsSeen
from tunnelswitch.core.facts import Traffic

NANOSECONDS = 1_000_000_000
_UDP, _TCP = 17, 6
_TCP_SYN_OR_FIN = 0x03
_RTP = struct.Struct("!BBHII")
_RTCP_TYPES = range(72, 77)  # RFC 5761 section 4
_CLOCKS = {6: 16000, 10: 44100, 11: 44100, 14: 90000, 16: 11025, 17: 22050} | dict.fromkeys(range(25, 35), 90000)
_DYNAMIC_TYPES_FROM = 96
_COMMON_CLOCKS = (8000, 16000, 24000, 32000, 44100, 48000, 90000)
_MIN_SEQUENTIAL = 2  # RFC 3550 appendix A.1: packets in sequence before a source is believed to be RTP
_WINDOW = 64
_MIN_SPACINGS = 8
_RARE = 8  # at most one spacing in so many may itself be a gap


@dataclass(frozen=True, slots=True)
class FlowLimits:
    """Bounds and thresholds.

    Attributes:
        flows: how many flows are followed; the least recently seen one is forgotten.
        gap_factor: a gap is longer than this many nominal spacings ...
        gap_floor_seconds: ... and longer than this.
        forget_seconds: a flow silent for longer is a new one: its gap is a pause between two calls, not downtime.
        unanswered_seconds: shorter waits for an answer are not told.
        idle_seconds: clients that have not asked for so long are not waiting any more.
    """

    flows: int = 1024
    gap_factor: float = 4.0
    gap_floor_seconds: float = 0.015
    forget_seconds: float = 300.0
    unanswered_seconds: float = 0.1
    idle_seconds: float = 1.0


class _Rtp:
    """One synchronisation source as RFC 3550 sees it: sequence (A.1) and interarrival jitter (6.4.1, A.8)."""

    __slots__ = ("_first", "_ssrc", "_transit", "clock_hz", "jitter_seconds", "sequence", "sequential")

    def __init__(self) -> None:
        self._ssrc = -1
        self._restart(0, 0, 0, 0)

    def _restart(self, at_ns: int, sequence: int, timestamp: int, clock_hz: int) -> None:
        self.sequential = 1
        self.sequence = sequence
        self.clock_hz = clock_hz
        self.jitter_seconds = 0.0
        self._transit: float | None = None
        self._first = (at_ns, timestamp)

    @property
    def believed(self) -> bool:
        return self.sequential >= _MIN_SEQUENTIAL

    def packet(self, at_ns: int, payload: bytes) -> int | None:
        """Take one UDP payload: how many packets are missing before it, or None when this is not (yet) RTP."""
        if len(payload) < _RTP.size or payload[0] & 0xC0 != 0x80:
            return None
        _, second, sequence, timestamp, ssrc = _RTP.unpack_from(payload)
        kind = second & 0x7F
        if kind in _RTCP_TYPES:
            return None
        if ssrc != self._ssrc:
            self._ssrc = ssrc
            clock_hz = 0 if kind >= _DYNAMIC_TYPES_FROM else _CLOCKS.get(kind, 8000)
            self._restart(at_ns, sequence, timestamp, clock_hz)
            return None
        step = (sequence - self.sequence) & 0xFFFF
        if not self.believed:
            self.sequential = self.sequential + 1 if step == 1 else 1
        forward = 0 < step < 0x8000
        if forward:
            self.sequence = sequence
            self._advance(at_ns, timestamp)
        elif self.sequential and step > 0x8000 - 1 and (0x10000 - step) > _WINDOW:
            self.sequence = sequence  # far behind: the sender started again (A.1), not a reordered packet
        return (step - 1 if forward else 0) if self.believed else None

    def _advance(self, at_ns: int, timestamp: int) -> None:
        first_ns, first_timestamp = self._first
        elapsed_seconds = (at_ns - first_ns) / NANOSECONDS
        ticks = (timestamp - first_timestamp) & 0xFFFFFFFF
        if not self.clock_hz:
            if elapsed_seconds < 0.5:
                return
            rate = ticks / elapsed_seconds
            self.clock_hz = min(_COMMON_CLOCKS, key=lambda clock: abs(clock - rate))
        transit = elapsed_seconds - ticks / self.clock_hz
        if self._transit is not None and abs(transit - self._transit) < 3600:  # else the timestamp wrapped
            self.jitter_seconds += (abs(transit - self._transit) - self.jitter_seconds) / 16
        self._transit = transit


class _Flow:
    """One 5-tuple from a service to a client."""

    __slots__ = ("_jitters", "_rtp", "_spacings", "last_ns", "lost_packets", "service")

    def __init__(self, service: str, at_ns: int) -> None:
        self.service = service
        self.last_ns = at_ns
        self.lost_packets = 0
        self._spacings: deque[int] = deque(maxlen=_WINDOW)
        self._jitters: deque[float] = deque(maxlen=_WINDOW)
        self._rtp = _Rtp()

    def packet(self, at_ns: int, payload: bytes, limits: FlowLimits) -> tuple[int, int, int, float] | None:
        """Gap and nominal spacing in nanoseconds, packets lost, largest jitter in seconds, if a gap ends here."""
        spacing_ns = max(0, at_ns - self.last_ns)
        self.last_ns = max(self.last_ns, at_ns)
        lost = self._rtp.packet(at_ns, payload)
        if lost is not None:
            self.lost_packets += lost
            self._jitters.append(self._rtp.jitter_seconds)
        nominal_ns = 0
        if spacing_ns > limits.gap_floor_seconds * NANOSECONDS:
            nominal_ns = self._nominal_ns(spacing_ns, limits)
        self._spacings.append(spacing_ns)
        if not nominal_ns:
            return None
        if lost is None:
            lost = max(0, round(spacing_ns / nominal_ns) - 1)
            self.lost_packets += lost
        return spacing_ns, nominal_ns, lost, max(self._jitters, default=0.0)

    def _nominal_ns(self, spacing_ns: int, limits: FlowLimits) -> int:
        """The median spacing if `spacing_ns` is a gap beside it and gaps are rare, else 0."""
        if len(self._spacings) < _MIN_SPACINGS:
            return 0
        ordered = sorted(self._spacings)
        median_ns = max(1, ordered[len(ordered) // 2])
        limit_ns = max(limits.gap_factor * median_ns, limits.gap_floor_seconds * NANOSECONDS)
        usual_ns = ordered[-1 - len(ordered) // _RARE]
        return median_ns if usual_ns <= limit_ns < spacing_ns else 0


@dataclass(slots=True)
class _Asking:
    """What clients of one service sent since its last reply."""

    first_ns: int = 0
    last_ns: int = 0
    told: bool = False


class Flows:
    """Follows the flows of the services of one gateway.

    Args:
        site: the gateway, for the facts.
        services: IPv4 address of each service by name; an address belongs to one service.
    """

    def __init__(self, site: str, services: Mapping[str, str], limits: FlowLimits | None = None) -> None:
        self._site = site
        self._limits = limits or FlowLimits()
        self._names = {bytes(map(int, address.split("."))): name for name, address in services.items()}
        self._asking = {name: _Asking() for name in services}
        self._flows: OrderedDict[bytes, _Flow] = OrderedDict()
        self._idle_ns = round(self._limits.idle_seconds * NANOSECONDS)
        self._forget_ns = round(self._limits.forget_seconds * NANOSECONDS)

    def __len__(self) -> int:
        return len(self._flows)

    def packet(self, at_ns: int, data: bytes) -> Traffic | None:
        """Take one packet, IPv4 header first (it may be cut short behind the RTP header)."""
        if len(data) < 20 or data[0] >> 4 != 4:
            return None
        service = self._names.get(data[12:16])
        if service is None:
            service = self._names.get(data[16:20])
            if service is not None and _asks(data):
                self._asked(self._asking[service], at_ns)
            return None
        self._asking[service].first_ns = 0
        header = (data[0] & 15) * 4
        fragment = (data[6] & 0x1F) or data[7]
        if data[9] != _UDP or fragment or len(data) < header + 8:
            return None
        return self._follow(service, at_ns, data[12:20] + data[header : header + 4], data[header + 8 :])

    def unanswered(self, now_ns: int) -> list[ClientsSeen]:
        """How long clients have been asking in vain. `now_ns`: every packet before this time has been taken.

        The wait runs from the first request without a reply to the last one, so that a packet that needs no answer
        (SIP's ACK, say) does not count for as long as nothing follows it. Told again at every call while it lasts, and
        once with 0 when it is over.
        """
        seen: list[ClientsSeen] = []
        for service, asking in self._asking.items():
            if now_ns - asking.last_ns > self._idle_ns:
                asking.first_ns = 0
            waited = (asking.last_ns - asking.first_ns) / NANOSECONDS if asking.first_ns else 0.0
            if waited > self._limits.unanswered_seconds:
                seen.append(ClientsSeen(service, waited))
                asking.told = True
            elif asking.told:
                seen.append(ClientsSeen(service, 0.0))
                asking.told = False
        return seen

    def forget(self) -> None:
        """Packets were missed, or the clock was set: neither a gap nor a missing reply can be told from what is known."""
        self._flows.clear()
        for asking in self._asking.values():
            asking.first_ns = 0

    def _asked(self, asking: _Asking, at_ns: int) -> None:
        if not asking.first_ns or at_ns - asking.last_ns > self._idle_ns:
            asking.first_ns = at_ns
        asking.last_ns = at_ns

    def _follow(self, service: str, at_ns: int, key: bytes, payload: bytes) -> Traffic | None:
        flow = self._flows.get(key)
        if flow is None or at_ns - flow.last_ns > self._forget_ns:
            self._flows[key] = flow = _Flow(service, at_ns)
            flow.packet(at_ns, payload, self._limits)
            if len(self._flows) > self._limits.flows:
                self._flows.popitem(last=False)
            return None
        self._flows.move_to_end(key)
        gap = flow.packet(at_ns, payload, self._limits)
        if gap is None:
            return None
        gap_ns, nominal_ns, lost, jitter_max_seconds = gap
        return Traffic(
            site=self._site,
            service=service,
            flow=_flow_name(key),
            downtime_seconds=(gap_ns - nominal_ns) / NANOSECONDS,
            gap_seconds=gap_ns / NANOSECONDS,
            nominal_spacing_seconds=nominal_ns / NANOSECONDS,
            lost_packets=lost,
            jitter_max_seconds=jitter_max_seconds,
            gap_started_at=(at_ns - gap_ns) / NANOSECONDS,
            gap_ended_at=at_ns / NANOSECONDS,
        )


def _asks(data: bytes) -> bool:
    """Does this packet of a client want an answer? A bare TCP acknowledgement does not, nor do ICMP errors."""
    if data[9] == _UDP:
        return True
    header = (data[0] & 15) * 4
    if data[9] != _TCP or len(data) < header + 14:
        return False
    payload_bytes = int.from_bytes(data[2:4], "big") - header - (data[header + 12] >> 4) * 4
    return payload_bytes > 0 or bool(data[header + 13] & _TCP_SYN_OR_FIN)


def _flow_name(key: bytes) -> str:
    ports = struct.unpack_from("!HH", key, 8)
    source, target = (".".join(map(str, key[start : start + 4])) for start in (0, 4))
    return f"udp {source}:{ports[0]} > {target}:{ports[1]}"
