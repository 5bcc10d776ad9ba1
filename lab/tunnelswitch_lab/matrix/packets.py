"""What the client sent and got in one run, from its capture and its probe's trace.

Every answer names the copy that gave it. Reading only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunnelswitch_lab.measure.pcap import read_udp
from tunnelswitch_lab.measure.runs import CAPTURE, PROBE_TRACE
from tunnelswitch_lab.workload.packets import is_reply, parse_rtp, parse_rtp_reply
from tunnelswitch_lab.workload.trace import Received, read_trace

CALL, PROBE = "call", "probe"


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as the client's network card saw it: seconds from the fault, and the copy (a run at a site)."""

    at: float
    flow: str
    sequence: int
    run: str
    site: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """Everything the client got, in the order of arrival, and when it sent the packets of its call (by sequence)."""

    answers: list[Answer]
    asked: dict[int, float]


def read_exchange(directory: Path, service: tuple[str, int], fault_at: float) -> Exchange:
    """Read a run's capture and probe trace; `service` is the address and RTP port of the call.

    Raises OSError when a file is missing, PcapError or TraceError when one is damaged.
    """
    origin_ns = round(fault_at * 1e9)  # a double holds no nanoseconds since 1970
    answers: list[Answer] = []
    asked: dict[int, float] = {}
    for packet in read_udp(directory / CAPTURE):
        at = (packet.time_ns - origin_ns) / 1e9
        if packet.source == service and (parsed := parse_rtp_reply(packet.payload)):
            header, reply = parsed
            answers.append(Answer(at, CALL, header.sequence, reply.run.hex(), reply.site))
        elif packet.destination == service and not is_reply(packet.payload) and (request := parse_rtp(packet.payload)):
            asked[request.sequence] = at
    for record in read_trace(directory / PROBE_TRACE):
        if isinstance(record, Received):
            at = (record.received_ns - origin_ns) / 1e9
            answers.append(Answer(at, PROBE, record.sequence, record.run, record.site))
    return Exchange(sorted(answers, key=lambda answer: answer.at), asked)
