"""`tunnelswitch agent`: the program of every site. What it does there follows from the site's kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from aioovs import Database
from tunnelswitch.adapters.client_packets import ClientPackets
from tunnelswitch.adapters.links import Links
from tunnelswitch.adapters.ovs_paths import OvsPaths
from tunnelswitch.adapters.ovs_tunnels import OvsTunnels
from tunnelswitch.bus.speech import SERVER_HEARS, SITE_HEARS
from tunnelswitch.config import Deployment
from tunnelswitch.core.following import Follower
from tunnelswitch.core.gate import Gate
from tunnelswitch.core.gateway import SiteAgent
from tunnelswitch.core.hosting import HostedGroup
from tunnelswitch.core.member import Member
from tunnelswitch.core.server import ServerAgent
from tunnelswitch.errors import FIRST_OR_LOST
from tunnelswitch.ports import ServiceDriver
from tunnelswitch.processes.executor import Executor
from tunnelswitch.processes.frame import Frame
from tunnelswitch.processes.parts import Startable
from tunnelswitch.processes.pump import Pump
from tunnelswitch.processes.watchdog import Watchdog
from tunnelswitch.replication.drivers import make_driver


async def run_agent(deployment: Deployment, site: str, make_driver: Callable[..., ServiceDriver] = make_driver) -> None:
    """Run the agent of `site` until told to stop. `make_driver` is as `replication.drivers.make_driver`."""
    frame = Frame(deployment, site, "agent")
    others = tuple(other for other in deployment.sites if other != site)
    member = Member(site, frame.incarnation, frame.groups, others, frame.timing, Pump.now())
    hosted = tuple(
        HostedGroup(member, Gate(group, site, frame.ends(group))) for group in frame.groups if site in group.servers
    )
    followers = tuple(
        Follower(member, Gate(group, site, frame.ends(group))) for group in frame.groups if site not in group.servers
    )
    machine = ServerAgent(member, hosted, followers) if hosted else SiteAgent(member, followers)
    database = frame.database()
    tunnels = OvsTunnels(
        database,
        cluster=deployment.cluster.name,
        site=site,
        ends=tuple(end for group in frame.groups for end in frame.ends(group)),
        groups=tuple(group.name for group in frame.groups),
        allowed_bridges=frame.here.bridges,
        emit=frame.emit,
    )
    paths = _paths(frame, database, member, others)
    frame.metrics.watch_probe_mesh(lambda: paths.problem)
    bus, epochs = frame.bus(SERVER_HEARS if hosted else SITE_HEARS), frame.epochs()
    frame.metrics.pull("bus_dropped_messages", lambda: bus.counts.dropped)
    frame.metrics.pull("stale_messages", lambda: member.stale_messages)
    frame.metrics.watch_windows(member.detector.patience)
    watchdog = Watchdog(machine.fit if isinstance(machine, ServerAgent) else lambda now: True)
    parts: list[Startable] = [watchdog, bus, epochs]
    drivers = {}
    if hosted:
        for service in deployment.services_at(site):
            driver = make_driver(service, deployment.services[service], site, frame.emit, frame.metrics.driver_problem)
            drivers[service] = driver
            frame.metrics.machines.sources[service] = driver.figures
            frame.metrics.watch_health(service, driver)
            parts.append(driver)
    packets = _client_packets(frame)
    if packets is not None:
        parts.append(packets)

    def ready() -> Iterator[str]:
        unread = [name for name in member.groups if name not in member.records]
        if unread:
            yield f"no record read yet for {', '.join(unread)}; if there is none: {FIRST_OR_LOST}"
        if paths.problem:
            yield f"probe mesh: {paths.problem}"
        if packets is not None and packets.problem:
            yield packets.problem

    await frame.run(
        machine,
        Executor(bus, epochs, tunnels, drivers),
        parts=parts,
        database=database,
        on_database=(tunnels, paths),
        ready=ready,
    )


def _paths(frame: Frame, database: Database, member: Member, others: tuple[str, ...]) -> OvsPaths:
    deployment = frame.deployment
    addresses, multiplier = deployment.addresses(), deployment.detection.multiplier
    return OvsPaths(
        database,
        cluster=deployment.cluster.name,
        site=frame.site,
        peers={other: addresses[other] for other in others},
        probe_bridge=frame.here.probe_bridge,
        like_bridges=frame.here.bridges,
        service_keys=frozenset(key for s in deployment.services.values() for key in (s.t2_key, s.t3_key)),
        interval_seconds=deployment.detection.interval_seconds,
        multiplier=multiplier,
        widened=lambda peer: member.detector.multiplier(peer, multiplier),
        underlay_device=lambda: _device_with(addresses[frame.site]),
        emit=frame.emit,
    )


def _client_packets(frame: Frame) -> ClientPackets | None:
    device, services = frame.here.client_port, frame.deployment.services
    if not device:
        return None
    carried = [service.name for group in frame.groups if frame.site in group.gateways for service in group.services]
    addresses = {name: services[name].address for name in carried}
    packets = ClientPackets(device, site=frame.site, services=addresses, emit=frame.emit)
    frame.metrics.watch_client_port(lambda: packets.problem)
    frame.metrics.pull("client_packets_dropped", lambda: packets.dropped)
    return packets


async def _device_with(address: str) -> str:
    async with Links() as links:
        return await links.device_with(address)
