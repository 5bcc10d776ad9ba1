"""Measures every distance: the same faults on the same lab, interleaved, with the way between its sites delayed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tunnelswitch_lab import experiment, faults, messaging, results
from tunnelswitch_lab import layout as names
from tunnelswitch_lab.bench.measuring import TROUBLES
from tunnelswitch_lab.distance.announcing import Announced, GarpBetweenSubnets, announce
from tunnelswitch_lab.distance.cells import Cell, cells_of, t1_bits_per_second
from tunnelswitch_lab.distance.distances import Distance, Line
from tunnelswitch_lab.distance.report import markdown, summarise
from tunnelswitch_lab.experiment import Progress, UnprovokedMoveError, say
from tunnelswitch_lab.measure.checkpoints import checkpoint_figures
from tunnelswitch_lab.measure.environment import describe_environment
from tunnelswitch_lab.measure.summary import rounded, summarise_run
from tunnelswitch_lab.options import LabError, LabOptions, RunOptions
from tunnelswitch_lab.redirection.methods import Garp
from tunnelswitch_lab.testbed import Testbed
from tunnelswitch_lab.wan import Shaping, weather_on


@dataclass(frozen=True)
class WanOptions:
    """Which distances and workloads, over what line, how often each, and where the results go.

    `seconds` of calm before each fault are those of which checkpoints are counted. `announcements`: also show whom a
    gratuitous ARP reaches.
    """

    lab: LabOptions
    out: Path
    distances: tuple[Distance, ...]
    workloads: tuple[str, ...]
    line: Line
    runs: int
    seconds: float
    announcements: bool = True


async def run_wan(options: WanOptions, progress: Progress = say) -> dict[str, Any]:
    """Measure; returns the content of summary.json, written below `options.out` with table.md.

    `problems` in it says what is not as it must be. Raises LabError when nothing can be measured at all.
    """
    try:
        results.prepare(options.out)
    except OSError as error:
        raise LabError(f"--out {options.out} cannot be written: {error.strerror}") from None
    environment = describe_environment()
    cells = cells_of(options.distances, options.workloads)
    shapings: dict[str, Shaping] = {}
    announced: list[Announced] = []
    bed = await Testbed.up(options.lab, progress)
    try:
        order = [(number, cell) for number in range(1, options.runs + 1) for cell in cells]
        for position, (number, cell) in enumerate(order, 1):
            said = await _measure(bed, cell, number, options, shapings)
            progress(f"{position} of {len(order)}  {cell.name}: {said}")
        if options.announcements:
            announced = await _announce_all(bed, options, progress)
    finally:
        await bed.down()
    environment["load_average_after"] = describe_environment()["load_average"]
    summary = summarise(options.distances, options.line, cells, announced, shapings)
    summary["environment"] = environment
    (options.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    (options.out / "table.md").write_text(markdown(summary), encoding="utf-8")
    return summary


async def _measure(bed: Testbed, cell: Cell, number: int, options: WanOptions, shapings: dict[str, Shaping]) -> str:
    """One run of one cell, in a lab that is set up afresh in calm weather; its figures go to the cell. Returns them in
    short."""
    lab = replace(options.lab, workload=cell.workload, checkpoint_interval_ms=cell.interval_ms)
    out = options.out / "runs" / cell.name.replace(" ", "-")
    run = RunOptions(lab, cell.fault, out, calm_seconds=options.seconds)
    directory = results.run_directory(out, number)
    directory.mkdir(parents=True, exist_ok=True)
    try:
        await bed.reset()
        await messaging.wait_meshed(bed.layout)
        weather = options.line.weather(cell.distance)
        if weather is None:
            files = await _run(bed, run, number)
        else:
            async with weather_on(bed, weather, directory / "relay.json") as shapings[cell.distance.name]:
                files = await _run(bed, run, number)
    except UnprovokedMoveError as error:
        cell.unprovoked.append(f"run {number}: {error}")
        return f"FALSE FAILOVER before the fault: {error}"
    except TROUBLES as error:
        cell.failed.append(f"run {number}: {error}")
        return f"FAILED: {error}"
    finally:
        await asyncio.to_thread(results.keep_logs, bed.layout, directory)
    figures = await asyncio.to_thread(summarise_run, files, names.RTP_PORT)
    costs = await asyncio.to_thread(checkpoint_figures, files, directory, options.seconds)
    costs["t1_bits_per_second"] = t1_bits_per_second(costs)
    cell.runs.append(rounded(costs) | figures)
    return results.in_short(figures)


async def _run(bed: Testbed, run: RunOptions, number: int) -> Any:
    lab = run.lab
    await bed.start_service(lab.checkpoint_interval_ms, lab.workload, lab.realtime_priority, lab.buffering)
    await bed.start_agents(lab)
    return await experiment.run_once(bed, faults.find(run.fault), run, number, lambda text: None)


async def _announce_all(bed: Testbed, options: WanOptions, progress: Progress) -> list[Announced]:
    """Each way of announcing once at each distance. One that does not reach clients is a result."""
    found = []
    methods: Sequence[Garp] = (Garp(), GarpBetweenSubnets())
    for distance in options.distances:
        for method in methods:
            place = options.out / "runs" / f"{distance.name}-{method.name.replace(' ', '-')}" / "01"
            weather = options.line.weather(distance)
            seen = await announce(bed, distance, weather, method, options.lab.interval_seconds * 1000, place)
            found.append(seen)
            told = f"no answer in {seen.watched_seconds:.0f} s"
            if seen.downtime_seconds is not None:
                told = f"{seen.downtime_seconds * 1000:.1f} ms"
            progress(f"{distance.name} {method.name}: {seen.problem or told}")
            (place / "announced.json").write_text(json.dumps(asdict(seen)) + "\n", encoding="utf-8")
    return found
