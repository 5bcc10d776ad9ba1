"""Faults that come together, because it takes all of them to break a rule: chance alone would take millions of stories.

A theme says which deployments it fits, what happens in the main, and how long it takes. Who is hit, when and how is
drawn, other faults are drawn beside it, and what comes of it is nobody's plan.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from tunnelswitch_lab.simulator.names import switcher_at
from tunnelswitch_lab.simulator.setup import Setup

# (at, name, args, lasts, after_move), as in `schedule.Fault`.
Themed = tuple[float, str, tuple[object, ...], float, bool]
FOR_GOOD = 9.0
TWO_GATEWAYS = {"two": 5, "four": 1}


@dataclass(frozen=True, slots=True)
class Theme:
    """`shapes`: weights of the deployments that it is told in; `seconds`: until everything is healed; `protected`: how
    often there is a standby in sync from the beginning."""

    shapes: dict[str, int]
    seconds: tuple[float, float]
    protected: float
    draw: Callable[[random.Random, Setup], list[Themed]]


def _left_out(random_: random.Random, setup: Setup) -> list[Themed]:
    """A server and a gateway hear no more of records, and a while later lose the others: both ways, or the server is
    no more heard. The gateway goes on leading clients to it."""
    server, gateway = setup.group.preferred, random_.choice(setup.group.gateways[::-1])
    deaf_at = random_.uniform(0.0, 0.6)
    lost_at = deaf_at + random_.choice((0.0, 0.5, 1.5)) * random_.random()
    how = random_.choice(("split", "mute"))
    return [
        (deaf_at, "deaf", (server, "record"), FOR_GOOD, False),
        (deaf_at, "deaf", (gateway, "record"), FOR_GOOD, False),
        (lost_at, how, (server, gateway), FOR_GOOD, False),
    ]


def _late_opener(random_: random.Random, setup: Setup) -> list[Themed]:
    """A service moves to a site that cannot open yet; before it can, somebody writes a record that it does not hear of,
    and it does not hear of everybody who follows that one."""
    there = setup.group.standby
    missed = random_.choice([site for site in setup.group.voters if site != there])
    drained = random_.random() < 0.5
    return [
        (random_.uniform(0.1, 0.4), "operator", (there, False), 0.1, False),
        (random_.uniform(0.0, 0.3), "ovsdb_away", (there,), random_.uniform(1.5, 3.0), False),
        (random_.uniform(0.2, 1.2), "deaf", (there, "record"), FOR_GOOD, True),
        (random_.uniform(0.1, 1.0), "cut_one_way", (missed, there), FOR_GOOD, True),
        (random_.uniform(0.5, 1.6), "drain", (setup.group.preferred, drained, False), 0.1, True),
        (random_.uniform(1.0, 1.8), "drain", (setup.group.preferred, not drained, False), 0.1, True),
    ]


def _forgetful(random_: random.Random, setup: Setup) -> list[Themed]:
    """The store forgets a move that it has just taken; some have heard of it, some have not, and who decided it may be
    gone."""
    site = random_.choice(setup.group.servers)
    cause = random_.choice(("operator", "crash_copy", "lose_host"))
    args = {
        "operator": (setup.group.standby, False),
        "crash_copy": (setup.group.services[0].name, setup.group.preferred),
        "lose_host": (setup.group.preferred,),
    }[cause]
    story: list[Themed] = [
        (random_.uniform(0.1, 0.5), cause, args, FOR_GOOD, False),
        (random_.choice((0.0, 0.02, 0.4)) * random_.random(), "forget_writes", (1,), 0.1, True),
    ]
    if random_.random() < 0.5:
        story.append((0.0, "acks_lost", (), random_.uniform(0.5, 2.0), False))
    story += [
        (0.0, "deaf", (deaf, "record"), random_.uniform(0.2, 2.5), random_.random() < 0.5)
        for deaf in (*setup.group.gateways, site)
        if random_.random() < 0.5
    ]
    if random_.random() < 0.5:
        gateway = setup.group.gateways[0]  # by the names of their decisions, others come below it
        story.append((0.01 * random_.random(), "crash", (switcher_at(gateway), 0), random_.uniform(0.5, 2.5), True))
    return story


def _slow_switch(random_: random.Random, setup: Setup) -> list[Themed]:
    """An OVSDB takes its time, and what was given up, or sent by another process, lands after what was sent later; then
    somebody meddles, or the service moves back."""
    group = setup.group
    site = random_.choice((*group.gateways, group.standby))
    writer = switcher_at(site) if site in group.gateways and random_.random() < 0.5 else site
    meddling = random_.choice(("unplug", "reboot_switch", "vswitchd_hangs", "ovsdb_away"))
    return [
        (random_.uniform(0.0, 0.3), "slow_ovsdb", (site, random_.uniform(0.1, 1.5)), random_.uniform(0.5, 3.0), False),
        (random_.uniform(0.1, 0.5), "operator", (group.standby, False), 0.1, False),
        (random_.uniform(0.0, 0.5), "pause", (writer, random_.random() < 0.5), random_.uniform(0.2, 1.0), True),
        (random_.uniform(0.0, 3.0), meddling, (site,), random_.uniform(0.1, 0.6), True),
        (random_.uniform(0.2, 3.0), "operator", (group.preferred, False), 0.1, True),
    ]


def _old_word(random_: random.Random, setup: Setup) -> list[Themed]:
    """An active is cut off until it closes itself, and nobody can take its place; it is armed anew, and then what was
    said meanwhile is said again."""
    cut_at, cut_seconds = random_.uniform(0.0, 0.4), random_.uniform(1.2, 3.0)
    mended_at = cut_at + cut_seconds
    return [
        (cut_at, "isolate", (setup.group.preferred,), cut_seconds, False),
        (random_.uniform(0.0, 0.6), "store_away", (), cut_seconds + random_.uniform(-0.5, 0.5), False),
        (mended_at + random_.uniform(0.3, 1.0), "replay", (3.0,), 0.1, False),
        (mended_at + random_.uniform(0.8, 2.0), "replay", (3.0,), 0.1, False),
    ]


def _in_turns(random_: random.Random, setup: Setup) -> list[Themed]:
    """Voters lose the active one after the other, never a majority at once, and the first sleeps through the end of its
    turn: what it says when it wakes is long past. The standby comes second, and has not much time: without its
    checkpoints it is soon out of sync."""
    group = setup.group
    first = random_.choice([voter for voter in group.voters if voter not in group.servers])
    lost_at, lost_seconds = random_.uniform(0.0, 0.3), random_.uniform(1.0, 1.5)
    sleeps_at, again_at = lost_at + random_.uniform(0.75, 0.95), lost_at + lost_seconds + random_.uniform(0.0, 0.4)
    wakes_at = again_at + random_.uniform(0.5, 0.9)
    return [
        (lost_at, "cut", (group.preferred, first), lost_seconds, False),
        (sleeps_at, "pause", (first, True), wakes_at - sleeps_at, False),
        (again_at, "cut", (group.preferred, group.standby), random_.uniform(1.0, 2.0), False),
    ]


def _late_riser(random_: random.Random, setup: Setup) -> list[Themed]:
    """The active is cut off, and the standby cannot take over at first, so that it says so; when it can after all, the
    old one comes back, whole, and knows of nothing."""
    group = setup.group
    return [
        (random_.uniform(0.0, 0.3), "isolate", (group.preferred,), random_.uniform(3.5, 5.0), False),
        (0.0, "pause", (group.standby, random_.random() < 0.5), random_.uniform(0.3, 1.0), True),
        *((0.0, "promotions", (one.name, "fails"), random_.uniform(1.8, 3.2), False) for one in group.services),
    ]


def _dead_in_both(random_: random.Random, setup: Setup) -> list[Themed]:
    """A service hangs, and every copy of it does; perhaps it comes to itself for a while."""
    service = random_.choice(setup.group.services).name
    hangs_at, lasts = random_.uniform(0.0, 0.3), FOR_GOOD
    story: list[Themed] = []
    if random_.random() < 0.3:
        lasts = random_.uniform(1.0, 3.0)
        story.append((hangs_at + lasts + random_.uniform(0.1, 1.5), "hang_service", (service,), FOR_GOOD, False))
    return [(hangs_at, "hang_service", (service,), lasts, False), *story]


THEMES = (
    Theme(TWO_GATEWAYS, (3.5, 5.5), 0.5, _left_out),
    Theme(TWO_GATEWAYS, (2.5, 4.0), 1.0, _late_opener),
    Theme({"one": 1, "two": 2}, (1.0, 3.0), 1.0, _forgetful),
    Theme({"one": 1, "two": 1}, (1.5, 4.0), 1.0, _slow_switch),
    Theme({"one": 2, "two": 1}, (3.0, 5.0), 1.0, _old_word),
    Theme({"one": 1, "two": 1, "witness": 1}, (2.5, 4.0), 1.0, _in_turns),
    Theme({"one": 2, "two": 1}, (4.0, 6.0), 1.0, _late_riser),
)
HUNG = Theme({"one": 2, "two": 1, "witness": 1}, (4.0, 6.0), 1.0, _dead_in_both)
