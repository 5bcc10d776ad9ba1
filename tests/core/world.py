"""Three sites in virtual time: the real machines, and a world that behaves where real parts would be too slow.

The bus delivers between connected sites after a fixed delay, the epoch store does compare-and-set, each OVSDB honours
the guard, BFD notices a cut after a window, and `answering_copies` follows a client's packet through the tunnels that
are really there. Tests ask who answers the client, not which calls were made.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tunnelswitch.core import actions, events, facts
from tunnelswitch.core.deciding import GroupDecider
from tunnelswitch.core.evidence import Evidence
from tunnelswitch.core.facts import Path, Protection
from tunnelswitch.core.gate import Gate
from tunnelswitch.core.gateway import SiteAgent
from tunnelswitch.core.hosting import HostedGroup
from tunnelswitch.core.member import Member, Timing
from tunnelswitch.core.server import ServerAgent
from tunnelswitch.core.stamp import Stamp
from tunnelswitch.core.switcher import Switcher
from tunnelswitch.core.topology import Group, Service, tunnel_ends

SITES = ("primary", "secondary", "gateway")
TIMING = Timing(interval_seconds=0.01, window_seconds=0.03, fence_after_seconds=0.5, unanswered_seconds=0.2)
GROUP = Group(
    name="voip",
    preferred="primary",
    standby="secondary",
    gateways=("gateway",),
    voters=SITES,
    services=(Service("pbx", "br-svc", 2, 3),),
    hysteresis_seconds=2.0,
)
ADDRESSES = {"primary": "10.9.0.1", "secondary": "10.9.0.2", "gateway": "10.9.0.3"}
BUS_SECONDS = 0.0005
STORE_SECONDS = 0.002
SWITCH_SECONDS = 0.005
PROMOTE_SECONDS = 0.003


@dataclass
class Copy:
    """One copy of the service."""

    run: str
    role: str
    peer_lost: bool = False

    @property
    def alive(self) -> bool:
        return self.role != "stopped"


@dataclass
class Ovsdb:
    """What one site's OVSDB holds, as vswitchd follows it."""

    stored: dict[str, Stamp] = field(default_factory=dict)
    present: frozenset[str] = frozenset()
    up: bool = True


