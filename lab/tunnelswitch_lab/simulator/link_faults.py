"""What a fault is, whom it can hit, and those of the links between sites."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tunnelswitch.core.facts import Path
from tunnelswitch_lab.simulator.names import switcher_at
from tunnelswitch_lab.simulator.network import around, both_ways
from tunnelswitch_lab.simulator.setup import Setup
from tunnelswitch_lab.simulator.world import World

Args = tuple[Any, ...]
Draw = Callable[[random.Random, Setup], Args]


def _nothing(world: World, *args: Any) -> None:
    """Ends by itself."""


@dataclass(frozen=True, slots=True)
class FaultKind:
    """`weight`: how often it is drawn, beside the others; 0: where a theme has it."""

    draw: Draw
    begin: Callable[..., None]
    end: Callable[..., None] = _nothing
    weight: float = 1.0
    possible: Callable[[Setup], bool] = lambda setup: True


# ---------------------------------------------------------------------- whom it hits


def a_pair(random_: random.Random, setup: Setup) -> Args:
    return tuple(random_.sample(setup.sites, 2))


def a_site(random_: random.Random, setup: Setup) -> Args:
    return (random_.choice(setup.sites),)


def a_server(random_: random.Random, setup: Setup) -> Args:
    return (random_.choice(setup.group.servers),)


def a_switch(random_: random.Random, setup: Setup) -> Args:
    return (random_.choice((*setup.group.servers, *setup.group.gateways)),)


def a_process(random_: random.Random, setup: Setup) -> Args:
    return (random_.choice((*setup.sites, *map(switcher_at, setup.group.gateways))),)


def a_copy(random_: random.Random, setup: Setup) -> Args:
    return (random_.choice(setup.group.services).name, random_.choice(setup.group.servers))


def nobody(random_: random.Random, setup: Setup) -> Args:
    return ()


# ---------------------------------------------------------------------- network


def _cut(world: World, one: str, other: str) -> None:
    world.network.cut(both_ways(one, other))
    world.links_changed()


def _mend(world: World, one: str, other: str) -> None:
    world.network.mend(both_ways(one, other))
    world.links_changed()


def _cut_one_way(world: World, source: str, target: str) -> None:
    world.network.cut([(source, target)])
    world.links_changed()


def _mend_one_way(world: World, source: str, target: str) -> None:
    world.network.mend([(source, target)])
    world.links_changed()


def _part(random_: random.Random, setup: Setup) -> Args:
    """A site that loses all others but one."""
    site, kept = random_.sample(setup.sites, 2)
    return (site, kept)


def _ways_but(world: World, site: str, kept: str) -> list[tuple[str, str]]:
    return around(site, [other for other in world.sites if other != kept])


def _cut_but(world: World, site: str, kept: str) -> None:
    world.network.cut(_ways_but(world, site, kept))
    world.links_changed()


def _mend_but(world: World, site: str, kept: str) -> None:
    world.network.mend(_ways_but(world, site, kept))
    world.links_changed()


def _ways_out_but(world: World, site: str, kept: str) -> list[tuple[str, str]]:
    return [(site, other) for other in world.sites if other not in (site, kept)]


def _mute(world: World, site: str, kept: str) -> None:
    """It hears everybody, and is heard by one."""
    world.network.cut(_ways_out_but(world, site, kept))
    world.links_changed()


def _unmute(world: World, site: str, kept: str) -> None:
    world.network.mend(_ways_out_but(world, site, kept))
    world.links_changed()


def _halves(random_: random.Random, setup: Setup) -> Args:
    """Two sets of sites that lose each other."""
    return tuple(sorted(random_.sample(setup.sites, random_.randint(2, len(setup.sites) - 2))))


def _ways_between(world: World, some: tuple[str, ...]) -> list[tuple[str, str]]:
    return [way for one in some for other in world.sites if other not in some for way in both_ways(one, other)]


def _split(world: World, *some: str) -> None:
    world.network.cut(_ways_between(world, some))
    world.links_changed()


def _join(world: World, *some: str) -> None:
    world.network.mend(_ways_between(world, some))
    world.links_changed()


def _flap(world: World, site: str, other: str) -> None:
    world.network.say(site, other, Path.DOWN)


def _unflap(world: World, site: str, other: str) -> None:
    world.network.changed()


LINK_FAULTS: dict[str, FaultKind] = {
    "cut": FaultKind(a_pair, _cut, _mend, 2.0),
    "cut_one_way": FaultKind(a_pair, _cut_one_way, _mend_one_way, 1.5),
    "cut_but": FaultKind(_part, _cut_but, _mend_but, 1.0, lambda setup: len(setup.sites) > 3),
    "isolate": FaultKind(a_site, World.isolate, World.rejoin, 2.0),
    "mute": FaultKind(_part, _mute, _unmute, 1.0, lambda setup: len(setup.sites) > 3),
    "split": FaultKind(_halves, _split, _join, 1.5, lambda setup: len(setup.sites) > 3),
    "flap": FaultKind(a_pair, _flap, _unflap),
}
