"""A few sites in virtual time: the real machines, and a world that behaves where real parts would be too slow.

The bus delivers between connected sites after a fixed delay, the epoch store does compare-and-set, each OVSDB honours
the guard, BFD notices a cut after a window, and `answering_copies` follows a client's packet through the tunnels that
are really there. Tests ask who answers the client, not which calls were made. What can go wrong is in `world_faults`.
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
from tunnelswitch.core.following import Follower
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
ADDRESSES = {"primary": "10.9.0.1", "secondary": "10.9.0.2", "gateway": "10.9.0.3", "branch": "10.9.0.4"}
BUS_SECONDS = 0.0005
STORE_SECONDS = 0.002
SWITCH_SECONDS = 0.005
PROMOTE_SECONDS = 0.003
DELAYS = {"bus": BUS_SECONDS, "store": STORE_SECONDS, "switch": SWITCH_SECONDS, "driver": PROMOTE_SECONDS}


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


Machine = ServerAgent | SiteAgent | Switcher


class World:
    """Two server sites and one gateway or more, one group, one service."""

    def __init__(self, group: Group = GROUP) -> None:
        self.group = group
        self.sites = (*group.servers, *group.gateways)
        self._ends = {site: tunnel_ends(group, site, ADDRESSES) for site in self.sites}
        self.now = 1000.0
        self.cut: set[frozenset[str]] = set()
        self.dead: set[str] = set()
        self.store: dict[str, tuple[facts.GroupRecord, int]] = {}
        self.store_up = True
        self.ovsdb = {site: Ovsdb() for site in self.sites}
        self.copies = {"primary": Copy("run-p", "active"), "secondary": Copy("run-s", "standby")}
        self.promote_fails = False
        self.published: list[tuple[float, str, actions.Message]] = []
        self.answered_by: list[tuple[float, frozenset[str]]] = []
        self.machines: dict[str, Machine] = {}
        self._deadlines: dict[str, float | None] = {}
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
        """Start (or start again) processes: a site's name is its agent, `switcher[@SITE]` a gateway's switcher."""
        for name in names:
            incarnation = f"i{next(self._starts)}"
            self.dead.discard(name)
            self.machines[name] = self._build(name, incarnation)
            self._deadlines[name] = self.now
            site = self.site_of(name)
            self._seen(site)
            for other in self.sites:
                if other != site:
                    self.tell(name, events.PathChanged(other, Path.UP if self.connected(site, other) else Path.DOWN))
            if site in self.copies:
                self.service_seen(site)

    def _build(self, name: str, incarnation: str) -> Machine:
        site = self.site_of(name)
        gate = Gate(self.group, site, self._ends[site])
        if name.startswith("switcher"):
            evidence = Evidence(self.group, site, TIMING)
            decider = GroupDecider(evidence, gate, decider=f"{site}.{incarnation}", unix_offset_seconds=0.0)
            return Switcher((decider,), self.sites, age_max_seconds=TIMING.age_max_seconds)
        others = tuple(other for other in self.sites if other != site)
        member = Member(site, incarnation, (self.group,), others, TIMING, self.now)
        if site in self.group.servers:
            return ServerAgent(member, (HostedGroup(member, gate),))
        return SiteAgent(member, (Follower(member, gate),))

    @staticmethod
    def switcher_at(gateway: str) -> str:
        return "switcher" if gateway == "gateway" else f"switcher@{gateway}"

    @staticmethod
    def site_of(name: str) -> str:
        return "gateway" if name == "switcher" else name.removeprefix("switcher@")

    # ------------------------------------------------------------------ time

    def at(self, delay: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now + delay, next(self._order), what))

    def run(self, seconds: float) -> None:
        """Let virtual time pass, following the client's packet after every step."""
        end = self.now + seconds
        while True:
            timer = self._next_timer()
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
            self.observe()

    def observe(self) -> None:
        """After every step: who answers the client now?"""
        self.answered_by.append((self.now, self.answering_copies()))

    def _next_timer(self) -> tuple[float, str]:
        due = ((time, name) for name, time in self._deadlines.items() if name not in self.dead)
        timers = [(max(time, self.now), name) for time, name in due if time is not None]
        return min(timers, default=(float("inf"), ""))

    def tell(self, name: str, event: object, machine: Machine | None = None) -> None:
        """Feed one event. With `machine`, only if that start of the process is still the one that runs."""
        if name in self.dead or name not in self.machines or (machine and machine is not self.machines[name]):
            return
        self.machines[name].receive(event, self.now)
        self._perform(name)

    def answer(self, name: str, delay: float, work: Callable[[], object]) -> None:
        """Do the work of an action after `delay`, whether its process still lives or not, and tell what it came to."""
        machine = self.machines[name]

        def do() -> None:
            result = work()
            if result is not None:
                self.tell(name, result, machine)

        self.at(delay, do)

    # ------------------------------------------------------------------ actions

    def _perform(self, name: str) -> None:
        for action in self.machines[name].take_actions():
            self._do(name, action)
        self._deadlines[name] = self.machines[name].deadline()

    def _do(self, name: str, action: actions.Action) -> None:
        site = self.site_of(name)
        match action:
            case actions.Publish():
                self.published.append((self.now, name, action.message))
                for other in self.machines:
                    if self.connected(site, self.site_of(other)):
                        self.deliver(name, other, action.message)
            case actions.ReadRecord():
                self.answer(name, self.delay("store"), lambda: self._read(site, action))
            case actions.CommitRecord():
                self.answer(name, self.delay("store"), lambda: self._commit(site, action))
            case actions.ApplyTunnels():
                sent_at = self.now
                self.answer(name, self.delay("switch", site), lambda: self._apply(site, action, sent_at))
            case actions.Promote():
                self.answer(name, self.delay("driver"), lambda: self._promote(site, action))
            case actions.Fence():
                self.answer(name, self.delay("driver"), lambda: self._fence(site, action))
            case actions.PinLeader():
                pass

    def delay(self, kind: str, site: str = "") -> float:
        """How long a part takes."""
        return DELAYS[kind]

    def deliver(self, sender: str, receiver: str, message: actions.Message) -> None:
        self.at(self.delay("bus"), lambda: self.tell(receiver, message))

    def _store_reachable(self, site: str) -> bool:
        return self.store_up and any(self.connected(site, other) for other in self.sites if other != site)

    def _read(self, site: str, action: actions.ReadRecord) -> object:
        if not self._store_reachable(site):
            return events.ReadFailed(action.group, "no answer")
        record, revision = self.store.get(action.group, (None, 0))
        return events.RecordRead(action.group, record, revision)

    def _commit(self, site: str, action: actions.CommitRecord) -> object:
        group = action.record.group
        if not self._store_reachable(site):
            return events.CommitUnknown(group, "no answer")
        if self.store[group][1] != action.revision:
            return events.CommitRefused(group)
        self.store[group] = (action.record, action.revision + 1)
        return events.Committed(action.record, action.revision + 1)

    def _apply(self, site: str, action: actions.ApplyTunnels, sent_at: float) -> object:
        ovsdb = self.ovsdb[site]
        if not ovsdb.up:
            return events.SwitchFailed(action.group, "OVSDB is gone")
        if ovsdb.stored.get(action.group) != action.expected:
            return events.SwitchConflict(action.group, ovsdb.stored.get(action.group), ovsdb.present)
        added = {end.interface for end in action.add}
        removed = {end.interface for end in action.remove}
        ovsdb.stored[action.group] = action.stamp
        ovsdb.present = frozenset((ovsdb.present - removed) | added)
        self._seen(site)
        return events.SwitchApplied(action.group, action.stamp, ovsdb.present, sent_at, self.now, self.now)

    def _seen(self, site: str) -> None:
        ovsdb = self.ovsdb[site]
        for name in self.machines:
            if self.site_of(name) == site and ovsdb.up:
                self.tell(name, events.DataPlaneSeen(dict(ovsdb.stored), ovsdb.present))

    def _promote(self, site: str, action: actions.Promote) -> object:
        copy = self.copies[site]
        if self.promote_fails or not copy.alive:
            return events.PromotionFailed(action.service, "it would not start")
        copy.role = "active"
        self.service_seen(site)
        return events.Promoted(action.service, copy.run, PROMOTE_SECONDS)

    def _fence(self, site: str, action: actions.Fence) -> object:
        if self.copies[site].run == action.run:
            self.copies[site].role = "stopped"
            self.tell(site, events.RunExited(action.service, action.run))
        return events.FenceDone(action.service, action.run)

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
        for other in self.sites:
            if other != site:
                self.cut_link(site, other)

    def rejoin(self, site: str) -> None:
        for other in self.sites:
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
        """Follow clients' packets: the gateways' tunnels, the far ends of them, copies that run as active."""
        answering = set()
        for gateway in self.group.gateways:
            for end in self._ends[gateway]:
                site = end.remote_site
                if end.interface not in self.ovsdb[gateway].present or not self.connected(gateway, site):
                    continue
                far = {far.interface for far in self._ends[site] if far.remote_site == gateway}
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
    return protect(World(group))


def protect(world: World, seconds: float = 3.0) -> World:
    """Start everything and wait until the standby is in sync."""
    world.start(*world.sites, *map(world.switcher_at, world.group.gateways))
    world.run(seconds)
    assert world.record.in_sync, world.said(facts.Decision)
    assert world.answering_copies() == {"primary"}
    return world


def with_policy(**changes: object) -> Group:
    return replace(GROUP, **changes)  # type: ignore[arg-type]
