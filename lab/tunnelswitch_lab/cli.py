"""The command `tunnelswitch-lab`: builds labs, breaks things, measures, and simulates.

It parses and prints. A user's mistake is one line with the remedy on standard error and exit status 2.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from tunnelswitch_lab import faults, teardown
from tunnelswitch_lab.options import (
    BUFFERINGS,
    DEFAULT_REALTIME_PRIORITY,
    WORKLOADS,
    LabError,
    LabOptions,
    RunOptions,
    check_buffering,
    check_checkpoint_interval,
    check_workload,
    parse_detect,
)
from tunnelswitch_lab.state import State
from tunnelswitch_lab.status import describe
from tunnelswitch_lab.testbed import Testbed, check_machine, check_root, usable_layout

_USAGE_STATUS = 2
T = TypeVar("T")

app = typer.Typer(
    help="The testbed on one machine: three sites with real switches, a real bus, and faults.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Option(help="which lab; several may live at once")]
Detect = Annotated[str, typer.Option(help="heartbeat and BFD interval in milliseconds x multiplier")]
Workload = Annotated[str, typer.Option(help="what is protected: " + ", ".join(WORKLOADS))]
Tls = Annotated[bool, typer.Option("--tls", help="encrypt the bus; keys and permissions it always has")]
Interval = Annotated[
    float | None,
    typer.Option(help="milliseconds from checkpoint to checkpoint; by default 25 for a process, 100 for a vm"),
]

Buffering = Annotated[str, typer.Option(help="output of a vm waits for its checkpoint: " + ", ".join(BUFFERINGS))]


@app.command()
def up(
    name: Name = "lab",
    detect: Detect = "20x3",
    realtime: Annotated[int, typer.Option(min=0, max=99, help="SCHED_FIFO priority of the agents; 0: none")] = 0,
    workload: Workload = "process",
    checkpoint_interval: Interval = None,
    tls: Tls = False,
    buffering: Buffering = "none",
    agents: Annotated[bool, typer.Option("--agents/--no-agents", help="also start the service and the agents")] = True,
) -> None:
    """Build a lab and leave it up."""
    interval_seconds, multiplier = parse_detect(detect)
    protected = _protected(workload, checkpoint_interval)
    held = check_buffering(workload, buffering)
    options = LabOptions(name, interval_seconds, multiplier, realtime, *protected, tls, buffering=held)
    _finish(_up(options, agents))


@app.command()
def status(
    name: Name = "lab",
    form: Annotated[str, typer.Option("-f", "--format", help="json or pretty")] = "pretty",
) -> None:
    """Name every namespace, address, process, socket and URL of a lab."""
    if form not in ("json", "pretty"):
        raise LabError(f"-f {form!r} is not a format: json or pretty")
    description = describe(State.load(usable_layout(name).name))
    if form == "json":
        print(json.dumps(description, indent=2))
    else:
        _print_pretty(description)


@app.command()
def down(
    name: Name = "lab",
    everything: Annotated[bool, typer.Option("--all", help="every lab on this machine")] = False,
) -> None:
    """Remove a lab, also a half-built or abandoned one."""
    check_root()
    found = teardown.labs() if everything else [name]
    for one in found:
        layout = usable_layout(one)
        gone = _finish(teardown.remove(layout))
        print(f"lab {one!r} is gone" if gone else f"there is no lab {one!r}: nothing to do")


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

    protected = _protected(best_workload() if workload == "auto" else workload, checkpoint_interval)
    lab = LabOptions(name, interval_seconds, multiplier, 0, *protected)
    _finish(run_demo(RunOptions(lab, "", out)))


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
    realtime: Annotated[bool, typer.Option("--realtime/--no-realtime", help="SCHED_FIFO for all of ours")] = False,
    keep_failed: Annotated[bool, typer.Option("--keep-failed", help="stop at a failed run, leave the lab up")] = False,
) -> None:
    """Inject a fault, measure what the clients saw, and write it all down."""
    protected = _protected(workload, checkpoint_interval)
    try:
        faults.find(fault)
    except ValueError as error:
        raise LabError(str(error)) from None
    interval_seconds, multiplier = parse_detect(detect)
    check_machine()
    usable_layout(name)
    priority = DEFAULT_REALTIME_PRIORITY if realtime else 0
    held = check_buffering(workload, buffering)
    lab = LabOptions(name, interval_seconds, multiplier, priority, *protected, tls, buffering=held)
    from tunnelswitch_lab.experiment import run_experiment  # measuring needs much that up and down do not

    _finish(run_experiment(RunOptions(lab, fault, out, runs, keep_failed)))


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
    try:
        faults.find(fault)
    except ValueError as error:
        raise LabError(str(error)) from None
    interval_seconds, multiplier = parse_detect(detect)
    check_machine()
    lab = LabOptions(usable_layout(name).name, interval_seconds, multiplier)
    _finish(run_call(CallOptions(lab, caller, fault, out)))


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

    _finish(run_matrix(MatrixOptions(out, cases, lab, keep)))


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
    protected = _protected(workload, checkpoint_interval)
    interval_seconds, multiplier = parse_detect(detect)
    check_machine()
    lab = LabOptions(
        usable_layout(name).name, interval_seconds, multiplier, 0, *protected, failback_after_seconds=stable
    )
    summary = _finish(run_cycles(CycleOptions(lab, fault, out, runs)))
    print("\n".join(lines(summary, out)))
    if summary["problems"]:
        raise SystemExit(1)


@app.command()
def bench(
    out: Annotated[Path, typer.Option(help="directory for the results", file_okay=False)] = Path("out/bench"),
    runs: Annotated[int, typer.Option(min=1, max=1000, help="runs of every cell")] = 6,
    only: Annotated[list[str] | None, typer.Option(help="a system and its interval, such as keepalived@10")] = None,
    cases: Annotated[bool, typer.Option("--cases/--no-cases", help="also partitions, hangs and split brain")] = True,
    name: Name = "bench",
) -> None:
    """Measure ours beside its peers, on the same testbed and faults, interleaved; and what each does when split."""
    check_machine()
    usable_layout(name)
    from tunnelswitch_lab.bench.run import BenchOptions, run_bench

    _finish(run_bench(BenchOptions(out, runs, tuple(only or ()), name, cases)))


@app.command()
def redirect(
    out: Annotated[Path, typer.Option(help="directory for the results", file_okay=False)] = Path("out/redirect"),
    runs: Annotated[int, typer.Option(min=1, max=1000, help="runs of every method and fault")] = 6,
    method: Annotated[
        list[str] | None, typer.Option(help="tunnel, garp, bgp or dns; may be given more than once")
    ] = None,
    name: Name = "redirect",
) -> None:
    """Measure ways to bring clients to the other copy, under one detection and one decision."""
    check_machine()
    usable_layout(name)
    from tunnelswitch_lab.redirection.run import RedirectOptions, run_redirect

    _finish(run_redirect(RedirectOptions(out, tuple(method or ()), runs, name)))


@app.command()
def paper(
    out: Annotated[Path, typer.Option(help="directory for the results", file_okay=False)] = Path("out/paper"),
    runs: Annotated[int, typer.Option(min=1, max=1000, help="runs of every point")] = 10,
    only: Annotated[str, typer.Option(help="some parts alone: fig4,fig5,phases,report")] = "",
    interval: Annotated[float, typer.Option(min=1, max=60_000, help="of heartbeats and BFD, in milliseconds")] = 10.0,
    docs: Annotated[Path | None, typer.Option(help="a page to bring up to date, too", file_okay=False)] = None,
    name: Name = "paper",
) -> None:
    """The paper's evaluation once more: Fig. 4, Fig. 5, where the downtime goes, and one report of it all."""
    from tunnelswitch_lab.paper.options import PaperOptions, chosen_parts
    from tunnelswitch_lab.paper.run import run_paper

    parts = chosen_parts(only)
    if parts != ("report",):
        check_machine()
    _finish(run_paper(PaperOptions(out, runs, parts, interval, usable_layout(name).name, docs)))


