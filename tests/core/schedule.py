"""One random story: a few faults close together, each with its end, and at last everything healed."""

from __future__ import annotations

from collections.abc import Callable

from world_faults import FaultyWorld

from tunnelswitch.core import events, facts
from tunnelswitch.core.facts import Path

FAULTY_SECONDS = 3.0
HEALED_SECONDS = 5.0


class Schedule:
    """One random story: a few faults, each with its end, in one world."""

    def __init__(self, world: FaultyWorld) -> None:
        self.world = world
        self.random = world.random
        self.several = len(world.group.gateways) > 1

    def play(self) -> None:
        for _ in range(self.random.randint(3, 6)):
            begin = self.random.choice((0.05, 0.3, 1.5)) * self.random.random()
            self.world.at(begin, self.random.choice(self._faults()))
        self.world.run(self.random.uniform(1.0, FAULTY_SECONDS))
        self.world.heal()
        healed_at = self.world.now
        while self.world.now < healed_at + HEALED_SECONDS:
            self.world.run(1.0)
            if self.world.now - self.world.answered_by[-1][0] > 1.5 and self.world.answering_copies():
                return

    def _faults(self) -> list[Callable[[], None]]:
        return [
            self.cut, self.cut_one_way, self.isolate, self.lossy_bus, self.store_away, self.acks_lost,
            self.crash_process, self.pause_process, self.slow_ovsdb, self.ovsdb_away, self.lose_host, self.crash_copy,
            self.replay, self.flap, self.unplug, self.operator, self.promotion_fails, self.checkpoints_lost,
        ]  # fmt: skip

    def _later(self, what: Callable[[], None]) -> None:
        self.world.at(self.random.choice((0.02, 0.1, 0.4, 1.0, 2.5)) * (0.5 + self.random.random()), what)

    def _site(self) -> str:
        return self.random.choice(self.world.sites)

    def _process(self) -> str:
        # With several gateways the way by time alone rests on agents that are alive or whose host is dead (A3).
        world = self.world
        names = [name for name in world.machines if not (self.several and name in world.group.servers)]
        return self.random.choice(names)

    def cut(self) -> None:
        one, other = self.random.sample(self.world.sites, 2)
        self.world.note(f"cut {one} - {other}")
        self.world.cut_link(one, other)
        self._later(lambda: self.world.heal_link(one, other))

    def cut_one_way(self) -> None:
        one, other = self.random.sample(self.world.sites, 2)
        self.world.note(f"cut {one} -> {other}")
        self.world.cut_one_way(one, other)
        self._later(lambda: self.world.heal_one_way(one, other))

    def isolate(self) -> None:
        site = self._site()
        self.world.note(f"isolate {site}")
        self.world.isolate(site)
        self._later(lambda: self.world.rejoin(site))

    def lossy_bus(self) -> None:
        world = self.world
        world.note("bus loses, doubles, reorders")
        world.loss, world.doubled, world.shuffle_seconds = self.random.choice([(0.3, 0.3, 0.01), (0.1, 0.1, 0.2)])
        self._later(self.good_bus)

    def good_bus(self) -> None:
        self.world.loss = self.world.doubled = self.world.shuffle_seconds = 0.0

    def store_away(self) -> None:
        self.world.note("store away")
        self.world.store_up = False
        self._later(lambda: setattr(self.world, "store_up", True))

    def acks_lost(self) -> None:
        self.world.note("acknowledgements of commits are lost")
        self.world.acks_lost = True
        self._later(lambda: setattr(self.world, "acks_lost", False))

    def crash_process(self) -> None:
        name = self._process()
        self.world.note(f"{name} crashes soon")
        self.world.crash_in(name, self.random.randint(0, 20))
        self._later(lambda: self.world.start(name))

    def pause_process(self) -> None:
        name = self._process()
        self.world.note(f"pause {name}")
        self.world.pause(name)

        def resume() -> None:
            self.world.note(f"resume {name}")
            self.world.resume(name)

        self._later(resume)

    def slow_ovsdb(self) -> None:
        site = self._site()
        most = 0.2 if self.several and site in self.world.group.servers else 1.5
        seconds = self.random.random() * most
        self.world.note(f"OVSDB of {site} takes {seconds:.3f} s")
        self.world.switch_seconds[site] = seconds
        self._later(lambda: self.world.switch_seconds.pop(site, None))

    def ovsdb_away(self) -> None:
        site = self.random.choice(self.world.group.gateways) if self.several else self._site()
        self.world.note(f"OVSDB of {site} away")
        self.world.lose_ovsdb(site)
        self._later(lambda: self.world.regain_ovsdb(site))

    def lose_host(self) -> None:
        site = self.random.choice(self.world.group.servers)
        self.world.note(f"{site} loses power")
        self.world.lose_host(site)

        def back() -> None:
            self.world.note(f"{site} has power")
            self.world.rejoin(site)
            self.world.start(site)
            self.world.revive(site)

        self._later(back)

    def crash_copy(self) -> None:
        site = self.random.choice(self.world.group.servers)
        self.world.note(f"copy of {site} crashes")
        self.world.crash_service(site)
        self._later(lambda: self.world.revive(site))

    def replay(self) -> None:
        self.world.note("replay")
        self.world.replay(self.random.choice((0.05, 0.5, 2.0)))

    def flap(self) -> None:
        one, other = self.random.sample(self.world.sites, 2)
        self.world.note(f"{one} sees the path to {other} flap")
        self.world.tell(one, events.PathChanged(other, Path.DOWN))
        self._later(lambda: self.world._paths(one, other))

    def unplug(self) -> None:
        site = self._site()
        for interface in self.world.ovsdb[site].present:
            self.world.note(f"{interface} of {site} removed by hand")
            self.world.unplug(site, interface)

    def operator(self) -> None:
        record = self.world.record
        target = self.random.choice(self.world.group.servers)
        self.world.note(f"operator wants {target}")
        for gateway in self.world.group.gateways:
            request = facts.MoveRequest("voip", record.stamp, target, "alice")
            self.world.tell(self.world.switcher_at(gateway), request)

    def promotion_fails(self) -> None:
        self.world.note("promotions fail")
        self.world.promote_fails = True
        self._later(lambda: setattr(self.world, "promote_fails", False))

    def checkpoints_lost(self) -> None:
        self.world.note("checkpoints lost")
        self.world.lose_checkpoints()


def told(world: FaultyWorld, error: str) -> str:
    lines = [error, *world.trace[-120:], f"record {world.record}", f"copies {world.copies}", f"ovsdb {world.ovsdb}"]
    return "\n".join(lines)
