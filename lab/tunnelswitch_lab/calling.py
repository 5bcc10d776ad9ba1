"""The paper's Fig. 4 once more: one call, one fault, and what the caller's card received: jitter, outage, loss.

The caller is the lab's own RTP sender, or sipp in a real SIP call that sipp answers. All figures come from the capture,
and tshark has to find the same ones in it.
"""

from __future__ import annotations

import asyncio
import csv
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunnelswitch_lab import faults
from tunnelswitch_lab import layout as names
from tunnelswitch_lab.experiment import CheckFailedError, client_tunnels, say, wait_protected
from tunnelswitch_lab.measure import charts
from tunnelswitch_lab.measure.call import Call, disagreements, hung_up, read_call
from tunnelswitch_lab.measure.runs import CAPTURE
from tunnelswitch_lab.measure.tshark import TsharkError
from tunnelswitch_lab.options import LabError, LabOptions
from tunnelswitch_lab.recording import SERVICE, Recording
from tunnelswitch_lab.sip_call import SipRecording
from tunnelswitch_lab.sip_service import check_sipp
from tunnelswitch_lab.testbed import Testbed
from tunnelswitch_lab.workload.packets import PACKET_SPACING_SECONDS

CALLERS = ("sipp", "rtp")
SUMMARY, PACKETS, PICTURE = "summary.json", "packets.csv", "fig4.svg"
_BEFORE_SECONDS, _AFTER_SECONDS = 3.0, 5.0
_HANG_UP_SECONDS = 6.0
_STYLE = (
    "<style>text{font:12px sans-serif;fill:#5c6875}.grid{stroke:#dfe3e8}.stem{stroke-width:2}.copy-0{stroke:#2f6fd0}"
    ".copy-1{stroke:#128a6c}.curve{fill:none;stroke:#7a4fc0;stroke-width:1.6}.fault{stroke:#c8323c}"
    ".outage{fill:#c8323c1a}.value{fill:#17202b;font-weight:600}</style>"
)


@dataclass(frozen=True, slots=True)
class CallOptions:
    """Who calls, what happens meanwhile, where the results go."""

    lab: LabOptions
    caller: str
    fault: str
    out: Path


async def run_call(options: CallOptions, progress: Callable[[str], object] = say) -> dict[str, Any]:
    """Build a lab, call, inject, measure, remove the lab; returns the content of summary.json.

    Raises CheckFailedError when the call does not go on, or tshark sees another one; LabError when it cannot be made.
    """
    if options.caller == "sipp":
        check_sipp()
    fault = faults.find(options.fault)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        for name in (SUMMARY, PACKETS, PICTURE, CAPTURE):
            (options.out / name).unlink(missing_ok=True)
    except OSError as error:
        raise LabError(f"--out {options.out} cannot be written: {error.strerror}") from None
    workload = "sip" if options.caller == "sipp" else "process"
    bed = await Testbed.up(replace(options.lab, workload=workload), progress)
    try:
        progress("service and agents")
        await bed.start_service()
        await bed.start_agents()
        fault_at, tunnels = await _call(bed, options, fault, progress)
    finally:
        await bed.down()
    summary = await asyncio.to_thread(_summarise, options, fault, fault_at, tunnels)
    for line in _lines(summary, options.out):
        progress(line)
    if summary["checks"]:
        raise CheckFailedError("; ".join(summary["checks"]))
    return summary


async def _call(
    bed: Testbed, options: CallOptions, fault: faults.Fault, progress: Callable[[str], object]
) -> tuple[float, list[str]]:
    """Returns when the fault was, seconds since 1970, and the gateway's client tunnels afterwards."""
    whole_seconds = _BEFORE_SECONDS + _AFTER_SECONDS
    by_sip = options.caller == "sipp"
    recording = SipRecording(bed, options.out, whole_seconds) if by_sip else Recording(bed, options.out)
    try:
        await recording.start_watching()
        await wait_protected(recording)
        progress("the call")
        recording.start_clients()
        await asyncio.sleep(_BEFORE_SECONDS + random.uniform(0, PACKET_SPACING_SECONDS))
        fault_at = await bed.inject(fault)
        progress(f"fault: {fault.does}")
        await asyncio.sleep(_AFTER_SECONDS)
        if by_sip:
            await recording.wait_clients(_HANG_UP_SECONDS)
        tunnels = await client_tunnels(bed)
    finally:
        await recording.stop()
    return fault_at, tunnels


