"""Many services lose their site at once: when the last of their tunnels is switched, and what that takes.

All is real but the copies: switches, bus, store, agents and switcher, each in the process that it is in production.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunnelswitch.config import Deployment, load
from tunnelswitch.core.topology import Tunnel, tunnel_ends
from tunnelswitch.errors import TunnelswitchError
from tunnelswitch.processes.connecting import operator_epochs
from tunnelswitch_lab import agents, faults, netns, procs
from tunnelswitch_lab import layout as names
from tunnelswitch_lab.experiment import Progress, say
from tunnelswitch_lab.growth import gateways
from tunnelswitch_lab.growth.deployment import Shape, add_bridges
from tunnelswitch_lab.growth.watching import Gateway, Reports, messages, processor_seconds
from tunnelswitch_lab.measure.environment import describe_environment
from tunnelswitch_lab.options import LabError, LabOptions
from tunnelswitch_lab.testbed import Testbed

SERVICES_MAX = 1000
TARGET_SECONDS = 0.5
_IN_SYNC_SECONDS = 60.0
_READ_SECONDS = 5.0
_INIT_SECONDS = 60.0
_REST_SECONDS = 3.0
_READY_SECONDS, _READY_SECONDS_PER_SERVICE = 30.0, 0.1  # a file of a thousand services is read for seconds
_MOVE_SECONDS = 30.0
_MARKS = ("verdict", "committed", "switched", "applied")


@dataclass(frozen=True)
class GrowthOptions:
    """`shapes` one after the other, `runs` of each, and then so many gateways in virtual time."""

    lab: LabOptions
    shapes: tuple[Shape, ...]
    gateways: tuple[int, ...]
    out: Path
    runs: int = 1


def checked_services(text: str) -> tuple[int, ...]:
    """`1,10,100` as numbers. Raises LabError."""
    counts = [int(word) if word.strip().isdigit() else 0 for word in text.split(",")]
    if any(not 1 <= count <= SERVICES_MAX for count in counts):
        raise LabError(f"--services {text!r}: write numbers from 1 to {SERVICES_MAX}, with commas between")
    return tuple(counts)


async def run_growth(options: GrowthOptions, progress: Progress = say) -> dict[str, Any]:
    """Measure every shape; returns the content of summary.json, which is written below `options.out` with table.md.

    `problems` in it says what is not as it must be. Raises LabError when nothing can be measured at all.
    """
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(f"--out {options.out} cannot be written: {error.strerror}") from None
    environment = describe_environment()
    rows: list[dict[str, Any]] = []
    counted: list[dict[str, Any]] = []
    for shape in (shape for shape in options.shapes for _ in range(options.runs)):
        progress(f"{shape.services} services in {shape.groups} groups, tunnels {'shared' if shape.shared else 'own'}")
        rows.append(await _measure(shape, options.lab, lambda step: None))
        progress(f"  {line(rows[-1])}")
        _write(options, rows, counted, environment)  # what comes next may be too much for this machine
    for number in options.gateways:
        counted.append(await asyncio.to_thread(gateways.count, number))
        progress(gateways.line(counted[-1]))
    return _write(options, rows, counted, environment)


def _write(
    options: GrowthOptions, rows: list[dict[str, Any]], counted: list[dict[str, Any]], environment: dict[str, Any]
) -> dict[str, Any]:
    summary = {
        "target_seconds": TARGET_SECONDS,
        "detection": f"{options.lab.interval_seconds * 1e3:g}x{options.lab.multiplier}",
        "services": rows,
        "gateways": counted,
        "problems": [f"{row['services']} services: {problem}" for row in rows for problem in row["problems"]],
        "environment": environment | {"load_average_after": describe_environment()["load_average"]},
    }
    (options.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    (options.out / "table.md").write_text(table(rows), encoding="utf-8")
    return summary


async def _measure(shape: Shape, options: LabOptions, progress: Progress) -> dict[str, Any]:
    bed = await Testbed.up(options, progress, shape.write)
    try:
        await add_bridges(bed.layout, shape)
        deployment = load(bed.layout.deployment_file)
        started = await _start_agents(bed, _READY_SECONDS + shape.services * _READY_SECONDS_PER_SERVICE)
        await _wait_served(bed, deployment, names.SERVERS[0], in_sync=True)
        return await _fail_over(bed, shape, deployment, started)
    except (RuntimeError, TimeoutError, TunnelswitchError) as error:
        raise LabError(f"{shape.services} services cannot be measured: {error}") from error
    finally:
        await bed.down()


async def _start_agents(bed: Testbed, ready_seconds: float) -> list[procs.Proc]:
    """All agents and the switcher; the servers' with copies that are only spoken of."""
    layout, configuration = bed.layout, str(bed.layout.deployment_file)
    program = str(agents.executable())
    await procs.check_output([program, "init", "--config", configuration], _INIT_SECONDS, layout.gateway.namespace)
    stand_in = [sys.executable, "-m", "tunnelswitch_lab.growth.copies"]
    commands = {f"agent-{server.name}": (server, server.agent_metrics, stand_in) for server in layout.servers}
    gateway = layout.gateway
    commands[f"agent-{gateway.name}"] = (gateway, gateway.agent_metrics, [program, "agent"])
    commands[f"switcher-{gateway.name}"] = (gateway, gateway.switcher_metrics, [program, "switcher"])
    started = []
    for name, (site, _, command) in commands.items():
        whole = [*command, "--config", configuration, "--site", site.name]
        started.append(bed.spawn(site.namespace, whole, name=name, nice=procs.AGENTS_NICE))
    for proc, (site, endpoint, _) in zip(started, commands.values(), strict=True):
        await agents.wait_ready(proc, site.namespace, endpoint, ready_seconds)
    return started


