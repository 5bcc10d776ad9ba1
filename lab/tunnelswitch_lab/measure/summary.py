"""The figures of a run and of a series, and whether they are what they must be.

Pure, apart from reading nothing: it works on what `runs` has read. The keys it makes are a contract: reports,
checks and other tools read summary.json.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from tunnelswitch_lab.measure.copies import Answer, overlap, packets_by_site, repeated, rollback
from tunnelswitch_lab.measure.gaps import largest_gap, largest_gap_after
from tunnelswitch_lab.measure.runs import RunFiles
from tunnelswitch_lab.measure.story import AGENT_MARKS, Story, tell
from tunnelswitch_lab.workload.packets import PACKET_SPACING_SECONDS
from tunnelswitch_lab.workload.probe import PROBE_SPACING_SECONDS

MARKS = ("fault", *AGENT_MARKS, "first_packet")
MEDIAN_KEYS = (
    "downtime_seconds",
    "max_gap_seconds",
    "lost_packets",
    "jitter_max_seconds",
    "probe_gap_seconds",
    "probe_downtime_seconds",
    "probe_first_packet_seconds",
    "probe_lost",
    "agent_downtime_seconds",
    "state_rollback_packets",
    "probe_rollback_packets",
)

# Answers that end for so long before the observation does have ended, whatever came before.
SILENT_MAX_SECONDS = 0.5


def summarise_run(files: RunFiles, service_port: int) -> dict[str, Any]:
    """All figures of one run; `checks` lists what is wrong with it, in plain words."""
    facts = files.facts
    story = tell(files.events, facts.fault_at, facts.active_before, service_port)
    arrivals = [facts.since_fault_seconds(packet.arrived_ns) for packet in files.stream.packets]
    whole, after = largest_gap(arrivals), largest_gap_after(arrivals, 0.0)
    calls = [Answer(p.sequence, p.run, p.site, p.counter) for p in files.stream.packets]
    probes = [Answer(p.sequence, p.run, p.site, p.counter) for p in files.probes]
    replays = facts.workload == "vm"
    figures: dict[str, Any] = {
        "run": facts.number,
        "fault": facts.fault,
        "workload": facts.workload,
        "verdict": story.verdict,
        "downtime_seconds": after.downtime_seconds(PACKET_SPACING_SECONDS) if after else None,
        "max_gap_seconds": whole.length_seconds if whole else None,
        "lost_packets": files.stream.lost,
        "jitter_max_seconds": files.stream.jitter_max_seconds,
        "marks": _marks(story, files),
        "epoch": story.epoch,
        "active_site": story.active_site or (calls[-1].site if calls else None),
        "gateway_tunnels": facts.gateway_tunnels,
        "buffering": facts.buffering,
        "state_rollback_packets": rollback(calls),
        "probe_rollback_packets": rollback(probes),
        **_probe_figures(files),
        "agent_downtime_seconds": story.downtime_seconds,
        "agent_downtime_flow": "call" if story.downtime_of_call else "probe",
        "client_packets_by_copy": packets_by_site(calls),
        "overlap_packets": overlap(calls, replays=replays) + overlap(probes, replays=replays),
        "repeated_packets": repeated(calls) + repeated(probes),
        "lateness": {
            "client_max_seconds": files.client_summary.get("lateness_max_seconds"),
            "client_p99_seconds": files.client_summary.get("lateness_p99_seconds"),
            "probe_max_seconds": files.probe_summary.get("lateness_max_seconds"),
            "probe_p99_seconds": files.probe_summary.get("lateness_p99_seconds"),
            "agents_max_seconds": story.lateness_max_seconds,
        },
        "agents_at_rest": facts.agents,
        "capture_dropped": files.capture_summary.get("dropped"),
    }
    figures["checks"] = check_run(figures, files)
    return rounded(figures)


def check_run(figures: dict[str, Any], files: RunFiles) -> list[str]:
    """What a run must show: the expected verdict and site, one tunnel, no overlap, two figures that agree."""
    facts, wrong = files.facts, []
    if not files.stream.packets or facts.since_fault_seconds(files.stream.packets[-1].arrived_ns) <= 0:
        return ["the client got no answer after the fault"]
    silent_seconds = facts.observed_until - files.stream.packets[-1].arrived_ns / 1e9
    if silent_seconds > SILENT_MAX_SECONDS:
        wrong.append(f"the client got no answer in the last {silent_seconds:.1f} s")
    if figures["verdict"] != facts.expected_verdict:
        wrong.append(f"verdict {figures['verdict']}, expected {facts.expected_verdict}")
    for what, site in (
        ("active site", figures["active_site"]),
        ("answers come from", files.stream.packets[-1].site),
    ):
        if site != facts.expected_active:
            wrong.append(f"{what} {site}, expected {facts.expected_active}")
    if len(facts.gateway_tunnels) != 1:
        names = ", ".join(facts.gateway_tunnels) or "none"
        wrong.append(f"client tunnels at the gateway: {names}; expected exactly one")
    if figures["overlap_packets"]:
        wrong.append(f"{figures['overlap_packets']} answers came from a copy that had been replaced")
    wrong += _forgotten(figures)
    if not _waits(figures):
        wrong += _disagreement(figures)
    if figures["capture_dropped"]:
        wrong.append(f"the capture lost {figures['capture_dropped']} packets: its figures are not sound")
    return wrong


def _waits(figures: dict[str, Any]) -> bool:
    """Did the flow that downtime is told of wait for checkpoints? It comes in bursts then, one each interval, and a gap
    less a spacing is no downtime."""
    flow = figures["agent_downtime_flow"]
    return bool(figures["buffering"] == "full" or (figures["buffering"] == "realtime" and flow == "probe"))


def _forgotten(figures: dict[str, Any]) -> list[str]:
    """What a client was told is known to whoever serves it next, if output waited for checkpoints (I5)."""
    held = {"full": ("state", "probe"), "realtime": ("probe",)}.get(figures["buffering"], ())
    lost = {flow: figures[f"{flow}_rollback_packets"] or 0 for flow in held}
    return [
        f"{packets} answers that a client saw ({'call' if flow == 'state' else flow}) are not known to the new copy"
        for flow, packets in lost.items()
        if packets
    ]


def _disagreement(figures: dict[str, Any]) -> list[str]:
    """Our figure and the agents' own, of the same flow, may differ by one packet spacing at most."""
    of_call = figures["agent_downtime_flow"] == "call"
    measured = figures["downtime_seconds" if of_call else "probe_downtime_seconds"] or 0.0
    reported = figures["agent_downtime_seconds"] or 0.0
    if abs(measured - reported) <= PACKET_SPACING_SECONDS:
        return []
    flow, where = ("call", "capture") if of_call else ("probe", "probe's trace")
    return [
        f"downtime of the {flow}: {measured * 1000:.1f} ms in the {where}, {reported * 1000:.1f} ms by the agents; "
        f"more than {PACKET_SPACING_SECONDS * 1000:.0f} ms apart"
    ]


