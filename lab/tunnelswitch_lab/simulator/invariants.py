"""What must always hold (docs/protocol.md, "Invariants"), judged from outside: by what the parts really are.

Each rule is a function that returns what is wrong, or None. It reads the world and what was noted of its past, never a
machine's mind. A rule that does not hold ends the schedule with BrokenRuleError, which carries the rule's name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from tunnelswitch.core.facts import GroupRecord, Reason
from tunnelswitch.core.quorum import quorum
from tunnelswitch.core.runs import names_run
from tunnelswitch.core.stamp import Stamp
from tunnelswitch_lab.simulator.switches import Taken

if TYPE_CHECKING:
    from tunnelswitch_lab.simulator.world import World

# From a voter's word to the commit that rests on it: the ballot's age, the commit's way and one retry.
BALLOT_WINDOWS = 3
COMMIT_SECONDS = 1.5
CONSENT = (Reason.PROOF, Reason.CUT_OFF, Reason.OPERATOR)


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
        superseded_at: when the store took another record in the place of this one.
        last_served: the run that clients reached last, by service.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.records: dict[Stamp, GroupRecord] = {world.record.stamp: world.record}
        self.committed_at = world.now
        self.opened: dict[int, str] = {world.record.stamp.epoch: world.record.active}
        self.promised: dict[str, Stamp] = {}
        self.last_served = {name: part.copies[world.group.preferred].run for name, part in world.hypervisors.items()}
        self.served_since_commit: set[str] = set()
        self.restored: set[str] = set()
        self.wishes: set[tuple[Stamp, str]] = set()
        self.superseded_at: dict[Stamp, float] = {}

    def state(self) -> None:
        """Something changed that clients could see."""
        for name, rule in STATE_RULES.items():
            self._apply(name, rule(self))
        for one in self.world.reached:
            copy = self.world.hypervisors[one.service].copies[one.site]
            self.last_served[one.service] = copy.run
            self.served_since_commit.add(one.site)

    def taken(self, taken: Taken) -> None:
        """An OVSDB took a transaction."""
        for name, rule in SWITCH_RULES.items():
            self._apply(name, rule(self, taken))
        record = self.records[taken.stamp]
        if taken.site in self.world.group.servers and record.active == taken.site:
            if taken.present:
                self.opened.setdefault(taken.stamp.epoch, taken.site)
            elif taken.was_present:
                self.promised[taken.site] = taken.stamp

    def committed(self, before: GroupRecord, after: GroupRecord) -> None:
        """The store took a record."""
        for name, rule in COMMIT_RULES.items():
            self._apply(name, rule(self, before, after))
        self.records[after.stamp] = after
        self.superseded_at.setdefault(before.stamp, self.world.now)
        self.committed_at = self.world.now
        self.served_since_commit = {one.site for one in self.world.reached}

    def booted(self, site: str) -> None:
        """A site's Open vSwitch has just been started."""
        followed = self.world.switches[site].followed
        self._apply("I1 dark after a boot", f"{site} comes up with {', '.join(followed)}" if followed else None)

    def opens_anew(self, taken: Taken) -> bool:
        """Did a server open its gate just now, on a decision in force, with several gateways (only then is the way of
        the old copy's clients a matter of its own)? Putting back what somebody removed by hand opens nothing anew, and
        a transaction that lands after a newer decision is judged by whom clients reach."""
        world = self.world
        opening = taken.present - taken.was_present - world.switches[taken.site].unplugged
        newest, record = max(self.records), self.records[taken.stamp]
        in_force = (newest.epoch, newest.decision_id) == (taken.stamp.epoch, taken.stamp.decision_id)
        return bool(opening) and in_force and taken.site in world.group.servers and len(record.gateways) > 1

    def _apply(self, rule: str, wrong: str | None) -> None:
        if wrong is not None:
            raise BrokenRuleError(rule, wrong)


# ---------------------------------------------------------------------- after every step


