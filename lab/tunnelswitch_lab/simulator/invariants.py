"""What must always hold (docs/protocol.md, "Invariants"), judged from outside: by what the parts really are.

Each rule is a function that returns what is wrong, or None. It reads the world and what was noted of its past, never a
machine's mind. A rule that does not hold ends the schedule with BrokenRuleError, which carries the rule's name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunnelswitch.core.actions import Fence, Promote
from tunnelswitch.core.facts import GroupRecord, Reason
from tunnelswitch.core.stamp import Stamp
from tunnelswitch_lab.simulator.hypervisor import Copy
from tunnelswitch_lab.simulator.rules_of_records import COMMIT_RULES
from tunnelswitch_lab.simulator.rules_of_tunnels import STATE_RULES, SWITCH_RULES, decided_on, kept_until_served
from tunnelswitch_lab.simulator.switches import Taken
from tunnelswitch_lab.simulator.words import Words

if TYPE_CHECKING:
    from tunnelswitch_lab.simulator.world import World


class BrokenRuleError(AssertionError):
    """An invariant does not hold. `rule` is its name."""

    def __init__(self, rule: str, what: str) -> None:
        super().__init__(f"{rule}: {what}")
        self.rule = rule


class Judge:
    """Keeps of the past what the rules need, and applies them.

    Attributes:
        records: every record that was ever acknowledged or stored, by stamp.
        opened: the site that opened its gate first, by (epoch, decision).
        promised: by site the stamp under which it, being the active, closed its gate.
        wishes: (stamp, target) of every move that an operator asked for.
        committed_at, superseded_at: when the store took this record, and another one in its place.
        sent_at: when a process first asked the store to take the record of this stamp.
        stored_at: by site when its OVSDB took the stamp that it holds.
        exposed: (epoch, site) of every site whose whole group ran behind a gate that OVSDB held open.
        served_until: when clients reached a site last.
        last_served: the run that clients reached last, by service.
        moved_unanswered: when an active that lived was asked to hand over, in a row, with no client answered between.
        words: judges what sites say of each other.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.records: dict[Stamp, GroupRecord] = {world.record.stamp: world.record}
        self.committed_at: dict[Stamp, float] = {world.record.stamp: world.now}
        self.sent_at: dict[Stamp, float] = {}
        self.stored_at: dict[str, float] = {}
        self.exposed: set[tuple[int, str]] = set()
        self.words = Words(self)
        self.opened: dict[int, str] = {world.record.stamp.epoch: world.record.active}
        self.promised: dict[str, Stamp] = {}
        self.last_served = {name: part.copies[world.group.preferred].run for name, part in world.hypervisors.items()}
        self.served_since_commit: set[str] = set()
        self.restored: set[str] = set()
        self.wishes: set[tuple[Stamp, str]] = set()
        self.superseded_at: dict[Stamp, float] = {}
        self.served_until: dict[str, float] = {}
        self.moved_unanswered: list[float] = []
        self._reached: frozenset[str] = frozenset()

    def state(self) -> None:
        """Something changed that clients could see."""
        for name, rule in STATE_RULES.items():
            self.apply(name, rule(self))
        self._note_exposed()
        for one in self.world.reached:
            copy = self.world.hypervisors[one.service].copies[one.site]
            self.last_served[one.service] = copy.run
            self.served_since_commit.add(one.site)
        reached = frozenset(one.site for one in self.world.reached)
        self.served_until.update(dict.fromkeys(self._reached - reached, self.world.now))
        self._reached = reached

    def taken(self, taken: Taken) -> None:
        """An OVSDB took a transaction."""
        for name, rule in SWITCH_RULES.items():
            self.apply(name, rule(self, taken))
        if taken.before != taken.stamp:
            self.stored_at[taken.site] = self.world.now
        record = self.records[taken.stamp]
        if taken.site in self.world.group.servers and record.active == taken.site:
            if taken.present:
                self.opened.setdefault(taken.stamp.epoch, taken.site)
            elif taken.was_present:
                self.promised[taken.site] = taken.stamp

    def committed(self, before: GroupRecord, after: GroupRecord) -> None:
        """The store took a record."""
        for name, rule in COMMIT_RULES.items():
            self.apply(name, rule(self, before, after))
        if after.active != before.active:
            handed = self.hands_over(before, after)
            self.moved_unanswered = [*self.moved_unanswered, self.world.now] if handed else []
        self.records[after.stamp] = after
        self.superseded_at.setdefault(before.stamp, self.world.now)
        self.committed_at.setdefault(after.stamp, self.world.now)
        self.served_since_commit = {one.site for one in self.world.reached}

    def hands_over(self, before: GroupRecord, after: GroupRecord) -> bool:
        """Is an active left that lives, and not because an operator wants it? To a switcher that has not asked for it,
        a consent is a proof like any other."""
        if after.active == before.active or after.reason not in (Reason.CUT_OFF, Reason.PROOF):
            return False
        return all(part.copies[before.active].alive for part in self.world.hypervisors.values())

    def answered(self) -> None:
        """Some client gets an answer."""
        self.moved_unanswered = []

    def sent(self, record: GroupRecord) -> None:
        """A process asks the store to take a record."""
        self.sent_at.setdefault(record.stamp, self.world.now)

    def fencing(self, copy: Copy, action: Fence) -> None:
        """A copy is going to be stopped for good."""
        self.apply("I5 kept until served", kept_until_served(self, copy, action))

    def promoting(self, copy: Copy, action: Promote) -> None:
        """A copy takes the role."""
        self.apply("I5 the copy decided on", decided_on(self, copy, action))

    def _note_exposed(self) -> None:
        world = self.world
        for site in world.group.servers:
            switch = world.switches[site]
            stamp = switch.stored.get(world.group.name)
            serves = all(part.copies[site].role == "active" for part in world.hypervisors.values())
            if stamp is not None and switch.present and serves:  # nothing more has to be decided
                self.exposed.add((stamp.epoch, site))

    def booted(self, site: str) -> None:
        """A site's Open vSwitch has just been started."""
        followed = self.world.switches[site].followed
        self.apply("I1 dark after a boot", f"{site} comes up with {', '.join(followed)}" if followed else None)

    def opens_anew(self, taken: Taken) -> bool:
        """Did a server open its gate just now, on a decision in force, with several gateways (only then is the way of
        the old copy's clients a matter of its own)? Putting back what somebody removed by hand opens nothing anew, and
        a transaction that lands after a newer decision is judged by whom clients reach."""
        world = self.world
        opening = taken.present - taken.was_present - world.switches[taken.site].unplugged
        newest, record = max(self.records), self.records[taken.stamp]
        in_force = (newest.epoch, newest.decision_id) == (taken.stamp.epoch, taken.stamp.decision_id)
        return bool(opening) and in_force and taken.site in world.group.servers and len(record.gateways) > 1

    def apply(self, rule: str, wrong: str | None) -> None:
        """End the schedule if something is wrong."""
        if wrong is not None:
            raise BrokenRuleError(rule, wrong)


FINAL_RULE = "I6 service returns"
SPIN_RULE = "I6 comes to rest"
REFUSALS = ("refuse", "alarm")
