"""Series of measurements on the real lab: beside peers, over distance, with many services, and what the paper did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tunnelswitch_lab.cli.common import Compress, Detect, Name, app, finish, judged
from tunnelswitch_lab.options import WORKLOADS, LabError, LabOptions, check_workload, parse_detect
from tunnelswitch_lab.testbed import check_machine, usable_layout


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

    finish(run_bench(BenchOptions(out, runs, tuple(only or ()), name, cases)))


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

    finish(run_redirect(RedirectOptions(out, tuple(method or ()), runs, name)))


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
    finish(run_paper(PaperOptions(out, runs, parts, interval, usable_layout(name).name, docs)))


@app.command()
def checkpoints(
    out: Annotated[Path, typer.Option(help="directory for the results", file_okay=False)] = Path("out/checkpoints"),
    only: Annotated[list[str] | None, typer.Option(help="a buffering and an interval, such as full@100")] = None,
    runs: Annotated[int, typer.Option(min=1, max=1000, help="runs of every cell")] = 1,
    seconds: Annotated[float, typer.Option(min=1, max=600, help="of calm before each crash")] = 8.0,
    compress: Compress = True,
    detect: Detect = "20x3",
    name: Name = "checkpoints",
) -> None:
    """Measure what checkpoints cost and what a crash takes back, by interval and buffering. Exit status 1 if an answer
    that was held back is forgotten, or a run is not as it must be."""
    from tunnelswitch_lab.costs import CostOptions, chosen, run_costs, table

    cells = chosen(tuple(only or ()))
    interval_seconds, multiplier = parse_detect(detect)
    check_machine()
    lab = LabOptions(usable_layout(name).name, interval_seconds, multiplier, workload="vm", compress=compress)
    summary = finish(run_costs(CostOptions(lab, cells, out, runs, seconds)))
    print(table(summary["cells"]), end="")
    judged(summary, out)


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
    summary = finish(run_wan(WanOptions(lab, out, distances, chosen, line, runs, seconds, garp)))
    print((out / "table.md").read_text(encoding="utf-8"))
    judged(summary, out)


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

    print(json.dumps(finish(run_xen(XenOptions(name, out, keep))), indent=2))


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
    summary = finish(run_growth(GrowthOptions(lab, chosen, counted, out, runs)))
    print(table(summary["services"]), end="")
    judged(summary, out)
