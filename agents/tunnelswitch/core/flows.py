"""What the clients' packets say: gaps, loss and jitter per flow, and whether clients get answers.

Pure: IPv4 packets and their kernel timestamps in, facts out. Only packets FROM a service make a flow; what clients send
counts for `unanswered` alone. It does not reassemble, decrypt, or judge TCP flows (their pauses are normal).

A gap is reported when it ends, if it was longer than twice the flow's nominal spacing (the median of its last 64
spacings; 1.5 times where RTP says that packets are missing, for one lost packet is a gap of two spacings, give or take
jitter) and longer than 15 ms, and if such gaps are rare in this flow or this one is far longer than any of them: a
signalling dialogue is irregular by nature and has no downtime that spacing could show, and a machine that is
checkpointed stops for a moment each time.
"""

from __future__ import annotations

import struct
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass

from tunnelswitch.core.events import ClientsSeen
from tunnelswitch.core.facts import Traffic
from tunnelswitch.core.rtp import RtpStream

NANOSECONDS = 1_000_000_000
_UDP, _TCP = 17, 6
_TCP_SYN_OR_FIN = 0x03
_KEEPALIVE_BYTES = 4
_WINDOW = 64
_MIN_SPACINGS = 8
_RARE = 8  # at most one spacing in so many may itself be a gap, ...
_OUTSTANDING = 1.5  # ... or the gap is longer than all of them by this factor


@dataclass(frozen=True, slots=True)
class FlowLimits:
    """Bounds and thresholds.

    Attributes:
        flows: how many flows are followed; the least recently seen one is forgotten.
        gap_factor: a gap is longer than this many nominal spacings ...
        lossy_gap_factor: ... or, where RTP packets are missing in it, than this many ...
        gap_floor_seconds: ... and longer than this.
        forget_seconds: a flow silent for longer is a new one: its gap is a pause between two calls, not downtime.
        unanswered_seconds: shorter waits for an answer are not told.
        idle_seconds: clients that have not asked for so long are not waiting any more.
    """

    flows: int = 1024
    gap_factor: float = 2.0
    lossy_gap_factor: float = 1.5
    gap_floor_seconds: float = 0.015
    forget_seconds: float = 300.0
    unanswered_seconds: float = 0.1
    idle_seconds: float = 1.0


