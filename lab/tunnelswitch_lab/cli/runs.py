"""Faults on the real lab: once, in a row, all of them, and long times without any."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunnelswitch_lab import faults
from tunnelswitch_lab.cli.common import (
    Buffering,
    Compress,
    Detect,
    Interval,
    Name,
    Tls,
    Workload,
    app,
    check_fault,
    end,
    finish,
    protected_by,
)
from tunnelswitch_lab.options import (
    DEFAULT_REALTIME_PRIORITY,
    SLICE_SECONDS,
    WORKLOADS,
    LabError,
    LabOptions,
    RunOptions,
    check_buffering,
    parse_detect,
)
from tunnelswitch_lab.testbed import check_machine, usable_layout

SLICE_US = round(SLICE_SECONDS * 1e6)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="directory for the results", file_okay=False)] = Path("out/demo"),
    detect: Detect = "10x3",
    workload: Annotated[str, typer.Option(help=f"what is protected: auto, {', '.join(WORKLOADS)}")] = "auto",
    checkpoint_interval: Interval = None,
    name: Name = "demo",
) -> None:
    """The main job: lose a site, then crash a service, and show what a client on the phone saw."""
    interval_seconds, multiplier = parse_detect(detect)
    check_machine()
    usable_layout(name)
    from tunnelswitch_lab.demo import best_workload, run_demo

    protected = protected_by(best_workload() if workload == "auto" else workload, checkpoint_interval)
    lab = LabOptions(name, interval_seconds, multiplier, 0, *protected)
    finish(run_demo(RunOptions(lab, "", out)))


@app.command("run")
def run_series(
    fault: Annotated[str, typer.Option(help=f"one of {', '.join(faults.EVENTS)}")],
    out: Annotated[Path, typer.Option(help="directory for the results", file_okay=False)],
    workload: Workload = "process",
    checkpoint_interval: Interval = None,
    detect: Detect = "20x3",
    runs: Annotated[int, typer.Option(min=1, max=1000, help="how many times")] = 1,
    name: Name = "lab",
    tls: Tls = False,
    buffering: Buffering = "none",
    compress: Compress = True,
    realtime: Annotated[bool, typer.Option("--realtime/--no-realtime", help="SCHED_FIFO for all of ours")] = False,
    slice_us: Annotated[int, typer.Option(min=0, max=100_000, help="the agents' time slice; 0: ordinary")] = SLICE_US,
    keep_failed: Annotated[bool, typer.Option("--keep-failed", help="stop at a failed run, leave the lab up")] = False,
) -> None:
    """Inject a fault, measure what the clients saw, and write it all down."""
    protected = protected_by(workload, checkpoint_interval)
    check_fault(fault)
    interval_seconds, multiplier = parse_detect(detect)
    check_machine()
    usable_layout(name)
    priority = DEFAULT_REALTIME_PRIORITY if realtime else 0
    held = check_buffering(workload, buffering)
    lab = LabOptions(
        name,
        interval_seconds,
        multiplier,
        priority,
        *protected,
        tls,
        buffering=held,
        compress=compress,
        slice_seconds=slice_us / 1e6,
    )
    from tunnelswitch_lab.experiment import run_experiment  # measuring needs much that up and down do not

    finish(run_experiment(RunOptions(lab, fault, out, runs, keep_failed)))


@app.command()
def call(
    out: Annotated[Path, typer.Option(help="directory for the results", file_okay=False)] = Path("out/call"),
    caller: Annotated[str, typer.Option(help="sipp: a real SIP call; rtp: the lab's own sender")] = "sipp",
    fault: Annotated[str, typer.Option(help=f"one of {', '.join(faults.FAULTS)}")] = "service-crash",
    detect: Detect = "20x3",
    name: Name = "call",
) -> None:
    """One call, one fault: jitter per packet, outage and loss as the caller received them, checked by tshark."""
    from tunnelswitch_lab.calling import CALLERS, CallOptions, run_call

    if caller not in CALLERS:
        raise LabError(f"--caller {caller!r} is not known: {', '.join(CALLERS)}")
    check_fault(fault)
    interval_seconds, multiplier = parse_detect(detect)
    check_machine()
    lab = LabOptions(usable_layout(name).name, interval_seconds, multiplier)
    finish(run_call(CallOptions(lab, caller, fault, out)))


@app.command("faults")
def faults_(
    out: Annotated[Path, typer.Option(help="directory for the results", file_okay=False)] = Path("out/faults"),
    only: Annotated[list[str] | None, typer.Option(help="one fault; may be given more than once")] = None,
    listed: Annotated[bool, typer.Option("--list", help="name every fault and what it does, and end")] = False,
    detect: Detect = "20x3",
    keep: Annotated[bool, typer.Option("--keep", help="keep the files of faults that passed, too")] = False,
    name: Name = "faults",
) -> None:
    """Carry out every fault of the matrix, and judge each by the packets that clients got."""
    from tunnelswitch_lab.matrix import catalogue

    cases = catalogue.chosen(only or ())
    if listed:
        for case in cases:
            print(f"{case.name:40}{case.does}")
        return
    interval_seconds, multiplier = parse_detect(detect)
    check_machine()
    lab = LabOptions(usable_layout(name).name, interval_seconds, multiplier)
    from tunnelswitch_lab.matrix.running import MatrixOptions, run_matrix

    finish(run_matrix(MatrixOptions(out, cases, lab, keep)))


@app.command()
def cycles(
    out: Annotated[Path, typer.Option(help="directory for the results", file_okay=False)] = Path("out/cycles"),
    runs: Annotated[int, typer.Option(min=1, max=1000, help="how many cycles")] = 10,
    fault: Annotated[str, typer.Option(help="host-loss or service-crash")] = "host-loss",
    workload: Workload = "process",
    checkpoint_interval: Interval = None,
    detect: Detect = "20x3",
    stable: Annotated[float, typer.Option(min=0, help="seconds in sync before the group goes back")] = 3.0,
    name: Name = "cycles",
) -> None:
    """Loss, repair and failback in a row with nobody at the keyboard. Exit status 1 if one is not as it must be."""
    from tunnelswitch_lab.cycles.figures import lines
    from tunnelswitch_lab.cycles.run import FAULTS, CycleOptions, run_cycles

    if fault not in FAULTS:
        raise LabError(f"--fault {fault!r} comes back by nothing that is known here: {' or '.join(FAULTS)}")
    protected = protected_by(workload, checkpoint_interval)
    interval_seconds, multiplier = parse_detect(detect)
    check_machine()
    lab = LabOptions(
        usable_layout(name).name, interval_seconds, multiplier, 0, *protected, failback_after_seconds=stable
    )
    summary = finish(run_cycles(CycleOptions(lab, fault, out, runs)))
    print("\n".join(lines(summary, out)))
    end(summary["problems"])


@app.command()
def soak(
    load: Annotated[str, typer.Option(help="busy: all cores saturated; loss: 5 % loss and 10 ms jitter; none")],
    out: Annotated[Path, typer.Option(help="directory for the results", file_okay=False)] = Path("out/soak"),
    minutes: Annotated[float, typer.Option(min=0.05, max=1440, help="how long nothing may happen")] = 10.0,
    detect: Detect = "10x3",
    workload: Workload = "process",
    checkpoint_interval: Interval = None,
    buffering: Buffering = "none",
    compress: Compress = True,
    name: Name = "soak",
) -> None:
    """Load for minutes, in which nothing may fail over; then a lost host. Exit status 1 if it is not so."""
    from tunnelswitch_lab.soak.loads import check_load
    from tunnelswitch_lab.soak.report import lines
    from tunnelswitch_lab.soak.run import SoakOptions, run_soak

    check_load(load)
    protected = protected_by(workload, checkpoint_interval)
    held = check_buffering(workload, buffering)
    interval_seconds, multiplier = parse_detect(detect)
    check_machine()
    usable_layout(name)
    lab = LabOptions(name, interval_seconds, multiplier, 0, *protected, buffering=held, compress=compress)
    summary = finish(run_soak(SoakOptions(lab, load, out, minutes)))
    print("\n".join(lines(summary, out)))
    end(summary["problems"])