def one_tunnel(judge: Judge) -> str | None:
    world = judge.world
    for gateway in world.group.gateways:
        followed = world.switches[gateway].followed
        if len(followed) <= 1:
            continue
        services = [end.service for end in world.fabric.ends[gateway] if end.interface in followed]
        if len(services) != len(set(services)):
            return f"{gateway} has several client tunnels of one service: {sorted(followed)}"
    return None


def one_copy(judge: Judge) -> str | None:
    reached = judge.world.reached
    if len(reached) <= 1:
        return None
    for service in judge.world.hypervisors:
        sites = {one.site for one in reached if one.service == service}
        if len(sites) > 1:
            return f"clients reach two copies of {service}: {', '.join(sorted(sites))}"
    return None


def lineage(judge: Judge) -> str | None:
    for one in judge.world.reached:
        copy = judge.world.hypervisors[one.service].copies[one.site]
        last = judge.last_served[one.service]
        if copy.run != last and last not in judge.world.hypervisors[one.service].ancestors(copy.run):
            return f"{copy.run} serves {one.service}, and does not descend from {last}, which served before"
    return None


# ---------------------------------------------------------------------- when an OVSDB takes a transaction


def committed_first(judge: Judge, taken: Taken) -> str | None:
    if taken.stamp not in judge.records:
        return f"{taken.site} follows {taken.stamp}, which was never committed"
    return None


def never_back(judge: Judge, taken: Taken) -> str | None:
    if taken.before is not None and taken.stamp < taken.before:
        return f"{taken.site} went back from {taken.before} to {taken.stamp}"
    return None


def stored_stamp_followed(judge: Judge, taken: Taken) -> str | None:
    world, site = judge.world, taken.site
    if site not in world.group.gateways:
        return None
    active = judge.records[taken.stamp].active
    wanted = {end.interface for end in world.fabric.ends[site] if end.remote_site == active}
    by_hand = world.switches[site].unplugged
    if taken.present == wanted or (taken.present < wanted and wanted - taken.present <= by_hand):
        return None
    return f"{site} under {taken.stamp} has {sorted(taken.present)}, not {sorted(wanted)}"


def only_the_active_opens(judge: Judge, taken: Taken) -> str | None:
    opening = taken.present - taken.was_present
    if taken.site not in judge.world.group.servers or not opening:
        return None
    record = judge.records[taken.stamp]
    if record.active != taken.site:
        return f"{taken.site} opens under {taken.stamp}, whose active is {record.active}"
    first = judge.opened.get(taken.stamp.epoch, taken.site)
    return None if first == taken.site else f"{taken.site} opens in epoch {taken.stamp.epoch}, and so did {first}"


def promise_kept(judge: Judge, taken: Taken) -> str | None:
    if taken.present - taken.was_present and judge.promised.get(taken.site) == taken.stamp:
        return f"{taken.site} opens again under {taken.stamp}, under which it had closed for good"
    return None


def certified(judge: Judge, taken: Taken) -> str | None:
    """The old copy must be out of reach before another one can be reached."""
    world = judge.world
    if not judge.opens_anew(taken):
        return None
    for way in world.fabric.joined():
        if way.site != taken.site and way.site not in world.network.unpowered:
            return (
                f"{taken.site} opens under {taken.stamp} while {way.gateway} still leads to {way.site}, which is open"
            )
    return None


def confirmed_first(judge: Judge, taken: Taken) -> str | None:
    """A process that starts knows nothing, and what the bus or a replica that is behind tell it may be long past."""
    world = judge.world
    superseded_at = judge.superseded_at.get(taken.stamp)
    if not taken.present - taken.was_present or superseded_at is None or world.store.forgot:
        return None
    began_at = min(at for name, at in world.started_at.items() if world.processes[name].site == taken.site)
    if superseded_at < began_at <= taken.sent_at:
        return f"{taken.site} opens under {taken.stamp}, which was no more in force when its processes began"
    return None


