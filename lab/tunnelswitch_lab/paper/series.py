"""Runs by the bench's measurement: the paper's Fig. 5, and where the downtime goes by fault and workload."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tunnelswitch_lab.bench.measuring import run_cells
from tunnelswitch_lab.bench.series import Cell
from tunnelswitch_lab.experiment import Progress
from tunnelswitch_lab.measure import charts
from tunnelswitch_lab.measure.environment import describe_environment
from tunnelswitch_lab.measure.summary import medians
from tunnelswitch_lab.options import CHECKPOINT_INTERVALS_MS, LabError
from tunnelswitch_lab.paper import figures
from tunnelswitch_lab.paper.figures import KINDS
from tunnelswitch_lab.paper.files import finished, write_csv, write_json
from tunnelswitch_lab.paper.options import PaperOptions, system
from tunnelswitch_lab.paper.reading import difference_with_range, slope_with_range, spread
from tunnelswitch_lab.testbed import Testbed

INTERVALS_MS = (40, 100, 200, 400, 600, 800)
FAULT = "host-loss"
FAULTS = ("host-loss", "service-crash")
_MARKS = ("verdict", "committed", "switched", "applied", "promoted")


async def measure_fig5(bed: Testbed, options: PaperOptions, workload: str, progress: Progress) -> None:
    """Lose the primary's host `options.runs` times at every interval, with either kind; writes fig5.json, .csv, .svg.

    Raises LabError when a point has no run at all.
    """
    environment = describe_environment()
    cells = {
        (kind, interval): Cell(
            system(kind, workload, float(interval), options.interval_ms, f"{kind}-{interval}ms"), FAULT
        )
        for interval in INTERVALS_MS
        for kind in KINDS
    }
    await run_cells(bed, list(cells.values()), options.runs, options.out / "fig5", progress)
    summary = {
        "fault": FAULT,
        "workload": workload,
        "detection": options.detection,
        **summarise_fig5({key: (cell.gaps, cell.problems) for key, cell in cells.items()}),
        "environment": finished(environment),
    }
    write_json(options.out / "fig5.json", summary)
    rows = ([kind, interval, *row] for (kind, interval), cell in cells.items() for row in map(_run_row, cell.figures))
    write_csv(options.out / "fig5.csv", ("kind", "checkpoint_interval_ms", *_RUN_HEADS), rows)
    await asyncio.to_thread(draw_fig5, options, summary)
    _refuse_empty(cells.values())


def summarise_fig5(points: Mapping[tuple[str, float], tuple[Sequence[float], Sequence[str]]]) -> dict[str, Any]:
    """Points, slopes and the difference; `points` has for each kind and interval in milliseconds the runs' downtimes in
    seconds and what was wrong with the runs that do not count.

    A slope is in seconds per millisecond of interval; the difference is the modified kind's less the original's.
    """
    groups = {
        kind: {interval: list(gaps) for (of, interval), (gaps, _) in points.items() if of == kind} for kind in KINDS
    }
    pooled = {kind: [gap for gaps in groups[kind].values() for gap in gaps] for kind in KINDS}
    return {
        "points": [
            {
                "kind": kind,
                "interval_ms": interval,
                "failed": len(problems),
                "problems": list(problems),
                **{key if key == "runs" else f"{key}_seconds": value for key, value in spread(gaps).items()},
                "downtime_seconds": list(gaps),
            }
            for (kind, interval), (gaps, problems) in points.items()
        ],
        "pooled": {kind: spread(pooled[kind]) for kind in KINDS},
        "slopes": {kind: slope_with_range(groups[kind]) for kind in KINDS},
        "difference": difference_with_range(*(pooled[kind] for kind in KINDS)),
    }


def draw_fig5(options: PaperOptions, summary: Mapping[str, Any]) -> None:
    """Draw fig5.svg. Raises OSError."""
    (options.out / "fig5.svg").write_text(figures.standalone(fig5_picture(summary)), encoding="utf-8")


def fig5_picture(summary: Mapping[str, Any]) -> str:
    """Fig. 5 out of its summary. A few runs far above the rest do not press the others flat."""
    series = {
        kind: {p["interval_ms"]: p["downtime_seconds"] for p in summary["points"] if p["kind"] == kind}
        for kind in KINDS
    }
    everything = sorted(gap * 1000 for points in series.values() for gaps in points.values() for gap in gaps)
    usual = everything[int(0.9 * (len(everything) - 1))] if everything else 0.0
    return figures.fig5(series, top_ms=2.5 * usual if usual else None)


async def measure_phases(bed: Testbed, options: PaperOptions, workload: str, progress: Progress) -> None:
    """Either fault with a process and with `workload`, by tunnel switching; writes phases.json, .csv and .svg.

    Raises LabError when a row has no run at all.
    """
    environment = describe_environment()
    cells = {
        (fault, protected): Cell(
            system("modified", protected, CHECKPOINT_INTERVALS_MS[protected], options.interval_ms, protected), fault
        )
        for fault in FAULTS
        for protected in dict.fromkeys(("process", workload))
    }
    await run_cells(bed, list(cells.values()), options.runs, options.out / "phases", progress)
    summary = {
        "detection": options.detection,
        "rows": [
            phase_row(fault, protected, cell.figures, cell.problems) for (fault, protected), cell in cells.items()
        ],
        "environment": finished(environment),
    }
    write_json(options.out / "phases.json", summary)
    rows = (
        [fault, protected, *row] for (fault, protected), cell in cells.items() for row in map(_run_row, cell.figures)
    )
    write_csv(options.out / "phases.csv", ("fault", "workload", *_RUN_HEADS), rows)
    picture = figures.standalone(phases_picture(summary))
    await asyncio.to_thread((options.out / "phases.svg").write_text, picture, encoding="utf-8")
    _refuse_empty(cells.values())


def phase_row(fault: str, workload: str, runs: Sequence[Mapping[str, Any]], problems: Sequence[str]) -> dict[str, Any]:
    """The medians of one fault and workload: marks from the fault, and the phases between them, which add up."""
    marks = _fine(medians([dict(run) for run in runs])) if runs else {}
    return {
        "fault": fault,
        "workload": workload,
        "failed": len(problems),
        "problems": list(problems),
        "downtime_seconds": spread([run["probe_downtime_seconds"] for run in runs]),
        "marks_seconds": marks,
        "phases_seconds": dict(charts.phases(marks)),
    }


def phases_picture(summary: Mapping[str, Any]) -> str:
    """The stacked bars out of the summary of the phases."""
    return charts.phase_bars([(f"{row['fault']}, {row['workload']}", row["marks_seconds"]) for row in summary["rows"]])


_RUN_HEADS = (
    "run",
    "downtime_ms",
    *(f"{mark}_ms" for mark in _MARKS),
    "first_packet_ms",
    *(f"{phase.replace(' ', '_')}_ms" for phase in charts.PHASES),
    "answers_forgotten",
    "probe_late_max_ms",
)


def _run_row(run: Mapping[str, Any]) -> list[object]:
    marks = _fine(run)
    phases = dict(charts.phases(marks))
    times = [run["probe_downtime_seconds"], *(marks[mark] for mark in _MARKS), marks["first_packet"]]
    times += [phases.get(phase) for phase in charts.PHASES]
    late = run["lateness"]["probe_max_seconds"]
    return [run["run"], *map(_csv_ms, times), run["probe_rollback_packets"], _csv_ms(late)]


def _fine(run: Mapping[str, Any]) -> dict[str, float | None]:
    """The marks, with the probe's first packet: the call's is up to 20 ms late."""
    return {**run["marks"], "first_packet": run["probe_first_packet_seconds"]}


def _csv_ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _refuse_empty(cells: Iterable[Cell]) -> None:
    for cell in cells:
        if not cell.gaps:
            raise LabError(f"{cell.name} has no run: {cell.problems[0]}")
