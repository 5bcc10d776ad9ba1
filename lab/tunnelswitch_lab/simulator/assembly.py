"""What a deployment is put together of: the real machines of each process, and how the first of all records reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunnelswitch.core.deciding import GroupDecider
from tunnelswitch.core.evidence import Evidence
from tunnelswitch.core.facts import GroupRecord, Reason
from tunnelswitch.core.following import Follower
from tunnelswitch.core.gate import Gate
from tunnelswitch.core.gateway import SiteAgent
from tunnelswitch.core.hosting import HostedGroup
from tunnelswitch.core.member import Member
from tunnelswitch.core.runs import join_runs
from tunnelswitch.core.server import ServerAgent
from tunnelswitch.core.stamp import Stamp
from tunnelswitch.core.switcher import Switcher
from tunnelswitch_lab.simulator.ports import DriverPort, PlanePort
from tunnelswitch_lab.simulator.process import Process

if TYPE_CHECKING:
    from tunnelswitch_lab.simulator.world import World


def machine_of(world: World, process: Process, incarnation: str) -> tuple[Any, PlanePort, dict[str, Any]]:
    """The machine that `process` runs, its data plane and its drivers."""
    site, group, timing = process.site, world.group, world.setup.timing
    plane = PlanePort(world.switches[site], world.clocks[site])
    gate = Gate(group, site, world.fabric.ends[site])
    if process.name != site:
        evidence = Evidence(group, site, timing)
        decider = GroupDecider(evidence, gate, decider=f"{site}.{incarnation}", unix_offset_seconds=0.0)
        return Switcher((decider,), world.sites, age_max_seconds=timing.age_max_seconds), plane, {}
    others = tuple(other for other in world.sites if other != site)
    member = Member(site, incarnation, (group,), others, timing, world.clocks[site].local())
    if site not in group.servers:
        return SiteAgent(member, (Follower(member, gate),)), plane, {}
    drivers = {name: DriverPort(part, site, world.clocks[site]) for name, part in world.hypervisors.items()}
    return ServerAgent(member, (HostedGroup(member, gate),)), plane, drivers


def role_of(world: World, process: Process) -> str:
    """What it hears on the bus goes by this."""
    if process.name != process.site:
        return "switcher"
    return "server" if process.site in world.group.servers else "site"


def first_record(world: World, *, fresh: bool) -> GroupRecord:
    """As good times have left it, or as `tunnelswitch init` does; if the setup says so, while the standby resyncs."""
    group, protected = world.group, world.setup.protected and not fresh
    runs = {
        site: join_runs({n: part.copies[site].run for n, part in world.hypervisors.items()}) for site in group.servers
    }
    return GroupRecord(
        group=group.name,
        stamp=Stamp(1, "init", 0 if fresh else 1),
        active=group.preferred,
        previous=group.preferred,
        in_sync=protected,
        reason=Reason.INIT,
        voters=group.voters,
        gateways=group.gateways,
        prev_id="" if fresh else "1.0-init",
        active_run="" if fresh else runs[group.preferred],
        standby_run=runs[group.standby] if protected else "",
    )


def lay_tunnels(world: World, record: GroupRecord) -> None:
    """Every OVSDB holds what `record` asks for."""
    group = world.group
    for site in (*group.servers, *group.gateways):
        ends = world.fabric.ends[site]
        present = (end.interface for end in ends if record.active in (site, end.remote_site))
        world.switches[site].begin({group.name: record.stamp}, frozenset(present))