def _summarise(options: CallOptions, fault: faults.Fault, fault_at: float, tunnels: list[str]) -> dict[str, Any]:
    capture = options.out / CAPTURE
    try:
        call = read_call(capture, SERVICE)
        checks = disagreements(call, capture, SERVICE)
    except (TsharkError, ValueError) as error:
        raise CheckFailedError(str(error)) from None
    after = call.packets[-1].arrived_ns / 1e9 - fault_at
    if after < _AFTER_SECONDS - 1:
        checks.append(f"the caller heard nothing later than {after:.1f} s after the fault")
    if len(tunnels) != 1:
        checks.append(f"client tunnels at the gateway: {', '.join(tunnels) or 'none'}; expected exactly one")
    confirmed = hung_up(capture, names.SERVICE_ADDRESS) if options.caller == "sipp" else None
    if confirmed is False:
        checks.append("nobody confirmed the end of the call")
    summary = {
        "caller": options.caller,
        "fault": fault.name,
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(fault_at)),
        "packets": len(call.packets),
        "lost_packets": call.lost,
        "outage_seconds": round(call.outage_seconds, 6),
        "jitter_max_seconds": round(call.jitter_max_seconds, 6),
        "jitter_mean_seconds": round(call.jitter_mean_seconds, 6),
        "hung_up": confirmed,
        "gateway_tunnels": tunnels,
        "checks": checks,
    }
    _write(options.out, call, fault_at, summary)
    return summary


def _write(out: Path, call: Call, fault_at: float, summary: dict[str, Any]) -> None:
    def since(packet_ns: int) -> float:
        return (packet_ns - round(fault_at * 1e9)) / 1e9

    (out / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    with (out / PACKETS).open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("seconds_from_fault", "sequence", "spacing_ms", "difference_ms", "jitter_ms"))
        for packet in call.packets:
            times = (packet.spacing_seconds, packet.difference_seconds, packet.jitter_seconds)
            rows.writerow(
                (f"{since(packet.arrived_ns):.6f}", packet.sequence, *(f"{value * 1000:.4f}" for value in times))
            )
    longest = max(call.packets, key=lambda packet: packet.spacing_seconds)
    points = [
        charts.Point(
            since(packet.arrived_ns),
            packet.spacing_seconds,
            packet.jitter_seconds,
            names.SERVERS[packet.arrived_ns >= longest.arrived_ns],
        )
        for packet in call.packets
    ]
    picture = charts.over_time(points, {"first_packet": since(longest.arrived_ns)}, names.SERVERS)
    head, _, body = picture.partition(">")
    standalone = head.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    (out / PICTURE).write_text(f"{standalone}>{_STYLE}{body}\n", encoding="utf-8")


def _lines(summary: dict[str, Any], out: Path) -> list[str]:
    milliseconds = {key: value * 1000 for key, value in summary.items() if key.endswith("_seconds")}
    agreed = "tshark found the same" if not summary["checks"] else "NOT as it must be"
    return [
        f"{summary['packets']} packets, {summary['lost_packets']} lost; without voice for "
        f"{milliseconds['outage_seconds']:.1f} ms; jitter {milliseconds['jitter_mean_seconds']:.3f} ms in the mean, "
        f"{milliseconds['jitter_max_seconds']:.3f} ms at most; {agreed}",
        f"picture: {out / PICTURE}; per packet: {out / PACKETS}; tshark -r {out / CAPTURE}",
    ]
