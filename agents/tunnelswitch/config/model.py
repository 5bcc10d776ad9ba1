"""The deployment file as types. One file describes every site, so that no two agents can disagree about the whole.

Only shapes and ranges of single values stand here; what must hold between them is in `checks.py`, and
`docs/configuration.md` explains every key to operators. Nothing here reads a file.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from tunnelswitch.config.values import port_range
from tunnelswitch.core import topology
from tunnelswitch.core.patience import Limits

GreKey = Annotated[int, Meta(ge=1, le=2**32 - 1, description="a GRE key from 1 to 4294967295 (RFC 2890)")]
Command = tuple[str, ...]
# Without `degraded_after_seconds`, so many checkpoints that did not come, and no less than a second.
LATE_INTERVALS, LATE_SECONDS_MIN = 10, 1.0


class SiteKind(StrEnum):
    """What a site is there for."""

    SERVER = "server"
    GATEWAY = "gateway"
    WITNESS = "witness"


class _Table(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A TOML table: immutable, and a key that we do not know is an error rather than a silent typo."""


class ClusterTls(_Table, frozen=True):
    """`[cluster.tls]`: a PEM file with the certificates that may vouch for the NATS nodes."""

    ca: str


class Cluster(_Table, frozen=True):
    """`[cluster]`: the bus that all sites share."""

    name: str
    nats_urls: tuple[str, ...]
    credentials: str = ""
    keys: str = ""
    tls: ClusterTls | None = None


class Tls(_Table, frozen=True):
    """`[sites.NAME.tls]`: PEM files for an `ssl:` OVSDB remote."""

    certificate: str
    private_key: str
    ca: str


class Site(_Table, frozen=True):
    """`[sites.NAME]`: one place with an agent. An empty string means that the key is not given."""

    kind: SiteKind
    underlay_address: str
    ovsdb: str
    probe_bridge: str
    nats_server: str
    agent_metrics: str
    bridges: tuple[str, ...] = ()
    nats_url: str = ""
    switcher_metrics: str = ""
    client_port: str = ""
    tls: Tls | None = None


class Policy(_Table, frozen=True):
    """`[groups.NAME.policy]`: when the group may move."""

    automatic: bool = True
    failback: Annotated[Literal["manual", "automatic"], Meta(description='"manual" or "automatic"')] = "manual"
    failback_after_seconds: Annotated[float, Meta(ge=0, le=604800, description="seconds from 0 to 604800")] = 300.0
    hysteresis_seconds: Annotated[float, Meta(ge=0, le=3600, description="seconds from 0 to 3600")] = 5.0
    relief: Annotated[Literal["manual", "automatic"], Meta(description='"manual" or "automatic"')] = "manual"

    @property
    def failback_seconds(self) -> float | None:
        """After so long in sync the preferred site serves again by itself; None: when an operator says so."""
        return self.failback_after_seconds if self.failback == "automatic" else None


class Group(_Table, frozen=True):
    """`[groups.NAME]`: services that move together."""

    preferred: str
    standby: str
    gateways: tuple[str, ...]
    services: tuple[str, ...]
    voters: tuple[str, ...] = ()
    policy: Policy = Policy()

    @property
    def all_voters(self) -> tuple[str, ...]:
        """The voters given, or by default every site of the group."""
        return self.voters or (self.preferred, self.standby, *self.gateways)


class Exec(_Table, frozen=True):
    """`[services.NAME.exec]`: hooks. `{site}` in a string becomes the site's name."""

    promote: Command
    fence: Command
    status: Command
    health: Command = ()
    checkpoint: Command = ()
    timeout_seconds: Annotated[float, Meta(ge=0.1, le=60, description="seconds from 0.1 to 60")] = 2.0
    notify_socket: str = ""


class ColoSite(_Table, frozen=True):
    """`[services.NAME.colo.sites.SITE]`: where a copy takes checkpoints in, and over which device."""

    migration_address: str
    device: str = ""
    rate_mbit: Annotated[int, Meta(ge=0, le=400_000, description="a whole number from 0 to 400000")] = 0


