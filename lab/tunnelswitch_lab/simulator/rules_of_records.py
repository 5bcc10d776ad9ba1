"""The rules on every record that the store takes, and on what must be there in the end.

Each returns what is wrong, or None.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from tunnelswitch.core.facts import GroupRecord, Reason
from tunnelswitch.core.quorum import quorum
from tunnelswitch.core.runs import names_run
from tunnelswitch_lab.simulator.names import switcher_at
from tunnelswitch_lab.simulator.rules_of_tunnels import TOLD_INTERVALS
from tunnelswitch_lab.simulator.words import NEVER

if TYPE_CHECKING:
    from tunnelswitch_lab.simulator.invariants import Judge
    from tunnelswitch_lab.simulator.world import World

CONSENT = (Reason.PROOF, Reason.CUT_OFF, Reason.OPERATOR)


# ---------------------------------------------------------------------- when the store takes a record


def stamps_are_unique(judge: Judge, before: GroupRecord, after: GroupRecord) -> str | None:
    other = judge.records.get(after.stamp)
    if other is None or other == after:
        return None  # a commit that lands again after a lost write
    if after.stamp.minor and _meaning(other) == _meaning(after):
        return None  # two re-arms that say the same
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
    group = judge.world.group
    if group.failback_after_seconds is not None and after.active == group.preferred:
        return None
    if group.relief and any(part.copies[before.active].outgrown for part in judge.world.hypervisors.values()):
        return None
    return f"nobody asked under {before.stamp} that {after.active} serve"


def planned_loses_nothing(judge: Judge, before: GroupRecord, after: GroupRecord) -> str | None:
    """What moves by a wish must find at its new site all that clients saw at the old one."""
    if after.reason is not Reason.OPERATOR or after.active == before.active:
        return None
    world, old = judge.world, before.active
    until = world.now if old in {one.site for one in world.reached} else judge.served_until.get(old, float("-inf"))
    for name, part in world.hypervisors.items():
        run = part.copies[after.active].run
        if not names_run(after.active_run, name, run):
            continue  # another copy is in its place, and is not asked to take over: the old one gets its clients back
        held = part.holds_until.get(run, float("-inf"))
        if held < until:
            return f"{after.active} lacks the last {until - held:.3f} s of {name}, which {old} served"
    return None


def fresh_votes(judge: Judge, before: GroupRecord, after: GroupRecord) -> str | None:
    """Q of the configured voters said so, awake, under the stamp that was decided on, and not long before."""
    if after.reason is not Reason.SUSPICION:
        return None
    decider = after.decided_by.partition(".")[0]
    down = judge.words.said_down(after.prev_id, decider, judge.sent_at[after.stamp])
    counted = [voter for voter in before.voters if voter in down and voter != before.active]
    if len(counted) >= quorum(len(before.voters)):
        return None
    return f"only {counted} of {before.voters} had just said that {before.active} is down under {after.prev_id}"


def above_marks(judge: Judge, before: GroupRecord, after: GroupRecord) -> str | None:
    """A new stamp exceeds every mark that its decider has heard of; its own gateway's OVSDB it sees."""
    world, sent_at = judge.world, judge.sent_at.get(after.stamp)
    own = after.decided_by.partition(".")[0]
    if sent_at is None or own not in world.group.gateways:
        return None
    awake_since = max(world.started_at[switcher_at(own)], world.mute_until.get(switcher_at(own), NEVER))
    told_seconds = TOLD_INTERVALS * world.setup.timing.interval_seconds
    for site, switch in world.switches.items():
        mark = switch.stored.get(after.group)
        if mark is None or after.stamp > mark:
            continue
        known_at = judge.stored_at.get(site, NEVER) + (0.0 if site == own else told_seconds)
        told = switch.up if site == own else not judge.words.could_be_silent(site, own, world.now - known_at)
        if told and known_at < sent_at and awake_since < sent_at - told_seconds:
            return f"{after.decided_by} decides {after.stamp}, and has heard that {site} holds {mark}"
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


def nobody_to_and_fro(judge: Judge, before: GroupRecord, after: GroupRecord) -> str | None:
    """A service that answers nobody wherever it goes is moved for its clients once by each gateway; once more by one
    whose programs, being new, cannot know; and once because of a coincidence that nobody could tell from a reason."""
    if not judge.hands_over(before, after):
        return None
    world, moved_at = judge.world, judge.moved_unanswered
    gateways = world.group.gateways
    watching = [*gateways, *map(switcher_at, gateways)]
    new = sum(world.started_at[name] > moved_at[0] for name in watching) if moved_at else 0
    if len(moved_at) < len(gateways) + 1 + new:
        return None
    return f"{after.stamp} is move {len(moved_at) + 1} since {moved_at[0]:.3f} s from an active that answers nobody"


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


COMMIT_RULES: dict[str, Callable[[Judge, GroupRecord, GroupRecord], str | None]] = {
    "I2 stamps are unique": stamps_are_unique,
    "I2 one active per epoch": one_active_per_epoch,
    "I5 standby in sync": in_sync_target,
    "I5 nothing unsaid": nothing_unsaid,
    "I2 above every mark": above_marks,
    "I4 fresh votes": fresh_votes,
    "I4 true proof": true_proof,
    "I4 never exposed": never_exposed,
    "I4 drained": drained_rest,
    "I4 asked for": asked_for,
    "I6 nobody to and fro": nobody_to_and_fro,
    "I5 planned loses nothing": planned_loses_nothing,
}