class _Flow:
    """One 5-tuple from a service to a client."""

    __slots__ = ("_jitters", "_rtp", "_spacings", "last_ns")

    def __init__(self) -> None:
        self.last_ns = 0
        self._spacings: deque[int] = deque(maxlen=_WINDOW)
        self._jitters: deque[float] = deque(maxlen=_WINDOW)
        self._rtp = RtpStream()

    def packet(self, at_ns: int, payload: bytes, limits: FlowLimits) -> tuple[int, int, int, float] | None:
        """Gap and nominal spacing in nanoseconds, packets lost, largest jitter in seconds, if a gap ends here."""
        lost = self._rtp.packet(at_ns, payload)
        if lost is not None:
            self._jitters.append(self._rtp.jitter_seconds)
        if not self.last_ns:
            self.last_ns = at_ns
            return None
        spacing_ns = max(0, at_ns - self.last_ns)
        self.last_ns = max(self.last_ns, at_ns)
        nominal_ns = 0
        if spacing_ns > limits.gap_floor_seconds * NANOSECONDS:
            nominal_ns = self._nominal_ns(spacing_ns, limits, lossy=bool(lost))
        self._spacings.append(spacing_ns)
        if not nominal_ns:
            return None
        if lost is None:  # no sequence numbers: what the spacing says
            lost = max(0, round(spacing_ns / nominal_ns) - 1)
        return spacing_ns, nominal_ns, lost, max(self._jitters, default=0.0)

    def _nominal_ns(self, spacing_ns: int, limits: FlowLimits, *, lossy: bool) -> int:
        """The usual spacing if `spacing_ns` is a gap beside it and stands out, else 0.

        Usual is the median; where packets come in bursts (a switch short of processor time) that says next to nothing,
        and the mean, with gaps cut to their floor, is nearer the truth.
        """
        count = len(self._spacings)
        if count < _MIN_SPACINGS:
            return 0
        ordered = sorted(self._spacings)
        floor_ns = round(limits.gap_floor_seconds * NANOSECONDS)
        mean_ns = sum(min(spacing, floor_ns) for spacing in ordered) // count
        usual_ns = max(1, ordered[count // 2], mean_ns)
        rare = ordered[-1 - count // _RARE] <= max(limits.gap_factor * usual_ns, floor_ns)
        stands_out = rare or spacing_ns > _OUTSTANDING * ordered[-1]
        factor = limits.lossy_gap_factor if lossy else limits.gap_factor
        return usual_ns if stands_out and spacing_ns > max(factor * usual_ns, floor_ns) else 0


@dataclass(slots=True)
class _Asking:
    """What clients of one service sent since its last reply. `told`: their wait was told, and not yet that it is over;
    `in_vain`: it was told, and no reply came since."""

    first_ns: int = 0
    last_ns: int = 0
    told: bool = False
    in_vain: bool = False


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
        asking = self._asking[service]
        asking.told |= asking.in_vain
        asking.first_ns, asking.in_vain = 0, False
        header = (data[0] & 15) * 4
        fragment = (data[6] & 0x1F) or data[7]
        if data[9] != _UDP or fragment or len(data) < header + 8:
            return None
        return self._follow(service, at_ns, data[12:20] + data[header : header + 4], data[header + 8 :])

    def unanswered(self, now_ns: int) -> list[ClientsSeen]:
        """How long clients have been asking in vain. `now_ns`: every packet before this time has been taken.

        The wait runs from the first request without a reply to the last one, so that a packet that needs no answer
        (SIP's ACK, say) does not count for as long as nothing follows it. Told again at every call while it lasts, once
        with 0 when it is over, and, if it ended because nobody asked any more, once more when a reply comes after all.
        """
        seen: list[ClientsSeen] = []
        for service, asking in self._asking.items():
            if now_ns - asking.last_ns > self._idle_ns:
                asking.first_ns = 0
            waited = (asking.last_ns - asking.first_ns) / NANOSECONDS if asking.first_ns else 0.0
            if waited > self._limits.unanswered_seconds:
                seen.append(ClientsSeen(service, waited))
                asking.told = asking.in_vain = True
            elif asking.told:
                seen.append(ClientsSeen(service, 0.0, answered=not asking.in_vain))
                asking.told = False
        return seen

    def forget(self) -> None:
        """Packets were missed, or the clock was set: what is known shows neither a gap nor a missing reply."""
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
            self._flows[key] = flow = _Flow()
            if len(self._flows) > self._limits.flows:
                self._flows.popitem(last=False)
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
    """Does this packet of a client want an answer? A bare TCP acknowledgement does not, nor do ICMP errors, nor what
    keeps a NAT's mapping alive (empty lines of SIP phones; RFC 3948, section 2.3)."""
    header = (data[0] & 15) * 4
    if data[9] == _UDP:
        payload = data[header + 8 : header + 8 + _KEEPALIVE_BYTES + 1]
        return len(payload) > _KEEPALIVE_BYTES or bool(payload.strip(b"\r\n\0\xff"))
    if data[9] != _TCP or len(data) < header + 14:
        return False
    payload_bytes = int.from_bytes(data[2:4], "big") - header - (data[header + 12] >> 4) * 4
    return payload_bytes > 0 or bool(data[header + 13] & _TCP_SYN_OR_FIN)


def _flow_name(key: bytes) -> str:
    ports = struct.unpack_from("!HH", key, 8)
    source, target = (".".join(map(str, key[start : start + 4])) for start in (0, 4))
    return f"udp {source}:{ports[0]} > {target}:{ports[1]}"