def marked(judge: Judge, taken: Taken) -> str | None:
    """With several gateways, what is exposed is held by Q voters, so that no store can forget it unnoticed."""
    world, record = judge.world, judge.records[taken.stamp]
    if not judge.opens_anew(taken) or judge.restored:
        return None
    decision = (taken.stamp.epoch, taken.stamp.decision_id)
    stored = {voter: world.switches[voter].stored.get(taken.group) for voter in record.voters}
    holders = [voter for voter, mark in stored.items() if mark and (mark.epoch, mark.decision_id) == decision]
    if len(holders) >= quorum(len(record.voters)):
        return None
    return f"{taken.site} opens under {taken.stamp}, which only {', '.join(holders) or 'nobody'} holds"


# ---------------------------------------------------------------------- when the store takes a record


def stamps_are_unique(judge: Judge, before: GroupRecord, after: GroupRecord) -> str | None:
    other = judge.records.get(after.stamp)
    if other is None or _meaning(other) == _meaning(after):
        return None  # a commit that lands again after a lost write, or two that say the same
    return f"{after.stamp} was given out twice"


def _meaning(record: GroupRecord) -> GroupRecord:
    return replace(record, decided_at=0.0, decided_by="", evidence=())


def one_active_per_epoch(judge: Judge, before: GroupRecord, after: GroupRecord) -> str | None:
    # A store that forgot gives its revisions out again, and a commit on the lost one lands: it has gone back once more,
    # which the marks are for.
    if after.stamp <= before.stamp and not judge.world.store.forgot:
        return f"the record goes from {before.stamp} to {after.stamp}"
    same = after.stamp.epoch == before.stamp.epoch
    if same and after.active != before.active:
        return f"{before.stamp} has {before.active} as active, {after.stamp} has {after.active}"
    return None


def in_sync_target(judge: Judge, before: GroupRecord, after: GroupRecord) -> str | None:
    if after.active == before.active or after.reason in (Reason.PROMOTE_FAILED, Reason.RECOVERY):
        return None
    if not before.in_sync or after.active_run != before.standby_run:
        return f"{after.active} becomes active by {after.stamp}, but {before.stamp} names no such standby in sync"
    for name, part in judge.world.hypervisors.items():
        copy = part.copies[after.active]
        named = names_run(before.standby_run, name, copy.run)
        if named and not names_run(before.active_run, name, copy.synced_with):
            return f"{copy.run} was in sync with {copy.synced_with}, not with {before.active_run}"
    return None


def nothing_unsaid(judge: Judge, before: GroupRecord, after: GroupRecord) -> str | None:
    """With output held back until its checkpoint, whoever takes over knows everything that clients were told."""
    if after.active == before.active or after.reason in (Reason.PROMOTE_FAILED, Reason.RECOVERY):
        return None
    for part in judge.world.hypervisors.values():
        copy = part.copies[after.active]
        if copy.behind and copy.role == "standby":
            return f"{copy.run} becomes active by {after.stamp}, and clients were told what it does not know"
    return None


def drained_rest(judge: Judge, before: GroupRecord, after: GroupRecord) -> str | None:
    if after.active == before.active or after.reason in (Reason.PROMOTE_FAILED, Reason.RECOVERY):
        return None
    return f"{after.active} is drained and becomes active by {after.stamp}" if after.active in before.drained else None


def asked_for(judge: Judge, before: GroupRecord, after: GroupRecord) -> str | None:
    if after.reason is not Reason.OPERATOR or after.active == before.active or before.active in before.drained:
        return None
    if (before.stamp, after.active) in judge.wishes:
        return None
    return f"nobody asked under {before.stamp} that {after.active} serve"


