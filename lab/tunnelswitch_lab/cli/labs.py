"""Labs that stay: build one, look at it, remove it."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from tunnelswitch_lab import teardown
from tunnelswitch_lab.cli.common import Buffering, Detect, Interval, Name, Tls, Workload, app, finish, protected_by
from tunnelswitch_lab.options import LabError, LabOptions, check_buffering, parse_detect
from tunnelswitch_lab.state import State
from tunnelswitch_lab.status import describe
from tunnelswitch_lab.testbed import Testbed, check_root, usable_layout


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
    protected = protected_by(workload, checkpoint_interval)
    held = check_buffering(workload, buffering)
    options = LabOptions(name, interval_seconds, multiplier, realtime, *protected, tls, buffering=held)
    finish(_up(options, agents))


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
        gone = finish(teardown.remove(layout))
        print(f"lab {one!r} is gone" if gone else f"there is no lab {one!r}: nothing to do")


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
