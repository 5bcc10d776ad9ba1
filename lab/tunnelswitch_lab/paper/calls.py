"""The paper's Fig. 4: one call a kind of failover, by the lab's own RTP sender and by a real SIP call."""

from __future__ import annotations

import asyncio
import csv
from pathlib import Path
from typing import Any

from tunnelswitch_lab.bench.measuring import TROUBLES
from tunnelswitch_lab.calling import PACKETS, CallOptions, place_call, prepare, summarise
from tunnelswitch_lab.experiment import Progress
from tunnelswitch_lab.measure.environment import describe_environment
from tunnelswitch_lab.options import CHECKPOINT_INTERVALS_MS, LabError, LabOptions
from tunnelswitch_lab.paper import figures
from tunnelswitch_lab.paper.figures import KINDS, Heard
from tunnelswitch_lab.paper.files import finished, write_csv, write_json
from tunnelswitch_lab.paper.options import PaperOptions, system
from tunnelswitch_lab.testbed import Testbed

FAULT = "host-loss"
CALLERS = {"rtp": "the lab's own RTP sender", "sipp": "a real SIP call (sipp)"}
_ATTEMPTS = 3
_LEAST_INTERVALS = 2  # no silence of three intervals is noticed sooner, wherever in an interval it begins
_SIP_INTERVAL_MS = CHECKPOINT_INTERVALS_MS["process"]  # there is no state to checkpoint


async def measure(bed: Testbed, options: PaperOptions, workload: str, progress: Progress) -> None:
    """Call four times; writes fig4.json, and beside it a picture and a table for each caller.

    Raises LabError when a call cannot be made.
    """
    environment, calls = describe_environment(), []
    for caller in CALLERS:
        for kind in KINDS:
            call = await _call(bed, options, caller, kind, workload, progress)
            calls.append(call)
            wrong = f"; NOT as it must be: {'; '.join(call['checks'])}" if call["checks"] else ""
            progress(f"Fig. 4, {caller}, {kind}: {call['outage_seconds'] * 1000:.1f} ms without voice{wrong}")
    write_json(
        options.out / "fig4.json",
        {"fault": FAULT, "detection": options.detection, "calls": calls, "environment": finished(environment)},
    )
    await asyncio.to_thread(draw, options.out, calls)


async def _call(
    bed: Testbed, options: PaperOptions, caller: str, kind: str, workload: str, progress: Progress
) -> dict[str, Any]:
    """One call, made again when it was spoilt by something that happened before the fault."""
    protected = "sip" if caller == "sipp" else workload
    interval_ms = _SIP_INTERVAL_MS if caller == "sipp" else CHECKPOINT_INTERVALS_MS[workload]
    place = Path("fig4") / f"{caller}-{kind}"
    asked = CallOptions(LabOptions(options.name), caller, FAULT, options.out / place)
    for attempt in range(1, _ATTEMPTS + 1):
        await asyncio.to_thread(prepare, asked)
        failing_over = system(kind, protected, interval_ms, options.interval_ms)
        try:
            await bed.reset()
            await failing_over.start(bed)
            placed = await place_call(bed, asked, lambda line: None, failing_over.wait_ready)
            summary = await asyncio.to_thread(summarise, asked, placed)
            if summary["outage_seconds"] < _LEAST_INTERVALS * options.interval_ms / 1000:
                summary["checks"].append("the fault was not noticed: the call was with the other copy already")
        except TROUBLES as error:
            if attempt == _ATTEMPTS:
                raise LabError(f"Fig. 4, {caller}, {kind}: {error}") from error
            progress(f"Fig. 4, {caller}, {kind}: again, {error}")
            continue
        finally:
            await failing_over.stop(bed)
        if not summary["checks"] or attempt == _ATTEMPTS:
            break
        progress(f"Fig. 4, {caller}, {kind}: again, {'; '.join(summary['checks'])}")
    return {"kind": kind, "place": str(place), "workload": protected, "checkpoint_interval_ms": interval_ms, **summary}


def draw(out: Path, calls: list[dict[str, Any]]) -> None:
    """Draw fig4-CALLER.svg and write fig4-CALLER.csv out of the calls' packets. Raises OSError."""
    for caller in CALLERS:
        heard = {call["kind"]: read_packets(out / call["place"]) for call in calls if call["caller"] == caller}
        (out / f"fig4-{caller}.svg").write_text(figures.standalone(figures.fig4(heard)), encoding="utf-8")
        write_csv(
            out / f"fig4-{caller}.csv",
            ("kind", "seconds_from_fault", "spacing_ms", "difference_abs_ms", "jitter_ms"),
            (
                (kind, f"{p.at_seconds:.6f}", *(f"{t * 1000:.4f}" for t in _times(p)))
                for kind, packets in heard.items()
                for p in packets
            ),
        )


def read_packets(place: Path) -> list[Heard]:
    """The packets of one call, as `calling` wrote them. Raises OSError or ValueError."""
    with (place / PACKETS).open(encoding="utf-8") as file:
        return [
            Heard(
                float(row["seconds_from_fault"]),
                float(row["spacing_ms"]) / 1000,
                abs(float(row["difference_ms"])) / 1000,
                float(row["jitter_ms"]) / 1000,
            )
            for row in csv.DictReader(file)
        ]


def _times(packet: Heard) -> tuple[float, float, float]:
    return packet.spacing_seconds, packet.difference_seconds, packet.jitter_seconds
