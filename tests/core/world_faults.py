"""What can go wrong in the world: a bus that loses, doubles, delays and reorders; cuts of one direction; answers of the
store that never come; an OVSDB slower than its callers wait; processes that stop between two actions, or sleep.

Everything random comes from one seeded generator. After every step the rules that must always hold are checked.
"""

from __future__ import annotations

import random

from world import BUS_SECONDS, GROUP, TIMING, Machine, World

from tunnelswitch.core import actions, events, facts
from tunnelswitch.core.events import LoopLate
from tunnelswitch.core.stamp import Stamp
from tunnelswitch.core.topology import Group

CLIENTS_LOOK_SECONDS = 0.1
RESYNC_SECONDS = 0.3
TOLD = facts.Decision | facts.Epoch | facts.Applied | facts.Proof | facts.Serving | facts.PromoteFailed | facts.Handover


class BrokenRuleError(AssertionError):
    """A rule that must always hold does not."""


class FaultyWorld(World):
    """A world with faults. `trace` tells the story to whoever must understand a failure."""

    def __init__(self, group: Group = GROUP, seed: int = 0) -> None:
        super().__init__(group)
        self.random = random.Random(seed)
        self.trace: list[str] = []
        self.loss = self.doubled = self.shuffle_seconds = 0.0
        self.one_way_cut: set[tuple[str, str]] = set()
        self.acks_lost = False
        self.switch_seconds: dict[str, float] = {}
        self._paused: dict[str, list[tuple[object, Machine | None]]] = {}
        self._crash_in: dict[str, int] = {}
        self._marks: dict[str, Stamp] = {}
        self._unanswered_since: float | None = None
        self._runs = 0
        self.commits = 0
        self.at(CLIENTS_LOOK_SECONDS, self._look_at_clients)

    def note(self, text: str) -> None:
        self.trace.append(f"{self.now - 1000.0:8.4f} {text}")

    # ------------------------------------------------------------------ rules

    def observe(self) -> None:
        answering = self.answering_copies()
        self._unanswered_since = None if answering else self._unanswered_since or self.now
        if not self.answered_by or self.answered_by[-1][1] != answering:
            self.note(f"ANSWERED BY {sorted(answering)}")
            self.answered_by.append((self.now, answering))
        if len(answering) > 1:
            raise BrokenRuleError(f"two copies answer clients: {sorted(answering)}")
        for site in self.sites:
            ovsdb = self.ovsdb[site]
            if site in self.group.gateways and len(ovsdb.present) > 1:
                raise BrokenRuleError(f"{site} has several client tunnels: {sorted(ovsdb.present)}")
            stored = ovsdb.stored.get(self.group.name)
            if stored is not None and stored < self._marks.get(site, stored):
                raise BrokenRuleError(f"{site} went back from {self._marks[site]} to {stored}")
            if stored is not None:
                self._marks[site] = stored

    def _look_at_clients(self) -> None:
        """Gateways see whether clients get answers."""
        since = self._unanswered_since
        for gateway in self.group.gateways:
            self.tell(gateway, events.ClientsSeen("pbx", 0.0 if since is None else self.now - since))
        self.at(CLIENTS_LOOK_SECONDS, self._look_at_clients)

    # ------------------------------------------------------------------ bus and store

    def connected(self, one: str, other: str) -> bool:
        ways = ((one, other), (other, one))
        return super().connected(one, other) and not self.one_way_cut.intersection(ways)

    def deliver(self, sender: str, receiver: str, message: actions.Message) -> None:
        for _ in range(1 + (self.random.random() < self.doubled)):
            if sender == receiver or self.random.random() >= self.loss:
                delay = BUS_SECONDS + self.random.random() * self.shuffle_seconds
                self.at(delay, lambda: self.tell(receiver, message))

    def hears(self, source: str, target: str) -> bool:
        """Does the bus carry from one site to the other? A cut of one direction leaves the other way working."""
        return super().connected(source, target) and (source, target) not in self.one_way_cut

    def _publish(self, name: str, message: actions.Message) -> None:
        self.published.append((self.now, name, message))
        if isinstance(message, TOLD):
            self.note(f"{name}: {_short(message)}")
        for other in self.machines:
            if self.hears(self.site_of(name), self.site_of(other)):
                self.deliver(name, other, message)

    def _commit(self, site: str, action: actions.CommitRecord) -> object:
        result = super()._commit(site, action)
        if not isinstance(result, events.Committed):
            return result
        self.commits += 1
        self.note(f"store: {action.record.stamp} active {action.record.active} in_sync {action.record.in_sync}")
        for other in self.machines:
            if self._store_reachable(self.site_of(other)):
                self.deliver("store", other, facts.Epoch(action.record))
        if self.acks_lost:
            return self.random.choice([None, events.CommitUnknown(self.group.name, "no answer")])
        return result

    # ------------------------------------------------------------------ processes

    def _perform(self, name: str) -> None:
        for action in self.machines[name].take_actions():
            if name in self._crash_in:
                self._crash_in[name] -= 1
                if self._crash_in[name] < 0:
                    del self._crash_in[name]
                    self.note(f"{name} crashes before {type(action).__name__}")
                    self.kill(name)
                    break
            self._do(name, action)
        self._deadlines[name] = self.machines[name].deadline()

    def _do(self, name: str, action: actions.Action) -> None:
        site = self.site_of(name)
        if isinstance(action, actions.Publish):
            self._publish(name, action.message)
        elif isinstance(action, actions.ApplyTunnels) and self.delay("switch", site) >= action.deadline_seconds:
            failed = events.SwitchFailed(action.group, "no answer in time")
            self.answer(name, action.deadline_seconds, lambda: failed)
            self.at(self.delay("switch", site), lambda: self._land(site, action))
        else:
            super()._do(name, action)

    def _land(self, site: str, action: actions.ApplyTunnels) -> None:
        self.note(f"{site}: OVSDB takes {action.stamp} after its caller gave up")
        self._apply(site, action, self.now)

    def delay(self, kind: str, site: str = "") -> float:
        slow = self.switch_seconds.get(site) if kind == "switch" else None
        return super().delay(kind, site) if slow is None else slow

    def crash_in(self, name: str, actions_left: int) -> None:
        """The process dies after so many further actions, in the midst of a batch."""
        self._crash_in[name] = actions_left

    def start(self, *names: str) -> None:
        for name in names:
            self._crash_in.pop(name, None)
            self._paused.pop(name, None)
            super().start(name)

    def pause(self, name: str) -> None:
        """SIGSTOP: events wait, timers run late."""
        if name not in self.dead:
            self._paused.setdefault(name, [])

    def resume(self, name: str) -> None:
        waiting = self._paused.pop(name, None)
        if waiting is None or name in self.dead:
            return
        deadline = self.machines[name].deadline()
        if deadline is not None and self.now > deadline:
            self.tell(name, LoopLate(self.now - deadline))
        for event, machine in waiting:
            self.tell(name, event, machine)

    def tell(self, name: str, event: object, machine: Machine | None = None) -> None:
        if name in self._paused:
            self._paused[name].append((event, machine))
        else:
            super().tell(name, event, machine)

    def _next_timer(self) -> tuple[float, str]:
        asleep = self.dead
        self.dead = asleep | self._paused.keys()
        timer = super()._next_timer()
        self.dead = asleep
        return timer

    # ------------------------------------------------------------------ network, copies

    def cut_one_way(self, source: str, target: str) -> None:
        """BFD needs both directions; the bus goes on in the other one."""
        self.one_way_cut.add((source, target))
        self.at(TIMING.window_seconds, lambda: self._paths(source, target))

    def heal_one_way(self, source: str, target: str) -> None:
        self.one_way_cut.discard((source, target))
        self.at(TIMING.window_seconds, lambda: self._paths(source, target))

    def lose_ovsdb(self, site: str) -> None:
        self.ovsdb[site].up = False
        for name in self.machines:
            if self.site_of(name) == site:
                self.tell(name, events.DataPlaneLost("gone"))

    def regain_ovsdb(self, site: str) -> None:
        self.ovsdb[site].up = True
        self._seen(site)

    def replay(self, seconds: float) -> None:
        """Everything said in the last so many seconds is said again, at once."""
        for at, name, message in list(self.published):
            if at >= self.now - seconds:
                for other in self.machines:
                    if other != name:
                        self.deliver(name, other, message)

    def revive(self, site: str) -> None:
        """A stopped copy comes back as a standby of the other one, with a new run."""
        copy, other = self.copies[site], self.copies[self.group.other(site)]
        if copy.alive or other.role != "active":
            return
        self._runs += 1
        copy.run, copy.role, copy.peer_lost = f"{site[0]}{self._runs}", "standby", False
        self.note(f"{site}: {copy.run} starts as standby")
        self.copies_seen()

    def copies_seen(self) -> None:
        for site in self.copies:
            self.service_seen(site)

    def heal(self) -> None:
        """Everything works again."""
        self.note("HEALED")
        self.loss = self.doubled = self.shuffle_seconds = 0.0
        self.store_up, self.acks_lost, self.promote_fails = True, False, False
        self.switch_seconds.clear()
        for site in self.sites:
            self.regain_ovsdb(site)
        for source, target in list(self.one_way_cut):
            self.heal_one_way(source, target)
        for site in self.sites:
            self.rejoin(site)
        for name in list(self._paused):
            self.resume(name)
        self.start(*sorted(self.dead))
        for copy in self.copies.values():
            copy.peer_lost = False
        for site in self.copies:
            self.at(RESYNC_SECONDS, lambda site=site: self.revive(site))
        self.at(2 * RESYNC_SECONDS, self.copies_seen)


def _short(message: object) -> str:
    match message:
        case facts.Decision():
            return f"{message.action} [{message.stamp}] {message.reason}"
        case facts.Epoch():
            return f"epoch {message.record.stamp} active {message.record.active}"
        case facts.Proof():
            return f"proof {message.kind} {message.stamp} {message.run}"
        case facts.Applied():
            return f"applied {message.stamp} {message.tunnels_present}"
        case _:
            return f"{type(message).__name__} {getattr(message, 'stamp', '')}"
