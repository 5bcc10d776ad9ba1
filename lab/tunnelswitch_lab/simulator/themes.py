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


THEMES = (
    Theme(TWO_GATEWAYS, (3.5, 5.5), 0.5, _left_out),
    Theme(TWO_GATEWAYS, (2.5, 4.0), 1.0, _late_opener),
    Theme({"one": 1, "two": 2}, (1.0, 3.0), 1.0, _forgetful),
)
