"""Which client tunnels exist where: the paper's Fig. 3, for many services and gateways.

At a gateway a service has two possible tunnels, T2 to its preferred site and T3 to its standby site; Algorithm 1 picks
one. At a server site it has one end per gateway, present while that site is the active one: the site's gate (PROTOCOL
R2), and the fence that always works. Services of one group may share their tunnels: they move together anyway, and
that costs what one service costs. Pure: built once from the deployment file.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunnelswitch.core.algorithm1 import T2, T3, switch_tunnels


@dataclass(frozen=True, slots=True)
class Tunnel:
    """One end of a client tunnel. `interface` is the OVS port and interface name (15 characters at most); `service`
    gave it that name, the first one of those that share it."""

    interface: str
    label: str
    service: str
    group: str
    bridge: str
    remote_site: str
    remote_address: str
    key: int


@dataclass(frozen=True, slots=True)
class Service:
    """`late_after_seconds`: protected, but without a checkpoint for longer, it is degraded; None: age is no sign."""

    name: str
    bridge: str
    t2_key: int
    t3_key: int
    late_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Services that move together. The epoch belongs to the group. `failback_after_seconds`: the group goes back to its
    preferred site by itself when that has been in sync for so long; None: an operator moves it. `relief`: it leaves a
    copy that nears its memory limit."""

    name: str
    preferred: str
    standby: str
    gateways: tuple[str, ...]
    voters: tuple[str, ...]
    services: tuple[Service, ...]
    automatic: bool = True
    hysteresis_seconds: float = 5.0
    failback_after_seconds: float | None = None
    relief: bool = False

    @property
    def servers(self) -> tuple[str, str]:
        return (self.preferred, self.standby)

    def other(self, site: str) -> str:
        """The server site that is not `site`."""
        return self.standby if site == self.preferred else self.preferred

    def carriers(self) -> tuple[Service, ...]:
        """One service for each pair of tunnels: the first of those that name the same two keys."""
        first: dict[tuple[int, int], Service] = {}
        for service in self.services:
            first.setdefault((service.t2_key, service.t3_key), service)
        return tuple(first.values())


def _interface(label: str, service: str, gateway_index: int) -> str:
    suffix = f".{gateway_index}" if gateway_index else ""
    return f"{label.lower()}-{service}{suffix}"


def tunnel_ends(group: Group, site: str, addresses: dict[str, str]) -> tuple[Tunnel, ...]:
    """Every client tunnel end that `site` may ever hold for `group`, present or not."""
    ends: list[Tunnel] = []
    for service in group.carriers():
        for label, server, key in ((T2, group.preferred, service.t2_key), (T3, group.standby, service.t3_key)):
            if site in group.gateways:
                remotes = [(0, server)]
            elif site == server:
                remotes = list(enumerate(group.gateways))
            else:
                continue
            ends.extend(
                Tunnel(
                    interface=_interface(label, service.name, index),
                    label=label,
                    service=service.name,
                    group=group.name,
                    bridge=service.bridge,
                    remote_site=remote,
                    remote_address=addresses[remote],
                    key=key,
                )
                for index, remote in remotes
            )
    return tuple(ends)


def wanted_ends(
    group: Group, site: str, ends: tuple[Tunnel, ...], present: frozenset[str], *, running: str | None
) -> frozenset[str]:
    """The interfaces that `site` must hold when `running` serves; `None` (nobody may) leaves none.

    A gateway follows Algorithm 1 pair by pair; a server holds its ends while it is the running one.
    """
    if running is None:
        return frozenset()
    if site not in group.gateways:
        return frozenset(end.interface for end in ends) if running == site else frozenset()
    pairs: dict[str, dict[str, str]] = {}
    for end in ends:
        pairs.setdefault(end.service, {})[end.label] = end.interface
    wanted: set[str] = set()
    for mine in pairs.values():
        labels = frozenset(label for label, interface in mine.items() if interface in present)
        change = switch_tunnels(running=running, primary=group.preferred, present=labels)
        wanted.update(mine[label] for label in (labels | change.add) - change.remove)
    return frozenset(wanted)