class Colo(_Table, frozen=True):
    """`[services.NAME.colo]`: a virtual machine under QEMU. `{site}` in the socket's path becomes the site's name."""

    qmp_socket: str
    sites: dict[str, ColoSite]
    checkpoint_interval_ms: Annotated[int, Meta(ge=10, le=60000, description="milliseconds from 10 to 60000")] = 100
    stall_seconds: Annotated[float, Meta(ge=0.05, le=60, description="seconds from 0.05 to 60")] = 0.35
    sync_seconds: Annotated[float, Meta(ge=1, le=3600, description="seconds from 1 to 3600")] = 60.0
    timeout_seconds: Annotated[float, Meta(ge=0.1, le=60, description="seconds from 0.1 to 60")] = 2.0
    mute_object: str = "mute0"
    quickack: bool = False
    carrier_directory: str = ""
    memory_limit_mb: Annotated[int, Meta(ge=0, le=2**24, description="a whole number from 0 to 16777216")] = 0
    renew: bool = False

    def peer_of(self, site: str) -> ColoSite:
        """The other one of the two sites."""
        return next(there for name, there in self.sites.items() if name != site)

    def carrier_sockets(self, service: str, site: str) -> tuple[Path, Path]:
        """Between QEMU and `tunnelswitch carry`: out of the machine, and into it."""
        directory = Path(self.carrier_directory)
        return directory / f"{service}-{site}-out.sock", directory / f"{service}-{site}-in.sock"

    def outgoing_uri(self, service: str, site: str) -> str:
        """Where QEMU at `site` sends its checkpoints: the peer on T1, or the carrier beside it."""
        if self.carrier_directory:
            return f"unix:{self.carrier_sockets(service, site)[0]}"
        return f"tcp:{self.peer_of(site).migration_address}"

    def incoming_uri(self, service: str, site: str) -> str:
        """Where QEMU at `site` takes checkpoints in."""
        if self.carrier_directory:
            return f"unix:{self.carrier_sockets(service, site)[1]}"
        return f"tcp:{self.sites[site].migration_address}"


class Output(_Table, frozen=True):
    """`[services.NAME.output]`: the two devices between which output waits for its checkpoint."""

    machine_device: str
    bridge_device: str
    realtime_udp_ports: tuple[str, ...] = ()
    held_bytes_max: Annotated[int, Meta(ge=65_536, le=2**32, description="bytes from 65536 to 4294967296")] = 64 << 20

    @property
    def realtime_ports(self) -> tuple[tuple[int, int], ...]:
        """First and last port of each range; the file's checks have refused what is none."""
        return tuple(found for text in self.realtime_udp_ports if (found := port_range(text)) is not None)


class XenSite(_Table, frozen=True):
    """`[services.NAME.xen.sites.SITE]`: where the guest's copy is taken in."""

    migration_address: str


class Xen(_Table, frozen=True):
    """`[services.NAME.xen]`: a guest under Xen Remus. `{site}` in the socket's path becomes the site's name."""

    keeper_socket: str
    sites: dict[str, XenSite]
    guest: str = ""
    checkpoint_interval_ms: Annotated[int, Meta(ge=10, le=60000, description="milliseconds from 10 to 60000")] = 200
    stall_seconds: Annotated[float, Meta(ge=0.05, le=60, description="seconds from 0.05 to 60")] = 0.35
    silence_seconds: Annotated[float, Meta(ge=0.1, le=600, description="seconds from 0.1 to 600")] = 5.0
    sync_seconds: Annotated[float, Meta(ge=1, le=3600, description="seconds from 1 to 3600")] = 120.0
    timeout_seconds: Annotated[float, Meta(ge=0.1, le=60, description="seconds from 0.1 to 60")] = 5.0


class Service(_Table, frozen=True):
    """`[services.NAME]`: one protected process or machine, and its two client tunnels."""

    driver: str
    bridge: str
    t2_key: GreKey
    t3_key: GreKey
    address: str
    degraded_after_seconds: Annotated[float, Meta(gt=0, le=3600, description="seconds up to 3600")] | None = None
    buffering: Annotated[Literal["none", "full", "realtime"], Meta(description='"none", "full" or "realtime"')] = "none"
    output: Output | None = None
    exec: Exec | None = None
    colo: Colo | None = None
    xen: Xen | None = None

    @property
    def late_after_seconds(self) -> float | None:
        """A protected copy without a checkpoint for longer is degraded; None: nobody knows how often they come."""
        if self.degraded_after_seconds is None and self.colo is not None:
            return max(LATE_SECONDS_MIN, LATE_INTERVALS * self.colo.checkpoint_interval_ms / 1000)
        return self.degraded_after_seconds


