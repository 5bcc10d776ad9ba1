"""Where clients' packets go: by the tunnel ends that the data planes really have, to copies that really run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tunnelswitch.core.topology import Group, Tunnel, tunnel_ends
from tunnelswitch_lab.simulator.hypervisor import Hypervisor
from tunnelswitch_lab.simulator.network import Network
from tunnelswitch_lab.simulator.setup import ADDRESSES
from tunnelswitch_lab.simulator.switches import Switch


@dataclass(frozen=True, slots=True)
class Way:
    """One client tunnel: both its ends must be there."""

    gateway: str
    near: str
    service: str
    site: str
    far: str


@dataclass(frozen=True, slots=True)
class Reached:
    """A copy that clients of `gateway` reach."""

    gateway: str
    service: str
    site: str


class Fabric:
    """Follows clients' packets."""

    def __init__(
        self,
        group: Group,
        network: Network,
        switches: Mapping[str, Switch],
        hypervisors: Mapping[str, Hypervisor],
    ) -> None:
        self._network = network
        self._switches = switches
        self._hypervisors = hypervisors
        self.ends: dict[str, tuple[Tunnel, ...]] = {site: tunnel_ends(group, site, ADDRESSES) for site in switches}
        self.ways = tuple(
            Way(gateway, near.interface, near.service, near.remote_site, far.interface)
            for gateway in group.gateways
            for near in self.ends[gateway]
            for far in self.ends[near.remote_site]
            if far.remote_site == gateway and far.service == near.service
        )

    def joined(self) -> list[Way]:
        """Ways whose ends are both there, whatever the underlay does."""
        switches = self._switches
        return [
            way
            for way in self.ways
            if way.near in switches[way.gateway].followed and way.far in switches[way.site].followed
        ]

    def reached(self) -> frozenset[Reached]:
        """The copies that clients' packets reach now."""
        return frozenset(
            Reached(way.gateway, way.service, way.site)
            for way in self.joined()
            if self._hypervisors[way.service].copies[way.site].role == "active"
            and self._network.connected(way.gateway, way.site)
        )
