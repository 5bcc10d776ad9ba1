"""A run's directory written by hand: a call and a probe that lose their service at one moment and get it back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tunnelswitch_lab.measure.pcap import PcapWriter, build_udp_frame
from tunnelswitch_lab.measure.runs import CAPTURE, EVENTS, PROBE_TRACE, RTP_TRACE, RunFacts
from tunnelswitch_lab.workload.packets import Identity, RtpPacket, build_rtp_reply
from tunnelswitch_lab.workload.trace import TraceWriter

SERVICE, CALLER = ("192.168.77.10", 5004), ("192.168.77.1", 40000)
BEGIN = 1_700_000_000.0
OLD, NEW = Identity("primary", b"oldoldol"), Identity("secondary", b"newnewne")


@dataclass
class Script:
    """What happens in the run; times in seconds from its begin."""

    number: int = 1
    fault_at: float = 2.007
    back_at: float = 2.061
    ends_at: float = 4.0
    silent_again_at: float = 99.0
    rollback: int = 1
    late_answers: int = 0
    tunnels: list[str] = field(default_factory=lambda: ["t3-pbx"])
    reported_downtime: float = 0.050
    flow: str = "udp 192.168.77.10:5006 > 192.168.77.1:40001"
    reason: str = "suspicion"
    jitter: float = 0.0004


def _answered(moment: float, script: Script) -> Identity | None:
    if moment < script.fault_at:
        return OLD
    return NEW if script.back_at <= moment < script.silent_again_at else None


def write_run(directory: Path, script: Script) -> Path:
    """Write all files of the run and return its directory."""
    directory.mkdir(parents=True, exist_ok=True)
    _write_call(directory, script)
    _write_probe(directory, script)
    (directory / EVENTS).write_text("".join(json.dumps(line) + "\n" for line in _events(script)), encoding="utf-8")
    RunFacts(
        number=script.number,
        fault="host-loss",
        fault_at=BEGIN + script.fault_at,
        observed_until=BEGIN + script.ends_at,
        active_before="primary",
        expected_verdict="suspicion",
        expected_active="secondary",
        gateway_tunnels=script.tunnels,
        interval_seconds=0.01,
        multiplier=3,
        checkpoint_interval_ms=25.0,
        realtime_priority=10,
    ).save(directory)
    return directory


def _write_call(directory: Path, script: Script) -> None:
    counter, rolled = 0, False
    rows = []
    for number in range(int(script.ends_at / 0.02)):
        sent = number * 0.02
        copy = _answered(sent, script)
        if copy is None:
            continue
        if copy is NEW and not rolled:
            counter, rolled = counter - script.rollback, True
        counter += 1
        rows.append((sent + 0.001 + script.jitter * (number * 7 % 5), number, copy, counter))
    last = rows[-1][1]
    rows += [(script.back_at + 0.5, last - 3 - n, OLD, 10_000 + n) for n in range(script.late_answers)]
    with PcapWriter(directory / CAPTURE) as pcap, TraceWriter(directory / RTP_TRACE) as trace:
        for arrival, number, copy, count in sorted(rows, key=lambda row: row[0]):
            header = RtpPacket(number % 65536, number * 160, 0x7057, 0)
            time_ns = int((BEGIN + arrival) * 1e9)
            pcap.write(time_ns, build_udp_frame(SERVICE, CALLER, build_rtp_reply(header, copy, count, count)))
            trace.received(number, 0, time_ns, count, copy.run, copy.site)
        trace.finish({"sent": 200, "lateness_max_seconds": 0.001, "lateness_p99_seconds": 0.0005})
    (directory / f"{CAPTURE}.json").write_text('{"packets": 1, "dropped": 0}', encoding="utf-8")


def _write_probe(directory: Path, script: Script) -> None:
    with TraceWriter(directory / PROBE_TRACE) as trace:
        total = int(script.ends_at * 1000)
        for number in range(total):
            sent = number * 0.001
            trace.sent(number, int((BEGIN + sent) * 1e9))
            copy = _answered(sent, script)
            if copy is not None:
                arrival = int((BEGIN + sent + 0.0005) * 1e9)
                trace.received(number, int((BEGIN + sent) * 1e9), arrival, number, copy.run, copy.site)
        trace.finish({"sent": total, "lateness_max_seconds": 0.002, "lateness_p99_seconds": 0.0004})


def _events(script: Script) -> list[dict[str, Any]]:
    fault = BEGIN + script.fault_at
    record = {
        "group": "voip",
        "stamp": {"epoch": 2, "decision_id": "gateway.1", "minor": 0},
        "active": "secondary",
        "previous": "primary",
        "in_sync": False,
        "reason": script.reason,
    }
    names = ("path_down", "bus_silent", "verdict", "committed", "switched", "applied", "promoted")
    offsets = (0.031, 0.028, 0.036, 0.040, 0.049, 0.052, 0.046)
    marks = {name: fault + offset for name, offset in zip(names, offsets, strict=True)}
    report = {"group": "voip", "epoch": 2, "reason": script.reason, "active": "secondary", "previous": "primary"}
    gap = {
        "site": "gateway",
        "service": "pbx",
        "flow": script.flow,
        "downtime_seconds": script.reported_downtime,
        "gap_ended_at": BEGIN + script.back_at,
    }
    return [
        _line("heartbeat", BEGIN + 1, {"site": "primary", "marks": {"voip": "1.0-init"}, "lateness_seconds": 0.001}),
        {"received_at": BEGIN + 1.5, "subject": "tsw.v1.lab.rubbish", "text": "not json"},
        _line("epoch", fault + 0.04, {"record": record}),
        _line("failover", fault + 0.06, {**report, "marks": marks}),
        _line("traffic", fault + 0.07, gap),
    ]


def _line(kind: str, moment: float, data: dict[str, Any]) -> dict[str, Any]:
    event = {
        "specversion": "1.0",
        "id": "1",
        "source": "gateway",
        "type": f"tunnelswitch.v1.{kind}",
        "time": datetime.fromtimestamp(moment, UTC).isoformat(),
        "data": data,
    }
    return {"received_at": moment, "subject": f"tsw.v1.lab.{kind}.x", "event": event}
