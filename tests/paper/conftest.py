"""Small stored results of every part, as the command leaves them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunnelswitch_lab.calling import PACKETS
from tunnelswitch_lab.measure.environment import describe_environment
from tunnelswitch_lab.paper import calls, series
from tunnelswitch_lab.paper.calls import CALLERS
from tunnelswitch_lab.paper.figures import KINDS
from tunnelswitch_lab.paper.files import finished, write_csv, write_json
from tunnelswitch_lab.paper.options import PaperOptions

OUTAGES_MS = {"original": 131.0, "modified": 117.0}
PHASES = {"path_down": 0.03, "bus_silent": 0.028, "verdict": 0.034, "committed": 0.04, "applied": 0.05}


def write_packets(place: Path, outage_ms: float) -> None:
    """A call of three seconds and a half that falls silent 5 ms before the fault."""
    place.mkdir(parents=True)
    rows = []
    for number in range(175):
        late = outage_ms if number > 50 else 0.0
        spacing = 20.0 + (outage_ms if number == 51 else 0.0)
        at = (number * 20.0 + late - 1005.0) / 1000
        rows.append(
            (f"{at:.6f}", number, f"{spacing:.4f}", f"{(-1) ** number * 0.2:.4f}", f"{0.1 + number % 7 / 50:.4f}")
        )
    write_csv(place / PACKETS, ("seconds_from_fault", "sequence", "spacing_ms", "difference_ms", "jitter_ms"), rows)
    for name in ("client.pcap", "summary.json"):
        (place / name).write_bytes(b"")


def stored_call(out: Path, caller: str, kind: str) -> dict[str, object]:
    place = f"fig4/{caller}-{kind}"
    write_packets(out / place, OUTAGES_MS[kind])
    compared = [
        {"what": "packets", "ours": 175, "theirs": 175, "agrees": True},
        {"what": "lost packets", "ours": 6, "theirs": 6, "agrees": True},
        {"what": "mean jitter", "ours": 0.1598, "theirs": 0.16, "agrees": True},
        {"what": "largest jitter", "ours": 0.22, "theirs": 0.221, "agrees": caller != "sipp"},
    ]
    return {
        "kind": kind,
        "caller": caller,
        "place": place,
        "workload": "process",
        "outage_seconds": OUTAGES_MS[kind] / 1000,
        "tshark": compared,
        "checks": [],
    }


def run_of(number: int, first_packet: float) -> dict[str, object]:
    marks = {**PHASES, "fault": 0.0, "switched": 0.048, "promoted": 0.055, "first_packet": 0.07}
    return {
        "run": number,
        "probe_downtime_seconds": first_packet,
        "probe_first_packet_seconds": first_packet,
        "probe_rollback_packets": 3,
        "marks": marks,
        "lateness": {"probe_max_seconds": 0.001},
    }


@pytest.fixture
def options(tmp_path: Path) -> PaperOptions:
    """Where all three parts were measured."""
    out = tmp_path / "out" / "paper"
    for directory in ("fig5", "phases"):
        (out / directory).mkdir(parents=True)
    made = PaperOptions(out, runs=3)
    environment = finished(describe_environment())
    told = [stored_call(out, caller, kind) for caller in CALLERS for kind in KINDS]
    write_json(
        out / "fig4.json", {"fault": "host-loss", "detection": "10 ms x 3", "calls": told, "environment": environment}
    )
    calls.draw(out, told)
    points = {
        (kind, float(interval)): ([0.08 + interval / 1e5, 0.081, 0.09 + 0.001 * number], [])
        for interval in series.INTERVALS_MS
        for number, kind in enumerate(KINDS)
    }
    points["original", 40.0] = ([0.08], ["the <other> copy never answered"])
    fig5 = {"fault": "host-loss", "workload": "vm", "detection": "10 ms x 3", **series.summarise_fig5(points)}
    write_json(out / "fig5.json", {**fig5, "environment": environment})
    series.draw_fig5(made, fig5)
    rows = [
        series.phase_row(fault, workload, [run_of(1, 0.06), run_of(2, 0.062)], ["never moved"])
        for fault in series.FAULTS
        for workload in ("process", "vm")
    ]
    write_json(out / "phases.json", {"detection": "10 ms x 3", "rows": rows, "environment": environment})
    for name in ("fig5.csv", "phases.csv", "phases.svg"):
        (out / name).write_text("", encoding="utf-8")
    return made


@pytest.fixture
def beside(options: PaperOptions) -> PaperOptions:
    """The same, with what the bench and another command have left beside it."""
    for name, content in {
        "bench": {
            "cells": [{"system": "keepalived", "gap_seconds": {"median": 0.0312, "max": None}, "problems": []}],
            "order": "interleaved",
            "environment": {"measured_at": "2026-11-26T12:00:00Z"},
        },
        "growth": {"hours": {"1": {"memory_mib": 60.5}, "2": {"memory_mib": 61}}, "worst_seconds": {"run": 3600.0}},
    }.items():
        place = options.out.parent / name
        place.mkdir()
        (place / "summary.json").write_text(json.dumps(content), encoding="utf-8")
    return options
