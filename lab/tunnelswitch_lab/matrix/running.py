"""Runs the matrix: one lab, set up afresh before every case; a call through it, the fault, and the judge's word.

What a case that failed left behind (capture, events, logs) is kept; of one that passed, only its line in summary.json.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from tunnelswitch_lab import layout as names
from tunnelswitch_lab import netns, results
from tunnelswitch_lab.experiment import ANSWER_SECONDS, CheckFailedError, client_tunnels, say, wait_protected
from tunnelswitch_lab.matrix import report
from tunnelswitch_lab.matrix.cases import PRIMARY, Case
from tunnelswitch_lab.matrix.judging import Judgement, Seen, epochs, judge, moves
from tunnelswitch_lab.matrix.packets import read_exchange
from tunnelswitch_lab.matrix.steps import Stage
from tunnelswitch_lab.measure.environment import describe_environment
from tunnelswitch_lab.measure.events import read_events
from tunnelswitch_lab.measure.runs import CAPTURE, EVENTS
from tunnelswitch_lab.measure.story import connected, moved_before
from tunnelswitch_lab.options import LabError, LabOptions
from tunnelswitch_lab.procs import Proc
from tunnelswitch_lab.recording import SERVICE, Recording
from tunnelswitch_lab.testbed import Testbed
from tunnelswitch_lab.workload.packets import PACKET_SPACING_SECONDS
from tunnelswitch_lab.workload.trace import read_trace_summary

Progress = Callable[[str], object]

_PATHS_SECONDS = 20.0
# A BFD session that has just come up still has the detection time of one that is not (RFC 5880, 6.8.3).
_CALM_SECONDS = 1.5
_DYING_SECONDS = 0.5
_ATTEMPTS = 3
_PROGRAMS = ("agent-", "switcher-")
_TROUBLES = (LabError, OSError, RuntimeError, TimeoutError)


class UnprovokedMoveError(Exception):
    """The group moved before the fault: a false failover, and nothing learnt of the case."""


@dataclass(frozen=True)
class MatrixOptions:
    """Which cases, in which lab, and where the results go. `keep`: the files of cases that passed, too."""

    out: Path
    cases: Sequence[Case]
    lab: LabOptions = field(default_factory=lambda: LabOptions("faults"))
    keep: bool = False


@dataclass(frozen=True)
class Outcome:
    """One case and how it ended; `epochs` as the bus told them, `acts` what was done when (seconds from the fault)."""

    case: Case
    judgement: Judgement
    epochs: list[int]
    acts: list[tuple[float, str]]
    seconds: float


async def run_matrix(options: MatrixOptions, progress: Progress = say) -> dict[str, Any]:
    """Run every case, write `summary.json` and `table.md` below `options.out`, print the table; returns the summary.

    Raises CheckFailedError when a case did not end as it must (the results are written), LabError when the lab cannot
    be built or is in use.
    """
    _prepare(options.out)
    environment = describe_environment()
    started_at = time.monotonic()
    outcomes: list[Outcome] = []
    unprovoked: list[str] = []
    bed = await Testbed.up(options.lab, progress)
    try:
        for number, case in enumerate(options.cases, 1):
            head = f"{number} of {len(options.cases)}  {case.name}"
            fresh_bus = number > 1 and options.cases[number - 2].hurts_bus
            outcome = await _run_until_judged(bed, case, options, unprovoked, fresh=number == 1, fresh_bus=fresh_bus)
            outcomes.append(outcome)
            progress(f"{head}: {report.in_short(outcome.judgement)}")
    finally:
        await bed.down()
    environment["load_average_after"] = describe_environment()["load_average"]
    summary = report.summarise(outcomes, options.lab, unprovoked, environment, time.monotonic() - started_at)
    report.write(options.out, summary)
    report.show(summary, Console())
    wrong = [
        f"{outcome.case.name}: {outcome.judgement.problems[0]}" for outcome in outcomes if outcome.judgement.problems
    ]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise CheckFailedError(f"{wrong[0]}{more}; look below {options.out / 'failed'}")
    return summary


def _prepare(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        for kept in ("failed", "passed", "running"):
            shutil.rmtree(out / kept, ignore_errors=True)
        for name in (report.SUMMARY, report.TABLE):
            (out / name).unlink(missing_ok=True)
    except OSError as error:
        raise LabError(f"--out {out} cannot be written: {error.strerror}") from None


async def _run_until_judged(
    bed: Testbed, case: Case, options: MatrixOptions, unprovoked: list[str], *, fresh: bool, fresh_bus: bool
) -> Outcome:
    """One case; a group that moves by itself before the fault is noted, and the case tried again."""
    directory = options.out / "running"
    for attempt in range(_ATTEMPTS):
        started_at = time.monotonic()
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        try:
            if not (fresh and attempt == 0):
                await _start_over(bed, fresh_bus=fresh_bus or (case.hurts_bus and attempt > 0))
            outcome = await _run(bed, case, options, directory)
        except UnprovokedMoveError as error:
            unprovoked.append(f"{case.name}: moved before the fault ({error})")
            continue
        except _TROUBLES as error:
            outcome = _undone(case, str(error))
        if outcome.judgement.problems or options.keep:
            await asyncio.to_thread(results.keep_logs, bed.layout, directory)
            place = options.out / ("failed" if outcome.judgement.problems else "passed")
            place.mkdir(exist_ok=True)
            directory.rename(place / case.name.replace(":", "-"))
        shutil.rmtree(directory, ignore_errors=True)
        return replace(outcome, seconds=time.monotonic() - started_at)
    return _undone(case, f"the group moved {_ATTEMPTS} times before the fault, last: {unprovoked[-1]}")


def _undone(case: Case, problem: str) -> Outcome:
    return Outcome(case, Judgement("-", [], 0.0, 0, [f"could not be carried out: {problem}"]), [], [], 0.0)


async def _start_over(bed: Testbed, *, fresh_bus: bool) -> None:
    for process in bed.status()["processes"]:  # a case that was broken off may have left some stopped
        if process["alive"]:
            bed.find(process["name"]).signal(signal.SIGCONT)
    try:
        await bed.reset(fresh_bus=fresh_bus)
    except LabError:
        await bed.reset(fresh_bus=True)


async def _run(bed: Testbed, case: Case, options: MatrixOptions, directory: Path) -> Outcome:
    """One case in a lab without service and agents."""
    await bed.start_service(options.lab.checkpoint_interval_ms, options.lab.workload, options.lab.realtime_priority)
    await bed.start_agents(options.lab)
    for step in case.prepare:
        await step.act(Stage(bed))
    recording = Recording(bed, directory)
    try:
        await recording.start()
        await recording.wait_for_service(ANSWER_SECONDS)
        await wait_protected(recording)
        await _wait_connected(recording)
        await asyncio.sleep(_CALM_SECONDS + random.uniform(0, PACKET_SPACING_SECONDS))
        spoken = _log_sizes(bed)
        fault_at, acts = await _carry_out(case, Stage(bed, recording), directory)
        await asyncio.sleep(_DYING_SECONDS)
        living = _living(bed)
        await asyncio.sleep(case.settle_seconds - _DYING_SECONDS)
        observed_seconds = time.time() - fault_at
        ended = [proc.name for proc in living if not proc.alive]
        tunnels = await client_tunnels(bed)
    finally:
        await recording.stop()
    return await asyncio.to_thread(
        _judge, case, directory, fault_at, observed_seconds, tunnels, ended, _spoken_since(bed, spoken), acts
    )


async def _wait_connected(recording: Recording) -> None:
    async def up() -> bool:
        return connected(await asyncio.to_thread(recording.events, time.time() - 1), names.SITES)

    await netns.wait_for(up, "paths between all sites", _PATHS_SECONDS, 0.25)


async def _carry_out(case: Case, stage: Stage, directory: Path) -> tuple[float, list[tuple[float, str]]]:
    """All steps, the first of which is the fault; returns its time and what was done when."""
    moved = moved_before(read_events(directory / EVENTS), time.time(), PRIMARY)
    if moved is not None:
        raise UnprovokedMoveError(moved)
    fault_at, acts = time.time(), []
    for step in case.steps:
        acts.append((round(time.time() - fault_at, 3), str(step)))
        await step.act(stage)
    return fault_at, acts


def _judge(
    case: Case,
    directory: Path,
    fault_at: float,
    observed_seconds: float,
    tunnels: list[str],
    ended: list[str],
    logs: str,
    acts: list[tuple[float, str]],
) -> Outcome:
    events = list(read_events(directory / EVENTS))
    moved = moved_before(events, fault_at, PRIMARY)
    if moved is not None:
        raise UnprovokedMoveError(moved)
    said = "\n".join(
        f"{event.kind} {event.data}" for event in events if event.kind == "decision" and event.received_at >= fault_at
    )
    seen = Seen(
        exchange=read_exchange(directory, SERVICE, fault_at),
        observed_seconds=observed_seconds,
        moves=moves(events, PRIMARY),
        epochs=epochs(events),
        tunnels=tunnels,
        words=f"{logs}\n{said}",
        ended=ended,
        capture_dropped=int(read_trace_summary(directory / CAPTURE).get("dropped", 0)),
    )
    return Outcome(case, judge(case.expected, seen), list(seen.epochs), acts, 0.0)


def _living(bed: Testbed) -> list[Proc]:
    """Agents and switchers that live, in whatever state."""
    known = {process["name"] for process in bed.status()["processes"] if process["alive"]}
    return [bed.find(name) for name in sorted(known) if name.startswith(_PROGRAMS)]


def _log_sizes(bed: Testbed) -> dict[Path, int]:
    return {log: log.stat().st_size for log in bed.layout.directory.glob("*.log")}


def _spoken_since(bed: Testbed, before: dict[Path, int]) -> str:
    """What agents and switchers have logged since then."""
    words = []
    for log in bed.layout.directory.glob("*.log"):
        if log.name.startswith(_PROGRAMS):
            with contextlib.suppress(FileNotFoundError), log.open("rb") as file:
                file.seek(before.get(log, 0))
                words.append(file.read().decode(errors="replace"))
    return "\n".join(words)