@app.command()
def checkpoints(
    out: Annotated[Path, typer.Option(help="directory for the results", file_okay=False)] = Path("out/checkpoints"),
    only: Annotated[list[str] | None, typer.Option(help="a buffering and an interval, such as full@100")] = None,
    runs: Annotated[int, typer.Option(min=1, max=1000, help="runs of every cell")] = 1,
    seconds: Annotated[float, typer.Option(min=1, max=600, help="of calm before each crash")] = 8.0,
    detect: Detect = "20x3",
    name: Name = "checkpoints",
) -> None:
    """Measure what checkpoints cost and what a crash takes back, by interval and buffering. Exit status 1 if an answer
    that was held back is forgotten, or a run is not as it must be."""
    from tunnelswitch_lab.costs import CostOptions, chosen, run_costs, table

    cells = chosen(tuple(only or ()))
    interval_seconds, multiplier = parse_detect(detect)
    check_machine()
    lab = LabOptions(usable_layout(name).name, interval_seconds, multiplier, workload="vm")
    summary = _finish(run_costs(CostOptions(lab, cells, out, runs, seconds)))
    print(table(summary["cells"]), end="")
    print("\n".join(summary["problems"]) or f"all as it must be: {out / 'summary.json'}")
    if summary["problems"]:
        raise SystemExit(1)


