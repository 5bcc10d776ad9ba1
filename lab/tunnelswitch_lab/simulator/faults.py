"""Every fault by name: whom it can hit, how it begins, how it ends. Data draws them, the world suffers them."""

from __future__ import annotations

import random
from collections.abc import Callable

from tunnelswitch.core.actions import Message
from tunnelswitch.core.facts import (
    Applied,
    DrainRequest,
    Epoch,
    Handover,
    MoveRequest,
    Path,
    PromoteFailed,
    Proof,
    Serving,
)
from tunnelswitch_lab.simulator.hypervisor import PROMOTE_FAULTS
from tunnelswitch_lab.simulator.link_faults import (
    LINK_FAULTS,
    Args,
    FaultKind,
    a_copy,
    a_process,
    a_site,
    a_switch,
    nobody,
)
from tunnelswitch_lab.simulator.names import switcher_at
from tunnelswitch_lab.simulator.setup import Setup
from tunnelswitch_lab.simulator.world import World

# ---------------------------------------------------------------------- bus and store


def _bad_bus(random_: random.Random, setup: Setup) -> Args:
    return random_.choice([(0.3, 0.3, 0.02), (0.1, 0.1, 0.3), (0.0, 0.5, 1.0), (0.6, 0.0, 0.0)])


def _begin_bad_bus(world: World, loss: float, doubled: float, shuffle_seconds: float) -> None:
    world.bus.loss, world.bus.doubled, world.bus.shuffle_seconds = loss, doubled, shuffle_seconds


def _end_bad_bus(world: World, *_: float) -> None:
    world.bus.good()


def _stall(world: World, site: str) -> None:
    world.bus.stall(site)


def _release(world: World, site: str) -> None:
    world.bus.release(site)


def _replay(random_: random.Random, setup: Setup) -> Args:
    return (random_.choice((0.2, 1.0, 3.0)),)


def _deaf(random_: random.Random, setup: Setup) -> Args:
    return (*a_site(random_, setup), random_.choice(list(KINDS)))


def _begin_deaf(world: World, site: str, kind: str) -> None:
    """It hears no more of this kind; who hears no records gets none from the store either."""
    world.bus.deaf[site, KINDS[kind]] += 1
    if KINDS[kind] is Epoch:
        world.store.shut_out[site] += 1


def _end_deaf(world: World, site: str, kind: str) -> None:
    world.bus.deaf[site, KINDS[kind]] -= 1
    if KINDS[kind] is Epoch:
        world.store.shut_out[site] -= 1


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
    return (*a_switch(random_, setup), seconds)


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
    return (*a_switch(random_, setup), random_.randint(1, 3))


def _begin_restore(world: World, site: str, back: int) -> None:
    world.restore_ovsdb(site, back)


# ---------------------------------------------------------------------- hosts, processes, copies


def _crash_soon(random_: random.Random, setup: Setup) -> Args:
    return (*a_process(random_, setup), random_.choice((0, 1, 2, 3, 5, 9, 15)))


def _begin_crash_soon(world: World, name: str, actions_left: int) -> None:
    world.processes[name].crash_in = actions_left


def _start(world: World, name: str, *_: object) -> None:
    world.processes[name].crash_in = None
    if world.site_lives(name) and not world.processes[name].alive:
        world.start(name)


def _stopped(random_: random.Random, setup: Setup) -> Args:
    return (*a_process(random_, setup), random_.random() < 0.5)


def _pause(world: World, name: str, _: bool) -> None:
    world.processes[name].pause()


def _resume(world: World, name: str, timer_first: bool) -> None:
    world.resume(name, timer_first=timer_first)


def _starve(world: World, site: str) -> None:
    """Nobody there gets processor time: BFD gives up every path, and the processes sleep."""
    for other in world.sites:
        if other != site:
            world.network.say(site, other, Path.DOWN)
    for process in world.at_site(site):
        process.pause()


def _feed(world: World, site: str) -> None:
    """BFD needs a moment longer to come back than whoever was asleep."""
    for process in world.at_site(site):
        world.resume(process.name, timer_first=True)
    world.network.changed()


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


def _a_service(random_: random.Random, setup: Setup) -> Args:
    return (random_.choice(setup.group.services).name,)


def _hang_service(world: World, service: str) -> None:
    world.hang(service, hangs=True)


def _unhang_service(world: World, service: str) -> None:
    world.hang(service, hangs=False)


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


KINDS: dict[str, type[Message]] = {
    "record": Epoch,
    "applied": Applied,
    "serving": Serving,
    "proof": Proof,
    "handover": Handover,
    "failed": PromoteFailed,
}
FAULTS: dict[str, FaultKind] = {
    **LINK_FAULTS,
    "bad_bus": FaultKind(_bad_bus, _begin_bad_bus, _end_bad_bus),
    "stall_bus": FaultKind(a_site, _stall, _release),
    "replay": FaultKind(_replay, lambda world, seconds: world.bus.replay(seconds)),
    "deaf": FaultKind(_deaf, _begin_deaf, _end_deaf, 1.5),
    "store_away": FaultKind(nobody, _setter("store", "up", False), _setter("store", "up", True)),
    "acks_lost": FaultKind(nobody, _setter("store", "acks_lost", True), _setter("store", "acks_lost", False)),
    "slow_store": FaultKind(_slowness, _slow_store, _quick_store),
    "leader_lost": FaultKind(nobody, lambda world: world.store.step_down(), weight=0.7),
    "slow_ovsdb": FaultKind(_slow_switch, _begin_slow_switch, _end_slow_switch),
    "ovsdb_away": FaultKind(a_switch, World.lose_ovsdb, World.regain_ovsdb),
    "vswitchd_hangs": FaultKind(a_switch, _hang, _unhang, 0.7),
    "unplug": FaultKind(a_switch, _unplug, weight=0.7),
    "reboot_switch": FaultKind(a_switch, _reboot_switch, weight=0.7),
    "crash": FaultKind(_crash_soon, _begin_crash_soon, _start, 2.0),
    "pause": FaultKind(_stopped, _pause, _resume, 1.5),
    "starve": FaultKind(a_site, _starve, _feed),
    "lose_for_good": FaultKind(_deputy, _lose_for_good, weight=0.7, possible=lambda s: len(s.group.gateways) > 1),
    "lose_host": FaultKind(a_site, World.lose_host, World.boot, 2.0),
    "crash_copy": FaultKind(a_copy, _crash_copy, weight=1.5),
    "hang_service": FaultKind(_a_service, _hang_service, _unhang_service, weight=0.0),
    "promotions": FaultKind(_promotions, _begin_promotions, _end_promotions),
    "lose_checkpoints": FaultKind(nobody, _lose_checkpoints, weight=0.7),
    "operator": FaultKind(_operator, _begin_operator, weight=1.5),
    "drain": FaultKind(_drain, _begin_drain, weight=0.7),
    "forget_writes": FaultKind(lambda random_, setup: (random_.randint(1, 2),), _forget_writes),
    "restore_ovsdb": FaultKind(_restore, _begin_restore),
}
FORGETTING = ("forget_writes", "restore_ovsdb")