class Detection(_Table, frozen=True):
    """`[detection]`: how long silence must last. The defaults suit one LAN."""

    interval_seconds: Annotated[float, Meta(ge=0.001, le=60, description="seconds from 0.001 to 60")] = 0.02
    multiplier: Annotated[int, Meta(ge=2, le=50, description="a whole number from 2 to 50")] = 3
    floor_seconds: Annotated[float, Meta(ge=0, le=600, description="seconds from 0 to 600")] = 0.0
    fence_after_seconds: Annotated[float, Meta(gt=0, le=3600, description="seconds up to 3600")] = 1.0
    unanswered_seconds: Annotated[float, Meta(gt=0, le=3600, description="seconds up to 3600")] = 0.5
    ceiling_seconds: Annotated[float, Meta(gt=0, le=3600, description="seconds up to 3600")] | None = None
    false_silences_per_day: Annotated[float, Meta(ge=0.001, le=1000, description="a number from 0.001 to 1000")] = 1.0

    @property
    def window_seconds(self) -> float:
        """A site that shows no life for this long is down, in one observer's eyes."""
        return max(self.interval_seconds * self.multiplier, self.floor_seconds)

    @property
    def longest_window_seconds(self) -> float:
        """The window never widens beyond this, whatever is measured."""
        return self.fence_after_seconds if self.ceiling_seconds is None else self.ceiling_seconds

    @property
    def limits(self) -> Limits:
        """Between what the windows move."""
        return Limits(
            self.interval_seconds, self.window_seconds, self.longest_window_seconds, self.false_silences_per_day
        )


class Runtime(_Table, frozen=True):
    """`[runtime]`: what the agents ask of the kernel."""

    slice_seconds: Annotated[float, Meta(ge=0, le=0.1, description="seconds from 0 to 0.1")] = 0.0001
    realtime_priority: Annotated[int, Meta(ge=0, le=99, description="a whole number from 0 to 99")] = 0
    lock_memory: bool = False


class Deployment(_Table, frozen=True):
    """The whole file."""

    cluster: Cluster
    sites: dict[str, Site]
    groups: dict[str, Group]
    services: dict[str, Service]
    detection: Detection = Detection()
    runtime: Runtime = Runtime()

    def core_groups(self) -> tuple[topology.Group, ...]:
        """Every group as the core knows it, in the order of the file."""
        return tuple(self._core_group(name, group) for name, group in self.groups.items())

    def groups_at(self, site: str) -> tuple[topology.Group, ...]:
        """The groups in which `site` has a part: as a server, a gateway or a voter."""
        return tuple(group for group in self.core_groups() if site in (*group.servers, *group.gateways, *group.voters))

    def services_at(self, site: str) -> tuple[str, ...]:
        """The services that `site` may host."""
        return tuple(
            service.name for group in self.core_groups() if site in group.servers for service in group.services
        )

    def addresses(self) -> dict[str, str]:
        """Underlay address by site."""
        return {name: site.underlay_address for name, site in self.sites.items()}

    def voters(self) -> tuple[str, ...]:
        """Every site that votes in some group, in the order of the file."""
        voting = {voter for group in self.groups.values() for voter in group.all_voters}
        return tuple(site for site in self.sites if site in voting)

    def _core_group(self, name: str, group: Group) -> topology.Group:
        services = tuple(
            topology.Service(
                name=service,
                bridge=self.services[service].bridge,
                t2_key=self.services[service].t2_key,
                t3_key=self.services[service].t3_key,
                late_after_seconds=self.services[service].late_after_seconds,
            )
            for service in group.services
        )
        return topology.Group(
            name=name,
            preferred=group.preferred,
            standby=group.standby,
            gateways=group.gateways,
            voters=group.all_voters,
            services=services,
            automatic=group.policy.automatic,
            hysteresis_seconds=group.policy.hysteresis_seconds,
            failback_after_seconds=group.policy.failback_seconds,
            relief=group.policy.relief == "automatic",
        )