@app.command()
def soak(
    load: Annotated[str, typer.Option(help="busy: all cores saturated; loss: 5 % loss and 10 ms jitter; none")],
    out: Annotated[Path, typer.Option(help="directory for the results", file_okay=False)] = Path("out/soak"),
    minutes: Annotated[float, typer.Option(min=0.05, max=1440, help="how long nothing may happen")] = 10.0,
    detect: Detect = "10x3",
    workload: Workload = "process",
    checkpoint_interval: Interval = None,
    buffering: Buffering = "none",
    name: Name = "soak",
) -> None:
    """Load for minutes, in which nothing may fail over; then a lost host. Exit status 1 if it is not so."""
    from tunnelswitch_lab.soak.loads import check_load
    from tunnelswitch_lab.soak.report import lines
    from tunnelswitch_lab.soak.run import SoakOptions, run_soak

    check_load(load)
    protected = _protected(workload, checkpoint_interval)
    held = check_buffering(workload, buffering)
    interval_seconds, multiplier = parse_detect(detect)
    check_machine()
    usable_layout(name)
    lab = LabOptions(name, interval_seconds, multiplier, 0, *protected, buffering=held)
    summary = _finish(run_soak(SoakOptions(lab, load, out, minutes)))
    print("\n".join(lines(summary, out)))
    if summary["problems"]:
        raise SystemExit(1)


@app.command()
def wan(
    out: Annotated[Path, typer.Option(help="directory for the results", file_okay=False)] = Path("out/wan"),
    runs: Annotated[int, typer.Option(min=1, max=1000, help="runs of every cell")] = 3,
    distance: Annotated[
        list[str] | None, typer.Option(help="lan, metro, national, continental, or a round-trip time such as 35ms")
    ] = None,
    workload: Annotated[list[str] | None, typer.Option(help="process or vm; may be given more than once")] = None,
    jitter: Annotated[float, typer.Option(min=0, max=1, help="of each way's delay, more or less")] = 0.05,
    loss: Annotated[float, typer.Option(min=0, max=0.5, help="of all frames between sites")] = 0.001,
    rate: Annotated[float, typer.Option(min=1, max=10_000, help="Mbit/s of each site, each way")] = 100.0,
    seconds: Annotated[float, typer.Option(min=1, max=600, help="of calm before each fault")] = 5.0,
    garp: Annotated[bool, typer.Option("--garp/--no-garp", help="also show whom gratuitous ARP reaches")] = True,
    detect: Detect = "20x3",
    name: Name = "wan",
) -> None:
    """Measure failover, checkpoints and announcements between sites that are far apart. Exit status 1 if something is
    not as it must be."""
    from tunnelswitch_lab.distance.distances import Line, chosen_distances
    from tunnelswitch_lab.distance.run import WanOptions, run_wan

    chosen = tuple(dict.fromkeys(check_workload(text) for text in workload or WORKLOADS[:1]))
    distances = chosen_distances(distance or ())
    interval_seconds, multiplier = parse_detect(detect)
    check_machine()
    lab = LabOptions(usable_layout(name).name, interval_seconds, multiplier)
    line = Line(jitter, loss, rate * 1e6)
    summary = _finish(run_wan(WanOptions(lab, out, distances, chosen, line, runs, seconds, garp)))
    print((out / "table.md").read_text(encoding="utf-8"))
    print("\n".join(summary["problems"]) or f"all as it must be: {out / 'summary.json'}")
    if summary["problems"]:
        raise SystemExit(1)


@app.command()
def xen(
    out: Annotated[Path, typer.Option(help="directory for the results", file_okay=False)] = Path("out/xen"),
    keep: Annotated[bool, typer.Option("--keep", help="leave the lab up")] = False,
    name: Name = "xen",
) -> None:
    """A guest under Xen Remus on two emulated machines: one is killed, it answers again. Exit status 1 if not."""
    check_machine()
    usable_layout(name)
    from tunnelswitch_lab.xen.story import XenOptions, run_xen

    print(json.dumps(_finish(run_xen(XenOptions(name, out, keep))), indent=2))


@app.command()
def simulate(
    schedules: Annotated[int, typer.Option(min=1, help="how many")] = 100_000,
    first_seed: Annotated[int, typer.Option(min=0, help="seed of the first one; the others follow it")] = 0,
    seed: Annotated[int | None, typer.Option(min=0, help="tell the story of this one seed")] = None,
    whole: Annotated[bool, typer.Option("--whole", help="with --seed: not cut down to what the failure takes")] = False,
    jobs: Annotated[int | None, typer.Option(min=1, help="processes; by default one for each processor")] = None,
) -> None:
    """Play random faults against the real decisions in virtual time. Exit status 1 if an invariant is broken."""
    from tunnelswitch_lab.simulator import telling

    unbroken = telling.series(first_seed, schedules, jobs) if seed is None else telling.story(seed, whole=whole)
    if not unbroken:
        raise SystemExit(1)