async def _wait_served(bed: Testbed, deployment: Deployment, active: str, *, in_sync: bool) -> None:
    """Until the records of all groups say so. Raises TimeoutError."""

    async def poll() -> None:
        async with operator_epochs(deployment) as epochs:

            async def so() -> bool:
                read = await asyncio.gather(*(epochs.read(group, _READ_SECONDS) for group in deployment.groups))
                records = [record for record, _ in read]
                return all(record and record.active == active and record.in_sync >= in_sync for record in records)

            await netns.wait_for(so, f"all groups at {active}", _IN_SYNC_SECONDS, 0.5)

    await netns.run_inside(bed.layout.gateway.namespace, poll)


async def _fail_over(bed: Testbed, shape: Shape, deployment: Deployment, started: list[procs.Proc]) -> dict[str, Any]:
    """The primary is lost."""
    layout, ends = bed.layout, _ends(deployment)
    gateway, reports = Gateway(layout.gateway, ends), Reports(layout, shape.groups)
    furniture = [bed.find(f"{kind}-{site.name}") for kind in ("vswitchd", "ovsdb", "nats") for site in layout.sites]
    await asyncio.sleep(_REST_SECONDS)  # what starting stirred up
    rest = await _at_rest(bed)
    listening = asyncio.create_task(reports.listen(_MOVE_SECONDS))
    watching = asyncio.create_task(gateway.watch(_MOVE_SECONDS))
    await reports.listening()
    used, counted = processor_seconds([*started, *furniture]), await messages(layout)
    lost_at = await bed.inject(faults.find("host-loss"))
    await watching
    applied_at, now = gateway.applied_at, time.time()
    spent = {
        name: round(seconds - used[name], 2)
        for name, seconds in processor_seconds([*started, *furniture]).items()
        if not name.endswith(names.SERVERS[0])
    }
    await listening
    said = await messages(layout) - counted
    await _wait_served(bed, deployment, names.SERVERS[1], in_sync=False)
    if len(reports.told) < shape.groups:
        gateway.problems.append(f"{shape.groups - len(reports.told)} groups have not reported their move")
    marks = {mark: None if (at := reports.last(mark)) is None else round(at - lost_at, 4) for mark in _MARKS}
    return {
        "services": shape.services,
        "groups": shape.groups,
        "tunnels": "shared" if shape.shared else "own",
        "last_tunnel_seconds": None if applied_at is None else round(applied_at - lost_at, 4),
        "last": marks,
        "processor_seconds": spent,
        "processor_seconds_over": round(now - lost_at, 3),
        "ovsdb_commits": gateway.commits,
        "messages": said["in_msgs"],
        "deliveries": said["out_msgs"],
        "store_writes": said["store_writes"],
        "at_rest_per_second": rest,
        "problems": gateway.problems,
    }


async def _at_rest(bed: Testbed) -> dict[str, float]:
    before, began = await messages(bed.layout), time.monotonic()
    await asyncio.sleep(_REST_SECONDS)
    after, seconds = await messages(bed.layout), time.monotonic() - began
    return {name: round((after[name] - before[name]) / seconds, 1) for name in after}


def _ends(deployment: Deployment) -> tuple[Tunnel, ...]:
    addresses = deployment.addresses()
    groups = deployment.core_groups()
    return tuple(end for group in groups for end in tunnel_ends(group, names.GATEWAY, addresses))


def shapes(services: Sequence[int], tunnels: Sequence[str]) -> tuple[Shape, ...]:
    """Every number of services with every kind of tunnels."""
    return tuple(replace(Shape(count), shared=kind == "shared") for kind in tunnels for count in services)


def line(row: dict[str, Any]) -> str:
    """One measurement for people."""
    seconds = row["last_tunnel_seconds"]
    last = "not all tunnels were switched" if seconds is None else f"the last tunnel after {seconds * 1e3:.0f} ms"
    return f"{last}; {row['ovsdb_commits']} OVSDB commits, {row['messages']} messages" + "".join(
        f"\n  PROBLEM: {problem}" for problem in row["problems"]
    )


def table(rows: Sequence[dict[str, Any]]) -> str:
    """All measurements in Markdown."""
    head = ["services", "groups", "tunnels", "last tunnel ms", *(f"last {mark} ms" for mark in _MARKS)]
    head += [
        "switcher CPU ms",
        "vswitchd",
        "ovsdb-server",
        "OVSDB commits",
        "store writes",
        "messages/s at rest",
        "kB/s",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        spent, rest = row["processor_seconds"], row["at_rest_per_second"]
        times = [row["last_tunnel_seconds"], *(row["last"][mark] for mark in _MARKS)]
        times += [spent.get(f"{name}-{names.GATEWAY}") for name in ("switcher", "vswitchd", "ovsdb")]
        cells = [row["services"], row["groups"], row["tunnels"]]
        cells += ["-" if seconds is None else round(seconds * 1e3) for seconds in times]
        cells += [row["ovsdb_commits"], row["store_writes"], round(rest["in_msgs"]), round(rest["in_bytes"] / 1e3)]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"
