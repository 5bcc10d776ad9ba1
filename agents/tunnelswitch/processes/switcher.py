"""`tunnelswitch switcher`: one beside each gateway."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from tunnelswitch.adapters.ovs_tunnels import OvsTunnels
from tunnelswitch.bus.speech import SWITCHER_HEARS
from tunnelswitch.config import Deployment
from tunnelswitch.core.deciding import GroupDecider
from tunnelswitch.core.evidence import Evidence
from tunnelswitch.core.gate import Gate
from tunnelswitch.core.switcher import Switcher
from tunnelswitch.errors import FIRST_OR_LOST
from tunnelswitch.processes.executor import Executor
from tunnelswitch.processes.frame import Frame, unix_offset_seconds


async def run_switcher(deployment: Deployment, site: str) -> None:
    """Run the switcher of gateway `site` until told to stop."""
    frame = Frame(deployment, site, "switcher")
    groups = tuple(group for group in frame.groups if site in group.gateways)
    deciders = tuple(
        GroupDecider(
            Evidence(group, site, frame.timing),
            Gate(group, site, frame.ends(group)),
            decider=f"{site}.{frame.incarnation}",
            unix_offset_seconds=unix_offset_seconds(),
        )
        for group in groups
    )
    machine = Switcher(deciders, deployment.sites, age_max_seconds=frame.timing.age_max_seconds)
    database = frame.database()
    tunnels = OvsTunnels(
        database,
        cluster=deployment.cluster.name,
        site=site,
        ends=tuple(end for group in groups for end in frame.ends(group)),
        groups=tuple(group.name for group in groups),
        allowed_bridges=frame.here.bridges,
        emit=frame.emit,
    )
    bus, epochs, meta = frame.bus(SWITCHER_HEARS), frame.epochs(), frame.meta_leader()
    frame.metrics.pull("bus_dropped_messages", lambda: bus.counts.dropped)
    frame.metrics.pull("stale_messages", lambda: machine.stale_messages)
    for decider in deciders:
        frame.metrics.watch_moves(decider.group.name, partial(getattr, decider, "in_vain"))

    def ready() -> Iterator[str]:
        unread = [decider.group.name for decider in deciders if decider.record is None]
        if unread:
            yield f"no record read yet for {', '.join(unread)}; if there is none: {FIRST_OR_LOST}"
        unsettled = [d.group.name for d in deciders if d.record and not d.gate.settled(d.record.stamp)]
        if unsettled:
            yield f"tunnels do not follow the record yet for {', '.join(unsettled)}"

    await frame.run(
        machine,
        Executor(bus, epochs, tunnels, meta=meta),
        parts=(bus, epochs, *((meta,) if meta else ())),
        database=database,
        on_database=(tunnels,),
        ready=ready,
    )