@app.command()
def growth(
    out: Annotated[Path, typer.Option(help="directory for the results", file_okay=False)] = Path("out/growth"),
    services: Annotated[str, typer.Option(help="how many; several numbers with commas between")] = "1,10,100,1000",
    gateways: Annotated[str, typer.Option(help="how many, counted in virtual time; none: not at all")] = "1,4,16",
    tunnels: Annotated[str, typer.Option(help="of the services of a group: shared, own, or both")] = "shared",
    detect: Detect = "50x3",
    runs: Annotated[int, typer.Option(min=1, max=100, help="how many times each")] = 1,
    name: Name = "growth",
) -> None:
    """Lose a site with many services: when the last tunnel is switched, and what it takes; then more gateways. Exit
    status 1 if something is not as it must be."""
    from tunnelswitch_lab.growth.gateways import checked_counts
    from tunnelswitch_lab.growth.run import GrowthOptions, checked_services, run_growth, shapes, table

    kinds = {"shared": ("shared",), "own": ("own",), "both": ("shared", "own")}
    if tunnels not in kinds:
        raise LabError(f"--tunnels {tunnels!r} is not known: {', '.join(kinds)}")
    chosen = shapes(checked_services(services), kinds[tunnels])
    counted = () if gateways == "none" else checked_counts(gateways)
    interval_seconds, multiplier = parse_detect(detect)
    check_machine()
    lab = LabOptions(usable_layout(name).name, interval_seconds, multiplier)
    summary = _finish(run_growth(GrowthOptions(lab, chosen, counted, out, runs)))
    print(table(summary["services"]), end="")
    print("\n".join(summary["problems"]) or f"all as it must be: {out / 'summary.json'}")
    if summary["problems"]:
        raise SystemExit(1)


@app.command()
def scenarios(
    out: Annotated[Path, typer.Option(help="directory for the pages", file_okay=False)] = Path("docs/scenarios"),
) -> None:
    """Play the stories that an operator cares about in virtual time, and write each down as a page."""
    from tunnelswitch_lab.simulator.scenarios import SCENARIOS, told

    out.mkdir(parents=True, exist_ok=True)
    for name in SCENARIOS:
        (out / f"{name}.md").write_text(told(name), encoding="utf-8")
        print(out / f"{name}.md")


def run() -> None:
    """Entry point of the console script."""
    try:
        app(standalone_mode=True)
    except LabError as error:
        print(f"tunnelswitch-lab: {error}", file=sys.stderr)
        raise SystemExit(_USAGE_STATUS) from None
    except BrokenPipeError:
        raise SystemExit(_USAGE_STATUS) from None


def _protected(workload: str, checkpoint_interval_ms: float | None) -> tuple[str, float]:
    """What is protected, and how often it is checkpointed. Raises LabError for what there is not."""
    known = check_workload(workload)
    return known, check_checkpoint_interval(known, checkpoint_interval_ms)


async def _up(options: LabOptions, with_agents: bool) -> None:
    bed = await Testbed.up(options, lambda step: print(f"{step} ...", flush=True))
    try:
        if with_agents:
            print("service and agents ...", flush=True)
            await bed.start_service()
            await bed.start_agents()
    except BaseException:
        await bed.down()
        raise
    await bed.close()
    print(f"lab {options.name!r} is up; tunnelswitch-lab status --name {options.name} says what is where")


def _finish(work: Coroutine[Any, Any, T]) -> T:
    # asyncio turns SIGINT into a cancellation, and that cleans up; a polite end deserves the same.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        print("tunnelswitch-lab: interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def _print_pretty(description: dict[str, Any]) -> None:
    """One fact a line, whole, to copy from."""
    print(f"lab {description['name']}, {'ready' if description['ready'] else 'not ready'}")
    print(f"  configuration  {description['deployment_file']}")
    client, service = description["client"], description["service"]
    print(f"  client         {client['address']} in {client['namespace']}, seen at {client['capture']['device']}")
    print(f"  service        RTP {service['rtp']}, probe {service['probe']}")
    for name, site in description["sites"].items():
        print(f"{name}: {site['kind']}")
        print(f"  namespace      {site['namespace']}")
        print(f"  underlay       {site['underlay_address']}")
        print(f"  OVSDB          {site['ovsdb']}")
        print(f"  NATS           {site['nats_url']}, monitor {site['nats_monitor_url']}")
        for program, url in site["metrics_urls"].items():
            print(f"  {program + ' metrics':15}{url}")
    print("processes:")
    for proc in description["processes"]:
        print(f"  {proc['name']:20}{proc['pid']:>8} {'runs' if proc['alive'] else 'dead'}  {proc['log']}")
