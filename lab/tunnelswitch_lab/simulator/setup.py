"""What a simulated deployment is made of: sites, group, timing, delays, clocks. Data only."""

from __future__ import annotations

from dataclasses import dataclass, field

from tunnelswitch.core.member import Timing
from tunnelswitch.core.topology import Group, Service

SERVERS = ("primary", "secondary")
GATEWAYS = ("gateway", "branch", *(f"branch{number}" for number in range(2, 16)))
ADDRESSES = {
    site: f"10.9.0.{index}" for index, site in enumerate((*SERVERS, *GATEWAYS[:2], "witness", *GATEWAYS[2:]), start=1)
}
SERVICES = (Service("pbx", "br-svc", 2, 3), Service("db", "br-svc2", 4, 5))
TIMING = Timing(interval_seconds=0.01, window_seconds=0.03, fence_after_seconds=0.5, unanswered_seconds=0.2)
GROUP = Group(
    name="voip",
    preferred="primary",
    standby="secondary",
    gateways=("gateway",),
    voters=(*SERVERS, "gateway"),
    services=SERVICES[:1],
    hysteresis_seconds=2.0,
)


@dataclass(frozen=True, slots=True)
class Delays:
    """How long the parts take when nothing is wrong, in seconds."""

    bus: float = 0.0005
    store: float = 0.002
    commit: float = 0.003
    follow: float = 0.002
    driver: float = 0.003
    election: float = 0.3
    clients_look: float = 0.1


@dataclass(frozen=True, slots=True)
class Setup:
    """One deployment.

    Attributes:
        witnesses: sites that are voters only.
        clock_rates: seconds that a site's clock shows per true second; 1 where not named.
        protected: does the story begin with a standby in sync, or while it is still on its way?
        watchdogs: a server's host dies when its agent does not say for long that it is fit (PROTOCOL A3).
    """

    group: Group = GROUP
    timing: Timing = TIMING
    delays: Delays = Delays()
    witnesses: tuple[str, ...] = ()
    clock_rates: dict[str, float] = field(default_factory=dict)
    protected: bool = True
    watchdogs: bool = False

    @property
    def sites(self) -> tuple[str, ...]:
        return (*self.group.servers, *self.group.gateways, *self.witnesses)

    @property
    def replicas(self) -> tuple[str, ...]:
        """Where the epoch store's three replicas are."""
        return tuple(dict.fromkeys((*self.group.gateways[:1], *self.witnesses[:1], *self.group.servers)))[:3]
