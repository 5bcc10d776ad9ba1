"""The rules on what clients can reach, on every transaction that an OVSDB takes, and on a copy that is destroyed.

Each returns what is wrong, or None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tunnelswitch.core.actions import Fence, Promote
from tunnelswitch.core.quorum import quorum
from tunnelswitch.core.runs import names_run
from tunnelswitch_lab.simulator.hypervisor import Copy
from tunnelswitch_lab.simulator.switches import Taken

if TYPE_CHECKING:
    from tunnelswitch_lab.simulator.invariants import Judge

# After so many heartbeats somebody who hears a site has heard its mark.
TOLD_INTERVALS = 3

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


def none_higher(judge: Judge, taken: Taken) -> str | None:
    """Nor is anything exposed by a site that must have heard of a higher mark."""
    world, record = judge.world, judge.records[taken.stamp]
    opening = taken.present - taken.was_present - world.switches[taken.site].unplugged
    if not opening or taken.site not in world.group.servers or len(record.gateways) == 1:
        return None
    told_seconds = TOLD_INTERVALS * world.setup.timing.interval_seconds
    for site, switch in world.switches.items():
        mark = switch.stored.get(taken.group)
        if mark is None or mark <= taken.stamp or site == taken.site:
            continue
        told = judge.stored_at.get(site, float("-inf")) <= taken.sent_at - told_seconds
        if told and not judge.words.could_be_silent(site, taken.site, told_seconds + world.now - taken.sent_at):
            return f"{taken.site} opens under {taken.stamp}, and has heard that {site} holds {mark}"
    return None


# ---------------------------------------------------------------------- when a copy takes the role, or is destroyed


def decided_on(judge: Judge, copy: Copy, action: Promote) -> str | None:
    """Only the run that the record names holds what clients saw."""
    record = judge.records.get(action.stamp)
    if record is None:
        return f"{copy.run} is promoted under {action.stamp}, which was never committed"
    named = record.active_run if record.active == copy.site else record.standby_run
    if not named or names_run(named, copy.service, copy.run):
        return None
    return f"{copy.run} is promoted under {action.stamp}, which names {named}"


def kept_until_served(judge: Judge, copy: Copy, action: Fence) -> str | None:
    """Until the new active has once been exposed, the old copy is what can be gone back to; and a standby that the
    record in force names may have to take over."""
    newest = judge.records[max(judge.records)]
    if copy.role == "standby" and newest.in_sync and names_run(newest.standby_run, copy.service, copy.run):
        return f"{copy.run} is destroyed under {action.stamp}, and {newest.stamp} names it as the standby"
    record = judge.records.get(action.stamp)
    if record is None or copy.role != "active":
        return None
    if record.active == copy.site or (record.stamp.epoch, record.active) not in judge.exposed:
        return f"{copy.run} is destroyed under {action.stamp}, and {record.active} has not served"
    return None


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
    "I2 none higher": none_higher,
    "I4 confirmed first": confirmed_first,
}
