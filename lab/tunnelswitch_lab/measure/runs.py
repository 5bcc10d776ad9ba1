"""One run's raw material, in one directory: what was done, what was captured, what the clients and the bus
recorded.

Reading only. `summary` makes figures of it, so that a summary can be made again from the files alone.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tunnelswitch_lab.measure.events import BusEvent, read_events
from tunnelswitch_lab.measure.pcap import read_udp
from tunnelswitch_lab.measure.rfc3550 import Outcome, Reception
from tunnelswitch_lab.workload.packets import PCMU_CLOCK_HZ, parse_rtp_reply
from tunnelswitch_lab.workload.trace import Received, read_trace, read_trace_summary

CAPTURE, EVENTS, FACTS = "client.pcap", "events.jsonl", "run.json"
RTP_TRACE, PROBE_TRACE = "rtp.trace", "probe.trace"


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What was done in a run, and what should follow from it.

    `fault_at` and `observed_until` (0: unknown) are in seconds since 1970; the client called for all of that time.
    """

    number: int
    fault: str
    fault_at: float
    observed_until: float
    active_before: str
    expected_verdict: str
    expected_active: str
    gateway_tunnels: list[str] = field(default_factory=list)
    interval_seconds: float = 0.0
    multiplier: int = 0
    checkpoint_interval_ms: float = 0.0
    realtime_priority: int = 0
    workload: str = "process"
    buffering: str = "none"
    agents: dict[str, dict[str, float]] = field(default_factory=dict)

    def since_fault_seconds(self, time_ns: int) -> float:
        """A time in nanoseconds since 1970 as seconds from the fault (a double holds no nanoseconds since 1970)."""
        return (time_ns - round(self.fault_at * 1e9)) / 1e9

    def save(self, directory: Path) -> None:
        """Write the facts into the run's directory."""
        (directory / FACTS).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> RunFacts:
        """Read them back. Raises OSError, ValueError or TypeError when they are not there or damaged."""
        return cls(**json.loads((directory / FACTS).read_text(encoding="utf-8")))


@dataclass(frozen=True, slots=True)
class CapturedPacket:
    """One reply in the capture: arrival, place in the stream, running jitter, and the copy that sent it."""

    arrived_ns: int
    sequence: int
    jitter_seconds: float
    run: str
    site: str
    counter: int


@dataclass(frozen=True, slots=True)
class Stream:
    """The service-to-client stream of a capture, by RFC 3550. Packets are in the order of arrival."""

    packets: list[CapturedPacket]
    lost: int
    jitter_max_seconds: float


@dataclass(frozen=True, slots=True)
class RunFiles:
    """Everything recorded in one run."""

    facts: RunFacts
    stream: Stream
    probes: list[Received]
    probes_sent: int
    events: list[BusEvent]
    client_summary: dict[str, Any]
    probe_summary: dict[str, Any]
    capture_summary: dict[str, Any]


def read_run(directory: Path, service: tuple[str, int]) -> RunFiles:
    """Read a run's directory; `service` is the address and RTP port whose replies count.

    Raises OSError when a file is missing, PcapError or TraceError when one is damaged.
    """
    probes = [record for record in read_trace(directory / PROBE_TRACE) if isinstance(record, Received)]
    probe_summary = read_trace_summary(directory / PROBE_TRACE)
    return RunFiles(
        facts=RunFacts.load(directory),
        stream=read_stream(directory / CAPTURE, service),
        probes=probes,
        probes_sent=int(probe_summary.get("sent", 0)),
        events=list(read_events(directory / EVENTS)),
        client_summary=read_trace_summary(directory / RTP_TRACE),
        probe_summary=probe_summary,
        capture_summary=read_trace_summary(directory / CAPTURE),
    )


def read_stream(path: Path, service: tuple[str, int]) -> Stream:
    """The replies of `service` in a capture, with RFC 3550's figures for each."""
    # The source is known by its address: no probation, every packet counts, as in tshark.
    reception = Reception(PCMU_CLOCK_HZ, min_sequential=1)
    packets: list[CapturedPacket] = []
    first_ns = 0
    for datagram in read_udp(path):
        parsed = parse_rtp_reply(datagram.payload) if datagram.source == service else None
        if parsed is None:
            continue
        header, reply = parsed
        first_ns = first_ns or datagram.time_ns
        # Relative to the first packet: a double cannot hold nanoseconds since 1970.
        arrival = (datagram.time_ns - first_ns) / 1e9
        statistics = reception.receive(header.sequence, header.timestamp, arrival)
        if statistics.outcome is Outcome.JUMP:
            continue
        packets.append(
            CapturedPacket(
                arrived_ns=datagram.time_ns,
                sequence=statistics.extended_sequence,
                jitter_seconds=statistics.jitter_seconds,
                run=reply.run.hex(),
                site=reply.site,
                counter=reply.counter,
            )
        )
    return Stream(packets, reception.lost, reception.jitter_max_seconds)
