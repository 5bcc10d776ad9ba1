"""Every fault by name: whom it can hit, how it begins, how it ends. Data draws them, the world suffers them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tunnelswitch.core.facts import DrainRequest, MoveRequest, Path
from tunnelswitch_lab.simulator.hypervisor import PROMOTE_FAULTS
from tunnelswitch_lab.simulator.network import around, both_ways
from tunnelswitch_lab.simulator.setup import Setup
from tunnelswitch_lab.simulator.world import World, switcher_at

Args = tuple[Any, ...]
Draw = Callable[[random.Random, Setup], Args]


def _nothing(world: World, *args: Any) -> None:
    """Ends by itself."""


@dataclass(frozen=True, slots=True)
class FaultKind:
    """`weight`: how often it is drawn, beside the others."""

    draw: Draw
    begin: Callable[..., None]
    end: Callable[..., None] = _nothing
    weight: float = 1.0
    possible: Callable[[Setup], bool] = lambda setup: True


# ---------------------------------------------------------------------- whom it hits


def _pair(random_: random.Random, setup: Setup) -> Args:
    return tuple(random_.sample(setup.sites, 2))


def _site(random_: random.Random, setup: Setup) -> Args:
    return (random_.choice(setup.sites),)


def _server(random_: random.Random, setup: Setup) -> Args:
    return (random_.choice(setup.group.servers),)


def _switched(random_: random.Random, setup: Setup) -> Args:
    return (random_.choice((*setup.group.servers, *setup.group.gateways)),)


def _process(random_: random.Random, setup: Setup) -> Args:
    return (random_.choice((*setup.sites, *map(switcher_at, setup.group.gateways))),)


def _copy(random_: random.Random, setup: Setup) -> Args:
    return (random_.choice(setup.group.services).name, random_.choice(setup.group.servers))


def _none(random_: random.Random, setup: Setup) -> Args:
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


# ---------------------------------------------------------------------- bus and store


def _bad_bus(random_: random.Random, setup: Setup) -> Args:
    return random_.choice([(0.3, 0.3, 0.02), (0.1, 0.1, 0.3), (0.0, 0.5, 1.0), (0.6, 0.0, 0.0)])


def _begin_bad_bus(world: World, loss: float, doubled: float, shuffle_seconds: float) -> None:
    world.bus.loss, world.bus.doubled, world.bus.shuffle_seconds = loss, doubled, shuffle_seconds
    world.bad_bus_until = float("inf")


def _end_bad_bus(world: World, *_: float) -> None:
    world.bus.good()
    world.bad_bus_until = world.now + 1.0


def _stall(world: World, site: str) -> None:
    world.bus.stall(site)
    world.bad_bus_until = float("inf")


def _release(world: World, site: str) -> None:
    world.bus.release(site)
    world.bad_bus_until = world.now


def _replay(random_: random.Random, setup: Setup) -> Args:
    return (random_.choice((0.2, 1.0, 3.0)),)


def _slowness(random_: random.Random, setup: Setup) -> Args:
    return (round(random_.choice((0.1, 0.4, 1.0)) * random_.uniform(0.5, 1.5), 3),)


def _slow_store(world: World, seconds: float) -> None:
    world.store.slow_seconds = seconds


def _quick_store(world: World, _: float) -> None:
    world.store.slow_seconds = 0.0


def _setter(part: str, attribute: str, value: object) -> Callable[..., None]:
    return lambda world, *_: setattr(getattr(world, part), attribute, value)


def _forget_writes(world: World, writes: int) -> None:
    world.note("store", f"forgets {world.store.forget(world.group.name, writes)} acknowledged writes")


# ---------------------------------------------------------------------- OVSDB


def _slow_switch(random_: random.Random, setup: Setup) -> Args:
    (seconds,) = _slowness(random_, setup)
    return (*_switched(random_, setup), seconds)


def _begin_slow_switch(world: World, site: str, seconds: float) -> None:
    world.switches[site].commit_seconds = seconds


def _end_slow_switch(world: World, site: str, _: float) -> None:
    world.switches[site].commit_seconds = world.switches[site].usual_commit_seconds


def _hang(world: World, site: str) -> None:
    world.switches[site].hang(hung=True)


def _unhang(world: World, site: str) -> None:
    world.switches[site].hang(hung=False)


def _unplug(world: World, site: str) -> None:
    for interface in sorted(world.switches[site].present)[:1]:
        world.switches[site].unplug(interface)


def _reboot_switch(world: World, site: str) -> None:
    """The site's Open vSwitch starts anew while our processes live: dark, with the stamps it had."""
    switch = world.switches[site]
    switch.unplugged |= switch.present
    switch.server_ended()
    switch.darken()
    switch.followed = switch.present
    switch.on_followed()
    switch.on_change(site)


def _restore(random_: random.Random, setup: Setup) -> Args:
    return (*_switched(random_, setup), random_.randint(1, 3))


def _begin_restore(world: World, site: str, back: int) -> None:
    world.restore_ovsdb(site, back)


# ---------------------------------------------------------------------- hosts, processes, copies


def _crash_soon(random_: random.Random, setup: Setup) -> Args:
    return (*_process(random_, setup), random_.choice((0, 1, 2, 3, 5, 9, 15)))