def fresh_votes(judge: Judge, before: GroupRecord, after: GroupRecord) -> str | None:
    if after.reason is not Reason.SUSPICION:
        return None
    world = judge.world
    window = world.setup.timing.window_seconds
    # A commit that the store forgot voids nothing for those who never heard of it.
    if world.now - judge.committed_at < window * 0.99 and not world.store.forgot:
        return f"suspicion under {before.stamp} in {world.now - judge.committed_at:.3f} s, less than one window"
    lately = BALLOT_WINDOWS * window + COMMIT_SECONDS
    able = [
        voter
        for voter in before.voters
        if voter != before.active
        and world.network.down_lately(voter, before.active, lately)
        and world.could_be_silent(before.active, voter, lately + window)
    ]
    if len(able) < quorum(len(before.voters)):
        return f"only {able} of {before.voters} could have found {before.active} down under {before.stamp}"
    return None


def true_proof(judge: Judge, before: GroupRecord, after: GroupRecord) -> str | None:
    if after.reason not in CONSENT or after.active == before.active:
        return None
    world = judge.world
    switch = world.switches[before.active]
    if not switch.followed or switch.site in judge.restored:
        return None
    for name, part in world.hypervisors.items():
        copy = part.copies[before.active]
        if not copy.alive or not names_run(before.active_run, name, copy.run):
            return None
    return f"{after.stamp} moves from {before.active}, whose copy of {before.active_run} lives behind an open gate"


def never_exposed(judge: Judge, before: GroupRecord, after: GroupRecord) -> str | None:
    if after.reason is Reason.PROMOTE_FAILED and before.active in judge.served_since_commit:
        return f"{before.active} had served under {before.stamp}, and its state is given up"
    return None


# ---------------------------------------------------------------------- when all is healed


def service_returns(judge: Judge) -> str | None:
    """Called when the bound has passed: everything that could serve does, or the switcher has said what is missing."""
    world = judge.world
    if all_served(world):
        return None
    if world.store.forgot and world.record.stamp in world.complaints:
        return None  # what was forgotten, and whom it named, only a person can say
    if could_serve(world):
        return f"all is healed, and nobody serves under {world.record.stamp}"
    if world.record.stamp not in world.complaints:
        return "nobody can serve, and no switcher says what is missing"
    return None


def all_served(world: World) -> bool:
    served = {(one.gateway, one.service) for one in world.fabric.reached()}
    return len(served) == len(world.group.gateways) * len(world.hypervisors)


def could_serve(world: World) -> bool:
    """Is there a site whose copies of all services the record allows to serve?"""
    record = world.record
    there = world.group.other(record.active)
    parts = world.hypervisors.items()
    mine = [part.copies[record.active] for _, part in parts]
    theirs = [part.copies[there] for _, part in parts]
    here_all = all(c.alive and names_run(record.active_run, c.service, c.run) for c in mine)
    there_all = all(c.alive and names_run(record.standby_run, c.service, c.run) for c in theirs)
    return here_all or (record.in_sync and there_all and there not in record.drained)


STATE_RULES: dict[str, Callable[[Judge], str | None]] = {
    "I1 one tunnel": one_tunnel,
    "I3 one copy": one_copy,
    "I5 lineage": lineage,
}
SWITCH_RULES: dict[str, Callable[[Judge, Taken], str | None]] = {
    "I4 commit first": committed_first,
    "I1 never back": never_back,
    "I1 stored stamp followed": stored_stamp_followed,
    "I2 only the active opens": only_the_active_opens,
    "I4 promise kept": promise_kept,
    "I4 certificate": certified,
    "I2 marked by a quorum": marked,
    "I4 confirmed first": confirmed_first,
}
COMMIT_RULES: dict[str, Callable[[Judge, GroupRecord, GroupRecord], str | None]] = {
    "I2 stamps are unique": stamps_are_unique,
    "I2 one active per epoch": one_active_per_epoch,
    "I5 standby in sync": in_sync_target,
    "I5 nothing unsaid": nothing_unsaid,
    "I4 fresh votes": fresh_votes,
    "I4 true proof": true_proof,
    "I4 never exposed": never_exposed,
    "I4 drained": drained_rest,
    "I4 asked for": asked_for,
}
FINAL_RULE = "I6 service returns"
SPIN_RULE = "I6 comes to rest"
REFUSALS = ("refuse", "alarm")