def summarise_series(
    runs: list[dict[str, Any]], environment: dict[str, Any], unprovoked: Sequence[str] = ()
) -> dict[str, Any]:
    """The content of summary.json: the runs, their medians, and where they were made.

    `unprovoked` tells of false failovers; their runs were made again and are not among `runs`.
    """
    return {
        "runs": runs,
        "medians": medians(runs),
        "unprovoked_failovers": list(unprovoked),
        "environment": environment,
    }


def medians(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Median of every figure over the runs that have it; None where none has."""
    result: dict[str, Any] = {key: _median([run.get(key) for run in runs]) for key in MEDIAN_KEYS}
    result["marks"] = {name: _median([run["marks"].get(name) for run in runs]) for name in MARKS}
    return rounded(result)


def rounded(figures: dict[str, Any]) -> dict[str, Any]:
    """Durations to the microsecond: what the clocks are good for."""
    return {
        key: rounded(value) if isinstance(value, dict) else round(value, 6) if isinstance(value, float) else value
        for key, value in figures.items()
    }


def _median(values: list[Any]) -> float | None:
    numbers = [value for value in values if isinstance(value, int | float)]
    return statistics.median(numbers) if numbers else None


def _marks(story: Story, files: RunFiles) -> dict[str, float | None]:
    """Seconds from the fault; the first packet is measured, everything else the agents say."""
    fault_at = files.facts.fault_at
    marks: dict[str, float | None] = dict.fromkeys(MARKS)
    marks["fault"] = 0.0
    marks.update({name: moment - fault_at for name, moment in story.marks.items()})
    marks["first_packet"] = _first_of_new_copy(
        [(files.facts.since_fault_seconds(packet.arrived_ns), packet.run) for packet in files.stream.packets]
    )
    return marks


def _first_of_new_copy(answers: list[tuple[float, str]]) -> float | None:
    """When the first answer came, after the fault, from another copy than the one that answered before it."""
    old = next((run for arrival, run in reversed(answers) if arrival <= 0), "")
    return next((arrival for arrival, run in answers if arrival > 0 and run != old), None)


def _probe_figures(files: RunFiles) -> dict[str, Any]:
    answers = [(files.facts.since_fault_seconds(probe.received_ns), probe.run) for probe in files.probes]
    gap = largest_gap_after([arrival for arrival, _ in answers], 0.0)
    sequences = {probe.sequence for probe in files.probes}
    # Probes before the first answer belong to the start, those after the last one to the end.
    expected = max(sequences) - min(sequences) + 1 if sequences else 0
    return {
        "probe_gap_seconds": gap.length_seconds if gap else None,
        "probe_downtime_seconds": gap.downtime_seconds(PROBE_SPACING_SECONDS) if gap else None,
        "probe_first_packet_seconds": _first_of_new_copy(answers),
        "probe_lost": expected - len(sequences),
    }