def _begin_crash_soon(world: World, name: str, actions_left: int) -> None:
    world.processes[name].crash_in = actions_left


def _start(world: World, name: str, *_: object) -> None:
    world.processes[name].crash_in = None
    if world.site_lives(name) and not world.processes[name].alive:
        world.start(name)


def _pause(world: World, name: str) -> None:
    world.processes[name].pause()


def _resume(world: World, name: str) -> None:
    world.resume(name)


def _deputy(random_: random.Random, setup: Setup) -> Args:
    """The switcher of a gateway that is not the only one."""
    return (switcher_at(random_.choice(setup.group.gateways)),)


def _lose_for_good(world: World, name: str) -> None:
    """Nobody starts it again."""
    if not world.gone:
        world.gone.add(name)
        world.processes[name].kill()


def _crash_copy(world: World, service: str, site: str) -> None:
    world.hypervisors[service].crash(site)


def _promotions(random_: random.Random, setup: Setup) -> Args:
    return (random_.choice(setup.group.services).name, random_.choice(PROMOTE_FAULTS))


def _begin_promotions(world: World, service: str, fault: str) -> None:
    world.hypervisors[service].fault = fault


def _end_promotions(world: World, service: str, _: str) -> None:
    world.hypervisors[service].fault = None


def _lose_checkpoints(world: World) -> None:
    for hypervisor in world.hypervisors.values():
        hypervisor.lose_checkpoints()


def _operator(random_: random.Random, setup: Setup) -> Args:
    return (random_.choice(setup.group.servers), random_.random() < 0.2)


def _begin_operator(world: World, target: str, late: bool) -> None:
    """Asks under the stamp in force, or under one that was."""
    stamps = sorted(world.judge.records)
    stamp = stamps[0] if late else world.record.stamp
    gateway = world.group.gateways[0]
    world.bus.publish("operator", gateway, MoveRequest(world.group.name, stamp, target, "operator"))


def _drain(random_: random.Random, setup: Setup) -> Args:
    return (random_.choice(setup.group.servers), random_.random() < 0.7, random_.random() < 0.2)


def _begin_drain(world: World, site: str, drained: bool, late: bool) -> None:
    stamp = min(world.judge.records) if late else world.record.stamp
    request = DrainRequest(world.group.name, stamp, site, drained, "operator")
    world.bus.publish("operator", world.group.gateways[0], request)


FAULTS: dict[str, FaultKind] = {
    "cut": FaultKind(_pair, _cut, _mend, 2.0),
    "cut_one_way": FaultKind(_pair, _cut_one_way, _mend_one_way, 1.5),
    "cut_but": FaultKind(_part, _cut_but, _mend_but, 1.0, lambda setup: len(setup.sites) > 3),
    "isolate": FaultKind(_site, World.isolate, World.rejoin, 2.0),
    "mute": FaultKind(_part, _mute, _unmute, 1.0, lambda setup: len(setup.sites) > 3),
    "split": FaultKind(_halves, _split, _join, 1.5, lambda setup: len(setup.sites) > 3),
    "flap": FaultKind(_pair, _flap, _unflap),
    "bad_bus": FaultKind(_bad_bus, _begin_bad_bus, _end_bad_bus),
    "stall_bus": FaultKind(_site, _stall, _release),
    "replay": FaultKind(_replay, lambda world, seconds: world.bus.replay(seconds)),
    "store_away": FaultKind(_none, _setter("store", "up", False), _setter("store", "up", True)),
    "acks_lost": FaultKind(_none, _setter("store", "acks_lost", True), _setter("store", "acks_lost", False)),
    "slow_store": FaultKind(_slowness, _slow_store, _quick_store),
    "leader_lost": FaultKind(_none, lambda world: world.store.step_down(), weight=0.7),
    "slow_ovsdb": FaultKind(_slow_switch, _begin_slow_switch, _end_slow_switch),
    "ovsdb_away": FaultKind(_switched, World.lose_ovsdb, World.regain_ovsdb),
    "vswitchd_hangs": FaultKind(_switched, _hang, _unhang, 0.7),
    "unplug": FaultKind(_switched, _unplug, weight=0.7),
    "reboot_switch": FaultKind(_switched, _reboot_switch, weight=0.7),
    "crash": FaultKind(_crash_soon, _begin_crash_soon, _start, 2.0),
    "pause": FaultKind(_process, _pause, _resume, 1.5),
    "lose_for_good": FaultKind(_deputy, _lose_for_good, weight=0.7, possible=lambda s: len(s.group.gateways) > 1),
    "lose_host": FaultKind(_site, World.lose_host, World.boot, 2.0),
    "crash_copy": FaultKind(_copy, _crash_copy, weight=1.5),
    "promotions": FaultKind(_promotions, _begin_promotions, _end_promotions),
    "lose_checkpoints": FaultKind(_none, _lose_checkpoints, weight=0.7),
    "operator": FaultKind(_operator, _begin_operator, weight=1.5),
    "drain": FaultKind(_drain, _begin_drain, weight=0.7),
    "forget_writes": FaultKind(lambda random_, setup: (random_.randint(1, 2),), _forget_writes),
    "restore_ovsdb": FaultKind(_restore, _begin_restore),
}
FORGETTING = ("forget_writes", "restore_ovsdb")