class World:
    """Three sites, one group, one service."""

    def __init__(self, group: Group = GROUP) -> None:
        self.group = group
        self.now = 1000.0
        self.cut: set[frozenset[str]] = set()
        self.dead: set[str] = set()
        self.store: dict[str, tuple[facts.GroupRecord, int]] = {}
        self.store_up = True
        self.ovsdb = {site: Ovsdb() for site in SITES}
        self.copies = {"primary": Copy("run-p", "active"), "secondary": Copy("run-s", "standby")}
        self.promote_fails = False
        self.published: list[tuple[float, str, actions.Message]] = []
        self.answered_by: list[tuple[float, frozenset[str]]] = []
        self.machines: dict[str, ServerAgent | SiteAgent | Switcher] = {}
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._starts = itertools.count(1)
        record = facts.GroupRecord(
            group=group.name, stamp=Stamp(1, "init"), active="primary", previous="primary", in_sync=False,
            reason=facts.Reason.INIT, voters=group.voters, gateways=group.gateways,
        )  # fmt: skip
        self.store[group.name] = (record, 1)

    # ------------------------------------------------------------------ machines

    def start(self, *names: str) -> None:
        """Start (or start again) processes: a site's name is its agent, `switcher` stands at the gateway."""
        for name in names:
            incarnation = f"i{next(self._starts)}"
            self.dead.discard(name)
            self.machines[name] = self._build(name, incarnation)
            site = self.site_of(name)
            self._seen(site)
            for other in SITES:
                if other != site:
                    self.tell(name, events.PathChanged(other, Path.UP if self.connected(site, other) else Path.DOWN))
            if site in self.copies:
                self.service_seen(site)

    def _build(self, name: str, incarnation: str) -> ServerAgent | SiteAgent | Switcher:
        site = self.site_of(name)
        gate = Gate(self.group, site, tunnel_ends(self.group, site, ADDRESSES))
        if name == "switcher":
            evidence = Evidence(self.group, site, TIMING)
            decider = GroupDecider(evidence, gate, decider=f"{site}.{incarnation}", unix_offset_seconds=0.0)
            return Switcher((decider,), age_max_seconds=TIMING.age_max_seconds)
        others = tuple(other for other in SITES if other != site)
        member = Member(site, incarnation, (self.group,), others, TIMING, self.now)
        if site in self.group.servers:
            return ServerAgent(member, (HostedGroup(member, gate),))
        return SiteAgent(member)

    @staticmethod
    def site_of(name: str) -> str:
        return "gateway" if name == "switcher" else name

    # ------------------------------------------------------------------ time

    def at(self, delay: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now + delay, next(self._order), what))

    def run(self, seconds: float) -> None:
        """Let virtual time pass, following the client's packet after every step."""
        end = self.now + seconds
        while True:
            due = [(machine.deadline(), name) for name, machine in self.machines.items() if name not in self.dead]
            timers = [(max(time, self.now), name) for time, name in due if time is not None]
            timer = min(timers, default=(float("inf"), ""))
            event_at = self._queue[0][0] if self._queue else float("inf")
            step_at = min(timer[0], event_at)
            if step_at > end:
                self.now = end
                return
            self.now = step_at
            if event_at <= timer[0]:
                heapq.heappop(self._queue)[2]()
            else:
                self.machines[timer[1]].expire(self.now)
                self._perform(timer[1])
                after = self.machines[timer[1]].deadline()
                assert after is None or after > self.now, f"{timer[1]} spins at {self.now}"
            self.answered_by.append((self.now, self.answering_copies()))

    def tell(self, name: str, event: object) -> None:
        if name in self.dead or name not in self.machines:
            return
        self.machines[name].receive(event, self.now)
        self._perform(name)

    # ------------------------------------------------------------------ actions

    def _perform(self, name: str) -> None:
        for action in self.machines[name].take_actions():
            self._do(name, action)

    def _do(self, name: str, action: actions.Action) -> None:
        site = self.site_of(name)
        match action:
            case actions.Publish():
                self.published.append((self.now, name, action.message))
                for other in self.machines:
                    if self.connected(site, self.site_of(other)):
                        message = action.message
                        self.at(BUS_SECONDS, lambda other=other, message=message: self.tell(other, message))
            case actions.ReadRecord():
                self.at(STORE_SECONDS, lambda: self._read(name, action))
            case actions.CommitRecord():
                self.at(STORE_SECONDS, lambda: self._commit(name, action))
            case actions.ApplyTunnels():
                self.at(SWITCH_SECONDS, lambda: self._apply(name, action, self.now))
            case actions.Promote():
                self.at(PROMOTE_SECONDS, lambda: self._promote(name, action))
            case actions.Fence():
                self.at(PROMOTE_SECONDS, lambda: self._fence(name, action))
            case actions.PinLeader():
                pass

    def _store_reachable(self, site: str) -> bool:
        return self.store_up and any(self.connected(site, other) for other in SITES if other != site)

    def _read(self, name: str, action: actions.ReadRecord) -> None:
        if not self._store_reachable(self.site_of(name)):
            self.tell(name, events.ReadFailed(action.group, "no answer"))
            return
        record, revision = self.store.get(action.group, (None, 0))
        self.tell(name, events.RecordRead(action.group, record, revision))

    def _commit(self, name: str, action: actions.CommitRecord) -> None:
        group = action.record.group
        if not self._store_reachable(self.site_of(name)):
            self.tell(name, events.CommitUnknown(group, "no answer"))
        elif self.store[group][1] != action.revision:
            self.tell(name, events.CommitRefused(group))
        else:
            self.store[group] = (action.record, action.revision + 1)
            self.tell(name, events.Committed(action.record, action.revision + 1))

    def _apply(self, name: str, action: actions.ApplyTunnels, sent_at: float) -> None:
        site = self.site_of(name)
        ovsdb = self.ovsdb[site]
        if name in self.dead:
            return
        if not ovsdb.up:
            self.tell(name, events.SwitchFailed(action.group, "OVSDB is gone"))
        elif ovsdb.stored.get(action.group) != action.expected:
            self.tell(name, events.SwitchConflict(action.group, ovsdb.stored.get(action.group)))
        else:
            added = {end.interface for end in action.add}
            removed = {end.interface for end in action.remove}
            ovsdb.stored[action.group] = action.stamp
            ovsdb.present = frozenset((ovsdb.present - removed) | added)
            self._seen(site)
            self.tell(
                name,
                events.SwitchApplied(action.group, action.stamp, ovsdb.present, sent_at, self.now, self.now),
            )

    def _seen(self, site: str) -> None:
        ovsdb = self.ovsdb[site]
        for name in self.machines:
            if self.site_of(name) == site:
                self.tell(name, events.DataPlaneSeen(dict(ovsdb.stored), ovsdb.present))

    def _promote(self, name: str, action: actions.Promote) -> None:
        copy = self.copies[name]
        if self.promote_fails or not copy.alive:
            self.tell(name, events.PromotionFailed(action.service, "it would not start"))
            return
        copy.role = "active"
        self.tell(name, events.Promoted(action.service, copy.run, PROMOTE_SECONDS))
        self.service_seen(name)

    def _fence(self, name: str, action: actions.Fence) -> None:
        if self.copies[name].run == action.run:
            self.copies[name].role = "stopped"
        self.tell(name, events.RunExited(action.service, action.run))
        self.tell(name, events.FenceDone(action.service, action.run))

    def service_seen(self, site: str) -> None:
        copy = self.copies[site]
        other = self.copies["secondary" if site == "primary" else "primary"]
        linked = other.alive and not copy.peer_lost and other.role != copy.role
        if copy.role == "active":
            protection = Protection.PROTECTED if linked else Protection.UNPROTECTED
        else:
            protection = Protection.PROTECTED if copy.alive else Protection.STOPPED
        seen = events.ServiceSeen("pbx", copy.run, copy.role, protection, protection is Protection.PROTECTED)
        self.tell(site, seen)

    # ------------------------------------------------------------------ faults

    def connected(self, one: str, other: str) -> bool:
        return one == other or frozenset((one, other)) not in self.cut

    def cut_link(self, one: str, other: str) -> None:
        self.cut.add(frozenset((one, other)))
        self.at(TIMING.window_seconds, lambda: self._paths(one, other))

    def heal_link(self, one: str, other: str) -> None:
        self.cut.discard(frozenset((one, other)))
        self.at(TIMING.window_seconds, lambda: self._paths(one, other))

    def _paths(self, one: str, other: str) -> None:
        path = Path.UP if self.connected(one, other) else Path.DOWN
        for name in list(self.machines):
            if name == one:
                self.tell(name, events.PathChanged(other, path))
            elif name == other:
                self.tell(name, events.PathChanged(one, path))

    def isolate(self, site: str) -> None:
        for other in SITES:
            if other != site:
                self.cut_link(site, other)

    def rejoin(self, site: str) -> None:
        for other in SITES:
            if other != site:
                self.heal_link(site, other)

    def kill(self, *names: str) -> None:
        self.dead.update(names)

    def lose_host(self, site: str) -> None:
        self.kill(site)
        self.copies[site].role = "stopped"
        self.isolate(site)

    def crash_service(self, site: str) -> None:
        copy = self.copies[site]
        copy.role = "stopped"
        self.tell(site, events.RunExited("pbx", copy.run))

    def lose_checkpoints(self) -> None:
        for site, copy in self.copies.items():
            copy.peer_lost = True
            self.service_seen(site)

    def unplug(self, site: str, interface: str) -> None:
        """Somebody removes a port by hand."""
        self.ovsdb[site].present -= {interface}
        self._seen(site)

    # ------------------------------------------------------------------ what the client sees

    def answering_copies(self) -> frozenset[str]:
        """Follow a client's packet: gateway's tunnels, the far end's tunnel, a copy that runs as active."""
        answering = set()
        for end in tunnel_ends(self.group, "gateway", ADDRESSES):
            site = end.remote_site
            if end.interface not in self.ovsdb["gateway"].present or not self.connected("gateway", site):
                continue
            far = {far.interface for far in tunnel_ends(self.group, site, ADDRESSES)}
            if far & self.ovsdb[site].present and self.copies[site].role == "active":
                answering.add(site)
        return frozenset(answering)

    @property
    def record(self) -> facts.GroupRecord:
        return self.store[self.group.name][0]

    def said(self, kind: type, since: float = 0.0) -> list[actions.Message]:
        return [message for at, _, message in self.published if isinstance(message, kind) and at >= since]

    def downtime(self, since: float) -> float:
        """Longest time without any answer since then."""
        longest, last = 0.0, since
        for at, answering in self.answered_by:
            if at >= since and answering:
                longest, last = max(longest, at - last), at
        return longest


def protected_world(group: Group = GROUP) -> World:
    """All started, the standby in sync, the client answered by the primary."""
    world = World(group)
    world.start("primary", "secondary", "gateway", "switcher")
    world.run(3.0)
    assert world.record.in_sync, world.said(facts.Decision)
    assert world.answering_copies() == {"primary"}
    return world


def with_policy(**changes: object) -> Group:
    return replace(GROUP, **changes)  # type: ignore[arg-type]
